//! From a project to an app: sources become components, files get their hashes.

mod programs;

use std::collections::BTreeSet;
use std::error::Error;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io, thread};

use walkdir::WalkDir;

use self::programs::Programs;
use crate::abi::{self, Abi, ProgramError};
use crate::command::CommandError;
use crate::digest::Sha256;
use crate::language::Language;
use crate::lock::{Lock, LockError};
use crate::manifest::{Asset, Component, Manifest, Site, Worker};
use crate::project::{Project, WorkerSource};
use crate::routes::{RouteError, Routes, Target};
use crate::ruby::{NoRuby, StartRuby};
use crate::toolchain::ToolError;

/// A built app: the manifest, and where the contents are that it describes.
#[derive(Clone, Debug)]
pub struct BuiltApp {
    /// The app as data.
    pub manifest: Manifest,
    /// The files of the site, in the manifest's order.
    pub assets: Vec<PathBuf>,
    /// The encoded forms of the files, in the manifest's order: file by file,
    /// coding by coding.
    pub encodings: Vec<PathBuf>,
    /// The components, in the manifest's order.
    pub components: Vec<PathBuf>,
    /// The files of the folders that workers mount from the app, sorted by path.
    pub files: Vec<AppFile>,
    /// What it was built with.
    pub lock: Lock,
}

/// A file of a folder that a worker mounts from the app.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppFile {
    /// Path below the project, and in images below `/app/files`.
    pub path: String,
    /// Where its content is.
    pub source: PathBuf,
    /// Its content's hash.
    pub sha256: Sha256,
}

/// Where a build finds its tools and keeps what it need not do again.
#[derive(Clone)]
pub struct Workshop {
    /// Components by the content of their sources; safe to delete.
    pub cache: PathBuf,
    /// Language toolchains that wharf installed.
    pub runtimes: PathBuf,
    /// Whether the user knows the project. Of one that is from elsewhere no command of
    /// `wharf.toml` runs, no packages are installed, whose own builds are commands too,
    /// and no file beside it is read: it would go into what is served.
    pub is_trusted: bool,
    /// Where components come from that are named by a reference.
    pub registry: Arc<dyn Registry>,
    /// What starts Ruby.
    pub ruby: Arc<dyn StartRuby>,
}

/// Brings components from registries.
pub trait Registry: Send + Sync {
    /// The component that `reference` means, and the digest of its manifest, which
    /// is `digest` if that is given.
    ///
    /// # Errors
    /// There is no such component, or it can't be fetched.
    fn fetch(
        &self,
        reference: &str,
        digest: Option<&str>,
    ) -> Result<(Vec<u8>, String), Box<dyn Error + Send + Sync>>;
}

/// No registry can be reached.
struct NoRegistry;

impl Registry for NoRegistry {
    fn fetch(&self, _: &str, _: Option<&str>) -> Result<(Vec<u8>, String), Box<dyn Error + Send + Sync>> {
        Err("no registry can be reached from here".into())
    }
}

impl fmt::Debug for Workshop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workshop")
            .field("cache", &self.cache)
            .field("runtimes", &self.runtimes)
            .field("is_trusted", &self.is_trusted)
            .finish_non_exhaustive()
    }
}

impl Workshop {
    /// With these folders, for trusted projects; registries are out of reach.
    #[must_use]
    pub fn new(cache: PathBuf, runtimes: PathBuf) -> Self {
        Self { cache, runtimes, is_trusted: true, registry: Arc::new(NoRegistry), ruby: Arc::new(NoRuby) }
    }

    /// The folder of the cache with components that were built.
    #[must_use]
    pub fn components(&self) -> PathBuf {
        self.cache.join("components")
    }

    /// The folder of the cache with compressed forms of files.
    #[must_use]
    pub fn encodings(&self) -> PathBuf {
        self.cache.join("encodings")
    }
}

/// A step that takes long enough to be told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// That many workers of the language are being made into a component.
    Componentize(Language, usize),
    /// The command of a worker runs.
    Command(String),
    /// A component is being fetched, by this reference.
    Fetch(String),
}

