#!/bin/bash
# Prints the folder of a Rust toolchain that builds for wasm32-wasip1 and
# wasm32-wasip2: `PATH=$(wasm-toolchain.sh)/bin:$PATH cargo build --target …`.
#
#   wasm-toolchain.sh [DEST]      default DEST: $WHARF_TESTBED/wasm-toolchain/VERSION
#
# Where both targets are installed (rustup target add wasm32-wasip1
# wasm32-wasip2), that is the machine's own toolchain. Where rustup's server is
# out of reach, it is a copy of it (hard links; the original does not change)
# with std built once from Debian's rust-src of the very version and Debian's
# wasi-libc. That takes a minute or two.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"
# shellcheck source=debian-suites.sh
. "$here/debian-suites.sh"
# shellcheck source=rust-std.sh
. "$here/rust-std.sh"

targets=(wasm32-wasip1 wasm32-wasip2)

command -v rustc >/dev/null || fail "cannot find \`rustc\`" "install Rust with rustup"
sysroot=$(rustc --print sysroot)
if has_targets "$sysroot" "${targets[@]}"; then
    printf '%s\n' "$sysroot"
    exit 0
fi

version=$(rustc --version | cut -d' ' -f2)
dest=$(realpath -m "${1:-$WHARF_TESTBED/wasm-toolchain/$version}")
only_one wasm-toolchain
inputs="2 $(rustc --version) $sysroot"
if stamp_matches "$dest/stamp" "$inputs"; then
    printf '%s\n' "$dest"
    exit 0
fi

work=$(mktemp -d "$WHARF_TESTBED/wasm-toolchain.XXXXXX")
trap 'rm -rf "$work"' EXIT

say "fetching the sources of Rust $version's std, and wasi-libc"
rust_source "$work" "$version" "${targets[*]}" wasi-libc
copy_toolchain "$work" "$sysroot" "$version" "${targets[@]}"
# Debian's wasi-libc calls preview 1 wasm32-wasi.
for pair in wasm32-wasip1:wasm32-wasi wasm32-wasip2:wasm32-wasip2; do
    crt=$work/toolchain/lib/rustlib/${pair%%:*}/lib/self-contained
    mkdir -p "$crt"
    cp "$work/debs/usr/lib/${pair##*:}"/{crt1-command.o,crt1-reactor.o,libc.a} "$crt/"
done
build_std "$work" panic_abort "${targets[@]}"
finish_toolchain "$work" "$dest" "$inputs"
printf '%s\n' "$dest"
