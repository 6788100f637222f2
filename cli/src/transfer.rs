//! What push and pull share: the arguments, the client, the progress.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::runtime::{Builder, Runtime};
use wharf_images::{
    Client, ClientOptions, Descriptor, Layout, Progress as Transfers, Reference, RegistryError,
};

use crate::arguments::Global;
use crate::output;
use crate::places::Places;
use crate::progress::Progress;

/// Which image, and how to speak to its registry.
#[derive(Debug, Args)]
pub(crate) struct Transfer {
    /// The image's name.
    #[arg(value_name = "REF")]
    pub(crate) reference: Reference,
    #[command(flatten)]
    pub(crate) way: Way,
}

/// How to speak to a registry.
#[derive(Debug, Args)]
pub(crate) struct Way {
    /// Speak plain HTTP (registries on loopback always do, but with --ca-cert).
    #[arg(long, conflicts_with = "ca_cert")]
    insecure: bool,
    /// Trust the certificates in FILE (PEM) beside the system's; may be repeated.
    #[arg(long, value_name = "FILE")]
    ca_cert: Vec<PathBuf>,
}

impl Way {
    pub(crate) fn client(&self) -> Client {
        Client::new(ClientOptions {
            insecure: self.insecure,
            ca_certificates: self.ca_cert.clone(),
            ..ClientOptions::default()
        })
    }
}

/// What waits for a registry.
pub(crate) fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")
}

impl Transfer {
    /// Moves the image by `work` between the store and its registry, and prints
    /// its digest.
    pub(crate) fn run(
        &self,
        global: &Global,
        doing: &str,
        work: impl AsyncFnOnce(&Client, &Layout, Arc<dyn Transfers>) -> Result<Descriptor, RegistryError>,
    ) -> Result<ExitCode> {
        let store = Places::from_env()?.store()?;
        // A push only reads: without this, a prune could take what it has yet to send.
        store.use_blobs()?;
        let client = self.way.client();
        let progress = Arc::new(Progress::new(global));
        progress.step(format!("{doing} {}", self.reference.familiar()));
        let moved = runtime()?.block_on(work(&client, &store, Arc::clone(&progress) as _))?;
        progress.clear();
        output::line(moved.digest)?;
        Ok(ExitCode::SUCCESS)
    }
}
