#!/bin/bash
# Fetches what others check signatures, SBOMs and provenances with, from Debian
# forky, without installing anything: cosign 3 and oras. Prints the folder,
# $WHARF_TESTBED/supply-chain, which has both under usr/bin.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"
# shellcheck source=debian-suites.sh
. "$here/debian-suites.sh"

tools=$WHARF_TESTBED/supply-chain
# The generation: what they write and accept changes with it.
declare -A expected=([cosign]=3. [oras]=1.)

only_one supply-chain
inputs="1 ${!expected[*]} ${expected[*]}"
if stamp_matches "$tools/stamp" "$inputs"; then
    printf '%s\n' "$tools"
    exit 0
fi

work=$(mktemp -d "$WHARF_TESTBED/supply-chain.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "reading the package lists of forky"
private_apt "$work/apt" forky
mkdir -p "$work/debs" "$work/tools"
for package in "${!expected[@]}"; do
    version=$(suite_version "$package" forky)
    say "forky: $package $version"
    [[ $version == "${expected[$package]}"* ]] ||
        fail "forky has $package ${version:-none}, expected ${expected[$package]}x" \
            "a new generation: run the tests against it, then change tests/testbed/supply-chain.sh"
    (cd "$work/debs" && apt-get download -qq "$package/forky")
done
unpack_debs "$work/tools" "$work/debs"/*.deb
write_stamp "$work/tools/stamp" "$inputs"
rm -rf "$tools"
mv "$work/tools" "$tools"
say "cosign and oras are in $tools"
printf '%s\n' "$tools"
