# shellcheck shell=bash
# Sourced: packages of Debian suites newer than this machine's, fetched and
# unpacked with a private apt state. The machine's own apt is not touched.

# debian_mirror: the archive's address, as this machine's own sources name it.
debian_mirror() {
    local mirror
    mirror=$(
        # Both formats: deb822 (*.sources) and one line a source (*.list).
        cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p'
        cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
            sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\2/p'
        # Where cloud images keep what their sources only refer to.
        cat /etc/apt/mirrors/*.list 2>/dev/null | sed -E 's/[[:space:]].*//'
    )
    mirror=$(grep -m1 -E '/debian/?$' <<<"$mirror") ||
        fail "cannot find a Debian mirror in /etc/apt/sources.list.d" "the testbed needs a Debian machine; bookworm is tested"
    printf '%s\n' "${mirror%/}"
}

# private_apt FOLDER SUITE...: makes an apt state in FOLDER that knows these
# suites only, and points APT_CONFIG at it.
private_apt() {
    local folder=$1 suite mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    shift
    need apt-get dpkg-deb
    mirror=$(debian_mirror)
    mkdir -p "$folder"/{lists/partial,cache/archives/partial}
    : >"$folder/status"
    for suite in "$@"; do
        printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$suite"
    done >"$folder/sources.list"
    cat >"$folder/apt.conf" <<CONF
Dir::Etc::sourcelist "$folder/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$folder/lists";
Dir::State::status "$folder/status";
Dir::Cache "$folder/cache";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::Retries "3";
CONF
    export APT_CONFIG=$folder/apt.conf
    apt-get update -qq ||
        fail "cannot read the package lists of $* from the Debian mirror" "is the network up? \`apt-get update\` must work"
}

# suite_version PACKAGE SUITE: the version that SUITE has now.
suite_version() {
    apt-cache madison "$1" | awk -F' *[|] *' -v suite="$2/main" '$3 ~ " " suite " " { print $2; exit }'
}

# unpack_debs INTO DEB...
unpack_debs() {
    local into=$1 deb
    shift
    mkdir -p "$into"
    for deb in "$@"; do
        dpkg-deb -x "$deb" "$into"
    done
}
