//! `wharf build`: project → universal index.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use wharf_app::Project;
use wharf_host::Architecture;
use wharf_images::{LayerCache, Layout, Platform, Reference};

use crate::arguments::Global;
use crate::image::{self, Packing};
use crate::native::{HostBinary, host_binary};
use crate::output;
use crate::places::Places;
use crate::progress::Progress;
use crate::target;

/// Build an image of a project: one index for linux/amd64 and linux/arm64
/// (where the wharf-host of each is installed) and wasi/wasm.
///
/// The last line printed is the digest of the index.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf build . -t registry.example/app:1")]
pub(crate) struct Build {
    /// The project's folder.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// A name for the image; may be given several times.
    #[arg(short, long = "tag", value_name = "REF", required_unless_present = "output")]
    tags: Vec<Reference>,
    /// Write an OCI layout into this folder, not into the local store.
    #[arg(short, long, value_name = "LAYOUT")]
    output: Option<PathBuf>,
    /// Only these platforms.
    #[arg(long = "platform", value_name = "OS/ARCH")]
    platforms: Vec<Platform>,
    /// The static wharf-host of an architecture: amd64=PATH or arm64=PATH.
    #[arg(long = "host-binary", value_name = "ARCH=PATH")]
    host_binaries: Vec<HostBinary>,
}

pub(crate) fn run(args: &Build, global: &Global) -> Result<ExitCode> {
    let places = Places::from_env()?;
    let project = Project::open(&args.dir)?;
    let (natives, wasi) = platforms(args)?;
    let progress = Progress::new(global);
    let app = target::build(&project, &places, &progress)?;
    // A wasi image holds no machine code, but must not hold nonsense either.
    let architectures = natives.keys().copied().chain(natives.is_empty().then_some(Architecture::Amd64));
    let code = image::compile(&app, architectures, &places.code(), &progress)?;
    let layout = match &args.output {
        Some(folder) => Layout::create(folder)?,
        None => places.store()?,
    };
    let packing = Packing {
        app: &app,
        labels: &project.config().image.labels,
        natives: &natives,
        wasi,
        layout: &layout,
        layers: &LayerCache::new(layers_of(&layout, &places)),
        code: &code,
        progress: &progress,
    };
    let index = packing.write()?;
    for tag in &args.tags {
        layout.tag(tag, &index)?;
    }
    if args.tags.is_empty() {
        layout.tag(&unnamed(&app.manifest.name)?, &index)?;
    }
    drop(progress);
    if !global.quiet {
        for tag in &args.tags {
            output::remark(format!("built {}", tag.familiar()));
        }
    }
    output::line(index.digest)?;
    Ok(ExitCode::SUCCESS)
}

/// What is remembered of a layout's layers lies in wharf's own cache, not in
/// the layout: that may be somebody else's folder.
fn layers_of(layout: &Layout, places: &Places) -> PathBuf {
    let root = layout.root().canonicalize().unwrap_or_else(|_| layout.root().to_owned());
    let name = wharf_app::Sha256::of(root.as_os_str().as_encoded_bytes()).to_string();
    places.layers().join(&name[..16])
}

/// A name for an image in a layout that was given none.
fn unnamed(app: &str) -> Result<Reference> {
    let mut name: String = app.to_ascii_lowercase();
    name.retain(|c| c.is_ascii_alphanumeric() || c == '-');
    let name = name.trim_matches('-');
    Ok(format!("localhost/{}:latest", if name.is_empty() { "app" } else { name }).parse()?)
}

/// The linux platforms, each with its `wharf-host`, and whether wasi/wasm is
/// among what was asked for.
fn platforms(args: &Build) -> Result<(BTreeMap<Architecture, PathBuf>, bool)> {
    let mut natives = BTreeMap::new();
    if args.platforms.is_empty() {
        for architecture in [Architecture::Amd64, Architecture::Arm64] {
            match host_binary(architecture, &args.host_binaries) {
                Ok(binary) => drop(natives.insert(architecture, binary)),
                // An image for this machine at least, or the installation is broken.
                Err(error) if architecture.is_this_machine() => return Err(error.into()),
                Err(_) => {}
            }
        }
        return Ok((natives, true));
    }
    let mut wasi = false;
    for platform in &args.platforms {
        let architecture = match platform.to_string().as_str() {
            "linux/amd64" => Architecture::Amd64,
            "linux/arm64" => Architecture::Arm64,
            "wasi/wasm" => {
                wasi = true;
                continue;
            }
            other => bail!("unknown platform {other}: expected linux/amd64, linux/arm64 or wasi/wasm"),
        };
        natives.insert(architecture, host_binary(architecture, &args.host_binaries)?);
    }
    Ok((natives, wasi))
}
