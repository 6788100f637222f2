//! `wharf push`: an image into a registry.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::arguments::Global;
use crate::transfer::Transfer;

/// Push an image to its registry, with the credentials that Docker has; prints its digest.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf push registry.example/app:1")]
pub(crate) struct Push {
    #[command(flatten)]
    image: Transfer,
}

pub(crate) fn run(args: &Push, global: &Global) -> Result<ExitCode> {
    let reference = &args.image.reference;
    args.image
        .run(global, "pushing", async |client, store, progress| client.push(store, reference, progress).await)
}
