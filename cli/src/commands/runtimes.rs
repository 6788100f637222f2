//! `wharf runtimes`: the toolchains that make components of workers.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use wharf_app::{Language, Lock, Place, Project, Release, Toolchain, default_release};

use crate::arguments::Global;
use crate::output;
use crate::places::Places;
use crate::progress::Progress;
use crate::rust;

/// List, install or remove language toolchains.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharf runtimes\n  wharf runtimes install python\n  \
    wharf runtimes install javascript latest")]
pub(crate) struct Runtimes {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Which toolchains there are (the default).
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Install a toolchain, through your own pip, npm or rustup.
    ///
    /// In a project its version is recorded in wharf.lock, and builds use that one
    /// from then on.
    Install {
        /// The language.
        name: Name,
        /// Its version, or `latest`. Default: what wharf.lock says, else the one
        /// that this wharf is made for.
        version: Option<String>,
        /// The project.
        #[arg(long, default_value = ".", value_name = "DIR")]
        project: PathBuf,
    },
    /// Remove a toolchain that `install` made.
    Remove {
        /// The language.
        name: Name,
        /// Its version. Default: all of them.
        version: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Python,
    #[value(alias = "js", alias = "typescript")]
    Javascript,
    Ruby,
    Go,
    Rust,
}

impl Name {
    /// Whose toolchain wharf keeps; Rust's is rustup's.
    const fn language(self) -> Option<Language> {
        match self {
            Self::Python => Some(Language::Python),
            Self::Javascript => Some(Language::JavaScript),
            Self::Ruby => Some(Language::Ruby),
            Self::Go => Some(Language::Go),
            Self::Rust => None,
        }
    }
}

/// One line of the list.
#[derive(Serialize)]
struct Runtime {
    name: &'static str,
    version: String,
    /// None: it is missing.
    path: Option<PathBuf>,
    /// Whether builds of this folder use it.
    used: bool,
    /// What installs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    install: Option<String>,
}

pub(crate) fn run(args: &Runtimes, global: &Global) -> Result<ExitCode> {
    let runtimes = Places::from_env()?.workshop().runtimes;
    match args.action.as_ref().unwrap_or(&Action::List { json: false }) {
        Action::List { json } => list(&runtimes, *json)?,
        Action::Install { name, version, project } => {
            install(*name, version.as_deref(), project, &runtimes, global)?;
        }
        Action::Remove { name, version } => match name.language() {
            Some(language) => {
                if Toolchain::remove(language, version.as_deref(), &runtimes)? == 0 {
                    output::remark("nothing to remove");
                }
            }
            None => bail!("wharf keeps no Rust: expected `rustup target remove {}`", rust::TARGET),
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn list(runtimes: &Path, json: bool) -> Result<()> {
    let lock = Lock::read(Path::new("."))?;
    let mut rows = Vec::new();
    for language in [Language::Python, Language::JavaScript, Language::Ruby, Language::Go] {
        let used = Toolchain::find(language, lock.release(language), runtimes).ok();
        if used.is_none() {
            let install = match lock.release(language) {
                Some(release) => format!("wharf runtimes install {} {release}", language.name()),
                None => format!("wharf runtimes install {}", language.name()),
            };
            let version = lock.release(language).unwrap_or(default_release(language)).to_owned();
            rows.push(Runtime {
                name: language.name(),
                version,
                path: None,
                used: true,
                install: Some(install),
            });
        }
        for toolchain in Toolchain::all(language, runtimes) {
            let (Place::Managed(path) | Place::Program(path)) = &toolchain.place;
            rows.push(Runtime {
                name: language.name(),
                version: toolchain.version.clone(),
                path: Some(path.clone()),
                used: used.as_ref() == Some(&toolchain),
                install: None,
            });
        }
    }
    let found = rust::find();
    rows.push(Runtime {
        name: "rust",
        version: found.as_ref().map_or_else(|| rust::TARGET.to_owned(), |found| found.version.clone()),
        used: found.is_some(),
        install: found.is_none().then(|| "wharf runtimes install rust".into()),
        path: found.map(|found| found.library),
    });
    if json {
        return output::json(&rows);
    }
    let cells = rows.into_iter().map(|row| {
        let place = match (row.path, row.install) {
            (Some(path), _) => path.display().to_string(),
            (None, install) => format!("missing: {}", install.unwrap_or_default()),
        };
        let mark = if row.used { "*" } else { "" };
        [row.name.to_owned(), row.version, mark.to_owned(), place]
    });
    output::table(&cells.collect::<Vec<_>>())
}

fn install(
    name: Name,
    version: Option<&str>,
    project: &Path,
    runtimes: &Path,
    global: &Global,
) -> Result<()> {
    let progress = Progress::new(global);
    let Some(language) = name.language() else {
        anyhow::ensure!(version.is_none(), "rustup chooses the version of Rust: expected no version");
        progress.step(format!("installing Rust's target {}", rust::TARGET));
        let found = rust::install()?;
        drop(progress);
        return output::line(found.library.display());
    };
    let mut lock = Lock::read(project)?;
    let release = match version.or(lock.release(language)).unwrap_or(default_release(language)) {
        "latest" => Release::Latest,
        version => Release::Exactly(version.to_owned()),
    };
    progress.step(format!("installing the tools of {language}"));
    let toolchain = Toolchain::install(language, &release, runtimes)?;
    drop(progress);
    // Elsewhere than in a project that uses it there is nothing to record.
    let is_used = |project: &Project| project.workers().iter().any(|worker| worker.language == language);
    if Project::open(project).is_ok_and(|project| is_used(&project)) {
        lock.fix_release(language, &toolchain.version);
        lock.write(project)?;
    }
    let (Place::Managed(path) | Place::Program(path)) = &toolchain.place;
    output::line(path.display())
}
