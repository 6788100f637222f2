#!/bin/bash
# Fails unless third_party/wasmtime is the release plus wasmtime.patch.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=48.0.8

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/src"
cat > "$scratch/Cargo.toml" <<TOML
[package]
name = "release"
edition = "2024"
[dependencies]
wasmtime = { version = "=$version", default-features = false }
TOML
touch "$scratch/src/lib.rs"
cd "$scratch"
# As cargo is configured, and checked by the registry's own digest.
cargo vendor --quiet --versioned-dirs vendor > /dev/null
release=$scratch/vendor/wasmtime-$version
patch --quiet --directory "$release" --strip=1 < "$here/wasmtime.patch"
diff --recursive --brief \
    --exclude=.cargo-checksum.json --exclude=.cargo_vcs_info.json --exclude=.cargo-ok --exclude=Cargo.toml.orig \
    --exclude=Cargo.lock --exclude=tests --exclude=proptest-regressions --exclude=rustfmt.toml \
    "$release" "$here/wasmtime" || {
        echo "error: third_party/wasmtime differs from wasmtime $version with wasmtime.patch" >&2
        echo "hint: see third_party/README.md" >&2
        exit 1
    }
