//! `wharf`: packages a static site and its WebAssembly workers once, as an
//! image that runs anywhere containers run.

mod arguments;
mod caches;
mod commands;
mod component;
mod components;
mod dev;
mod git;
mod image;
mod kubernetes;
mod metadata;
mod native;
mod node;
mod operations;
mod output;
mod places;
mod progress;
mod ruby;
mod rust;
mod supply_chain;
mod target;
mod transfer;
mod yaml;

use std::process::ExitCode;

use clap::Parser as _;
use wharf_host::Log;

use crate::arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if matches!(arguments.command, Command::Build(_)) {
        give_back_large_blocks();
    }
    output::start_log(&arguments.global);
    let outcome = commands::run(arguments);
    Log.flush();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Keeps glibc from raising the size from which memory is mapped by itself, as it
/// does when such memory is freed (mallopt(3), `M_MMAP_THRESHOLD`): blocks of the
/// compressors would fragment its heaps, which grow from layer to layer.
fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes a number of the allocator's, which is safe before there is
    // a second thread (its `MT-Unsafe init`): `main` calls it before it starts any.
    let _ = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10) };
}
