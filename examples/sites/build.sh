#!/bin/bash
# Builds every site beside this file. A second run has nothing to do.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for site in "$here"/*/build-site.sh; do
    "$site"
done
