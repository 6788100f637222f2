//! `wharf dev`: serve, and build and reload on change.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::arguments::Global;
use crate::dev;

/// Serve a project, build what changes, and reload the page by itself.
///
/// An error of a build or of a worker is shown in the browser, with its file, its
/// line and the code around it, until it is mended.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharf dev\n  wharf dev examples/hello --addr 127.0.0.1:3000")]
pub(crate) struct Dev {
    /// The project's folder.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT", env = "WHARF_ADDR")]
    addr: std::net::SocketAddr,
}

pub(crate) fn run(args: &Dev, global: &Global) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(dev::run(&args.dir, args.addr, global))?;
    Ok(ExitCode::SUCCESS)
}
