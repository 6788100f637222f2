//! A project folder as its author wrote it.
//!
//! Zero configuration: `public/**` is the site, and every other source file
//! in a worker's language is a worker at its path. Names that begin with `_`
//! or `.` are private. Nothing is read here but names, `wharf.toml`, `wharf.lock`,
//! the site's `_headers` and `_redirects`, and of Go sources whether they are programs.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::config::{ComponentSource, Config, ConfigError};
use crate::go;
use crate::grants::{StorePlace, Value};
use crate::headers::{HEADERS_FILE, HeaderRule, parse_headers};
use crate::language::Language;
use crate::lock::{Lock, LockError};
use crate::pattern::{InvalidPattern, Pattern};
use crate::prefix::{Prefix, PrefixError};
use crate::redirects::{REDIRECTS_FILE, Redirect, parse_redirects};
use crate::rules::RuleError;
use crate::wws::{self, WwsError};

/// The folder of the site within a project.
pub const SITE_FOLDER: &str = "public";

/// Folders of other people's files, never searched for workers.
pub(crate) const FOREIGN_FOLDERS: [&str; 4] = ["node_modules", "target", "venv", "__pycache__"];

/// A folder of other people's code that is part of the project: it can be imported, and
/// holds no workers.
const VENDOR_FOLDER: &str = "vendor";

/// A project folder: what is in it, not yet built.
#[derive(Clone, Debug)]
pub struct Project {
    dir: PathBuf,
    name: String,
    config: Config,
    lock: Lock,
    site: Vec<SiteFile>,
    headers: Vec<HeaderRule>,
    redirects: Vec<Redirect>,
    workers: Vec<WorkerSource>,
    files: Vec<String>,
    is_wws: bool,
}

/// A file of the site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SiteFile {
    /// Path below `public/`, with `/` between its parts.
    pub path: String,
    /// Where its content is.
    pub source: PathBuf,
}

/// A worker's source.
#[derive(Clone, Debug)]
pub struct WorkerSource {
    /// Path below the project without extension: `api/hello`.
    pub name: String,
    /// Path below the project: `api/hello.py`; of a component in a registry its
    /// reference.
    pub path: String,
    /// What it answers.
    pub pattern: Pattern,
    /// What it is written in.
    pub language: Language,
    /// Where its program comes from.
    pub origin: Origin,
}

/// Where a worker's program comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A source that was found in the folder.
    File,
    /// A file that `wharf.toml` names, perhaps made by a command.
    Named,
    /// A registry.
    Registry,
}

