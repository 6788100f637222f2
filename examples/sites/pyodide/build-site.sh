#!/bin/bash
# Copies Pyodide, Python for browsers, to public/vendor.
# Needs npm, with its registry as it is configured.
set -euo pipefail
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../vendor.sh
. "$example/../vendor.sh"

collect() {
    local modules=$1 folder=$2
    cp "$modules"/pyodide/{pyodide.mjs,pyodide.asm.mjs,pyodide.asm.wasm,python_stdlib.zip,pyodide-lock.json} "$folder/"
}
vendor "$example" collect
