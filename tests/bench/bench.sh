#!/bin/bash
# wharf and its peers side by side: `bench.sh --help`. WHARF_BIN_DIR names the
# installation; tests/testbed/setup.sh has run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec cargo run --quiet --package wharf-tests --bin wharf-bench -- "$@"
