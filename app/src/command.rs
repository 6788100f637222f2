//! Workers that a command of the user's builds: cargo, make, zig, asc, anything
//! that leaves a `.wasm` file.
//!
//! It runs in a shell, in the folder `workdir`, when something of what it is built
//! of has changed, and is judged by its exit code and by the file. A project from
//! elsewhere runs none unless the user says so: a command can do all that its user can.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use walkdir::{DirEntry, WalkDir};

use crate::build::Workshop;
use crate::digest::Sha256;
use crate::inputs::{Inputs, Record};
use crate::project::{FOREIGN_FOLDERS, Project, SITE_FOLDER};
use crate::toolchain::words;

/// What builds leave beside their sources.
const OUTPUT_FOLDERS: [&str; 5] = ["bin", "build", "dist", "zig-cache", "zig-out"];

/// `build` of a worker: a command, or a table with more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildCommand {
    /// What `sh -c` runs.
    pub command: String,
    /// Where, below the project. Default: the project's folder.
    pub workdir: PathBuf,
    /// Files and folders, below `workdir`, of which it is built. Default: all of
    /// `workdir` but hidden files and what builds leave.
    pub watch: Vec<PathBuf>,
}

/// Why a command built no worker.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It failed.
    #[error("build command of worker {worker:?} failed ({status}): {command}\n{report}")]
    Failed {
        /// The worker.
        worker: String,
        /// The command.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it said.
        report: String,
    },
    /// It succeeded, and the file is not there.
    #[error("build command of worker {worker:?} made no {path:?}: {command}")]
    NoOutput {
        /// The worker.
        worker: String,
        /// `component` of the worker.
        path: String,
        /// The command.
        command: String,
    },
    /// A path that its settings name.
    #[error("`{setting}` of worker {worker:?} names {path:?}: no such {} below {folder}", if *setting == "watch" { "file or folder" } else { "folder" })]
    NoSuchPath {
        /// The worker.
        worker: String,
        /// `workdir` or `watch`.
        setting: &'static str,
        /// What it names.
        path: PathBuf,
        /// What that is relative to.
        folder: String,
    },
    /// A project from elsewhere wants to run it.
    #[error("worker {worker:?} has a build command, and projects from elsewhere run none: {command}")]
    Refused {
        /// The worker.
        worker: String,
        /// The command.
        command: String,
    },
    /// A file or the shell failed; the cause names it.
    #[error("cannot {action}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

impl CommandError {
    /// What the user can do about it, if that isn't plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Failed { .. } | Self::NoSuchPath { .. } | Self::Io { .. } => None,
            Self::NoOutput { .. } => {
                Some("`component` is the path of the file that the command makes, below the project".into())
            }
            Self::Refused { .. } => Some("read it, and if you trust it give --trust".into()),
        }
    }

    fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

/// Lets the command make `output` (a path below the project) for the worker
/// `name`, unless nothing has changed since it did; else `make` is told.
pub(crate) fn build(
    project: &Project,
    name: &str,
    (command, output): (&BuildCommand, &str),
    workshop: &Workshop,
    make: &dyn Fn(),
) -> Result<PathBuf, CommandError> {
    let workdir = project.dir().join(&command.workdir);
    let made = project.dir().join(output);
    let known = format!("command 1 {:?} {command:?} {output:?}", project.dir());
    let cache = workshop.components();
    let record = cache.join(format!("command-{}.json", Sha256::of(known.as_bytes())));
    if let Some(made) = Record::find(&record) {
        return Ok(made);
    }
    if !workshop.is_trusted {
        return Err(CommandError::Refused { worker: name.into(), command: command.command.clone() });
    }
    let no_such = |setting, path: &Path, folder: &Path| CommandError::NoSuchPath {
        worker: name.into(),
        setting,
        path: path.to_owned(),
        folder: folder.display().to_string(),
    };
    if !workdir.is_dir() {
        return Err(no_such("workdir", &command.workdir, project.dir()));
    }
    if let Some(path) = command.watch.iter().find(|path| !workdir.join(path).exists()) {
        return Err(no_such("watch", path, &workdir));
    }
    make();
    let ran = Command::new("sh")
        .args(["-c", &command.command])
        .current_dir(&workdir)
        .stdin(Stdio::null())
        .output()
        .map_err(CommandError::io("run the build command"))?;
    if !ran.status.success() {
        return Err(CommandError::Failed {
            worker: name.into(),
            command: command.command.clone(),
            status: ran.status,
            report: words(&ran),
        });
    }
    if !made.is_file() {
        return Err(CommandError::NoOutput {
            worker: name.into(),
            path: output.into(),
            command: command.command.clone(),
        });
    }
    // A copy: the next run of the command may leave half a file.
    fs_err::create_dir_all(&cache).map_err(CommandError::io("make the cache folder"))?;
    keep(project, command, (&made, &record)).map_err(CommandError::io("keep the component"))
}

fn keep(project: &Project, command: &BuildCommand, (made, record): (&Path, &Path)) -> io::Result<PathBuf> {
    let inputs = inputs(project, command, made)?;
    let wasm = fs_err::read(made)?;
    let name = format!("command-{}.wasm", Sha256::of(&wasm));
    let kept = record.with_file_name(&name);
    let file = tempfile::NamedTempFile::new_in(record.parent().unwrap_or(Path::new(".")))?;
    fs_err::write(file.path(), &wasm)?;
    file.as_file().sync_all()?;
    file.persist(&kept)?;
    Record::keep(record, name, inputs)?;
    Ok(kept)
}

