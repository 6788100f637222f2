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

targets=(wasm32-wasip1 wasm32-wasip2)

has_targets() {
    local target
    for target in "${targets[@]}"; do
        compgen -G "$1/lib/rustlib/$target/lib/libstd-*.rlib" >/dev/null || return 1
    done
}

command -v rustc >/dev/null || fail "cannot find \`rustc\`" "install Rust with rustup"
sysroot=$(rustc --print sysroot)
if has_targets "$sysroot" && [ -x "$sysroot/bin/cargo" ]; then
    printf '%s\n' "$sysroot"
    exit 0
fi

version=$(rustc --version | cut -d' ' -f2)
dest=$(realpath -m "${1:-$WHARF_TESTBED/wasm-toolchain/$version}")
only_one wasm-toolchain
inputs="1 $(rustc --version) $sysroot"
if stamp_matches "$dest/stamp" "$inputs"; then
    printf '%s\n' "$dest"
    exit 0
fi

work=$(mktemp -d "$WHARF_TESTBED/wasm-toolchain.XXXXXX")
trap 'rm -rf "$work"' EXIT

say "fetching the sources of Rust $version's std, and wasi-libc"
private_apt "$work/apt" trixie trixie-backports
source=$(apt-cache madison rust-src | awk -F' *[|] *' -v version="$version" 'index($2, version "+") == 1 { print $2; exit }')
[ -n "$source" ] ||
    fail "cannot find rust-src $version in Debian's trixie-backports" \
        "run \`rustup target add ${targets[*]}\`"
(cd "$work" && apt-get download -qq "rust-src=$source" wasi-libc/trixie)
unpack_debs "$work/debs" "$work"/*.deb

toolchain=$work/toolchain
cp -al "$sysroot" "$toolchain" 2>/dev/null || { rm -rf "$toolchain" && cp -a "$sysroot" "$toolchain"; }
# Unlinked before they are written anew: a write through a hard link would
# change the installed toolchain's own file.
for target in "${targets[@]}"; do
    rm -rf "$toolchain/lib/rustlib/$target"
    mkdir -p "$toolchain/lib/rustlib/$target/lib"
done
rm -rf "$toolchain/lib/rustlib/src/rust"
mkdir -p "$toolchain/lib/rustlib/src/rust"
mv "$work/debs/usr/src/rustc-$version"/{library,Cargo.lock} "$toolchain/lib/rustlib/src/rust/"
# Debian's wasi-libc calls preview 1 wasm32-wasi.
for pair in wasm32-wasip1:wasm32-wasi wasm32-wasip2:wasm32-wasip2; do
    crt=$toolchain/lib/rustlib/${pair%%:*}/lib/self-contained
    mkdir -p "$crt"
    cp "$work/debs/usr/lib/${pair##*:}"/{crt1-command.o,crt1-reactor.o,libc.a} "$crt/"
done

# Building anything with -Zbuild-std leaves std's libraries; put them where a
# plain `cargo build --target` looks.
mkdir -p "$work/empty/src"
printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2024"\n' >"$work/empty/Cargo.toml"
: >"$work/empty/src/lib.rs"
for target in "${targets[@]}"; do
    say "building std for $target"
    (
        cd "$work/empty"
        env -u RUSTUP_TOOLCHAIN -u RUSTC -u RUSTC_WRAPPER -u CARGO_ENCODED_RUSTFLAGS \
            PATH="$toolchain/bin:$PATH" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$work/target" \
            RUSTFLAGS="-Cembed-bitcode=yes" \
            cargo build --quiet --release -Zbuild-std=std,panic_abort,test --target "$target"
    )
    rm -f "$work/target/$target/release/deps"/libempty-*
    cp "$work/target/$target/release/deps"/*.rlib "$toolchain/lib/rustlib/$target/lib/"
done
write_stamp "$toolchain/stamp" "$inputs"
mkdir -p "$(dirname "$dest")"
rm -rf "$dest"
mv "$toolchain" "$dest"
printf '%s\n' "$dest"
