#!/bin/bash
# Fetches $WHARF_TESTBED/qemu/qemu-aarch64, which runs programs of arm64
# on this machine, and prints it. Unpacked, not installed: Debian's package
# may have the kernel of this machine run every foreign binary.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"
# shellcheck source=debian-suites.sh
. "$here/debian-suites.sh"

# Not bookworm's 7.2: that keeps a record of every page of the terabyte that
# wasmtime sets aside, and takes 20 seconds and 6 GB for it.
suite=trixie
qemu=$WHARF_TESTBED/qemu

only_one qemu
inputs="1 $suite"
if ! stamp_matches "$qemu/stamp" "$inputs"; then
    work=$(mktemp -d "$WHARF_TESTBED/qemu.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "fetching qemu-user of $suite"
    private_apt "$work/apt" "$suite"
    (cd "$work" && apt-get download -qq "qemu-user/$suite")
    mkdir "$work/qemu"
    # The one program of many, all of them static.
    dpkg-deb --fsys-tarfile "$work"/*.deb |
        tar -x -C "$work/qemu" --strip-components=3 ./usr/bin/qemu-aarch64
    write_stamp "$work/qemu/stamp" "$inputs"
    rm -rf "$qemu"
    mv "$work/qemu" "$qemu"
fi
printf '%s\n' "$qemu/qemu-aarch64"
