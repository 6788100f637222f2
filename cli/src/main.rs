//! `wharf`: packages a static site and its WebAssembly workers once, as an
//! image that runs anywhere containers run.

mod arguments;
mod caches;
mod commands;
mod component;
mod git;
mod image;
mod metadata;
mod native;
mod operations;
mod output;
mod places;
mod progress;
mod supply_chain;
mod target;
mod transfer;

use std::process::ExitCode;

use clap::Parser as _;
use wharf_host::Log;

use crate::arguments::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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
