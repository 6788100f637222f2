//! `wharf logout`: forgets a registry's credentials.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use wharf_images::{Client, ClientOptions};

use crate::output;
use crate::transfer::runtime;

/// Forget the credentials for a registry, in Docker's configuration and its helper.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf logout ghcr.io")]
pub(crate) struct Logout {
    /// The registry: HOST[:PORT], or docker.io.
    #[arg(value_name = "REGISTRY", default_value = "docker.io")]
    registry: String,
}

pub(crate) fn run(args: &Logout) -> Result<ExitCode> {
    let had = runtime()?.block_on(Client::new(ClientOptions::default()).log_out(&args.registry))?;
    output::line(match had {
        true => format!("logged out of {}", args.registry),
        false => format!("not logged in to {}", args.registry),
    })?;
    Ok(ExitCode::SUCCESS)
}
