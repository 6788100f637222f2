#!/bin/bash
# Unit tests, then end-to-end tests of the binaries in STAGE (a PREFIX of `make
# install`). Sets up what they need and ends with how many passed.
#
# usage: run.sh STAGE
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=$(realpath "$1")
cd "$here/.."

tests/testbed/setup.sh
log=$(mktemp)
trap 'rm -f "$log"' EXIT

status=0
cargo test --locked --workspace --exclude wharf-tests 2>&1 | tee "$log" || status=1
WHARF_BIN_DIR=$stage cargo test --locked -p wharf-tests 2>&1 | tee -a "$log" || status=1

awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$log"
exit "$status"
