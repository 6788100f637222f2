//! `wharf images`: what is in the local store.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::output;
use crate::places::Places;

/// List the images of the local store.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf images --json")]
pub(crate) struct Images {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Image {
    name: String,
    digest: String,
}

pub(crate) fn run(args: &Images) -> Result<ExitCode> {
    let images = Places::from_env()?.store()?.list()?.into_iter().map(|entry| Image {
        name: match entry.reference {
            Some(reference) => reference.familiar(),
            None => entry.name.unwrap_or_else(|| "<none>".into()),
        },
        digest: entry.descriptor.digest.to_string(),
    });
    let images: Vec<Image> = images.collect();
    if args.json {
        output::json(&images)?;
    } else {
        let rows: Vec<[String; 2]> = images.into_iter().map(|image| [image.name, image.digest]).collect();
        output::table(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}
