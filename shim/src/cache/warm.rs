//! `cache warm IMAGE`: the workers of an image are compiled before a container
//! of it is created.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsFd;

use anyhow::{Context, Result, anyhow, bail};
use wharf_app::{Component, LARGEST_MANIFEST, Manifest};

use super::{print, remark};
use crate::aot::{Cache, Progress};
use crate::containerd::{Client, Descriptor, ImageError};

/// Where the app manifest lies in an image's layers.
const APP_MANIFEST: &str = "app/wharf.json";

/// Which image, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// As `ctr images ls` prints it.
    pub(super) image: String,
    /// containerd's namespace.
    pub(super) namespace: String,
    /// containerd's socket.
    pub(super) address: String,
}

impl Options {
    /// As `ctr` takes them from the environment.
    pub(super) fn from_env() -> Self {
        let variable = |name, otherwise: &str| {
            let value = std::env::var(name).ok().filter(|value| !value.is_empty());
            value.unwrap_or_else(|| otherwise.to_owned())
        };
        Self {
            image: String::new(),
            namespace: variable("CONTAINERD_NAMESPACE", "default"),
            address: variable("CONTAINERD_ADDRESS", "/run/containerd/containerd.sock"),
        }
    }
}

pub(super) fn run(options: &Options) -> Result<()> {
    let cache = Cache::open()?;
    let client = Client::connect(&options.address, &options.namespace)?;
    let image = client.image(&options.image).map_err(|error| {
        let is_missing = error.is_not_found();
        let error = anyhow!(error);
        if is_missing {
            let namespace = &options.namespace;
            error.context(format!(
                "cannot find image {:?}: expected a name as in `ctr --namespace {namespace} images ls`",
                options.image
            ))
        } else {
            error
        }
    })?;
    let layers = client.manifest(&image.target)?.layers;
    let app = find_app(&client, &layers).with_context(|| format!("cannot read image {:?}", image.name))?;
    let mut missing = Vec::new();
    for component in &app.components {
        if cache.contains(component)? {
            print(&format!("present   {}\n", component.file))?;
        } else {
            missing.push(component);
        }
    }
    compile(&cache, &client, &layers, missing)
}

/// The app manifest that a container of the layers sees.
fn find_app(client: &Client, layers: &[Descriptor]) -> Result<Manifest> {
    for layer in layers.iter().rev() {
        let mut found = None;
        // Read to its end, whatever is found, so that the digest is compared:
        // components are then compared with the manifest.
        client
            .find_in_layer(layer, |path, content| -> Result<Option<()>> {
                if path == APP_MANIFEST {
                    let mut text = Vec::new();
                    content.take(LARGEST_MANIFEST + 1).read_to_end(&mut text)?;
                    found = Some(text);
                }
                Ok(None)
            })
            .map_err(explain)?;
        if let Some(text) = found {
            return Manifest::parse(&text).with_context(|| format!("cannot use /{APP_MANIFEST}"));
        }
    }
    bail!("there is no /{APP_MANIFEST} in it: expected an image made by `wharf build`")
}

fn compile(cache: &Cache, client: &Client, layers: &[Descriptor], components: Vec<&Component>) -> Result<()> {
    let mut progress = Progress::to(io::stderr().as_fd().try_clone_to_owned()?.into());
    let by_path = components.into_iter().map(|component| (format!("app/{}", component.file), component));
    let mut missing: BTreeMap<String, &Component> = by_path.collect();
    for layer in layers.iter().rev() {
        if missing.is_empty() {
            break;
        }
        client
            .find_in_layer(layer, |path, content| -> Result<Option<()>> {
                if let Some(component) = missing.remove(path) {
                    cache.get(component, || Ok(content), &mut progress)?;
                    print(&format!("compiled  {}\n", component.file))?;
                }
                Ok(missing.is_empty().then_some(()))
            })
            .map_err(explain)?;
    }
    match missing.values().next() {
        Some(component) => bail!("the image lacks component {:?} of its manifest", component.file),
        None => Ok(()),
    }
}

/// Says what can be done about a layer that is gone.
fn explain(error: anyhow::Error) -> anyhow::Error {
    if let Some(ImageError::Containerd(inner)) = error.downcast_ref()
        && inner.is_not_found()
    {
        remark(
            "hint: containerd dropped the layer after unpacking it: pull the image with \
             discard_unpacked_layers = false, or start a container of it instead",
        );
    }
    error
}
