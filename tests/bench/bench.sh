#!/bin/bash
# wharf and its peers side by side: `bench.sh --help`. WHARF_BIN_DIR names the
# installation; tests/testbed/setup.sh has run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# Optimized: what asks must not be slower than what answers. All of them: raw hyper
# is a program beside it.
cargo build --quiet --release --locked --package wharf-tests --bins
exec "${CARGO_TARGET_DIR:-target}/release/wharf-bench" "$@"
