//! `wharf save`: one file that Docker, containerd, podman and skopeo read.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use wharf_images::Reference;

use crate::places::Places;

/// Save an image as one archive, for `docker load`, `ctr images import`, podman or skopeo.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf save registry.example/app:1 -o app.tar && docker load -i app.tar")]
pub(crate) struct Save {
    /// The image's name.
    #[arg(value_name = "REF")]
    reference: Reference,
    /// The archive to write.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(args: &Save) -> Result<ExitCode> {
    let store = Places::from_env()?.store()?;
    wharf_images::save(&store, &args.reference, &args.output)?;
    Ok(ExitCode::SUCCESS)
}
