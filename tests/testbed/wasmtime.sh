#!/bin/bash
# Builds `wasmtime` for the benchmark, with what `wasmtime serve` uses and no more,
# of the release that wharf's own engine is. Prints its folder.
#
# This takes a quarter of an hour on two cores, once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"

lock=$here/../../Cargo.lock
version=$(grep -A1 '^name = "wasmtime"$' "$lock" | sed -n 's/^version = "\(.*\)"$/\1/p')
[ -n "$version" ] || fail "cannot find wasmtime's release in Cargo.lock"
features=run,compile,serve,wasi-keyvalue,cranelift,pooling-allocator,parallel-compilation,component-model-async,gc,gc-drc,gc-null,logging
wasmtime=$WHARF_TESTBED/wasmtime
only_one wasmtime
inputs="$version $features"
if ! stamp_matches "$wasmtime/stamp" "$inputs"; then
    command -v cargo >/dev/null || fail "cannot find \`cargo\`" "install Rust with rustup"
    say "building wasmtime $version, which takes a while"
    rm -rf "$wasmtime"
    nice cargo install --quiet --locked --root "$wasmtime" --target-dir "$wasmtime/target" \
        --no-default-features --features "$features" "wasmtime-cli@$version" >&2
    rm -rf "$wasmtime/target"
    write_stamp "$wasmtime/stamp" "$inputs"
fi
printf '%s\n' "$wasmtime/bin"
