#!/bin/bash
# Builds containerd's own tests of the CRI, at the version that cri-suite/go.sum
# pins, with the machine's Go. (Kubernetes' critest would be the other choice: its
# module is not to be had everywhere.) Prints the program.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"

folder=$WHARF_TESTBED/cri-suite
only_one cri-suite
inputs=$(cat "$here"/cri-suite/{go.mod,go.sum} | sha256sum | cut -d' ' -f1)
if stamp_matches "$folder/stamp" "$inputs"; then
    printf '%s\n' "$folder/cri-suite"
    exit 0
fi

(cd "$here/cri-suite" && go list -m) >/dev/null 2>&1 ||
    fail "cannot build containerd's CRI tests: no Go that can read tests/testbed/cri-suite/go.mod" \
        "install a newer Go; \`make test\` has tests of the CRI that need none"
work=$(mktemp -d "$WHARF_TESTBED/cri-suite.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "building containerd's CRI tests with $(go env GOVERSION)"
(cd "$here/cri-suite" && GOFLAGS=-mod=readonly CGO_ENABLED=0 go test -c -trimpath \
    -o "$work/cri-suite" github.com/containerd/containerd/v2/integration)
rm -rf "$folder"
mkdir "$folder"
mv "$work/cri-suite" "$folder/cri-suite"
write_stamp "$folder/stamp" "$inputs"
say "containerd's CRI tests are in $folder"
printf '%s\n' "$folder/cri-suite"
