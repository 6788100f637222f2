//! `wharf new`: a project that runs at once.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use include_dir::{Dir, DirEntry, include_dir};
use wharf_app::{Language, ToolError, Toolchain};

use crate::output;
use crate::places::Places;
use crate::rust;

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates");

/// Make a project: a site and a worker.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf new shop --template typescript && wharf dev shop")]
pub(crate) struct New {
    /// The project's folder, which must not be there yet, or be empty.
    dir: PathBuf,
    /// What the worker is written in; `site` has none.
    #[arg(long, default_value = "python")]
    template: Template,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Template {
    Site,
    Python,
    Javascript,
    Typescript,
    Ruby,
    Go,
    Rust,
    C,
}

impl Template {
    const fn folder(self) -> Option<&'static str> {
        Some(match self {
            Self::Site => return None,
            Self::Python => "python",
            Self::Javascript => "javascript",
            Self::Typescript => "typescript",
            Self::Ruby => "ruby",
            Self::Go => "go",
            Self::Rust => "rust",
            Self::C => "c",
        })
    }

    const fn language(self) -> Option<Language> {
        match self {
            Self::Python => Some(Language::Python),
            Self::Javascript | Self::Typescript => Some(Language::JavaScript),
            Self::Ruby => Some(Language::Ruby),
            Self::Go => Some(Language::Go),
            Self::Site | Self::Rust | Self::C => None,
        }
    }
}

pub(crate) fn run(args: &New) -> Result<ExitCode> {
    make(&args.dir, args.template)?;
    let dir = args.dir.display();
    output::line(&dir)?;
    // What would be in the way of the first `wharf serve`.
    let runtimes = Places::from_env()?.workshop().runtimes;
    let missing = match (args.template, args.template.language()) {
        (_, Some(language)) => {
            Toolchain::find(language, None, &runtimes).err().as_ref().and_then(ToolError::hint)
        }
        (Template::Rust, None) if rust::find().is_none() => Some("run `wharf runtimes install rust`".into()),
        _ => None,
    };
    if let Some(hint) = missing {
        output::remark(format!("hint: {hint}"));
    }
    output::remark(format!("next: wharf dev {dir}"));
    Ok(ExitCode::SUCCESS)
}

/// Writes the project, whole or not at all.
fn make(dir: &Path, template: Template) -> Result<()> {
    match fs_err::read_dir(dir) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                bail!("{} is not empty: expected a new folder, or an empty one", dir.display());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs_err::create_dir_all(parent)?;
    let stage = tempfile::Builder::new().prefix(".new-").tempdir_in(parent);
    let stage = stage.with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    let project = stage.path().join("project");
    fs_err::create_dir(&project)?;
    for folder in std::iter::once("all").chain(template.folder()) {
        if let Some(folder) = TEMPLATES.get_dir(folder) {
            write(folder, folder.path(), &project, template)?;
        }
    }
    // An empty folder is replaced.
    fs_err::rename(&project, dir)?;
    Ok(())
}

fn write(dir: &Dir<'_>, root: &Path, project: &Path, template: Template) -> Result<()> {
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(dir) => write(dir, root, project, template)?,
            DirEntry::File(file) => {
                let path = file.path().strip_prefix(root).unwrap_or(file.path());
                // Cargo would take its own manifest for a package of this workspace.
                let path = project.join(path.to_str().unwrap_or_default().trim_end_matches(".in"));
                fs_err::create_dir_all(path.parent().unwrap_or(project))?;
                let text = file.contents_utf8().unwrap_or_default();
                fs_err::write(path, if template == Template::Site { alone(text) } else { text.to_owned() })?;
            }
        }
    }
    Ok(())
}

/// The page without what asks the worker.
fn alone(text: &str) -> String {
    let (before, rest) = text.split_once("<script").unwrap_or((text, ""));
    let after = rest.split_once("</script>\n").map_or("", |(_, after)| after);
    let before = before.replace(" The worker says: <output id=\"answer\">…</output>", "");
    before.replace("A site and a worker", "A site") + after
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_app::Project;

    #[test]
    fn each_template_is_a_project_with_its_worker() {
        for template in Template::value_variants() {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path().join("a/b");
            make(&dir, *template).unwrap();
            let project = Project::open(&dir).unwrap();
            let workers: Vec<&str> = project.workers().iter().map(|worker| worker.name.as_str()).collect();
            let expected: &[&str] = if *template == Template::Site { &[] } else { &["api/hello"] };
            assert_eq!(workers, expected, "{template:?}");
            let page = fs_err::read_to_string(dir.join("public/index.html")).unwrap();
            assert_eq!(page.contains("/api/hello"), *template != Template::Site, "{page}");
            assert!(page.ends_with("</html>\n"));
        }
    }

    #[test]
    fn a_folder_with_files_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), Template::Site).unwrap();
        assert!(make(folder.path(), Template::Site).unwrap_err().to_string().contains("is not empty"));
    }
}
