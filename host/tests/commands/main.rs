//! Commands as workers, from `.wasm` files of WASI preview 1 to a real socket.

// Each is a way to fail, in the functions that tests share as in the tests.
#![allow(clippy::unwrap_used)]

mod cgi;
mod guest;
mod lifecycle;
mod served;
mod wws;
