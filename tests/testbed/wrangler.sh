#!/bin/bash
# Installs wrangler, whose `pages dev` is a peer of the differential tests
# (tests/differential/wrangler/package.json), into $WHARF_TESTBED/wrangler.
# Prints the folder. Where it can't be installed, its column is left out.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"

source=$here/../differential/wrangler
wrangler=$WHARF_TESTBED/wrangler
only_one wrangler
inputs=$(cd "$source" && cat package.json package-lock.json | sha256sum | cut -d' ' -f1)
if ! stamp_matches "$wrangler/stamp" "$inputs"; then
    need node npm
    say "installing wrangler"
    rm -rf "$wrangler" "$wrangler.new"
    mkdir "$wrangler.new"
    cp "$source"/package*.json "$wrangler.new/"
    npm ci --prefix "$wrangler.new" --ignore-scripts --no-audit --no-fund --loglevel=error
    mv "$wrangler.new" "$wrangler"
    write_stamp "$wrangler/stamp" "$inputs"
fi
printf '%s\n' "$wrangler"
