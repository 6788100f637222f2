//! Python workers, made into one component by componentize-py.
//!
//! All workers share one component, so that the interpreter is shipped once;
//! `python/wharf_entry.py` dispatches inside it. The result is kept by the
//! content of all that goes into it: componentize-py's output is not
//! reproducible by itself (its issue 247), and takes ten seconds.

mod packages;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Mutex, PoisonError};

use include_dir::{Dir, include_dir};
use serde::Serialize;

use crate::build::Workshop;
use crate::digest::Sha256;
use crate::embedded;
use crate::grants::Value;
use crate::language::Language;
use crate::lock::Lock;
use crate::project::Project;
use crate::sources::{self, Sources};
use crate::toolchain::{ToolError, Toolchain, default_release};

pub(crate) use self::packages::LockedPackages;
use self::packages::Packages;

/// What goes beside the user's sources: our runtime and the WIT of its world.
static RUNTIME: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/python");

/// What `wharf_entry.py` puts in front of an error of the sources.
const ERROR: &str = "wharf-error: ";

/// Most bytes of a project's files that go into its component: 16 MiB.
const MOST_FILES: u64 = 16 << 20;

/// Files that no Python worker reads: other languages' sources, and settings.
const NOT_PYTHONS: [&str; 12] =
    ["go", "js", "jsx", "lock", "mjs", "mts", "rb", "rs", "toml", "ts", "tsx", "wasm"];

/// The component of the workers `workers` (name → path of the source), from
/// the cache if nothing that goes into it has changed; else `make` is told.
pub(crate) fn componentize(
    project: &Project,
    workers: &BTreeMap<&str, &str>,
    workshop: &Workshop,
    (lock, make): (&Mutex<Lock>, &dyn Fn()),
) -> Result<PathBuf, ToolError> {
    let files = sources::read(project, Language::Python, (&NOT_PYTHONS, MOST_FILES))?;
    let list = serde_json::to_string(workers).unwrap_or_default();
    let folders = serde_json::to_string(&folders(project, workers)).unwrap_or_default();
    let release = project.lock().release(Language::Python);
    let key = |packages: Option<Sha256>| {
        key(&files, (&list, &folders), (release.unwrap_or(default_release(Language::Python)), packages))
    };
    let folder = workshop.components();
    let at = |key: Sha256| folder.join(format!("python-{key}.wasm"));
    let known = Packages::known(project)?;
    if let Some(packages) = known
        && at(key(packages)).is_file()
    {
        return Ok(at(key(packages)));
    }
    let toolchain = Toolchain::find(Language::Python, release, &workshop.runtimes)?;
    make();
    let mut locked = project.lock().python().cloned();
    let packages = Packages::of(project, workshop, &mut locked)?;
    lock.lock().unwrap_or_else(PoisonError::into_inner).fix_python(locked);
    let component = at(key(packages.as_ref().map(|packages| packages.key)));
    if component.is_file() {
        return Ok(component);
    }
    fs_err::create_dir_all(&folder).map_err(ToolError::io("make the cache folder"))?;
    let stage = tempfile::tempdir_in(&folder).map_err(ToolError::io("make a folder to build in"))?;
    write_files(stage.path(), &files, (&list, &folders))
        .map_err(ToolError::io("write sources to build from"))?;
    let made = stage.path().join("component.wasm");
    let no_packages = stage.path().join("no-packages");
    fs_err::create_dir(&no_packages).map_err(ToolError::io("make a folder to build in"))?;
    let mut command = toolchain.command();
    command.args(["--wit-path", "runtime/wit", "--world", "worker", "componentize", "wharf_entry"]).args([
        "--python-path",
        "runtime",
        "--python-path",
        "project",
        "--output",
        "component.wasm",
    ]);
    if let Some(packages) = &packages {
        command.arg("--python-path").arg(&packages.folder);
        fs_err::copy(packages.removed(), stage.path().join("runtime/wharf_removed.json"))
            .map_err(ToolError::io("write sources to build from"))?;
    }
    let output = command
        .current_dir(stage.path())
        // An empty environment. With none it would ask pipenv and the python3 on
        // PATH for theirs, and their packages would go into the component.
        .env("VIRTUAL_ENV", &no_packages)
        .env_remove("PYTHONPATH")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(ToolError::io("run componentize-py"))?;
    if !output.status.success() || !made.is_file() {
        return Err(ToolError::Source { language: Language::Python, report: report(&output), hint: None });
    }
    fs_err::File::open(&made)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs_err::rename(&made, &component))
        .map_err(ToolError::io("keep the component"))?;
    Ok(component)
}

