//! `wharf push`: an image into a registry.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use wharf_images::{Client, ClientOptions, Reference};

use crate::arguments::Global;
use crate::output;
use crate::places::Places;
use crate::progress::Progress;

/// Push an image to its registry, with the credentials that Docker has; prints its digest.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf push registry.example/app:1")]
pub(crate) struct Push {
    /// The image's name.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// Speak plain HTTP (registries on loopback always do).
    #[arg(long)]
    insecure: bool,
}

pub(crate) fn run(args: &Push, global: &Global) -> Result<ExitCode> {
    let store = Places::from_env()?.store()?;
    let client = Client::new(ClientOptions { insecure: args.insecure, ..ClientOptions::default() });
    let progress = Arc::new(Progress::new(global));
    progress.step(format!("pushing {}", args.reference.familiar()));
    let runtime = async_runtime()?;
    let pushed = runtime.block_on(client.push(&store, &args.reference, Arc::clone(&progress) as _))?;
    progress.clear();
    output::line(pushed.digest)?;
    Ok(ExitCode::SUCCESS)
}

/// A runtime for the registry client alone.
pub(crate) fn async_runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")
}
