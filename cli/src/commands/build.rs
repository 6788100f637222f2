//! `wharf build`: project → image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use std::thread;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, ValueEnum};
use wharf_app::{Prefix, Project};
use wharf_host::Architecture;
use wharf_images::{Compression, LayerCache, Layout, Reference};

use crate::arguments::{Arguments, Global};
use crate::git::{Clone, Origin, Remote};
use crate::image::{self, Packing, Shape};
use crate::metadata::{Metadata, Pair, Sources};
use crate::native::{HostBinary, Native, host_binary};
use crate::output;
use crate::places::Places;
use crate::progress::Progress;
use crate::supply_chain::{self, Asked};
use crate::target;

/// Build an image of a project: one index for linux/amd64 and linux/arm64
/// (where the wharf-host of each is installed) and wasi/wasm.
///
/// The last line printed is the digest of the index, or with --single-platform
/// of the manifest. The same files of the same commit give the same digest.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharf build . -t registry.example/app:1\n  \
    wharf build . -t registry.example/app:1 --zstd --annotation com.example.team=web")]
pub(crate) struct Build {
    /// The project's folder, or a git URL (https://…#BRANCH:FOLDER).
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Trust a project from a git URL: run its build commands and install its packages,
    /// which can do all that you can.
    #[arg(long)]
    trust: bool,
    /// A path in front of all URLs of the project: /app.
    #[arg(long, value_name = "PATH")]
    prefix: Option<Prefix>,
    /// A name for the image; may be given several times.
    #[arg(short, long = "tag", value_name = "REF", required_unless_present = "output")]
    tags: Vec<Reference>,
    /// Write an OCI layout into this folder, not into the local store.
    #[arg(short, long, value_name = "LAYOUT")]
    output: Option<PathBuf>,
    /// Only these platforms; may be given several times.
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<BuildPlatform>,
    /// No image for wasi/wasm.
    #[arg(long)]
    no_wasi: bool,
    /// One plain image without an index: for the one --platform, or for this machine.
    ///
    /// For registries and tools that know no index.
    #[arg(long)]
    single_platform: bool,
    /// Compress layers by zstd: smaller than gzip, and faster to unpack.
    ///
    /// containerd 1.5, Docker 23 and Podman 3 and later read it.
    #[arg(long)]
    zstd: bool,
    /// An annotation of the index and of each manifest; may be given several times.
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<Pair>,
    /// A label of the image, which `docker inspect` shows; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Pair>,
    /// Don't ask git for the source and revision that the image is annotated with
    /// and its provenance names.
    #[arg(long)]
    no_git: bool,
    /// The static wharf-host of an architecture: amd64=PATH or arm64=PATH.
    #[arg(long = "host-binary", value_name = "ARCH=PATH")]
    host_binaries: Vec<HostBinary>,
    /// Attach an SBOM (CycloneDX) and a provenance (SLSA) to the image.
    #[arg(long)]
    sbom: bool,
    /// Leave the site's files as they are, whatever wharf.toml says: no .br,
    /// .zst and .gz beside them.
    #[arg(long)]
    no_precompress: bool,
}