/// The folders of the project that a worker mounts, and so can import from.
#[derive(Serialize)]
struct Folders<'a> {
    /// Where the worker sees them → path below the project.
    folders: BTreeMap<&'a str, &'a Path>,
    /// Its `PYTHONPATH`.
    path: &'a str,
}

/// Of the workers that mount any, by name.
fn folders<'a>(project: &'a Project, workers: &BTreeMap<&'a str, &str>) -> BTreeMap<&'a str, Folders<'a>> {
    let of = |name: &&'a str| {
        let settings = project.config().workers.get(*name)?;
        let mounts = settings.mounts.iter();
        let folders: BTreeMap<_, _> =
            mounts.filter_map(|mount| Some((mount.guest.as_str(), mount.app.as_deref()?))).collect();
        let path = match settings.env.get("PYTHONPATH") {
            Some(Value::Fixed(path)) => path,
            _ => "",
        };
        (!folders.is_empty()).then_some((*name, Folders { folders, path }))
    };
    workers.keys().filter_map(of).collect()
}

/// Names all that goes into the component.
fn key(
    files: &Sources,
    (list, folders): (&str, &str),
    (release, packages): (&str, Option<Sha256>),
) -> Sha256 {
    let packages = packages.map_or_else(String::new, |packages| packages.to_string());
    let mut parts: Vec<(&str, &[u8])> = vec![
        ("form", b"4"),
        ("componentize-py", release.as_bytes()),
        ("packages", packages.as_bytes()),
        ("", list.as_bytes()),
        ("folders", folders.as_bytes()),
    ];
    let runtime = embedded::files(&RUNTIME).into_iter();
    parts.extend(runtime.map(|file| (file.path().to_str().unwrap_or_default(), file.contents())));
    parts.extend(files.iter().map(|(path, text)| (path.as_str(), text.as_slice())));
    let digests: Vec<String> =
        parts.into_iter().map(|(name, content)| format!("{name:?} {}\n", Sha256::of(content))).collect();
    Sha256::of(digests.concat().as_bytes())
}

fn write_files(stage: &Path, files: &Sources, (list, folders): (&str, &str)) -> io::Result<()> {
    let write = |path: PathBuf, content: &[u8]| {
        if let Some(folder) = path.parent() {
            fs_err::create_dir_all(folder)?;
        }
        fs_err::write(path, content)
    };
    embedded::write(&RUNTIME, &stage.join("runtime"))?;
    write(stage.join("runtime/wharf_workers.json"), list.as_bytes())?;
    write(stage.join("runtime/wharf_folders.json"), folders.as_bytes())?;
    write(stage.join("project/.wharf-project"), b"")?;
    for (path, text) in files {
        write(stage.join("project").join(path), text)?;
    }
    Ok(())
}

/// What the user has to know of componentize-py's report: Python's last
/// traceback, without our own frames and without Rust's backtrace.
fn report(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    // What the guest itself has to say of the sources.
    if let Some((_, told)) = text.rsplit_once(ERROR) {
        return told.split("\n\n\nCaused by").next().unwrap_or(told).trim().to_owned();
    }
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
    fn what_the_guest_says_of_the_sources_is_the_report() {
        let stderr = b"AssertionError: wharf-error: index.py:1: no module named 'x': add x to requirements.txt\n\n\nCaused by:\n    y\n";
        let output = Output { status: ExitStatus::from_raw(256), stdout: Vec::new(), stderr: stderr.into() };
        assert_eq!(report(&output), "index.py:1: no module named 'x': add x to requirements.txt");
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
        let first = key(&source("a"), ("{}", "{}"), ("1", None));
        assert_eq!(key(&source("a"), ("{}", "{}"), ("1", None)), first);
        assert_ne!(key(&source("b"), ("{}", "{}"), ("1", None)), first);
        assert_ne!(key(&source("a"), ("{\"x\":1}", "{}"), ("1", None)), first);
        assert_ne!(key(&source("a"), ("{}", "{}"), ("2", None)), first);
        assert_ne!(key(&source("a"), ("{}", "{}"), ("1", Some(Sha256::of(b"")))), first);
    }
}
