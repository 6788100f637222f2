#!/bin/bash
# Serves an image of the local store until it is interrupted: by containerd and
# our shim where a containerd answers, else by `wharf serve`.
#
# usage: demo.sh STAGE IMAGE ADDRESS:PORT
set -euo pipefail
stage=$1 image=$2 address=$3
name=wharf-demo-$$

if [ "$(id -u)" = 0 ] && command -v ctr >/dev/null && timeout 5 ctr version >/dev/null 2>&1; then
    archive=$(mktemp --suffix .tar)
    trap 'rm -f "$archive"; ctr -n wharf-demo images rm "$image" >/dev/null 2>&1 || :' EXIT
    "$stage/bin/wharf" save "$image" -o "$archive"
    ctr -n wharf-demo images import "$archive" >/dev/null
    printf 'Serving by containerd and containerd-shim-wasm-v1 on http://%s\n' "$address"
    ctr -n wharf-demo run --rm --net-host --env "WHARF_ADDR=$address" \
        --runtime "$stage/bin/containerd-shim-wasm-v1" "$image" "$name"
else
    # Prints the routes and the URL itself.
    exec "$stage/bin/wharf" serve "$image" --addr "$address"
fi
