//! `wharf pull`: an image from a registry.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::arguments::Global;
use crate::transfer::Transfer;

/// Pull an image into the local store, with all its platforms; prints its digest.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf pull registry.example/app:1 && wharf serve registry.example/app:1")]
pub(crate) struct Pull {
    #[command(flatten)]
    image: Transfer,
}

pub(crate) fn run(args: &Pull, global: &Global) -> Result<ExitCode> {
    let reference = &args.image.reference;
    args.image
        .run(global, "pulling", async |client, store, progress| client.pull(store, reference, progress).await)
}
