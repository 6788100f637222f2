//! What the tests of registries share: a scripted registry, images to send, and
//! processes with credentials of their own.

// A failing helper is a failing test, and no test uses all of this.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, unused_imports)]

pub mod images;
pub mod process;
pub mod registry;
pub mod server;

pub use images::*;
pub use process::*;
pub use registry::*;
pub use server::*;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use wharf_images::{Client, ClientOptions, Descriptor, Layout, Progress, Reference, RegistryError};

/// What no push or pull of these tests comes near unless it hangs.
pub const HANGS: Duration = Duration::from_secs(120);

/// How the tests speak to registries: one place for what all of them set.
pub fn options() -> ClientOptions {
    ClientOptions {
        read_timeout: Duration::from_secs(30),
        backoff: Duration::from_millis(1),
        ..ClientOptions::default()
    }
}

pub fn client() -> Client {
    Client::new(options())
}

pub fn silent() -> Arc<dyn Progress> {
    Arc::new(())
}

pub async fn push(layout: &Layout, reference: &Reference) -> Result<Descriptor, RegistryError> {
    in_time(client().push(layout, reference, silent())).await
}

pub async fn pull(layout: &Layout, reference: &Reference) -> Result<Descriptor, RegistryError> {
    in_time(client().pull(layout, reference, silent())).await
}

pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS, work).await.expect("it hangs")
}

/// An error with all its causes, as the command line prints it.
pub fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
