//! Python workers, made into one component by componentize-py.
//!
//! All workers share one component, so that the interpreter is shipped once;
//! `python/wharf_entry.py` dispatches inside it. The result is kept by the
//! content of all that goes into it: componentize-py's output is not
//! reproducible by itself (its issue 247), and takes ten seconds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::build::Workshop;
use crate::digest::Sha256;
use crate::project::Project;

/// The release of componentize-py that this version is made for.
pub const COMPONENTIZE_PY: &str = "0.25.1";

/// What goes beside the user's sources: our runtime and the WIT of wasi:http.
const RUNTIME: [(&str, &str); 10] = [
    ("runtime/wharf.py", include_str!("../python/wharf.py")),
    ("runtime/wharf_entry.py", include_str!("../python/wharf_entry.py")),
    ("wit/world.wit", include_str!("../python/wit/world.wit")),
    ("wit/deps/cli.wit", include_str!("../python/wit/deps/cli.wit")),
    ("wit/deps/clocks.wit", include_str!("../python/wit/deps/clocks.wit")),
    ("wit/deps/filesystem.wit", include_str!("../python/wit/deps/filesystem.wit")),
    ("wit/deps/http.wit", include_str!("../python/wit/deps/http.wit")),
    ("wit/deps/io.wit", include_str!("../python/wit/deps/io.wit")),
    ("wit/deps/random.wit", include_str!("../python/wit/deps/random.wit")),
    ("wit/deps/sockets.wit", include_str!("../python/wit/deps/sockets.wit")),
];

/// Why Python workers can't be built, or their toolchain not installed.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// No componentize-py, or another release.
    #[error("cannot build Python workers: expected componentize-py {COMPONENTIZE_PY}, found {found}")]
    NoToolchain {
        /// What there is instead.
        found: String,
    },
    /// The sources have an error.
    #[error("cannot build Python workers\n{report}")]
    Source {
        /// Python's own words: file, line, and what is wrong there.
        report: String,
    },
    /// A file or a program failed; the cause names it.
    #[error("cannot {action}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A step of the installation failed.
    #[error("cannot install componentize-py: {step} failed\n{report}")]
    Install {
        /// The command.
        step: String,
        /// The end of what it printed.
        report: String,
    },
}

impl PythonError {
    /// What the user can do about it, if that isn't plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoToolchain { .. } => Some("run `wharf runtimes install python`".into()),
            Self::Install { step, .. } if step.contains("venv") => {
                Some("on Debian and Ubuntu: apt-get install python3-venv".into())
            }
            _ => None,
        }
    }

    fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

/// A componentize-py on this machine.
#[derive(Clone, Debug)]
pub struct PythonToolchain {
    /// The program.
    pub program: PathBuf,
    /// Its release.
    pub version: String,
}

impl PythonToolchain {
    /// The toolchain that wharf installed in `runtimes`, or the one on `PATH`.
    ///
    /// # Errors
    /// [`PythonError::NoToolchain`]: there is none of the right release.
    pub fn find(runtimes: &Path) -> Result<Self, PythonError> {
        let managed = managed_folder(runtimes).join("bin/componentize-py");
        let on_path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = std::env::split_paths(&on_path).map(|folder| folder.join("componentize-py"));
        let mut found = Vec::new();
        for program in std::iter::once(managed).chain(on_path).filter(|program| program.is_file()) {
            match version(&program) {
                Some(version) if version == COMPONENTIZE_PY => return Ok(Self { program, version }),
                Some(version) => found.push(format!("{version} ({})", program.display())),
                None => found.push(format!("a broken one ({})", program.display())),
            }
        }
        let found = if found.is_empty() { "none".into() } else { found.join(", ") };
        Err(PythonError::NoToolchain { found })
    }

