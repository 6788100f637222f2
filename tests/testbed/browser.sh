#!/bin/bash
# Installs what drives the browser (tests/browser/package.json) into
# $WHARF_TESTBED/browser, beside the driver scripts. Prints the folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"

source=$here/../browser
browser=$WHARF_TESTBED/browser
only_one browser
inputs=$(cd "$source" && cat package.json package-lock.json ./*.mjs | sha256sum | cut -d' ' -f1)
if ! stamp_matches "$browser/stamp" "$inputs"; then
    need node npm
    say "installing the browser's driver"
    rm -rf "$browser" "$browser.new"
    mkdir "$browser.new"
    cp "$source"/package*.json "$source"/*.mjs "$browser.new/"
    npm ci --prefix "$browser.new" --ignore-scripts --no-audit --no-fund --loglevel=error
    mv "$browser.new" "$browser"
    write_stamp "$browser/stamp" "$inputs"
fi
printf '%s\n' "$browser"
