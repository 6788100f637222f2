#!/bin/bash
# Copies PGlite, PostgreSQL for browsers, to public/vendor.
# Needs npm, with its registry as it is configured.
set -euo pipefail
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../vendor.sh
. "$example/../vendor.sh"

collect() {
    local modules=$1 folder=$2
    local dist=$modules/@electric-sql/pglite/dist
    cp "$dist"/index.js "$dist"/chunk-*.js "$dist"/{pglite.wasm,pglite.data,initdb.wasm} "$folder/"
}
vendor "$example" collect
