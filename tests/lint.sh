#!/bin/bash
# Spelling, and what the dependencies are: typos and cargo-deny, fetched by pip
# and cargo as they are configured into the testbed's folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed/testbed.sh
. "$here/testbed/testbed.sh"
cd "$here/.."
"$here/testbed/packages.sh" demo

typos=1.52.0
deny=0.20.2
tools=$WHARF_TESTBED/lint
only_one lint
if ! stamp_matches "$tools/stamp" "$typos $deny"; then
    rm -rf "$tools"
    python3 -m venv "$tools"
    say "fetching typos $typos"
    "$tools/bin/pip" install --quiet --disable-pip-version-check "typos==$typos"
    say "building cargo-deny $deny"
    # Unoptimized: it takes a third of the time to build, and a second to run.
    CARGO_TARGET_DIR=$tools/target cargo install --quiet --locked --debug --root "$tools" "cargo-deny@$deny"
    rm -rf "$tools/target"
    write_stamp "$tools/stamp" "$typos $deny"
fi

"$tools/bin/typos"
"$tools/bin/cargo-deny" --log-level warn --locked check --hide-inclusion-graph bans licenses sources