pub(crate) fn run(args: &Build, global: &Global) -> Result<ExitCode> {
    let places = Places::from_env()?.trusting(args.trust);
    let remote = args.dir.to_str().map(Remote::parse).transpose()?.flatten();
    let clone = remote.map(|remote| remote.fetch()).transpose()?;
    if let Some(clone) = &clone {
        clone.install_packages(&places)?;
    }
    let project = Project::open(clone.as_ref().map_or(&args.dir, Clone::folder))?;
    let project = match &args.prefix {
        Some(prefix) => project.below(prefix)?,
        None => project,
    };
    let places = if clone.is_some() { places.distrusting() } else { places };
    let settings = &project.config().image;
    // Beside the build, since git takes as long as an unchanged one.
    let origin = (!args.no_git && settings.git != Some(false)).then(|| {
        let (folder, output) = (project.dir().to_owned(), args.output.clone());
        thread::spawn(move || Origin::of(&folder, output.as_deref()))
    });
    let (natives, wasi) = platforms(args)?;
    let progress = Progress::new(global);
    let _caches = places.use_caches();
    let mut app = target::build(&project, &places, &progress)?;
    let precompress = project.config().site.precompress && !args.no_precompress;
    if precompress {
        app.precompress(&places.workshop(), &|count| {
            let files = if count == 1 { "file" } else { "files" };
            progress.step(format!("precompressing {count} {files} of the site"));
        })?;
    }
    // A wasi image holds no machine code, but must not hold nonsense either.
    let architectures = natives.keys().copied().chain(natives.is_empty().then_some(Architecture::Amd64));
    let code = image::compile(&app, architectures, &places.code(), &progress)?;
    let layout = match &args.output {
        Some(folder) => Layout::create(folder)?,
        None => places.store()?,
    };
    let origin = origin.and_then(|origin| origin.join().ok()).unwrap_or_default();
    let source = origin.for_provenance();
    let metadata = Metadata::new(Sources {
        name: &app.manifest.name,
        origin,
        settings,
        annotations: &args.annotations,
        labels: &args.labels,
    })?;
    let natives = natives.into_iter().map(|(architecture, path)| Ok((architecture, Native::read(path)?)));
    let natives = natives.collect::<Result<BTreeMap<_, _>>>()?;
    let packing = Packing {
        app: &app,
        metadata: &metadata,
        shape: if args.single_platform { Shape::Manifest } else { Shape::Index },
        compression: if args.zstd { Compression::Zstd } else { Compression::Gzip },
        natives: &natives,
        wasi,
        layout: &layout,
        layers: &LayerCache::new(layers_of(&layout, &places)),
        code: &code,
        progress: &progress,
    };
    let image = packing.write()?;
    if args.sbom {
        let asked = Asked {
            source: source.as_ref(),
            precompress,
            annotations: &args.annotations,
            labels: &args.labels,
        };
        supply_chain::describe(&project, &asked, &packing, &image)?;
    }
    for tag in &args.tags {
        layout.tag(tag, &image)?;
    }
    if args.tags.is_empty() {
        layout.tag(&unnamed(&app.manifest.name)?, &image)?;
    }
    drop(progress);
    if !global.quiet {
        for tag in &args.tags {
            output::remark(format!("built {}", tag.familiar()));
        }
    }
    output::line(image.digest)?;
    Ok(ExitCode::SUCCESS)
}

/// What is remembered of a layout's layers lies in wharf's own cache, not in
/// the layout: that may be somebody else's folder.
pub(crate) fn layers_of(layout: &Layout, places: &Places) -> PathBuf {
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

/// What an image can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum BuildPlatform {
    #[value(name = "linux/amd64")]
    LinuxAmd64,
    #[value(name = "linux/arm64")]
    LinuxArm64,
    #[value(name = "wasi/wasm")]
    WasiWasm,
}

impl BuildPlatform {
    fn architecture(self) -> Option<Architecture> {
        match self {
            Self::LinuxAmd64 => Some(Architecture::Amd64),
            Self::LinuxArm64 => Some(Architecture::Arm64),
            Self::WasiWasm => None,
        }
    }
}

/// The linux platforms, each with its `wharf-host`, and whether wasi/wasm is
/// among what was asked for.
fn platforms(args: &Build) -> Result<(BTreeMap<Architecture, PathBuf>, bool)> {
    let asked: BTreeSet<BuildPlatform> = args.platforms.iter().copied().collect();
    let wasi = asked.contains(&BuildPlatform::WasiWasm);
    if wasi && args.no_wasi {
        misused("--no-wasi cannot be used with --platform wasi/wasm");
    }
    if args.single_platform && asked.len() > 1 {
        misused("--single-platform cannot be used with several platforms: expected one --platform or none");
    }
    let mut natives = BTreeMap::new();
    if asked.is_empty() {
        for architecture in [Architecture::Amd64, Architecture::Arm64] {
            if args.single_platform && !architecture.is_this_machine() {
                continue;
            }
            match host_binary(architecture, &args.host_binaries) {
                Ok(binary) => drop(natives.insert(architecture, binary)),
                // An image for this machine at least, or the installation is broken.
                Err(error) if architecture.is_this_machine() => return Err(error.into()),
                Err(_) => {}
            }
        }
        return Ok((natives, !args.no_wasi && !args.single_platform));
    }
    for architecture in asked.into_iter().filter_map(BuildPlatform::architecture) {
        natives.insert(architecture, host_binary(architecture, &args.host_binaries)?);
    }
    Ok((natives, wasi))
}

/// Ends the program as the command line's parser does.
fn misused(text: &str) -> ! {
    Arguments::command().error(ErrorKind::ArgumentConflict, text).exit()
}
