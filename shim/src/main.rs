//! `containerd-shim-wasm-v1`: runs an app's host, or any Linux container, for
//! containerd.
//!
//! containerd calls this program by its actions, [`bootstrap`] (`start`) and
//! [`cleanup`] (`delete`). `start` leaves the [`server`] behind, one process a
//! pod, which answers the [`service`] for its [`pod`]. Whatever needs a single thread, mounts
//! or libcontainer is done by a [`helper`], the same program started anew. People call it for
//! the node's [`cache`] of precompiled components, and as [`doctor`].

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::arguments::{Action, Arguments};

mod aot;
mod arguments;
mod bootstrap;
mod bundle;
mod cache;
mod cgroup;
mod cleanup;
mod console;
mod container;
mod containerd;
mod devices;
mod doctor;
mod events;
mod executor;
mod helper;
mod log;
mod logger;
mod metrics;
mod mounts;
mod node;
mod oom;
mod pod;
mod process;
mod reaper;
mod recognition;
mod relay;
mod rootfs;
mod runtime_info;
mod seccomp;
mod server;
mod service;
mod spec;
mod stdio;
mod sys;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows what `start` and `delete` write here.
            let _ = writeln!(std::io::stderr(), "{}: {error:#}", arguments::PROGRAM);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some(helper::ACTION) => return helper::run(words),
        Some(cache::ACTION) => return cache::run(words),
        Some(doctor::ACTION) => return doctor::run(words),
        _ => {}
    }
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    match arguments.action {
        Action::Version => print(runtime_info::version().as_bytes()),
        Action::Information => print(&runtime_info::encode()?),
        Action::Start => print(&bootstrap::start(&arguments)?),
        Action::Delete => print(&cleanup::delete(&arguments)?),
        Action::Serve => server::serve(&arguments),
    }
}

fn print(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).context("cannot write to standard output")
}
