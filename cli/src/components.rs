//! Components from registries: CNCF's Wasm artifacts, and images made of Wasm layers.

use std::error::Error;
use std::io::Read as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use wharf_app::Registry;
use wharf_images::{Client, ClientOptions, Digest, Layout, Platform, Reference};

use crate::transfer;

/// Largest component, in bytes: 1 GiB.
const LARGEST: u64 = 1 << 30;

/// What a layer with a component is called: by CNCF's artifact layout, by wasm-to-oci,
/// and by runwasi.
const LAYERS: [&str; 3] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
];

/// The registries that this machine can reach.
pub(crate) struct Registries;

impl Registry for Registries {
    fn fetch(
        &self,
        reference: &str,
        digest: Option<&str>,
    ) -> Result<(Vec<u8>, String), Box<dyn Error + Send + Sync>> {
        Ok(fetch(reference, digest)?)
    }
}

fn fetch(reference: &str, digest: Option<&str>) -> Result<(Vec<u8>, String)> {
    let mut reference: Reference = reference.parse()?;
    if let Some(digest) = digest {
        let digest: Digest = digest.parse().context("the digest of it in wharf.lock has no meaning")?;
        reference = reference.with_digest(digest);
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let layout = Layout::create(folder.path().join("layout"))?;
    let client = Client::new(ClientOptions::default());
    let pulled = transfer::runtime()?.block_on(client.pull(&layout, &reference, Arc::new(())))?;
    let manifest = if pulled.media_type.is_index() {
        layout.select(&pulled, &[Platform::wasi_wasm()])?.1
    } else {
        layout.read_manifest(&pulled)?
    };
    let layers = || manifest.layers.iter().filter(|layer| LAYERS.contains(&layer.media_type.as_str()));
    let mut found = layers();
    let (Some(layer), None) = (found.next(), found.next()) else {
        bail!("expected one layer of type {}, found {} in {}", LAYERS[0], layers().count(), pulled.digest);
    };
    ensure!(layer.size <= LARGEST, "its component has {} bytes: expected at most {LARGEST}", layer.size);
    let mut wasm = Vec::new();
    layout.open_blob(layer)?.read_to_end(&mut wasm)?;
    Ok((wasm, pulled.digest.to_string()))
}
