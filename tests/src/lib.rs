//! What the end-to-end tests stand on: real engines, registries and browsers,
//! each in a network namespace and a temporary folder of its own.
//!
//! `tests/testbed/*.sh` fetch what is needed; nothing here does. The binaries
//! under test are those of `WHARF_BIN_DIR`. Everything fails by panicking, with
//! the command, its output and the daemons' logs: the callers are tests.

pub mod browser;
pub mod chance;
pub mod client;
pub mod cluster;
pub mod cri;
pub mod engine;
pub mod family;
pub mod fixture;
pub mod http;
pub mod isolation;
pub mod layout;
pub mod network;
pub mod plain;
pub mod postgres;
pub mod process;
pub mod project;
pub mod proxy;
pub mod registry;
pub mod testbed;
pub mod unpacked;
pub mod wharf;
