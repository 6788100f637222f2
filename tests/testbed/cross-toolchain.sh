#!/bin/bash
# Prints the folder of a Rust toolchain that builds for TARGET, which is
# aarch64-unknown-linux-gnu or x86_64-unknown-linux-gnu:
# `PATH=$(cross-toolchain.sh TARGET)/bin:$PATH cargo build --target TARGET`.
# The linker and the libc are Debian's (packages.sh cross).
#
#   cross-toolchain.sh TARGET [DEST]    default DEST: $WHARF_TESTBED/cross-toolchain/VERSION-TARGET
#
# Where the target is installed (rustup target add TARGET), that is the
# machine's own toolchain. Where rustup's server is out of reach, it is a copy
# of it (hard links; the original does not change) with std built once from
# Debian's rust-src of the very version. That takes a minute.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"
# shellcheck source=debian-suites.sh
. "$here/debian-suites.sh"
# shellcheck source=rust-std.sh
. "$here/rust-std.sh"

target=${1:-}
case $target in
    aarch64-unknown-linux-gnu | x86_64-unknown-linux-gnu) ;;
    *) fail "unknown target \`$target\`" "expected aarch64-unknown-linux-gnu or x86_64-unknown-linux-gnu" ;;
esac

command -v rustc >/dev/null || fail "cannot find \`rustc\`" "install Rust with rustup"
sysroot=$(rustc --print sysroot)
if has_targets "$sysroot" "$target"; then
    printf '%s\n' "$sysroot"
    exit 0
fi

version=$(rustc --version | cut -d' ' -f2)
dest=$(realpath -m "${2:-$WHARF_TESTBED/cross-toolchain/$version-$target}")
only_one cross-toolchain
inputs="1 $(rustc --version) $sysroot $target"
if stamp_matches "$dest/stamp" "$inputs"; then
    printf '%s\n' "$dest"
    exit 0
fi

work=$(mktemp -d "$WHARF_TESTBED/cross-toolchain.XXXXXX")
trap 'rm -rf "$work"' EXIT

say "fetching the sources of Rust $version's std"
rust_source "$work" "$version" "$target"
copy_toolchain "$work" "$sysroot" "$version" "$target"
build_std "$work" panic_unwind "$target"
finish_toolchain "$work" "$dest" "$inputs"
printf '%s\n' "$dest"
