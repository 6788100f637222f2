#!/bin/bash
# Builds the worker and prints the path of its component. Its target folder is
# given, or its own.
#
#   build.sh [TARGET_DIR]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
toolchain=$("$here/../../../../tests/testbed/wasm-toolchain.sh")
target=$(realpath -m "${1:-$here/target}")

# The toolchain's own cargo and rustc: rustup's proxies, and flags and folders
# (and libraries) that are set for the host's build, don't reach it.
cd "$here"
env -u RUSTUP_TOOLCHAIN -u RUSTC -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET \
    -u LD_LIBRARY_PATH \
    PATH="$toolchain/bin:$PATH" CARGO_TARGET_DIR="$target" \
    cargo build --quiet --release --locked --target wasm32-wasip2
printf '%s\n' "$target/wasm32-wasip2/release/grants.wasm"
