#!/bin/bash
# Builds the worker, _worker/, into api/hello.wasm. On most machines this is
#
#   rustup target add wasm32-wasip2
#   cargo build --release --target wasm32-wasip2
set -euo pipefail
example=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
toolchain=$("$example/../../tests/testbed/wasm-toolchain.sh")

# A target folder of its own, and the toolchain's own cargo and rustc: rustup's
# proxies, flags and folders that are set for the host's build don't reach it.
cd "$example/_worker"
env -u RUSTUP_TOOLCHAIN -u RUSTC -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET \
    PATH="$toolchain/bin:$PATH" CARGO_TARGET_DIR="$example/_worker/target" \
    cargo build --quiet --release --locked --target wasm32-wasip2
mkdir -p "$example/api"
cp target/wasm32-wasip2/release/hello.wasm "$example/api/hello.wasm.new"
mv "$example/api/hello.wasm.new" "$example/api/hello.wasm"
