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

# Debian 12's Go is older than these need; a Go from 1.21 on fetches the one that go.mod names.
command -v go >/dev/null ||
    fail "cannot find \`go\`, which builds crane and oci-schema" "install Go 1.25 or later and put it on PATH"

work=$(mktemp -d "$WHARF_TESTBED/oci-tools.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "building crane and oci-schema with $(go env GOVERSION)"
(cd "$here/oci-tools" && GOBIN=$work/tools GOFLAGS=-mod=readonly CGO_ENABLED=0 go install -trimpath . tool)
write_stamp "$work/tools/stamp" "$inputs"
rm -rf "$tools"
mv "$work/tools" "$tools"
printf '%s\n' "$tools"
