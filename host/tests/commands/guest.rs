//! Small programs for WASI preview 1, each for one behaviour.

use std::fmt::Write as _;

/// Where the data of a program begins.
const DATA: usize = 4096;

/// A module with `data` at address 4096 whose `_start` is `body`.
///
/// It can `(call $write AT LENGTH)` to stdout, `(call $read AT LENGTH)` from
/// stdin for the number of bytes, and `(call $exit STATUS)`.
pub(crate) fn module(data: &[u8], body: &str) -> Vec<u8> {
    let mut escaped = String::new();
    for byte in data {
        write!(escaped, "\\{byte:02x}").unwrap();
    }
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write"
            (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read"
            (func $fd_read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 16)
        (func $write (param $at i32) (param $length i32)
            (loop $more
                (i32.store (i32.const 0) (local.get $at))
                (i32.store (i32.const 4) (local.get $length))
                (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
                    (then (call $exit (i32.const 77))))
                (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
                (local.set $length (i32.sub (local.get $length) (i32.load (i32.const 8))))
                (br_if $more (local.get $length))))
        (func $read (param $at i32) (param $length i32) (result i32)
            (i32.store (i32.const 0) (local.get $at))
            (i32.store (i32.const 4) (local.get $length))
            (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))
                (then (call $exit (i32.const 78))))
            (i32.load (i32.const 8)))
        (data (i32.const {DATA}) "{escaped}")
        (func (export "_start") (local $n i32) (local $i i32) {body}))"#
    );
    wat::parse_str(text).unwrap()
}

/// Writes `output`, then does what `body` says.
pub(crate) fn printing(output: &[u8], body: &str) -> Vec<u8> {
    let write = format!("(call $write (i32.const {DATA}) (i32.const {}))", output.len());
    module(output, &if output.is_empty() { body.to_owned() } else { write + body })
}

/// Writes 256 KiB more, which no buffer between guest and client takes whole
/// at once as long as nobody reads.
pub(crate) const MUCH: &str = "
    (local.set $i (i32.const 4))
    (loop $again
        (call $write (i32.const 131072) (i32.const 65536))
        (local.set $i (i32.sub (local.get $i) (i32.const 1)))
        (br_if $again (local.get $i)))";

/// Copies stdin to stdout.
pub(crate) const ECHO: &str = "
    (loop $again
        (local.set $n (call $read (i32.const 65536) (i32.const 65536)))
        (if (local.get $n) (then
            (call $write (i32.const 65536) (local.get $n))
            (br $again))))";

/// Writes the environment, a NUL after each variable.
pub(crate) const ENVIRONMENT: &str = "
    (drop (call $environ_sizes (i32.const 16) (i32.const 20)))
    (drop (call $environ (i32.const 65536) (i32.const 131072)))
    (call $write (i32.const 131072) (i32.load (i32.const 20)))";

/// Copies stdin to stdout, as the inside of a JSON string.
pub(crate) const ECHO_ESCAPED: &str = r"
    (i32.store8 (i32.const 32) (i32.const 92))
    (loop $again
        (local.set $n (call $read (i32.const 64) (i32.const 1)))
        (if (local.get $n) (then
            (if (i32.or (i32.eq (i32.load8_u (i32.const 64)) (i32.const 34))
                        (i32.eq (i32.load8_u (i32.const 64)) (i32.const 92)))
                (then (call $write (i32.const 32) (i32.const 1))))
            (call $write (i32.const 64) (i32.const 1))
            (br $again))))";

/// Never ends.
pub(crate) const FOREVER: &str = "(loop $again (br $again))";

/// Writes without end.
pub(crate) const POUR: &str = "(loop $again (call $write (i32.const 131072) (i32.const 65536)) (br $again))";
