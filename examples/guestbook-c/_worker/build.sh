#!/bin/sh
# Builds build/guestbook.wasm: with zig (pip install ziglang), or with clang, lld and wasi-libc
# (Debian: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32).
#
# SQLite is in the crate libsqlite3-sys. Cargo fetches it, and checks its hash by sqlite/Cargo.lock.
set -eu
cd "$(dirname "$0")"

if command -v zig >/dev/null; then
    cc='zig cc'
elif command -v python-zig >/dev/null; then # the name that pip gives it
    cc='python-zig cc'
elif command -v clang >/dev/null && command -v wasm-ld >/dev/null; then
    cc=clang
else
    echo 'cannot find `zig`, `python-zig`, or `clang` and `wasm-ld`: expected one of them, see _worker/build.sh' >&2
    exit 1
fi
cc="$cc --target=wasm32-wasi -Os -std=gnu11"

cargo vendor --quiet --locked --manifest-path sqlite/Cargo.toml build/vendor >/dev/null
sqlite=build/vendor/libsqlite3-sys/sqlite3

# What most applications of SQLite leave out (https://sqlite.org/compile.html), no threads, and no
# sleep of whole seconds.
if [ ! -e build/sqlite3.o ] || [ "$sqlite/sqlite3.c" -nt build/sqlite3.o ]; then
    $cc -c "$sqlite/sqlite3.c" -o build/sqlite3.o \
        -DSQLITE_THREADSAFE=0 -DSQLITE_OMIT_LOAD_EXTENSION -DSQLITE_OMIT_DEPRECATED -DSQLITE_OMIT_SHARED_CACHE \
        -DSQLITE_DEFAULT_MEMSTATUS=0 -DSQLITE_DQS=0 -DSQLITE_TEMP_STORE=3 -DHAVE_USLEEP=1 \
        -Dutimes=touch_lock
fi
$cc -Wall -Wextra -Wpedantic -Wshadow -isystem "$sqlite" ./*.c build/sqlite3.o -s -o build/guestbook.wasm
