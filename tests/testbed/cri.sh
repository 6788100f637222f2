#!/bin/bash
# What pods need beside containerd: the CNI plugins, of Debian's forky, without
# installing anything, and a static `pause`. Prints their folder,
#
#   $WHARF_TESTBED/cri/usr/lib/cni   bridge, host-local, loopback
#   $WHARF_TESTBED/cri/pause         the program of the image localhost/pause:local
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"
# shellcheck source=debian-suites.sh
. "$here/debian-suites.sh"

tools=$WHARF_TESTBED/cri
# The generation: containerd asks for a version of the CNI that they must know.
expected=1.

only_one cri
inputs="1 $expected $(sha256sum <"$here/pause.c")"
if stamp_matches "$tools/stamp" "$inputs"; then
    printf '%s\n' "$tools"
    exit 0
fi

need gcc
work=$(mktemp -d "$WHARF_TESTBED/cri.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "reading the package lists of forky"
private_apt "$work/apt" forky
version=$(suite_version containernetworking-plugins forky)
say "forky: containernetworking-plugins $version"
[[ $version == "$expected"* ]] ||
    fail "forky has containernetworking-plugins ${version:-none}, expected ${expected}x" \
        "a new generation: run the tests against it, then change tests/testbed/cri.sh"
mkdir -p "$work/debs"
(cd "$work/debs" && apt-get download -qq containernetworking-plugins/forky)
unpack_debs "$work/tools" "$work/debs"/*.deb
gcc -static -Os -s -o "$work/tools/pause" "$here/pause.c"
write_stamp "$work/tools/stamp" "$inputs"
rm -rf "$tools"
mv "$work/tools" "$tools"
say "CNI plugins and pause are in $tools"
printf '%s\n' "$tools"
