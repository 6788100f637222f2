//! A `wasi:http` worker that tries what a host must prevent.
//!
//! - `?fill=HEX` writes a secret wherever an instance can keep one: fresh memory,
//!   data, stack, globals and a table.
//! - `?find` looks for any secret, in all of these, and says what it found. It is
//!   not told the secret, so that the question does not hold the answer: a secret
//!   is two words whose exclusive or is [`KEY`].
//! - `?check=HEX` does both: what it finds shows that `?find` would find it.
//! - `?trap` traps, `?spin` never ends, `?sleep` waits for a minute.
//!
//! A table and globals of its own are what Rust has no words for, hence the
//! assembly, which wasm has in unstable Rust alone (RUSTC_BOOTSTRAP=1).
#![feature(asm_experimental_arch)]

use std::arch::{global_asm, wasm32};
use std::hint::black_box;

use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Probe;

wasip2::http::proxy::export!(Probe);

/// What tells a secret's two words from any others. No memory ever holds it: it
/// is a constant of the code.
const KEY: u64 = 0x9e37_79b9_7f4a_7c15;

const PAGE: usize = 64 * 1024;

/// The most that `?fill` takes, and what `?find` looks through beyond its own.
const FRESH_PAGES: usize = 128;

const WORDS: usize = 8192;

/// How many elements the table is declared with.
const TABLE: u32 = 4096;

/// Zero at the start (bss), and not (a copy-on-write image).
static mut ZEROED: [u64; WORDS] = [0; WORDS];
static mut INITIALISED: [u64; WORDS] = [1; WORDS];

global_asm!(
    "
    .globaltype probe_first, i64
probe_first:
    .globaltype probe_second, i64
probe_second:
    .tabletype probe_table, funcref, 4096
probe_table:
    .tabletype __indirect_function_table, funcref

    .globl probe_set_globals
    .type probe_set_globals,@function
probe_set_globals:
    .functype probe_set_globals (i64, i64) -> ()
    local.get 0
    global.set probe_first
    local.get 1
    global.set probe_second
    end_function

    .globl probe_globals
    .type probe_globals,@function
probe_globals:
    .functype probe_globals () -> (i64)
    global.get probe_first
    global.get probe_second
    i64.or
    end_function

    .globl probe_set_element
    .type probe_set_element,@function
probe_set_element:
    .functype probe_set_element (i32, i32) -> ()
    local.get 0
    local.get 1
    table.get __indirect_function_table
    table.set probe_table
    end_function

    .globl probe_element_is_null
    .type probe_element_is_null,@function
probe_element_is_null:
    .functype probe_element_is_null (i32) -> (i32)
    local.get 0
    table.get probe_table
    ref.is_null
    end_function
    "
);

unsafe extern "C" {
    fn probe_set_globals(first: u64, second: u64);
    fn probe_globals() -> u64;
    fn probe_set_element(index: u32, function: usize);
    fn probe_element_is_null(index: u32) -> i32;
}

impl wasip2::exports::http::incoming_handler::Guest for Probe {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let (name, value) = query.split_once('=').unwrap_or((query, ""));
        let secret = || u64::from_str_radix(value, 16).ok().filter(|secret| *secret != 0 && *secret != KEY);
        match (name, secret()) {
            ("", _) => respond(out, 200, "ready\n"),
            ("fill", Some(secret)) => {
                fill(secret);
                respond(out, 200, "filled\n");
            }
            ("check", Some(secret)) => {
                fill(secret);
                respond(out, 200, &find());
            }
            ("find", _) => respond(out, 200, &find()),
            ("trap", _) => wasm32::unreachable(),
            ("spin", _) => loop {
                std::hint::spin_loop();
            },
            ("sleep", _) => {
                monotonic_clock::subscribe_duration(60_000_000_000).block();
                respond(out, 200, "slept\n");
            }
            _ => respond(out, 400, "expected fill=HEX, check=HEX, find, trap, spin or sleep\n"),
        }
    }
}

/// Writes the secret everywhere. Every second secret leaves untouched pages between
/// its own: many small dirty regions rather than one large.
fn fill(secret: u64) {
    let sparse = secret & 1 == 0;
    let start = wasm32::memory_grow(0, FRESH_PAGES);
    assert!(start != usize::MAX, "no memory to fill");
    let stride = if sparse { 8 * 1024 } else { 16 };
    for address in (start * PAGE..(start + FRESH_PAGES) * PAGE).step_by(stride) {
        write(address as *mut u64, secret);
    }
    for (array, words) in [(&raw mut ZEROED, WORDS), (&raw mut INITIALISED, WORDS)] {
        for word in (0..words).step_by(2) {
            // The word lies within the array.
            write(unsafe { array.cast::<u64>().add(word) }, secret);
        }
    }
    fill_stack(secret, 8);
    unsafe { probe_set_globals(secret, secret ^ KEY) };
    let function = fill as fn(u64) as usize;
    for index in (0..TABLE).filter(|index| secret >> (index % 64) & 1 == 1) {
        unsafe { probe_set_element(index, function) };
    }
}

fn write(at: *mut u64, secret: u64) {
    // Both words lie in memory that is this instance's, 8-byte aligned.
    unsafe {
        at.write_volatile(secret);
        at.add(1).write_volatile(secret ^ KEY);
    }
}

/// Leaves the secret where later frames will lie.
#[inline(never)]
fn fill_stack(secret: u64, depth: usize) {
    let mut frame = [0u64; 1024];
    for word in (0..frame.len()).step_by(2) {
        write(unsafe { frame.as_mut_ptr().add(word) }, secret);
    }
    if depth > 0 {
        fill_stack(secret, depth - 1);
    }
    black_box(&frame);
}

/// How many words, globals and elements there are that only a secret leaves.
fn find() -> String {
    let own = wasm32::memory_size(0) * PAGE;
    let memory = (8..own - 8).step_by(8).filter(|address| is_secret(*address as *const u64)).count();
    let start = wasm32::memory_grow(0, FRESH_PAGES);
    assert!(start != usize::MAX, "no memory to look through");
    // New memory is zero (Core Specification, memory.grow): anything else is not ours.
    let new = (start * PAGE..(start + FRESH_PAGES) * PAGE).step_by(8);
    let grown = new.filter(|address| unsafe { (*address as *const u64).read_volatile() } != 0).count();
    let globals = usize::from(unsafe { probe_globals() } != 0);
    let table = (0..TABLE).filter(|index| unsafe { probe_element_is_null(*index) } == 0).count();
    format!("{{\"memory\":{memory},\"grown\":{grown},\"globals\":{globals},\"table\":{table}}}\n")
}

fn is_secret(at: *const u64) -> bool {
    // Both words lie within memory, as `at` stays 16 bytes away from its end.
    let (first, second) = unsafe { (at.read_volatile(), at.add(1).read_volatile()) };
    first != 0 && second != 0 && first ^ second == KEY
}

fn respond(out: ResponseOutparam, status: u16, body: &str) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).expect("the status is valid");
    let outgoing = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    let stream = outgoing.write().expect("the stream is taken once");
    // A client that went away is no error of the worker.
    if stream.blocking_write_and_flush(body.as_bytes()).is_ok() {
        drop(stream);
        let _ = OutgoingBody::finish(outgoing, None);
    }
}
