//! `wharf load`: a saved archive into the local store.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::output;
use crate::places::Places;

/// Load a saved archive into the local store; prints the names of its images.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf load app.tar")]
pub(crate) struct Load {
    /// The archive: of `wharf save`, or an OCI layout in a tar file.
    file: PathBuf,
}

pub(crate) fn run(args: &Load) -> Result<ExitCode> {
    let store = Places::from_env()?.store()?;
    for entry in wharf_images::load(&store, &args.file)? {
        match entry.reference {
            Some(reference) => output::line(reference.familiar())?,
            None => output::line(entry.name.unwrap_or_else(|| entry.descriptor.digest.to_string()))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
