//! A project folder as its author wrote it.
//!
//! Zero configuration: `public/**` is the site, and every other source file
//! in a worker's language is a worker at its path. Names that begin with `_`
//! or `.` are private. Nothing is read here but names, `wharf.toml`, and the
//! site's `_headers` and `_redirects`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::config::{Config, ConfigError};
use crate::headers::{HEADERS_FILE, HeaderRule, parse_headers};
use crate::pattern::{InvalidPattern, Pattern};
use crate::redirects::{REDIRECTS_FILE, Redirect, parse_redirects};
use crate::rules::RuleError;

/// The folder of the site within a project.
pub const SITE_FOLDER: &str = "public";

/// Folders of other people's files, never searched for workers.
const FOREIGN_FOLDERS: [&str; 4] = ["node_modules", "target", "venv", "__pycache__"];

/// A project folder: what is in it, not yet built.
#[derive(Clone, Debug)]
pub struct Project {
    dir: PathBuf,
    name: String,
    config: Config,
    site: Vec<SiteFile>,
    headers: Vec<HeaderRule>,
    redirects: Vec<Redirect>,
    workers: Vec<WorkerSource>,
    python: Vec<String>,
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
    /// Path below the project: `api/hello.py`.
    pub path: String,
    /// What it answers.
    pub pattern: Pattern,
    /// What it is written in.
    pub language: Language,
}

/// What a worker is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// A component, made by whatever tool.
    Wasm,
    /// `def worker(request)`, made into a component by componentize-py.
    Python,
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
    /// A language that this version can't build.
    #[error("cannot build {path:?}: workers in {language} are not supported yet")]
    Language {
        /// The source.
        path: String,
        /// The language's name.
        language: &'static str,
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
            Self::Language { path, .. } => {
                let (folder, name) = path.rsplit_once('/').map_or(("", path.as_str()), |(f, n)| (f, n));
                let slash = if folder.is_empty() { "" } else { "/" };
                Some(format!(
                    "build it to a wasi:http component (.wasm), or make it private: {folder}{slash}_{name}"
                ))
            }
            Self::Rule(error) => error.hint(),
            Self::Config(error) => error.hint(),
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
        let config = Config::read(&dir)?;
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
        let (workers, python) = sources(&dir)?;
        if site.is_empty() && workers.is_empty() && redirects.is_empty() {
            return Err(ProjectError::Empty(dir));
        }
        if let Some(name) =
            config.workers.keys().find(|name| workers.iter().all(|worker| worker.name != **name))
        {
            let known: Vec<&str> = workers.iter().map(|worker| worker.name.as_str()).collect();
            return Err(ProjectError::UnknownWorker { name: name.clone(), known: known.join(", ") });
        }
        Ok(Self { dir, name, config, site, headers, redirects, workers, python })
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

    /// All Python sources, private ones too: paths below the project, sorted.
    #[must_use]
    pub fn python_files(&self) -> &[String] {
        &self.python
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wasm => "WebAssembly",
            Self::Python => "Python",
        })
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

/// The workers of the project, and all its Python files.
fn sources(dir: &Path) -> Result<(Vec<WorkerSource>, Vec<String>), ProjectError> {
    let searched = |entry: &DirEntry| {
        let name = entry.file_name().as_encoded_bytes();
        let foreign = FOREIGN_FOLDERS.iter().any(|folder| folder.as_bytes() == name)
            || (entry.depth() == 1 && name == SITE_FOLDER.as_bytes());
        entry.depth() == 0 || !(name.starts_with(b".") || foreign && entry.file_type().is_dir())
    };
    let mut workers = Vec::new();
    let mut python = Vec::new();
    for entry in WalkDir::new(dir).sort_by_file_name().into_iter().filter_entry(searched) {
        let entry = entry.map_err(ProjectError::Walk)?;
        if !entry.file_type().is_file() {
            continue;
        }
        let extension = entry.path().extension().and_then(|extension| extension.to_str());
        let language = match extension {
            Some("wasm") => Ok(Language::Wasm),
            Some("py") => Ok(Language::Python),
            Some("js" | "mjs") => Err("JavaScript"),
            Some("ts") => Err("TypeScript"),
            Some("rb") => Err("Ruby"),
            Some("go") => Err("Go"),
            _ => continue,
        };
        let path = relative(dir, entry.path())?;
        if language == Ok(Language::Python) {
            python.push(path.clone());
        }
        if path.split('/').any(|part| part.starts_with('_')) {
            continue;
        }
        let language =
            language.map_err(|language| ProjectError::Language { path: path.clone(), language })?;
        workers.push(WorkerSource::new(path, language)?);
    }
    workers.sort_by(|a, b| a.pattern.cmp(&b.pattern).then_with(|| a.path.cmp(&b.path)));
    Ok((workers, python))
}

impl WorkerSource {
    fn new(path: String, language: Language) -> Result<Self, ProjectError> {
        let name = path.rsplit_once('.').map_or(path.as_str(), |(name, _)| name).to_owned();
        let route = match name.as_str() {
            "index" => "",
            name => name.strip_suffix("/index").unwrap_or(name),
        };
        let pattern = format!("/{route}")
            .parse()
            .map_err(|source| ProjectError::Pattern { path: path.clone(), source })?;
        Ok(Self { name, path, pattern, language })
    }
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
