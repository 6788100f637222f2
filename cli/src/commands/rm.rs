//! `wharf rm`: an image's name leaves the local store.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use wharf_images::Reference;

use crate::places::Places;

/// Remove an image from the local store.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf rm registry.example/app:1")]
pub(crate) struct Rm {
    /// The image's name.
    #[arg(value_name = "REF")]
    reference: Reference,
}

pub(crate) fn run(args: &Rm) -> Result<ExitCode> {
    Places::from_env()?.store()?.remove(&args.reference)?;
    Ok(ExitCode::SUCCESS)
}