/// A step begins, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// It begins. Others may be under way.
    Begins(&'a Step),
    /// It has ended, well or not.
    Ended(&'a Step),
}

/// Why a project can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file can't be read; the cause names it.
    #[error("cannot read project file")]
    Read(#[source] io::Error),
    /// The routes contradict each other.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A rewrite to nothing.
    #[error("rewrite of {from:?} leads to {to:?}: expected a file or a worker, found none")]
    Rewrite {
        /// The pattern of the rule.
        from: String,
        /// Its target.
        to: String,
    },
    /// A single-page app without its page.
    #[error("[site] spa = true of wharf.toml needs public/index.html: found none")]
    NoIndex,
    /// Workers of a language can't be built.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The command of a worker failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A component can't be had.
    #[error("cannot fetch component {reference} of worker {worker:?}")]
    Fetch {
        /// The worker.
        worker: String,
        /// What it asks for.
        reference: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// `wharf.lock` can't be written.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The source can't be a worker.
    #[error("cannot load worker {path:?}")]
    Program {
        /// The source.
        path: String,
        /// What it is instead.
        #[source]
        source: ProgramError,
    },
    /// A folder of the app that a worker mounts can't be packed.
    #[error("cannot pack the folder {folder:?} that worker {worker:?} mounts")]
    Folder {
        /// The worker.
        worker: String,
        /// Path below the project.
        folder: PathBuf,
        /// What is wrong.
        #[source]
        source: io::Error,
    },
    /// What was built can't be kept; the cause names the file.
    #[error("cannot keep component")]
    Cache(#[source] io::Error),
}

impl BuildError {
    /// What the user can do about it, if that isn't plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tool(error) => error.hint(),
            Self::Command(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Rewrite { .. } => {
                Some("the target is a path of this site, as in: /app/* /app/index.html 200".into())
            }
            Self::NoIndex => Some("it answers all navigations to paths that have no file".into()),
            Self::Program { source, .. } => source.hint(),
            Self::Read(_) | Self::Route(_) | Self::Cache(_) | Self::Fetch { .. } | Self::Folder { .. } => {
                None
            }
        }
    }
}

impl BuiltApp {
    /// Builds `project`, telling `progress` of steps that take long.
    ///
    /// # Errors
    /// [`BuildError`]: a file can't be read, or a worker can't be built.
    pub fn build(
        project: &Project,
        workshop: &Workshop,
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> Result<Self, BuildError> {
        let config = &project.config().site;
        let site = Site {
            isolated: config.isolated,
            spa: config.spa,
            headers: project.headers().to_vec(),
            redirects: project.redirects().to_vec(),
            files: assets(project)?,
        };
        let mut manifest = Manifest::new(project.name().to_owned(), site);
        let mut components: Vec<PathBuf> = Vec::new();
        let programs = Programs::make(project, workshop, progress)?;
        for (language, path) in &programs.shared {
            manifest.components.push(component(&format!("workers/_{}.wasm", language.name()), path)?);
            components.push(path.clone());
        }
        for source in project.workers() {
            let settings = project.config().workers.get(&source.name);
            let asked = settings.and_then(|settings| settings.abi);
            let shared = programs.shared.keys().position(|language| *language == source.language);
            let (abi, component) = match shared {
                Some(index) => (shared_abi(source, asked)?, index),
                None => {
                    let path = programs.of(project, source);
                    let abi = program(project, &path, source, asked)?;
                    let made = component(&format!("workers/{}.wasm", source.name), &path)?;
                    // Two routes of one program are one component.
                    let known = manifest.components.iter().position(|other| other.sha256 == made.sha256);
                    let index = known.unwrap_or_else(|| {
                        manifest.components.push(made);
                        components.push(path);
                        components.len() - 1
                    });
                    (abi, index)
                }
            };
            manifest.workers.push(worker(project, source, component, abi));
        }
        // Conflicts show now, not when the image is first run.
        let routes = Routes::new(&manifest)?;
        check_rewrites(&routes, &manifest.site)?;
        let assets = project.site().iter().map(|file| file.source.clone()).collect();
        let files = app_files(project, &manifest.workers)?;
        Ok(Self { manifest, assets, encodings: Vec::new(), components, files, lock: programs.lock })
    }
}

/// The files of the folders that workers mount from the app.
fn app_files(project: &Project, workers: &[Worker]) -> Result<Vec<AppFile>, BuildError> {
    let mut files = BTreeSet::new();
    for worker in workers {
        for folder in worker.grants.mounts.iter().filter_map(|mount| mount.app.as_deref()) {
            let failed = |source: io::Error| BuildError::Folder {
                worker: worker.name.clone(),
                folder: folder.to_owned(),
                source,
            };
            // A link could lead to anybody's files, and those into images.
            let place = fs_err::canonicalize(project.dir().join(folder)).map_err(failed)?;
            if !place.starts_with(project.dir()) {
                let text = format!("expected a folder of the project, found a link to {}", place.display());
                return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, text)));
            }
            let before = files.len();
            for entry in WalkDir::new(project.dir().join(folder)) {
                let entry = entry.map_err(|error| failed(error.into()))?;
                if entry.file_type().is_file() {
                    let below = entry.path().strip_prefix(project.dir()).unwrap_or(entry.path());
                    let path = below.to_str().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
                    let (sha256, _) = hash(entry.path())?;
                    let (path, source) = (path.to_owned(), entry.into_path());
                    files.insert(AppFile { path, source, sha256 });
                }
            }
            // An empty folder would not be in the image.
            let is_packed = || files.iter().any(|file| Path::new(&file.path).starts_with(folder));
            if files.len() == before && !is_packed() {
                return Err(failed(io::Error::new(
                    io::ErrorKind::NotFound,
                    "expected files in it, found none",
                )));
            }
        }
    }
    Ok(files.into_iter().collect())
}

