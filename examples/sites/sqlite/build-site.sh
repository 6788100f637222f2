#!/bin/bash
# Copies SQLite for browsers to public/vendor.
# Needs npm, with its registry as it is configured.
set -euo pipefail
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../vendor.sh
. "$example/../vendor.sh"

collect() {
    local modules=$1 folder=$2
    cp "$modules"/@sqlite.org/sqlite-wasm/dist/{index.mjs,sqlite3.wasm,sqlite3-opfs-async-proxy.js} "$folder/"
}
vendor "$example" collect
