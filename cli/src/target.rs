//! TARGET of the command line: a project folder, a git URL, an OCI layout, a saved
//! archive, or an image of the local store. And from any of them, an app that
//! the host can load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use wharf_app::{
    BuiltApp, MANIFEST_FILE, Manifest, Prefix, Progress as BuildProgress, Project, Sha256, Step,
};
use wharf_host::{AppSource, CompilerTarget, HostCode};
use wharf_images::{Descriptor, Layout, Platform, Reference, UnpackOptions};

use crate::git::{Clone, Remote};
use crate::output::plain;
use crate::places::Places;
use crate::progress::Progress;

/// Uncompressed bytes of an image that are looked at most: 16 GiB.
pub(crate) const LARGEST_IMAGE: u64 = 16 << 30;

/// What a TARGET turned out to be.
pub(crate) enum Target {
    Project(Box<Project>),
    /// A project of a git repository; its copy goes when this does.
    Cloned(Box<Project>, #[allow(dead_code)] Clone),
    Image(Layout, Descriptor),
    /// An archive, loaded into a layout that goes when this does.
    Archive(Layout, Descriptor, #[allow(dead_code)] tempfile::TempDir),
}

/// TARGET is none of the things that it can be.
#[derive(Debug, thiserror::Error)]
#[error("no such folder or file: {}", .0.display())]
pub(crate) struct TargetError(PathBuf);

impl TargetError {
    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn hint(&self) -> Option<String> {
        Some(
            "give a project folder, a git URL, an OCI layout, a saved archive, or the name of an image"
                .into(),
        )
    }
}

impl Target {
    /// The same, with all URLs of a project below `prefix`.
    pub(crate) fn below(self, prefix: Option<&Prefix>) -> Result<Self> {
        let Some(prefix) = prefix else { return Ok(self) };
        Ok(match self {
            Self::Project(project) => Self::Project(Box::new(project.below(prefix)?)),
            Self::Cloned(project, clone) => Self::Cloned(Box::new(project.below(prefix)?), clone),
            Self::Image(..) | Self::Archive(..) => {
                bail!(
                    "--prefix is for projects: an image has the URLs that it was built with (wharf build --prefix)"
                )
            }
        })
    }

    pub(crate) fn find(text: &str, places: &Places) -> Result<Self> {
        if let Some(remote) = Remote::parse(text)? {
            let clone = remote.fetch()?;
            clone.install_packages(places)?;
            return Ok(Self::Cloned(Box::new(Project::open(clone.folder())?), clone));
        }
        let path = Path::new(text);
        if path.join("oci-layout").is_file() {
            let layout = Layout::open(path)?;
            let image = layout.sole()?.descriptor;
            return Ok(Self::Image(layout, image));
        }
        if path.is_dir() {
            return Ok(Self::Project(Box::new(Project::open(path)?)));
        }
        if path.is_file() {
            let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
            let layout = Layout::create(folder.path().join("layout"))?;
            wharf_images::load(&layout, path)?;
            let image = layout.sole()?.descriptor;
            return Ok(Self::Archive(layout, image, folder));
        }
        if text.starts_with(['.', '/', '~']) || text.ends_with('/') {
            return Err(TargetError(path.to_owned()).into());
        }
        let store = places.store()?;
        let image = match text.parse::<Reference>().map(|reference| store.resolve(&reference)) {
            Ok(Ok(image)) => image,
            // A bare name may as well have been meant as a folder.
            Err(_) | Ok(Err(_)) if !text.contains([':', '@', '/']) => {
                return Err(TargetError(path.to_owned()).into());
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(error) => return Err(error.into()),
        };
        Ok(Self::Image(store, image))
    }

    /// The app, with machine code for this CPU.
    pub(crate) fn load(&self, places: &Places, progress: &Progress) -> Result<AppSource> {
        let _caches = places.use_caches();
        match self {
            Self::Project(project) => project_source(project, places, progress),
            Self::Cloned(project, _) => project_source(project, &places.distrusting(), progress),
            Self::Image(layout, image) | Self::Archive(layout, image, _) => {
                image_source(layout, image, places, progress)
            }
        }
    }

    /// The app as data. A project's workers need not be built for it.
    pub(crate) fn manifest(&self, places: &Places, progress: &Progress) -> Result<Manifest> {
        let _caches = places.use_caches();
        match self {
            Self::Project(project) => Ok(build(project, places, progress)?.manifest),
            Self::Cloned(project, _) => Ok(build(project, &places.distrusting(), progress)?.manifest),
            Self::Image(layout, image) | Self::Archive(layout, image, _) => {
                Ok(Manifest::read(&unpacked(layout, image, places, progress)?.join(MANIFEST_FILE))?)
            }
        }
    }
}

/// Builds a project, telling of steps that take long.
pub(crate) fn build(project: &Project, places: &Places, progress: &Progress) -> Result<BuiltApp> {
    // What is under way, each with how often.
    let running = Mutex::new(BTreeMap::<String, usize>::new());
    let app = BuiltApp::build(project, &places.workshop(), &|change| {
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            BuildProgress::Begins(step) => *running.entry(words(step)).or_default() += 1,
            BuildProgress::Ended(step) => {
                let step = words(step);
                match running.get_mut(&step) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => _ = running.remove(&step),
                }
            }
        }
        if !running.is_empty() {
            progress.step(running.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
        }
    })?;
    Ok(app)
}

fn words(step: &Step) -> String {
    match step {
        Step::Componentize(language, 1) => format!("building a {language} worker"),
        Step::Componentize(language, count) => format!("building {count} {language} workers"),
        Step::Command(worker) => format!("running the build command of {}", plain(worker)),
        Step::Fetch(reference) => format!("fetching {}", plain(reference)),
    }
}

fn project_source(project: &Project, places: &Places, progress: &Progress) -> Result<AppSource> {
    let app = build(project, places, progress)?;
    let code = places.code();
    let compiler = code.compiler(CompilerTarget::Native)?;
    for (component, wasm) in app.manifest.components.iter().zip(&app.components) {
        if !code.contains(&compiler, &component.sha256) {
            progress.step(format!("compiling {}", component.file));
        }
        code.ensure(&compiler, &component.sha256, wasm)?;
    }
    Ok(AppSource::live(project.dir().to_owned(), app.manifest, app.assets, code.code_dir(&compiler)))
}

fn image_source(
    layout: &Layout,
    image: &Descriptor,
    places: &Places,
    progress: &Progress,
) -> Result<AppSource> {
    let dir = unpacked(layout, image, places, progress)?;
    let code = places.code();
    let compiler = code.compiler(CompilerTarget::Native)?;
    let source = AppSource::sealed(&dir, HostCode::Image(code.code_dir(&compiler)))?;
    for component in &source.manifest.components {
        if code.contains(&compiler, &component.sha256) {
            continue;
        }
        progress.step(format!("compiling {}", component.file));
        let wasm = dir.join(&component.file);
        // The code is kept by this hash, for any image that names it.
        let (found, _) = Sha256::of_reader(fs_err::File::open(&wasm)?)?;
        anyhow::ensure!(
            found == component.sha256,
            "component {} of the image has hash {found}: expected {}",
            component.file,
            component.sha256
        );
        code.ensure(&compiler, &component.sha256, &wasm)?;
    }
    Ok(source)
}

/// The folder with the app of an image, unpacked now if it isn't there.
pub(crate) fn unpacked(
    layout: &Layout,
    image: &Descriptor,
    places: &Places,
    progress: &Progress,
) -> Result<PathBuf> {
    let platforms = [Platform::wasi_wasm(), Platform::linux_amd64(), Platform::linux_arm64()];
    let (descriptor, manifest) = layout.select(image, &platforms)?;
    let folder = places.unpacked().join(descriptor.digest.encoded());
    if !folder.is_dir() {
        progress.step("unpacking image");
        fs_err::create_dir_all(places.unpacked())?;
        // Machine code of an image runs only where the image's own program does.
        let wanted = |path: &Path| path.starts_with("app") && !path.starts_with("app/aot");
        let options = UnpackOptions { limit: LARGEST_IMAGE, filter: &wanted };
        if let Err(error) = wharf_images::unpack(layout, &manifest, &folder, &options) {
            // Another process may have been first, with the same files.
            if !folder.is_dir() {
                return Err(error.into());
            }
        }
    }
    places.keep(&folder);
    Ok(folder.join("app"))
}