/// A rewrite whose target is the same for all requests leads somewhere.
fn check_rewrites(routes: &Routes, site: &Site) -> Result<(), BuildError> {
    if site.spa && routes.index().is_none() {
        return Err(BuildError::NoIndex);
    }
    let rewrites = site.redirects.iter().filter(|rule| matches!(rule.status, 200 | 404));
    for rule in rewrites.filter(|rule| !rule.to.contains(':')) {
        let path = rule.to.split(['?', '#']).next().unwrap_or_default();
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        let leads_to = match routes.resolve(&path) {
            Target::Redirect(folder) => routes.resolve(&folder),
            target => target,
        };
        if matches!(leads_to, Target::NotFound(_)) {
            return Err(BuildError::Rewrite { from: rule.from.clone(), to: rule.to.clone() });
        }
    }
    Ok(())
}

fn worker(project: &Project, source: &WorkerSource, component: usize, abi: Abi) -> Worker {
    let settings = project.config().workers.get(&source.name).cloned().unwrap_or_default();
    Worker {
        name: source.name.clone(),
        pattern: source.pattern.to_string(),
        source: source.path.clone(),
        component,
        abi,
        limits: settings.limits(),
        reuse: settings.reuse.map_or(1, NonZero::get),
        grants: settings.grants(),
        env: settings.env,
    }
}

fn component(file: &str, path: &Path) -> Result<Component, BuildError> {
    let wasm = fs_err::read(path).map_err(BuildError::Read)?;
    let (size, sha256) = (wasm.len() as u64, Sha256::of(&wasm));
    Ok(Component { file: file.to_owned(), size, sha256, wasi: abi::wasi_of(&wasm) })
}

/// How the program in the `.wasm` file `path` is spoken to.
fn program(
    project: &Project,
    path: &Path,
    source: &WorkerSource,
    asked: Option<Abi>,
) -> Result<Abi, BuildError> {
    let wasm = fs_err::read(path).map_err(BuildError::Read)?;
    let invalid = |error| BuildError::Program { path: source.path.clone(), source: error };
    let program = abi::detect(&wasm).map_err(invalid)?;
    // All programs of Wasm Workers Server speak its protocol; what exports a handler
    // was made for wharf.
    let is_command = !matches!(program, abi::Program::HttpComponent | abi::Program::AsyncHttpComponent);
    let asked = asked.or((project.is_wws() && is_command).then_some(Abi::Wws));
    let abi = program.abi(asked).map_err(invalid)?;
    Ok(abi)
}

/// What workers of a language are made into speaks this, and nothing else.
fn shared_abi(source: &WorkerSource, asked: Option<Abi>) -> Result<Abi, BuildError> {
    let own = if source.language == Language::Ruby { Abi::Cgi } else { Abi::Http };
    match asked {
        None => Ok(own),
        Some(asked) if asked == own => Ok(own),
        Some(abi) => {
            let expected = "a WebAssembly program";
            let found = match source.language {
                Language::Python => "a Python worker",
                Language::Ruby => "a Ruby worker",
                _ => "a JavaScript worker",
            };
            let source_error = ProgramError::Abi { abi, expected, found };
            Err(BuildError::Program { path: source.path.clone(), source: source_error })
        }
    }
}

