#!/bin/bash
# Installs Debian packages: those that the build needs, and with the argument
# `cross` also a C compiler for the other architecture, with `demo` those of the
# demo, with `tests` those of the tests and the benchmark.
# Needs no network and no root when all of them are present.
#
# usage: packages.sh [build|cross|demo|tests]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"

purpose=${1:-build}
packages=(gcc libc6-dev make pkg-config libseccomp-dev)
case $purpose in
    build) ;;
    cross)
        # The linker, and the libc that a static wharf-host is linked with.
        case $(dpkg --print-architecture) in
            arm64) packages+=(gcc-x86-64-linux-gnu libc6-dev-amd64-cross) ;;
            *) packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
        esac
        ;;
    demo | tests)
        # Any origin will do for these: a machine may have them from elsewhere.
        command -v node >/dev/null || packages+=(nodejs)
        command -v npm >/dev/null || packages+=(npm)
        command -v git >/dev/null || packages+=(git)
        if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
            packages+=(python3 python3-venv)
        fi
        ;;
    *) fail "unknown purpose \`$purpose\`" "expected build, cross, demo or tests" ;;
esac
if [ "$purpose" = tests ]; then
    packages+=(
        runc iptables iproute2 procps util-linux     # engines in a network namespace
        docker-registry skopeo umoci buildah         # a registry, and tools that check images
        busybox-static chromium curl jq man-db       # guests and clients
        nginx-light wrk                              # the benchmark's peer and its load
        caddy nghttp2-client                         # a peer, and clients of HTTP/2
        redis-server                                 # a key-value store of workers
        postgresql                                   # a database of workers
        clang lld wasi-libc libclang-rt-dev-wasm32   # workers in C
        lsof strace                                  # make cri-suite looks into shims
        openssl xz-utils
    )
fi

missing=()
for package in "${packages[@]}"; do
    # A package that dpkg never heard of is an error to it, and missing to us.
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=unknown
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

[ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
    fail "cannot install ${missing[*]}: neither root nor sudo" "have an administrator install them"
say "installing ${missing[*]}"

# Installed, but not started: no service of this machine changes by our tests.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
fi
# Nor does PostgreSQL make a cluster, which the next boot would start.
clusters=/etc/postgresql-common/createcluster.conf
if [[ " ${missing[*]} " == *" postgresql "* && ! -e $clusters ]]; then
    as_root mkdir -p "${clusters%/*}"
    printf 'create_main_cluster = false\n' | as_root tee "$clusters" >/dev/null
fi
install() {
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
# The package lists of a fresh machine may be missing or stale.
install 2>/dev/null || { as_root apt-get update -qq && install; }