/// All of which the component may have been made.
fn inputs(project: &Project, command: &BuildCommand, made: &Path) -> io::Result<Inputs> {
    let workdir = project.dir().join(&command.workdir);
    let roots = if command.watch.is_empty() {
        vec![workdir]
    } else {
        command.watch.iter().map(|path| workdir.join(path)).collect()
    };
    let site = project.dir().join(SITE_FOLDER);
    let wanted = |entry: &DirEntry| {
        let name = entry.file_name().to_string_lossy();
        let is_output = FOREIGN_FOLDERS.iter().chain(&OUTPUT_FOLDERS).any(|folder| *folder == name);
        entry.depth() == 0
            || !(name.starts_with('.') || entry.path() == site || (is_output && entry.file_type().is_dir()))
    };
    let mut inputs = Inputs::default();
    for root in roots {
        for entry in WalkDir::new(root).into_iter().filter_entry(wanted) {
            let entry = entry?;
            if entry.file_type().is_dir() {
                inputs.folder(entry.path())?;
            } else if entry.path() != made {
                inputs.file(entry.path())?;
            }
        }
    }
    Ok(inputs)
}

impl<'de> Deserialize<'de> for BuildCommand {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            command: String,
            #[serde(default)]
            workdir: PathBuf,
            #[serde(default)]
            watch: Vec<PathBuf>,
        }

        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a command, or { command, workdir, watch }")]
        enum Form {
            Text(String),
            Table(Table),
        }

        Ok(match Form::deserialize(deserializer)? {
            Form::Text(command) => Self { command, workdir: PathBuf::new(), watch: Vec::new() },
            Form::Table(Table { command, workdir, watch }) => Self { command, workdir, watch },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        workshop: Workshop,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(folder.path().join("project/_src")).unwrap();
        fs_err::write(folder.path().join("project/_src/in"), "1").unwrap();
        let workshop = Workshop::new(folder.path().join("cache"), folder.path().join("runtimes"));
        Place { folder, workshop }
    }

    /// Builds, and says whether the command ran.
    fn built(place: &Place, command: &str) -> Result<(Vec<u8>, bool), CommandError> {
        let settings = format!(
            "[workers.x]\ncomponent = \"out.wasm\"\nbuild = {{ command = {command:?}, workdir = \"_src\" }}\n"
        );
        fs_err::write(place.folder.path().join("project/wharf.toml"), settings).unwrap();
        let project = Project::open(&place.folder.path().join("project")).unwrap();
        let command = project.config().workers["x"].build.clone().unwrap();
        let ran = std::cell::Cell::new(false);
        let path = build(&project, "x", (&command, "out.wasm"), &place.workshop, &|| ran.set(true))?;
        Ok((fs_err::read(path).unwrap(), ran.get()))
    }

    #[test]
    fn a_command_runs_when_something_has_changed_and_only_then() {
        let place = place();
        let command = "cat in > ../out.wasm";
        assert_eq!(built(&place, command).unwrap(), (b"1".to_vec(), true));
        assert_eq!(built(&place, command).unwrap(), (b"1".to_vec(), false));
        fs_err::write(place.folder.path().join("project/_src/in"), "2").unwrap();
        assert_eq!(built(&place, command).unwrap(), (b"2".to_vec(), true));
        fs_err::write(place.folder.path().join("project/_src/another"), "").unwrap();
        assert_eq!(built(&place, command).unwrap(), (b"2".to_vec(), true));
        fs_err::remove_file(place.folder.path().join("project/out.wasm")).unwrap();
        assert_eq!(built(&place, command).unwrap(), (b"2".to_vec(), false));
    }

    #[test]
    fn a_path_that_leads_nowhere_is_said_and_nothing_runs() {
        let place = place();
        let dir = place.folder.path().join("project");
        for (build, expected) in [
            ("workdir = \"src\"", "`workdir` of worker \"x\" names \"src\": no such folder below "),
            (
                "workdir = \"_src\", watch = [\"in\", \"_src/in\"]",
                "`watch` of worker \"x\" names \"_src/in\": no such file or folder below ",
            ),
        ] {
            let command = "touch ran";
            let settings = format!(
                "[workers.x]\ncomponent = \"out.wasm\"\nbuild = {{ command = {command:?}, {build} }}\n"
            );
            fs_err::write(dir.join("wharf.toml"), settings).unwrap();
            let project = Project::open(&dir).unwrap();
            let command = project.config().workers["x"].build.clone().unwrap();
            let error =
                super::build(&project, "x", (&command, "out.wasm"), &place.workshop, &|| ()).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            assert!(!dir.join("_src/ran").exists());
        }
    }

    #[test]
    fn a_command_that_fails_makes_nothing_or_may_not_run_is_said() {
        let mut place = place();
        let error = built(&place, "echo broken >&2; exit 3").unwrap_err();
        assert!(error.to_string().contains("failed (exit status: 3)"), "{error}");
        assert!(error.to_string().ends_with("\nbroken"), "{error}");
        let error = built(&place, "true").unwrap_err();
        assert!(matches!(error, CommandError::NoOutput { .. }) && error.hint().is_some(), "{error}");
        place.workshop.is_trusted = false;
        let error = built(&place, "echo > ../out.wasm").unwrap_err();
        assert!(matches!(error, CommandError::Refused { .. }) && error.hint().is_some(), "{error}");
        assert!(!place.folder.path().join("project/out.wasm").exists());
    }
}
