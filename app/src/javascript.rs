//! JavaScript and TypeScript workers, made into one component by esbuild and
//! componentize-js.
//!
//! All workers share one component, so that the engine is shipped once;
//! `javascript/build.mjs` bundles them and dispatches. esbuild tells which files it
//! read, packages and all; the next build looks whether one of them has changed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};

use crate::build::Workshop;
use crate::digest::Sha256;
use crate::embedded;
use crate::inputs::{Inputs, Record};
use crate::language::Language;
use crate::project::Project;
use crate::toolchain::{Place, ToolError, Toolchain, words};

/// What goes beside the user's sources: our runtime and the WIT of its world.
static RUNTIME: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/javascript");

/// The tools, and all that they need.
pub(crate) const PACKAGE: &str = include_str!("../javascript/package.json");

/// Their releases and hashes.
pub(crate) const LOCK: &str = include_str!("../javascript/package-lock.json");

/// What `build.mjs` is told.
#[derive(Serialize)]
struct Task<'a> {
    project: &'a Path,
    /// Names, and paths below the project.
    workers: &'a BTreeMap<&'a str, &'a str>,
    /// The folder with `node_modules`.
    tools: &'a Path,
    wit: &'a str,
    output: &'a str,
    /// Whether files beside the project's folder stay out.
    confined: bool,
    /// Whether all handlers get what Wasm Workers Server gives them.
    wws: bool,
}

/// What it tells of what it looked for: paths from the project's folder.
#[derive(Deserialize)]
struct Looked {
    files: Vec<PathBuf>,
    /// What would count if it were there.
    absent: Vec<PathBuf>,
}

/// The component of the workers `workers` (name → path of the source), from
/// the cache if nothing that goes into it has changed; else `make` is told.
pub(crate) fn componentize(
    project: &Project,
    workers: &BTreeMap<&str, &str>,
    workshop: &Workshop,
    make: &dyn Fn(),
) -> Result<PathBuf, ToolError> {
    let release = project.lock().release(Language::JavaScript);
    let toolchain = Toolchain::find(Language::JavaScript, release, &workshop.runtimes)?;
    let cache = workshop.components();
    let record = cache.join(format!("javascript-{}.json", key(project, workers, &toolchain)));
    if let Some(made) = Record::find(&record) {
        return Ok(made);
    }
    make();
    fs_err::create_dir_all(&cache).map_err(ToolError::io("make the cache folder"))?;
    let stage = tempfile::tempdir_in(&cache).map_err(ToolError::io("make a folder to build in"))?;
    let (Place::Managed(tools) | Place::Program(tools)) = &toolchain.place;
    let task = Task {
        project: project.dir(),
        workers,
        tools,
        wit: "wit",
        output: "component.wasm",
        confined: !workshop.is_trusted,
        wws: project.is_wws(),
    };
    let task = serde_json::to_vec(&task).unwrap_or_default();
    embedded::write(&RUNTIME, stage.path())
        .and_then(|()| fs_err::write(stage.path().join("config.json"), task))
        .map_err(ToolError::io("write sources to build from"))?;
    let output = toolchain
        .command()
        .args(["build.mjs", "config.json"])
        .current_dir(stage.path())
        // What a user sets for his own programs is not meant for ours.
        .env_remove("NODE_OPTIONS")
        .env_remove("NODE_PATH")
        .stdin(Stdio::null())
        .output()
        .map_err(missing_node)?;
    let made = stage.path().join("component.wasm");
    if !output.status.success() || !made.is_file() {
        return Err(failed(&output));
    }
    keep(project, stage.path(), (&made, &record)).map_err(ToolError::io("keep the component"))
}

fn missing_node(source: io::Error) -> ToolError {
    match source.kind() {
        io::ErrorKind::NotFound => ToolError::Missing {
            language: Language::JavaScript,
            expected: "the program node, version 20 or later".into(),
            found: "none".into(),
            hint: "install Node.js; on Debian and Ubuntu: apt-get install nodejs npm".into(),
        },
        _ => ToolError::Io { action: "run node", source },
    }
}

/// Names what is known before esbuild finds what the workers import.
fn key(project: &Project, workers: &BTreeMap<&str, &str>, toolchain: &Toolchain) -> Sha256 {
    let mut parts =
        format!("2 {} {:?} {workers:?} {}\n", toolchain.identity(), project.dir(), project.is_wws());
    for file in embedded::files(&RUNTIME) {
        parts += &format!("{:?} {}\n", file.path(), Sha256::of(file.contents()));
    }
    Sha256::of(parts.as_bytes())
}

fn keep(project: &Project, stage: &Path, (made, record): (&Path, &Path)) -> io::Result<PathBuf> {
    let looked: Looked = serde_json::from_slice(&fs_err::read(stage.join("inputs.json"))?)?;
    let mut inputs = Inputs::default();
    for path in looked.files.into_iter().chain(looked.absent) {
        inputs.file(&project.dir().join(path))?;
    }
    let file = fs_err::File::open(made)?;
    let (hash, _) = Sha256::of_reader(&file)?;
    file.sync_all()?;
    let name = format!("javascript-{hash}.wasm");
    let kept = record.with_file_name(&name);
    fs_err::rename(made, &kept)?;
    Record::keep(record, name, inputs)?;
    Ok(kept)
}

/// What `build.mjs` says: places and errors, and perhaps what to do.
fn failed(output: &Output) -> ToolError {
    let words = words(output);
    let hint = words.lines().find_map(|line| line.strip_prefix("hint: ")).map(ToOwned::to_owned);
    let report: Vec<&str> = words.lines().filter(|line| !line.starts_with("hint: ")).collect();
    ToolError::Source { language: Language::JavaScript, report: report.join("\n"), hint }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn the_words_of_the_builder_are_shown_with_their_hint() {
        let stderr = b"api/x.ts:1:8: error: Could not resolve \"hono\"\nhint: run npm install hono\n";
        let output = Output { status: ExitStatus::from_raw(256), stdout: Vec::new(), stderr: stderr.into() };
        let error = failed(&output);
        assert_eq!(
            error.to_string(),
            "cannot build JavaScript workers\napi/x.ts:1:8: error: Could not resolve \"hono\""
        );
        assert_eq!(error.hint().unwrap(), "run npm install hono");
    }
}
