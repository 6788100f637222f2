//! `wharf pull`: an image from a registry.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use wharf_images::{Client, ClientOptions, Reference};

use crate::arguments::Global;
use crate::commands::push::async_runtime;
use crate::output;
use crate::places::Places;
use crate::progress::Progress;

/// Pull an image into the local store, with all its platforms; prints its digest.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf pull registry.example/app:1 && wharf serve registry.example/app:1")]
pub(crate) struct Pull {
    /// The image's name.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// Speak plain HTTP (registries on loopback always do).
    #[arg(long)]
    insecure: bool,
}

pub(crate) fn run(args: &Pull, global: &Global) -> Result<ExitCode> {
    let store = Places::from_env()?.store()?;
    let client = Client::new(ClientOptions { insecure: args.insecure, ..ClientOptions::default() });
    let progress = Arc::new(Progress::new(global));
    progress.step(format!("pulling {}", args.reference.familiar()));
    let runtime = async_runtime()?;
    let pulled = runtime.block_on(client.pull(&store, &args.reference, Arc::clone(&progress) as _))?;
    progress.clear();
    output::line(pulled.digest)?;
    Ok(ExitCode::SUCCESS)
}
