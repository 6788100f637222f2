#!/bin/bash
# Fetches the container engines that the tests run against, from Debian's newer
# suites, without installing anything:
#
#   $WHARF_TESTBED/engines/trixie   Docker 26.1, containerd 1.7
#   $WHARF_TESTBED/engines/forky    Docker 28,   containerd 2.1
#
# They need only glibc 2.34 and this machine's own runc. Prints the folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"
# shellcheck source=debian-suites.sh
. "$here/debian-suites.sh"

packages=(docker.io docker-cli docker-buildx containerd)
engines=$WHARF_TESTBED/engines
# The engines' generation: a newer one is a decision, not an accident.
declare -A docker_expected=([trixie]=26. [forky]=28.)
declare -A containerd_expected=([trixie]=1.7. [forky]=2.1.)

only_one engines
inputs="1 ${packages[*]}"
if stamp_matches "$engines/stamp" "$inputs"; then
    printf '%s\n' "$engines"
    exit 0
fi

work=$(mktemp -d "$WHARF_TESTBED/engines.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "reading the package lists of trixie and forky"
private_apt "$work/apt" trixie forky
mkdir -p "$work/engines"

for suite in trixie forky; do
    docker=$(suite_version docker.io "$suite")
    containerd=$(suite_version containerd "$suite")
    say "$suite: docker $docker, containerd $containerd"
    # Debian's versions end in ~ds1 or +dfsg1; the start is upstream's.
    [[ $docker == "${docker_expected[$suite]}"* ]] ||
        fail "$suite has docker ${docker:-none}, expected ${docker_expected[$suite]}x" \
            "a new generation of engines: run the tests against it, then change tests/testbed/engines.sh"
    [[ $containerd == "${containerd_expected[$suite]}"* ]] ||
        fail "$suite has containerd ${containerd:-none}, expected ${containerd_expected[$suite]}x" \
            "a new generation of engines: run the tests against it, then change tests/testbed/engines.sh"
    mkdir "$work/$suite"
    (cd "$work/$suite" && apt-get download -qq "${packages[@]/%//$suite}")
    unpack_debs "$work/engines/$suite" "$work/$suite"/*.deb
    printf 'docker %s\ncontainerd %s\n' "$docker" "$containerd" >"$work/engines/$suite/versions"
done
write_stamp "$work/engines/stamp" "$inputs"
rm -rf "$engines"
mv "$work/engines" "$engines"
say "engines are in $engines"
printf '%s\n' "$engines"
