# shellcheck shell=bash
# Sourced by the scripts beside it: where the testbed keeps its downloads, how a
# finished step is remembered, and how messages look.

# Everything that is fetched or built for the tests lies under this one folder.
WHARF_TESTBED=${WHARF_TESTBED:-${XDG_CACHE_HOME:-$HOME/.cache}/wharf-testbed}
export WHARF_TESTBED

# say MESSAGE: progress, on stderr (stdout is data).
say() { printf 'testbed: %s\n' "$*" >&2; }

# fail MESSAGE [HINT]: an error, and what the reader can do about it.
fail() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

# need COMMAND...: every command is on PATH.
need() {
    local command
    for command in "$@"; do
        command -v "$command" >/dev/null || fail "cannot find \`$command\`" "run tests/testbed/packages.sh tests"
    done
}

# stamp_matches STAMP INPUTS: the step was finished with these very inputs.
stamp_matches() { [ -f "$1" ] && [ "$(<"$1")" = "$2" ]; }

# write_stamp STAMP INPUTS
write_stamp() {
    printf '%s\n' "$2" >"$1.new"
    mv "$1.new" "$1"
}

# only_one NAME: waits until no other process runs the same step; the lock ends with the script.
only_one() {
    mkdir -p "$WHARF_TESTBED"
    exec {TESTBED_LOCK}>"$WHARF_TESTBED/$1.lock"
    flock "$TESTBED_LOCK"
}

# as_root COMMAND...: through sudo unless we are root.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}