    /// Installs the toolchain into `runtimes` by the user's own pip, in a
    /// virtual environment; whole or not at all.
    ///
    /// # Errors
    /// [`PythonError`]: no Python, no `venv`, or pip failed.
    pub fn install(runtimes: &Path) -> Result<Self, PythonError> {
        let folder = managed_folder(runtimes);
        if let Ok(found) = Self::find(runtimes)
            && found.program.starts_with(&folder)
        {
            return Ok(found);
        }
        // A virtual environment can't be moved: it is made in place, and the
        // program that proves it whole comes last. What an interrupted
        // installation left is removed first.
        match fs_err::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(PythonError::io("remove what an earlier installation left")(error));
            }
            _ => {}
        }
        fs_err::create_dir_all(runtimes).map_err(PythonError::io("make the folder of runtimes"))?;
        let python = OsString::from("python3");
        run("python3 -m venv", Command::new(&python).args(["-m", "venv"]).arg(&folder))?;
        let package = format!("componentize-py=={COMPONENTIZE_PY}");
        let pip = folder.join("bin/python3");
        let arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"];
        let installed = run("pip install", Command::new(pip).args(arguments).arg(package));
        if installed.is_err() {
            fs_err::remove_dir_all(&folder).map_err(PythonError::io("remove the failed installation"))?;
        }
        installed?;
        Self::find(runtimes)
    }

    /// Removes what [`PythonToolchain::install`] made. Whether there was any.
    ///
    /// # Errors
    /// [`PythonError::Io`]: a file can't be removed.
    pub fn remove(runtimes: &Path) -> Result<bool, PythonError> {
        match fs_err::remove_dir_all(managed_folder(runtimes)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(PythonError::io("remove the Python toolchain")(error)),
        }
    }
}

/// The component of the workers `workers` (name → path of the source), from
/// the cache if nothing that goes into it has changed; else `make` is told.
pub(crate) fn componentize(
    project: &Project,
    workers: &BTreeMap<&str, &str>,
    workshop: &Workshop,
    make: &dyn Fn(),
) -> Result<PathBuf, PythonError> {
    let sources = read_sources(project)?;
    let list = serde_json::to_string(workers).unwrap_or_default();
    let key = key(&sources, &list);
    let folder = workshop.components();
    let component = folder.join(format!("python-{key}.wasm"));
    if component.is_file() {
        return Ok(component);
    }
    let toolchain = PythonToolchain::find(&workshop.runtimes)?;
    make();
    fs_err::create_dir_all(&folder).map_err(PythonError::io("make the cache folder"))?;
    let stage = tempfile::tempdir_in(&folder).map_err(PythonError::io("make a folder to build in"))?;
    stage_sources(stage.path(), &sources, &list).map_err(PythonError::io("write sources to build from"))?;
    let made = stage.path().join("component.wasm");
    let no_packages = stage.path().join("no-packages");
    fs_err::create_dir(&no_packages).map_err(PythonError::io("make a folder to build in"))?;
    let output = Command::new(&toolchain.program)
        .args(["--wit-path", "wit", "--world", "worker", "componentize", "wharf_entry"])
        .args(["--python-path", "runtime", "--python-path", "project", "--output", "component.wasm"])
        .current_dir(stage.path())
        // An empty environment. With none it would ask pipenv and the python3 on
        // PATH for theirs, and their packages would go into the component.
        .env("VIRTUAL_ENV", &no_packages)
        .env_remove("PYTHONPATH")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(PythonError::io("run componentize-py"))?;
    if !output.status.success() || !made.is_file() {
        return Err(PythonError::Source { report: report(&output) });
    }
    fs_err::File::open(&made)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs_err::rename(&made, &component))
        .map_err(PythonError::io("keep the component"))?;
    Ok(component)
}

type Sources = Vec<(String, Vec<u8>)>;

fn read_sources(project: &Project) -> Result<Sources, PythonError> {
    let read = |path: &String| Ok((path.clone(), fs_err::read(project.dir().join(path))?));
    let sources: io::Result<Sources> = project.python_files().iter().map(read).collect();
    sources.map_err(PythonError::io("read Python source"))
}

