#!/bin/bash
# Builds a Kubernetes for one node, with the machine's Go, at the version that
# kubernetes/go.sum pins, and fetches etcd from Debian's forky, without installing
# anything. Takes a quarter of an hour the first time. Prints their folder,
# $WHARF_TESTBED/kubernetes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"
# shellcheck source=debian-suites.sh
. "$here/debian-suites.sh"

tools=$WHARF_TESTBED/kubernetes
# The generation of etcd that this Kubernetes is tested with.
etcd=3.5.

only_one kubernetes
inputs="1 $etcd $(cat "$here"/kubernetes/{go.mod,go.sum} | sha256sum | cut -d' ' -f1)"
if stamp_matches "$tools/stamp" "$inputs"; then
    printf '%s\n' "$tools"
    exit 0
fi

(cd "$here/kubernetes" && go list -m) >/dev/null 2>&1 ||
    fail "cannot build Kubernetes: no Go that can read tests/testbed/kubernetes/go.mod" "install a newer Go"
work=$(mktemp -d "$WHARF_TESTBED/kubernetes.XXXXXX")
trap 'rm -rf "$work"' EXIT

say "reading the package lists of forky"
private_apt "$work/apt" forky
version=$(suite_version etcd-server forky)
say "forky: etcd-server $version"
[[ $version == "$etcd"* ]] ||
    fail "forky has etcd-server ${version:-none}, expected ${etcd}x" \
        "a new generation: run the tests against it, then change tests/testbed/kubernetes.sh"
mkdir "$work/debs" "$work/tools"
(cd "$work/debs" && apt-get download -qq etcd-server/forky)
unpack_debs "$work/etcd" "$work/debs"/*.deb
mv "$work/etcd/usr/bin/etcd" "$work/tools/"

release=$(cd "$here/kubernetes" && go list -m -f '{{.Version}}' k8s.io/kubernetes)
say "building Kubernetes $release with $(go env GOVERSION)"
# Without these, the parts would not know their own version.
package=k8s.io/component-base/version
minor=${release#v*.}
flags="-s -w -X $package.gitVersion=$release -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
(cd "$here/kubernetes" && GOBIN=$work/tools GOFLAGS=-mod=readonly CGO_ENABLED=0 \
    go install -trimpath -ldflags "$flags" tool)
write_stamp "$work/tools/stamp" "$inputs"
rm -rf "$tools"
mv "$work/tools" "$tools"
say "Kubernetes is in $tools"
printf '%s\n' "$tools"
