#!/bin/bash
# Builds the Go programs that judge our images, at the versions that
# oci-tools/go.sum pins:
#
#   crane        go-containerregistry's: `crane validate`, `crane push`
#   oci-schema   the image-spec's JSON schemas, as its own package applies them
#
# Prints their folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"

tools=$WHARF_TESTBED/oci-tools
only_one oci-tools
inputs=$(cat "$here"/oci-tools/{go.mod,go.sum,main.go} | sha256sum | cut -d' ' -f1)
if stamp_matches "$tools/stamp" "$inputs"; then
    printf '%s\n' "$tools"
    exit 0
fi

work=$(mktemp -d "$WHARF_TESTBED/oci-tools.XXXXXX")
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT

# Debian 12's Go is older than these need. From 1.21 on Go may fetch the one that
# go.mod names; where it can't, forky's is unpacked for this one build.
if ! (cd "$here/oci-tools" && go list -m) >/dev/null 2>&1; then
    # shellcheck source=debian-suites.sh
    . "$here/debian-suites.sh"
    say "reading the package lists of forky, for its Go"
    private_apt "$work/apt" forky
    release=$(suite_version golang-go forky | sed -E 's/^[0-9]+:([0-9]+\.[0-9]+).*/\1/')
    mkdir -p "$work/debs"
    (cd "$work/debs" && apt-get download -qq "golang-$release-go/forky" "golang-$release-src/forky")
    unpack_debs "$work/go" "$work/debs"/*.deb
    export GOROOT=$work/go/usr/lib/go-$release
    # It refers to its sources by an absolute link.
    ln -sfn "$work/go/usr/share/go-$release/src" "$GOROOT/src"
    PATH=$GOROOT/bin:$PATH
fi
say "building crane and oci-schema with $(go env GOVERSION)"
(cd "$here/oci-tools" && GOBIN=$work/tools GOFLAGS=-mod=readonly CGO_ENABLED=0 go install -trimpath . tool)
write_stamp "$work/tools/stamp" "$inputs"
rm -rf "$tools"
mv "$work/tools" "$tools"
printf '%s\n' "$tools"