/// The files of the site with hash and type, hashed on all cores.
fn assets(project: &Project) -> Result<Vec<Asset>, BuildError> {
    let files = project.site();
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = files.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let shares = files.chunks(share).map(|share| {
            scope.spawn(|| {
                share
                    .iter()
                    .map(|file| {
                        let (sha256, size) = hash(&file.source)?;
                        let media_type = project.config().site.media_type(&file.path);
                        let path = file.path.clone();
                        Ok(Asset { path, size, sha256, media_type, encodings: Vec::new() })
                    })
                    .collect::<Result<Vec<_>, BuildError>>()
            })
        });
        let running: Vec<_> = shares.collect();
        let mut assets = Vec::with_capacity(files.len());
        for share in running {
            match share.join() {
                Ok(share) => assets.extend(share?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(assets)
    })
}

fn hash(path: &Path) -> Result<(Sha256, u64), BuildError> {
    let file = fs_err::File::open(path).map_err(BuildError::Read)?;
    Sha256::of_reader(file).map_err(BuildError::Read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Wasi;

    fn built(files: &[(&str, &[u8])]) -> Result<BuiltApp, BuildError> {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join("project").join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, content).unwrap();
        }
        let workshop = Workshop::new(folder.path().join("cache"), folder.path().join("runtimes"));
        let project = Project::open(&folder.path().join("project")).unwrap();
        BuiltApp::build(&project, &workshop, &|_| {})
    }

    fn component_exporting(interface: &str) -> Vec<u8> {
        let wat = format!("(component (instance $i) (export \"{interface}\" (instance $i)))");
        wat::parse_str(wat).unwrap()
    }

    #[test]
    fn a_site_and_a_component_are_described_by_their_hashes() {
        let component = component_exporting("wasi:http/incoming-handler@0.2.0");
        let app = built(&[("public/a/b.css", b"b"), ("api/x.wasm", &component)]).unwrap();
        let manifest = app.manifest;
        assert_eq!(manifest.site.files[0].path, "a/b.css");
        assert_eq!(manifest.site.files[0].sha256, Sha256::of(b"b"));
        assert_eq!(manifest.components[0].file, "workers/api/x.wasm");
        assert_eq!(manifest.components[0].sha256, Sha256::of(&component));
        assert_eq!(manifest.workers[0].pattern, "/api/x");
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
    }

    const MODULE: &str = "(module (memory (export \"memory\") 1) (func (export \"_start\")))";

    #[test]
    fn the_rules_of_the_site_are_in_the_manifest_and_not_among_its_files() {
        let app = built(&[
            ("public/index.html", b"i"),
            ("public/x.foo", b"x"),
            ("public/_headers", b"/*\n  X-A: 1\n"),
            ("public/_redirects", b"/old /new 301\n/app/* / 200\n"),
            (
                "wharf.toml",
                b"[site]\nspa = true\n[site.types]\n\".foo\" = \"text/x-foo\"\n\
                [site.headers.\"/x.foo\"]\nX-B = [\"1\", \"2\"]\nX-A = false\n\
                [[site.redirects]]\nfrom = \"/b/*\"\nto = \"/c/:splat\"\n",
            ),
        ]);
        let manifest = app.unwrap().manifest;
        let site = &manifest.site;
        let files: Vec<_> = site.files.iter().map(|file| (&file.path[..], &file.media_type[..])).collect();
        assert_eq!(files, [("index.html", "text/html; charset=utf-8"), ("x.foo", "text/x-foo")]);
        assert!(site.spa);
        assert_eq!(site.redirects.iter().map(|rule| rule.status).collect::<Vec<_>>(), [301, 200, 302]);
        assert_eq!(site.headers[0].set["x-a"], "1");
        assert_eq!(
            (&site.headers[1].set["x-b"][..], &site.headers[1].remove[..]),
            ("1, 2", &["x-a".into()][..])
        );
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
    }

    #[test]
    fn a_rewrite_to_nothing_and_a_single_page_app_without_page_are_refused() {
        let files: [(&str, &[u8]); 2] = [("public/a.txt", b""), ("public/_redirects", b"/* /index.html 200")];
        let error = built(&files).unwrap_err();
        assert!(matches!(error, BuildError::Rewrite { .. }) && error.hint().is_some(), "{error}");
        let error = built(&[("public/a.txt", b""), ("wharf.toml", b"[site]\nspa = true")]).unwrap_err();
        assert!(matches!(error, BuildError::NoIndex) && error.hint().is_some(), "{error}");
    }

    #[test]
    fn folders_that_workers_mount_go_along_and_none_of_elsewhere_does() {
        let http = component_exporting("wasi:http/incoming-handler@0.2.0");
        let settings = |app: &str| format!("[workers.x]\nmounts = [{{ app = {app:?}, guest = \"/d\" }}]");
        let built_with = |app: &str| {
            built(&[("x.wasm", &http), ("data/a/b.txt", b"b"), ("wharf.toml", settings(app).as_bytes())])
        };
        let files = built_with("data").unwrap().files;
        let names: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.sha256)).collect();
        assert_eq!(names, [("data/a/b.txt", Sha256::of(b"b"))]);
        assert!(matches!(built_with("none").unwrap_err(), BuildError::Folder { .. }));

        let folder = tempfile::tempdir().unwrap();
        let (project, outside) = (folder.path().join("project"), folder.path().join("outside"));
        fs_err::create_dir_all(&project).unwrap();
        fs_err::create_dir_all(&outside).unwrap();
        fs_err::write(outside.join("secret"), "").unwrap();
        fs_err::write(project.join("x.wasm"), &http).unwrap();
        fs_err::write(project.join("wharf.toml"), settings("data")).unwrap();
        std::os::unix::fs::symlink(&outside, project.join("data")).unwrap();
        let workshop = Workshop::new(folder.path().join("cache"), folder.path().join("none"));
        let error = BuiltApp::build(&Project::open(&project).unwrap(), &workshop, &|_| {}).unwrap_err();
        let cause = Error::source(&error).unwrap().to_string();
        assert!(cause.contains("found a link to"), "{cause}");
    }

    #[test]
    fn workers_of_equal_content_share_a_component() {
        let http = component_exporting("wasi:http/incoming-handler@0.2.0");
        let app = built(&[("a.wasm", &http), ("b.wasm", &http)]).unwrap();
        assert_eq!((app.manifest.components.len(), app.components.len()), (1, 1));
        assert_eq!(app.manifest.workers.iter().map(|worker| worker.component).collect::<Vec<_>>(), [0, 0]);
    }

    #[test]
    fn a_command_speaks_cgi_unless_told_otherwise_and_its_module_stays_one() {
        let module = wat::parse_str(MODULE).unwrap();
        let command = component_exporting("wasi:cli/run@0.2.0");
        let settings = b"[workers.b]\nabi = \"wws\"";
        let app = built(&[("a.wasm", &module), ("b.wasm", &command), ("wharf.toml", settings)]).unwrap();
        let workers = app.manifest.workers.iter().map(|worker| (worker.name.as_str(), worker.abi));
        assert_eq!(workers.collect::<Vec<_>>(), [("a", Abi::Cgi), ("b", Abi::Wws)]);
        let components = app.manifest.components.iter().map(|component| (component.sha256, component.wasi));
        let expected = [(Sha256::of(&module), Wasi::V01), (Sha256::of(&command), Wasi::V02)];
        assert_eq!(components.collect::<Vec<_>>(), expected);
        let json = String::from_utf8(app.manifest.to_json()).unwrap();
        assert!(json.contains(r#""abi":"cgi""#) && json.contains(r#""abi":"wws""#), "{json}");
    }

    #[test]
    fn what_cannot_be_a_worker_is_named_with_a_hint() {
        let http = component_exporting("wasi:http/incoming-handler@0.2.0");
        for (content, settings, expected) in [
            (&b"\0asm\x01\0\0\0"[..], &b""[..], "found one that exports nothing"),
            (b"hello world", b"", "found something else"),
            (&http, b"[workers.x]\nabi = \"cgi\"", "exports wasi:http/incoming-handler"),
        ] {
            let error = built(&[("x.wasm", content), ("wharf.toml", settings)]).unwrap_err();
            assert_eq!(error.to_string(), "cannot load worker \"x.wasm\"");
            let cause = Error::source(&error).unwrap().to_string();
            assert!(cause.ends_with(expected), "{cause}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn an_unknown_abi_is_refused_with_those_there_are() {
        let error = toml::from_str::<crate::Config>("[workers.x]\nabi = \"fastcgi\"").unwrap_err();
        assert!(error.to_string().contains("expected one of `http`, `cgi`, `wws`"), "{error}");
    }
}
