# shellcheck shell=bash
# Sourced: a copy of the machine's Rust toolchain with std for further targets,
# for where rustup's server is out of reach. std is built from Debian's rust-src
# of the very version. The original toolchain does not change.

# has_targets SYSROOT TARGET...: a toolchain that builds for all of them.
has_targets() {
    local sysroot=$1 target
    shift
    [ -x "$sysroot/bin/cargo" ] || return 1
    for target in "$@"; do
        compgen -G "$sysroot/lib/rustlib/$target/lib/libstd-*.rlib" >/dev/null || return 1
    done
}

# rust_source WORK VERSION TARGETS PACKAGE...: Debian's rust-src of VERSION and
# further packages of trixie-backports, unpacked into WORK/debs. Where Debian has no such
# version, rustup adds the targets; then the script ends here with its toolchain.
rust_source() {
    local work=$1 version=$2 targets=$3 source
    shift 3
    private_apt "$work/apt" trixie trixie-backports
    source=$(apt-cache madison rust-src | awk -F' *[|] *' -v version="$version" 'index($2, version "+") == 1 { print $2; exit }')
    if [ -z "$source" ]; then
        # A newer Rust than Debian's, so one that can fetch its own parts.
        # shellcheck disable=SC2086 # several targets
        if command -v rustup >/dev/null && timeout 300 rustup target add $targets >&2 &&
            has_targets "$(rustc --print sysroot)" $targets; then
            rustc --print sysroot
            exit 0
        fi
        fail "cannot find rust-src $version in Debian's trixie-backports" "run \`rustup target add $targets\`"
    fi
    (cd "$work" && apt-get download -qq "rust-src=$source" "${@/%//trixie-backports}")
    unpack_debs "$work/debs" "$work"/*.deb
}

# copy_toolchain WORK SYSROOT VERSION TARGET...: WORK/toolchain, with the sources
# of `rust_source` and an empty folder a target.
copy_toolchain() {
    local work=$1 sysroot=$2 version=$3 toolchain=$1/toolchain target
    shift 3
    cp -al "$sysroot" "$toolchain" 2>/dev/null || { rm -rf "$toolchain" && cp -a "$sysroot" "$toolchain"; }
    # Unlinked before they are written anew: a write through a hard link would
    # change the installed toolchain's own file.
    for target in "$@"; do
        rm -rf "$toolchain/lib/rustlib/$target"
        mkdir -p "$toolchain/lib/rustlib/$target/lib"
    done
    rm -rf "$toolchain/lib/rustlib/src/rust"
    mkdir -p "$toolchain/lib/rustlib/src/rust"
    mv "$work/debs/usr/src/rustc-$version"/{library,Cargo.lock} "$toolchain/lib/rustlib/src/rust/"
}

# build_std WORK PANIC TARGET...: std in WORK/toolchain, with the panic runtime
# panic_abort or panic_unwind.
build_std() {
    local work=$1 panic=$2 toolchain=$1/toolchain target commit
    shift 2
    # Building anything with -Zbuild-std leaves std's libraries; put them where a
    # plain `cargo build --target` looks.
    mkdir -p "$work/empty/src"
    printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2024"\n' >"$work/empty/Cargo.toml"
    : >"$work/empty/src/lib.rs"
    # Panics name std's files as they do with rustup's std, not by a folder of this machine.
    commit=$("$toolchain/bin/rustc" -vV | sed -n 's/^commit-hash: //p')
    for target in "$@"; do
        say "building std for $target"
        (
            cd "$work/empty"
            env -u RUSTUP_TOOLCHAIN -u RUSTC -u RUSTC_WRAPPER -u CARGO_ENCODED_RUSTFLAGS \
                PATH="$toolchain/bin:$PATH" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$work/target" \
                RUSTFLAGS="-Cembed-bitcode=yes --remap-path-prefix=$toolchain/lib/rustlib/src/rust=/rustc/$commit" \
                cargo build --quiet --release -Zbuild-std="std,$panic,test" --target "$target"
        )
        rm -f "$work/target/$target/release/deps"/libempty-*
        cp "$work/target/$target/release/deps"/*.rlib "$toolchain/lib/rustlib/$target/lib/"
    done
}

# finish_toolchain WORK DEST INPUTS: moves WORK/toolchain to DEST, stamped.
finish_toolchain() {
    # A rustc that has std's sources names their folder in what it compiles.
    rm -rf "$1/toolchain/lib/rustlib/src/rust"
    write_stamp "$1/toolchain/stamp" "$3"
    mkdir -p "$(dirname "$2")"
    rm -rf "$2"
    mv "$1/toolchain" "$2"
}
