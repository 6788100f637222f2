#!/bin/bash
# Builds workers of tests/guests into $WHARF_TESTBED/guests/NAME.wasm, and prints
# that folder:
#
#   probe         what a host must prevent, by Rust; the end-to-end tests need it
#   service       a worker of wasi:http 0.3, by Rust; likewise
#   postgres-rust a worker with a PostgreSQL database, by Rust; likewise
#   js-hello      a fetch handler, by componentize-js from npm
#   python-flask  a Flask application, by componentize-py and Flask from PyPI
#
# npm and pip are used as they are configured.
#
# usage: guests.sh [NAME]...     default: probe service postgres-rust
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=testbed.sh
. "$here/testbed.sh"

source=$here/../guests
wit=$here/../../app/python/wit
# The release that `wharf runtimes install python` installs.
componentize_py=$(sed -n 's/^pub const COMPONENTIZE_PY: &str = "\(.*\)";/\1/p' "$here/../../app/src/toolchain.rs")
guests=$WHARF_TESTBED/guests
only_one guests
mkdir -p "$guests"
work=$(mktemp -d "$guests/build.XXXXXX")
trap 'rm -rf "$work"' EXIT

# requires COMMAND FOR PACKAGE
requires() {
    command -v "$1" >/dev/null ||
        fail "cannot find \`$1\`, which builds the $2 guest" "on Debian: apt-get install $3"
}

# inputs FILE...: names all that goes into a guest.
inputs() { sha256sum "$@" "$here/guests.sh" | cut -d' ' -f1 | sha256sum | cut -d' ' -f1; }

# build_rust NAME
build_rust() {
    local toolchain
    toolchain=$("$here/wasm-toolchain.sh")
    cp -r "$source/$1/." "$work/$1"
    # See probe/src/lib.rs for what of unstable Rust it uses.
    (cd "$work/$1" && env -u RUSTUP_TOOLCHAIN -u RUSTC -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS \
        -u CARGO_BUILD_TARGET RUSTC_BOOTSTRAP=1 PATH="$toolchain/bin:$PATH" CARGO_TARGET_DIR="$work/target" \
        cargo build --quiet --release --locked --target wasm32-wasip2)
    # Cargo names a library's file as Rust names the crate.
    mv "$work/target/wasm32-wasip2/release/${1//-/_}.wasm" "$work/$1.wasm"
}

build_probe() { build_rust probe; }

build_service() { build_rust service; }

build_postgres_rust() { build_rust postgres-rust; }

# plain_wit FOLDER: what any host of wasi:http offers, without key-value stores.
plain_wit() {
    cp -r "$wit" "$1"
    rm "$1/deps/keyvalue.wit"
    sed -i '/keyvalue/d' "$1/world.wit"
}

build_js_hello() {
    requires node JavaScript nodejs
    requires npm JavaScript npm
    mkdir "$work/js"
    cp "$source"/js-hello/* "$work/js/"
    # componentize-js knows the fetch event by wasi:http 0.2.10 alone.
    plain_wit "$work/js/wit"
    sed -i 's/0\.2\.12/0.2.10/; s/^package wharf:python/package wharf:js/' \
        "$work"/js/wit/world.wit
    sed -i 's/0\.2\.12/0.2.10/g' "$work"/js/wit/deps/*.wit
    # No lock: its dependencies' programs for other systems, which not every registry
    # has, would be part of it.
    npm install --prefix "$work/js" --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error ||
        fail "npm cannot install componentize-js" "its message is above; check the registry that npm is configured for"
    (cd "$work/js" && node componentize.mjs hello.js wit "$work/js-hello.wasm")
}

build_python_flask() {
    requires python3 Python "python3 python3-venv"
    python3 -m venv "$work/venv" ||
        fail "cannot make a virtual environment" "on Debian: apt-get install python3-venv"
    local pip=("$work/venv/bin/pip" install --quiet --disable-pip-version-check)
    "${pip[@]}" "componentize-py==$componentize_py" &&
        "${pip[@]}" --target "$work/packages" --requirement "$source/python-flask/requirements.txt" ||
        fail "pip cannot install componentize-py and Flask" "its message is above; check the index that pip is configured for"
    # As wharf's own build does it: no packages but those named.
    mkdir "$work/empty" "$work/flask"
    plain_wit "$work/wit"
    # A copy: Python leaves its cache beside the sources.
    cp "$source"/python-flask/*.py "$work/flask/"
    (cd "$work" && VIRTUAL_ENV=$work/empty PYTHONPATH='' PYTHONDONTWRITEBYTECODE=1 \
        "$work/venv/bin/componentize-py" --wit-path "$work/wit" --world worker componentize app \
        --python-path "$work/flask" --python-path "$work/packages" \
        --output "$work/python-flask.wasm")
}

# build NAME INPUTS
build() {
    if ! stamp_matches "$guests/$1.stamp" "$2"; then
        say "building the guest $1"
        "build_${1//-/_}" >&2
        mv "$work/$1.wasm" "$guests/$1.wasm"
        write_stamp "$guests/$1.stamp" "$2"
    fi
}

[ $# -gt 0 ] || set -- probe service postgres-rust
for name in "$@"; do
    case $name in
        probe | service) build "$name" "$(inputs "$source/$name"/Cargo.* "$source/$name"/src/*)" ;;
        postgres-rust)
            build postgres-rust "$(inputs "$source"/postgres-rust/{Cargo.*,.cargo/*,src/*})"
            ;;
        js-hello) build js-hello "$(inputs "$source"/js-hello/*.* "$wit"/*.wit "$wit"/deps/*)" ;;
        python-flask)
            build python-flask "$(inputs "$source"/python-flask/*.* "$wit"/*.wit "$wit"/deps/* "$here/../../app/src/toolchain.rs")"
            ;;
        *) fail "unknown guest \`$name\`" "expected probe, service, postgres-rust, js-hello or python-flask" ;;
    esac
done
printf '%s\n' "$guests"
