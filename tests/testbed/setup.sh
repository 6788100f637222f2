#!/bin/bash
# Everything that the end-to-end tests and the benchmark need, on a fresh Debian
# 12 with Rust, Python 3 and (from wherever) Node: packages, engines, what pods need,
# an arm64 emulator, the browser's driver, the tools that judge images, the guests
# that try what they must not, and the examples.
# A second run takes about a second.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

"$here/packages.sh" tests
"$here/engines.sh" >/dev/null
"$here/cri.sh" >/dev/null
"$here/supply-chain.sh" >/dev/null
"$here/browser.sh" >/dev/null
"$here/qemu.sh" >/dev/null
"$here/oci-tools.sh" >/dev/null
# A column of docs/http.md, which the tests can do without.
"$here/wrangler.sh" >/dev/null || printf 'testbed: going on without wrangler\n' >&2
"$here/guests.sh" >/dev/null
"$here/gems.sh" >/dev/null
"$here/../../examples/hello/build.sh"
"$here/../../examples/python-wasm/build-site.sh"
"$here/../../examples/sites/build.sh"