/// Why a folder is not a project.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// There is no such folder.
    #[error("no such project folder: {}", .0.display())]
    NoFolder(PathBuf),
    /// It is a file.
    #[error("{} is a file: expected a project folder", .0.display())]
    NotAFolder(PathBuf),
    /// Nothing to serve.
    #[error("nothing to serve in {}: expected a site under public/ or a worker such as index.py", .0.display())]
    Empty(PathBuf),
    /// The settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The settings of Wasm Workers Server are wrong.
    #[error(transparent)]
    Wws(#[from] WwsError),
    /// `wharf.lock` is wrong.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A worker has a source and a component.
    #[error("worker {name:?} has the source {path:?} and a component in wharf.toml: expected one of them")]
    Twice {
        /// The worker.
        name: String,
        /// Its source.
        path: String,
    },
    /// A Go source can't be read; the cause names it.
    #[error("cannot read Go source")]
    ReadSource(#[source] io::Error),
    /// `[workers."NAME"]` of `wharf.toml` names no worker.
    #[error("wharf.toml has settings for worker {name:?}, which does not exist: expected one of {known}")]
    UnknownWorker {
        /// The name in the settings.
        name: String,
        /// The workers that there are.
        known: String,
    },
    /// A rule of `_headers`, `_redirects` or `wharf.toml` has no meaning.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The project can't be below a prefix.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// The file of rules can't be read; the cause names it.
    #[error("cannot read rules of the site")]
    ReadRules(#[source] io::Error),
    /// A folder can't be listed.
    #[error("cannot list project files")]
    Walk(#[source] walkdir::Error),
    /// A name that no URL could spell.
    #[error("file name {} is not UTF-8: expected a name that a URL can spell", .0.display())]
    NotUtf8(PathBuf),
    /// A symbolic link that leaves the project.
    #[error("{} is a link to {}: expected it to stay within the project", path.display(), target.display())]
    EscapingLink {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A link that can't be followed; the cause names it.
    #[error("cannot follow link")]
    Link(#[source] io::Error),
    /// The name of a worker makes no route.
    #[error("cannot make a route of {path:?}")]
    Pattern {
        /// The source.
        path: String,
        /// What is wrong.
        #[source]
        source: InvalidPattern,
    },
}

impl ProjectError {
    /// What the user can do about it, if that isn't plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoFolder(_) | Self::NotAFolder(_) => {
                Some("give the folder that holds public/ and the workers, or run in it".into())
            }
            Self::Empty(_) => {
                Some("put files under public/, or write a worker: def worker(request) in index.py".into())
            }
            Self::Rule(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Lock(error) => error.hint(),
            Self::Wws(error) => error.hint(),
            Self::Prefix(error) => error.hint(),
            Self::Twice { path, .. } => Some(format!(
                "make the source private by an underscore in front of its name ({path}), or remove `component`"
            )),
            _ => None,
        }
    }
}

impl Project {
    /// Looks at the project in `dir`.
    ///
    /// # Errors
    /// [`ProjectError`]: the folder is not there, holds nothing to serve, or
    /// holds something that can't be.
    pub fn open(dir: &Path) -> Result<Self, ProjectError> {
        match fs_err::metadata(dir) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(ProjectError::NotAFolder(dir.to_owned())),
            Err(_) => return Err(ProjectError::NoFolder(dir.to_owned())),
        }
        let dir = fs_err::canonicalize(dir).map_err(ProjectError::Link)?;
        let mut config = Config::read(&dir)?;
        let lock = Lock::read(&dir)?;
        // Not the folder's name: the same project gives the same image, wherever
        // it lies.
        let name = config.name.clone().unwrap_or_else(|| "app".into());
        let mut site = site_files(&dir)?;
        let mut headers = Vec::new();
        if let Some(text) = take_rules(&mut site, HEADERS_FILE)? {
            headers = parse_headers(&text, &format!("{SITE_FOLDER}/{HEADERS_FILE}"))?;
        }
        headers.extend(config.site.header_rules()?);
        let mut redirects = Vec::new();
        if let Some(text) = take_rules(&mut site, REDIRECTS_FILE)? {
            redirects = parse_redirects(&text, &format!("{SITE_FOLDER}/{REDIRECTS_FILE}"))?;
        }
        redirects.extend_from_slice(config.site.redirect_rules()?);
        let (mut workers, mut files) = sources(&dir)?;
        let wws = wws::settings(&dir, &mut workers)?;
        let is_wws = wws.is_some();
        for (worker, (file, settings)) in wws.into_iter().flatten() {
            if config.workers.contains_key(&worker) {
                return Err(WwsError::Twice { worker, file }.into());
            }
            config.workers.insert(worker, settings);
        }
        let data = data_folders(&dir, &config);
        let is_source = |path: &str| !data.iter().any(|folder| Path::new(path).starts_with(folder));
        workers.retain(|worker| is_source(&worker.path));
        files.retain(|path| is_source(path));
        configure(&mut workers, &config)?;
        if site.is_empty() && workers.is_empty() && redirects.is_empty() {
            return Err(ProjectError::Empty(dir));
        }
        if let Some(name) =
            config.workers.keys().find(|name| workers.iter().all(|worker| worker.name != **name))
        {
            let known: Vec<&str> = workers.iter().map(|worker| worker.name.as_str()).collect();
            return Err(ProjectError::UnknownWorker { name: name.clone(), known: known.join(", ") });
        }
        Ok(Self { dir, name, config, lock, site, headers, redirects, workers, files, is_wws })
    }

    /// The same, with `prefix` in front of all its URLs: those of workers and files, and
    /// of the rules for them. Links in pages and in answers stay as they are.
    ///
    /// # Errors
    /// [`ProjectError::Prefix`]: a single-page app, whose page knows its own address.
    pub fn below(mut self, prefix: &Prefix) -> Result<Self, ProjectError> {
        if self.config.site.spa {
            return Err(PrefixError::SinglePage.into());
        }
        if self.workers.iter().any(|worker| worker.pattern.to_string() == "/") {
            // The worker answers for it, with and without a slash at the end.
            self.site.retain(|file| file.path != "index.html");
        }
        for worker in &mut self.workers {
            let pattern = prefix.before(&worker.pattern.to_string());
            worker.pattern = pattern
                .parse()
                .map_err(|source| ProjectError::Pattern { path: worker.path.clone(), source })?;
        }
        for file in &mut self.site {
            file.path = prefix.before_file(&file.path);
        }
        for rule in &mut self.headers {
            rule.pattern = prefix.before(&rule.pattern);
        }
        for rule in &mut self.redirects {
            rule.from = prefix.before(&rule.from);
            rule.to = prefix.before(&rule.to);
        }
        Ok(self)
    }

    /// The folder, absolute and without links.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The app's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Whether it is one of Wasm Workers Server, by its settings.
    #[must_use]
    pub const fn is_wws(&self) -> bool {
        self.is_wws
    }

    /// What it is built with.
    #[must_use]
    pub const fn lock(&self) -> &Lock {
        &self.lock
    }

    /// The files of the site, sorted by path.
    #[must_use]
    pub fn site(&self) -> &[SiteFile] {
        &self.site
    }

    /// The rules of `_headers`, then those of `wharf.toml`.
    #[must_use]
    pub fn headers(&self) -> &[HeaderRule] {
        &self.headers
    }

    /// The rules of `_redirects`, then those of `wharf.toml`.
    #[must_use]
    pub fn redirects(&self) -> &[Redirect] {
        &self.redirects
    }

    /// The workers, in order of precedence.
    #[must_use]
    pub fn workers(&self) -> &[WorkerSource] {
        &self.workers
    }

    /// All files that are neither the site's nor hidden nor other people's: paths below
    /// the project, sorted.
    #[must_use]
    pub fn files(&self) -> &[String] {
        &self.files
    }
}

/// The files under `public/`, hidden ones left out but for `.well-known`.
fn site_files(dir: &Path) -> Result<Vec<SiteFile>, ProjectError> {
    let root = dir.join(SITE_FOLDER);
    if !root.is_dir() {
        return Ok(Vec::new());
    }
    let visible = |entry: &DirEntry| {
        let name = entry.file_name().as_encoded_bytes();
        entry.depth() == 0 || !name.starts_with(b".") || name == b".well-known"
    };
    let mut files = Vec::new();
    for entry in WalkDir::new(&root).follow_links(true).into_iter().filter_entry(visible) {
        let entry = entry.map_err(ProjectError::Walk)?;
        stays_within(dir, &entry)?;
        if entry.file_type().is_file() {
            files.push(SiteFile { path: relative(&root, entry.path())?, source: entry.into_path() });
        }
    }
    files.sort();
    Ok(files)
}

/// The text of the rules in the file `name` of the site, which is no file of
/// the site from then on.
fn take_rules(site: &mut Vec<SiteFile>, name: &str) -> Result<Option<Vec<u8>>, ProjectError> {
    let Ok(at) = site.binary_search_by(|file| file.path.as_str().cmp(name)) else { return Ok(None) };
    let file = site.remove(at);
    fs_err::read(file.source).map(Some).map_err(ProjectError::ReadRules)
}

/// The workers of the project, and all its files.
fn sources(dir: &Path) -> Result<(Vec<WorkerSource>, Vec<String>), ProjectError> {
    let searched = |entry: &DirEntry| {
        let name = entry.file_name().as_encoded_bytes();
        let foreign = FOREIGN_FOLDERS.iter().any(|folder| folder.as_bytes() == name)
            || (entry.depth() == 1 && name == SITE_FOLDER.as_bytes());
        entry.depth() == 0 || !(name.starts_with(b".") || foreign && entry.file_type().is_dir())
    };
    let mut workers = Vec::new();
    let mut files = Vec::new();
    for entry in WalkDir::new(dir).sort_by_file_name().into_iter().filter_entry(searched) {
        let entry = entry.map_err(ProjectError::Walk)?;
        if !entry.file_type().is_file() {
            continue;
        }
        let path = relative(dir, entry.path())?;
        let name = path.rsplit('/').next().unwrap_or(&path);
        let language = Language::of_file(name);
        files.push(path.clone());
        if path.split('/').any(|part| part.starts_with('_')) {
            continue;
        }
        // Other people's code, which comes with the project.
        let is_vendored = path.split('/').any(|part| part == VENDOR_FOLDER);
        let Some(language) = language.filter(|_| !is_vendored) else { continue };
        if language == Language::Go && !is_go_program(entry.path())? {
            continue;
        }
        workers.push(WorkerSource::of_file(path, language)?);
    }
    // A package is there to be imported.
    let packages: Vec<&str> = files.iter().filter_map(|path| path.strip_suffix("/__init__.py")).collect();
    let is_below =
        |path: &str, package: &&str| path.strip_prefix(package).is_some_and(|rest| rest.starts_with('/'));
    workers.retain(|worker| {
        worker.language != Language::Python || !packages.iter().any(|package| is_below(&worker.path, package))
    });
    // A Rack application answers for its folder: what lies there is its own.
    let applications: Vec<String> =
        workers.iter().filter_map(|worker| worker.path.strip_suffix(RACKUP)).map(ToOwned::to_owned).collect();
    workers.retain(|worker| {
        !worker.path.ends_with(".rb") || !applications.iter().any(|folder| worker.path.starts_with(folder))
    });
    files.sort();
    Ok((workers, files))
}

/// The folders of the project that workers keep data in, where `wharf serve` runs in it:
/// what lies there is nobody's source, and must not become part of an image.
fn data_folders(dir: &Path, config: &Config) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for worker in config.workers.values() {
        let stores = worker.kv.values().filter_map(|place| match place {
            Value::Fixed(place) => place.parse().ok(),
            Value::Host(_) => None,
        });
        let stores = stores.filter_map(|place| match place {
            StorePlace::Folder(path) => Some(path),
            StorePlace::Redis(_) => None,
        });
        let mounts = worker.mounts.iter().filter(|mount| mount.app.is_none());
        for place in stores.chain(mounts.map(|mount| mount.host.clone())) {
            let below: PathBuf = match place.strip_prefix(dir) {
                Ok(below) => below.to_owned(),
                Err(_) if place.is_absolute() => continue,
                Err(_) => place,
            };
            let below: PathBuf = below.components().filter(|part| *part != Component::CurDir).collect();
            // All of it, or what is beside it, would be no project.
            if below.components().next().is_some_and(|part| matches!(part, Component::Normal(_))) {
                folders.insert(below);
            }
        }
    }
    folders
}

/// The file of a Rack application.
const RACKUP: &str = "config.ru";

/// Go's packages have files that are no programs.
fn is_go_program(path: &Path) -> Result<bool, ProjectError> {
    let text = fs_err::read(path).map_err(ProjectError::ReadSource)?;
    Ok(go::is_program(&String::from_utf8_lossy(&text)))
}

/// Adds the workers that `wharf.toml` has components for, gives routes to those
/// that it names, and sorts all by precedence.
fn configure(workers: &mut Vec<WorkerSource>, config: &Config) -> Result<(), ProjectError> {
    for (name, settings) in &config.workers {
        let found = workers.iter().position(|worker| worker.name == *name);
        let index = match (&settings.component, found) {
            (Some(_), Some(index)) => {
                return Err(ProjectError::Twice { name: name.clone(), path: workers[index].path.clone() });
            }
            (Some(component), None) => {
                let (path, origin) = match component {
                    ComponentSource::File(path) => (path.clone(), Origin::Named),
                    ComponentSource::Registry(reference) => (reference.clone(), Origin::Registry),
                };
                let pattern = pattern_of(name, &path)?;
                let (name, language) = (name.clone(), Language::Wasm);
                workers.push(WorkerSource { name, path, pattern, language, origin });
                workers.len() - 1
            }
            (None, Some(index)) => index,
            // An unknown worker, which is said with those that there are.
            (None, None) => continue,
        };
        if let Some(route) = &settings.route {
            workers[index].pattern = route.clone();
        }
    }
    workers.sort_by(|a, b| a.pattern.cmp(&b.pattern).then_with(|| a.path.cmp(&b.path)));
    Ok(())
}

impl WorkerSource {
    pub(crate) fn of_file(path: String, language: Language) -> Result<Self, ProjectError> {
        let name = path.rsplit_once('.').map_or(path.as_str(), |(name, _)| name).to_owned();
        let pattern = pattern_of(&name, &path)?;
        Ok(Self { name, path, pattern, language, origin: Origin::File })
    }
}

/// The route of the worker `name`, whose source is at `path`.
fn pattern_of(name: &str, path: &str) -> Result<Pattern, ProjectError> {
    let route = match name {
        "index" => "".to_owned(),
        // A Rack application has routes of its own.
        _ if path.ends_with(RACKUP) => format!("{}[...path]", path.trim_end_matches(RACKUP)),
        name => name.strip_suffix("/index").unwrap_or(name).to_owned(),
    };
    format!("/{route}").parse().map_err(|source| ProjectError::Pattern { path: path.to_owned(), source })
}

fn stays_within(dir: &Path, entry: &DirEntry) -> Result<(), ProjectError> {
    if entry.path_is_symlink() {
        let target = fs_err::canonicalize(entry.path()).map_err(ProjectError::Link)?;
        if !target.starts_with(dir) {
            return Err(ProjectError::EscapingLink { path: entry.path().to_owned(), target });
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> Result<String, ProjectError> {
    let below = path.strip_prefix(root).unwrap_or(path);
    below.to_str().map(ToOwned::to_owned).ok_or_else(|| ProjectError::NotUtf8(path.to_owned()))
}

#[cfg(test)]
mod tests;