/// Names all that goes into the component.
fn key(sources: &Sources, list: &str) -> Sha256 {
    let mut parts: Vec<(&str, &[u8])> =
        vec![("form", b"2"), ("componentize-py", COMPONENTIZE_PY.as_bytes()), ("", list.as_bytes())];
    parts.extend(RUNTIME.iter().map(|(path, text)| (*path, text.as_bytes())));
    parts.extend(sources.iter().map(|(path, text)| (path.as_str(), text.as_slice())));
    let digests: Vec<String> =
        parts.into_iter().map(|(name, content)| format!("{name:?} {}\n", Sha256::of(content))).collect();
    Sha256::of(digests.concat().as_bytes())
}

fn stage_sources(stage: &Path, sources: &Sources, list: &str) -> io::Result<()> {
    let write = |path: PathBuf, content: &[u8]| {
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        fs_err::write(path, content)
    };
    for (path, text) in RUNTIME {
        write(stage.join(path), text.as_bytes())?;
    }
    write(stage.join("runtime/wharf_workers.json"), list.as_bytes())?;
    write(stage.join("project/.wharf-project"), b"")?;
    for (path, text) in sources {
        write(stage.join("project").join(path), text)?;
    }
    Ok(())
}

fn managed_folder(runtimes: &Path) -> PathBuf {
    runtimes.join(format!("python-{COMPONENTIZE_PY}"))
}

fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.split_whitespace().last().map(ToOwned::to_owned))?
}

fn run(step: &str, command: &mut Command) -> Result<(), PythonError> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(PythonError::io("run python3; is it installed?"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let report = lines[lines.len().saturating_sub(12)..].join("\n");
    Err(PythonError::Install { step: step.to_owned(), report })
}

/// What the user has to know of componentize-py's report: Python's last
/// traceback, without our own frames and without Rust's backtrace.
fn report(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.split("\nCaused by:").next().unwrap_or_default();
    let text = text.split("\nStack backtrace:").next().unwrap_or_default();
    let traceback = text.rfind("Traceback (most recent call last):").map_or(text, |at| &text[at..]);
    let mut kept: Vec<&str> = Vec::new();
    let mut ours = false;
    for line in traceback.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        if let Some(frame) = line.strip_prefix("  File ") {
            ours = frame.starts_with("\"/") && frame.contains("wharf_entry.py");
        } else if !line.starts_with(' ') {
            ours = false;
        }
        if !ours {
            kept.push(line);
        }
    }
    if kept.is_empty() { text.trim().to_owned() } else { kept.join("\n") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn the_report_shows_the_users_file_and_line_and_not_ours() {
        let stderr = r#"Traceback (most recent call last):
  File "/venv/bin/componentize-py", line 8, in <module>
    sys.exit(script())
AssertionError: Traceback (most recent call last):
  File "/0/wharf_entry.py", line 47, in <module>
    WORKERS = _load_all()
              ~~~~~^^^^^^
  File "index.py", line 1
    def worker(: pass
               ^
SyntaxError: invalid syntax


Caused by:
    SyntaxError: invalid syntax (index.py, line 1)

Stack backtrace:
   0: <anyhow::Error>::msg::<alloc::string::String>
"#;
        let output = Output { status: ExitStatus::from_raw(256), stdout: Vec::new(), stderr: stderr.into() };
        assert_eq!(
            report(&output),
            "  File \"index.py\", line 1\n    def worker(: pass\n               ^\nSyntaxError: invalid syntax"
        );
    }

    #[test]
    fn a_report_without_traceback_is_shown_as_it_is() {
        let output =
            Output { status: ExitStatus::from_raw(256), stdout: Vec::new(), stderr: b"no wit\n".into() };
        assert_eq!(report(&output), "no wit");
    }

    #[test]
    fn any_changed_source_changes_the_key() {
        let source = |text: &str| vec![("index.py".to_owned(), text.as_bytes().to_vec())];
        assert_eq!(key(&source("a"), "{}"), key(&source("a"), "{}"));
        assert_ne!(key(&source("a"), "{}"), key(&source("b"), "{}"));
        assert_ne!(key(&source("a"), "{}"), key(&source("a"), "{\"x\":1}"));
    }
}
