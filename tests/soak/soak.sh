#!/bin/bash
# The soak: see main.rs. SOAK_REQUESTS=N makes another number of requests, and
# SOAK_SEARCHES=N looks for secrets another number of times. WHARF_BIN_DIR names
# the installation; tests/testbed/setup.sh has run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tests/testbed/guests.sh probe js-hello >/dev/null
cargo build --quiet --release --locked --package wharf-tests --bin wharf-soak
exec "${CARGO_TARGET_DIR:-target}/release/wharf-soak"
