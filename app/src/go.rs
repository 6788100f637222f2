//! Go workers: programs that speak CGI, as `net/http/cgi` does.
//!
//! Each file with `package main` and a `main` function is a program by itself;
//! what else of that package lies in its folder without one of its own belongs to
//! it. Go's own compiler finds modules, packages and embedded files; afterwards it
//! is asked which they were.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::build::Workshop;
use crate::digest::Sha256;
use crate::inputs::{Inputs, Record};
use crate::language::Language;
use crate::project::{Project, WorkerSource};
use crate::toolchain::{ToolError, Toolchain, words};

/// Raised when the same sources would become another program.
/// What programs of Wasm Workers Server import.
const WWS_KIT: &str = "wasm-workers-server/kits/go";

const FORM: &str = "1";

/// What `go list -json` tells of a package.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Package {
    dir: PathBuf,
    standard: bool,
    go_files: Vec<PathBuf>,
    embed_files: Vec<PathBuf>,
    module: Option<Module>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Module {
    main: bool,
    replace: Option<Box<Module>>,
    version: Option<String>,
}

impl Package {
    /// Whether its files may change: those of modules with a version never do.
    fn is_local(&self) -> bool {
        let Some(module) = &self.module else { return !self.standard };
        let module = module.replace.as_deref().unwrap_or(module);
        !self.standard && (module.main || module.version.is_none())
    }
}

/// Whether the source `text` is a program: `package main` with a `main` function.
///
/// As gofmt writes it. Where a comment or a text has such a line, Go's compiler
/// says what is missing. One of Wasm Workers Server's kit is not: TinyGo has made a
/// module of it, which lies beside it.
pub(crate) fn is_program(text: &str) -> bool {
    is_of_main(text) && text.lines().any(|line| line.starts_with("func main()")) && !text.contains(WWS_KIT)
}

fn is_of_main(text: &str) -> bool {
    let package = |line: &str| line.split("//").next().is_some_and(|line| line.trim() == "package main");
    text.lines().any(package)
}

/// The program of the worker `source`, from the cache if nothing that goes into
/// it has changed; else `make` is told.
pub(crate) fn build(
    project: &Project,
    source: &WorkerSource,
    workshop: &Workshop,
    make: &dyn Fn(),
) -> Result<PathBuf, ToolError> {
    let toolchain = Toolchain::find(Language::Go, project.lock().release(Language::Go), &workshop.runtimes)?;
    let file = project.dir().join(&source.path);
    let folder = file.parent().unwrap_or(project.dir());
    let known = format!("go {FORM} {} {:?}", toolchain.identity(), file);
    let cache = workshop.components();
    let record = cache.join(format!("go-{}.json", Sha256::of(known.as_bytes())));
    if let Some(made) = Record::find(&record) {
        return Ok(made);
    }
    make();
    fs_err::create_dir_all(&cache).map_err(ToolError::io("make the cache folder"))?;
    let stage = tempfile::tempdir_in(&cache).map_err(ToolError::io("make a folder to build in"))?;
    let program = stage.path().join("program.wasm");
    let sources = Sources::of(&file, folder, stage.path()).map_err(ToolError::io("read Go source"))?;
    let output = go(&toolchain, folder)
        // Nothing of this machine gets in: no paths, no revision, no symbols.
        .args(["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
        .arg(&program)
        .args(sources.arguments())
        .output()
        .map_err(ToolError::io("run go"))?;
    if !output.status.success() {
        return Err(failed(&words(&output), source));
    }
    let inputs = inputs(&toolchain, (&file, folder), &sources)?;
    let (hash, _) = fs_err::File::open(&program)
        .and_then(Sha256::of_reader)
        .map_err(ToolError::io("read the program"))?;
    let name = format!("go-{hash}.wasm");
    let made = cache.join(&name);
    fs_err::File::open(&program)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs_err::rename(&program, &made))
        .and_then(|()| Record::keep(&record, name, inputs))
        .map_err(ToolError::io("keep the program"))?;
    Ok(made)
}

fn go(toolchain: &Toolchain, folder: &Path) -> Command {
    let mut command = toolchain.command();
    command
        .current_dir(folder)
        .envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("CGO_ENABLED", "0")])
        // The one that was found, not one that a go.mod would have it download.
        .env("GOTOOLCHAIN", "local")
        .stdin(Stdio::null());
    command
}

/// The files of a program.
struct Sources {
    /// Names in the worker's folder.
    files: Vec<PathBuf>,
    /// Tells Go under which name it finds the worker's file, where that has a name
    /// that Go takes for none, as `[id].go`.
    overlay: PathBuf,
}

/// The name that Go knows such a file by.
const OVERLAID: &str = "wharf_worker.go";

impl Sources {
    /// The worker's file, and those of the same package that are no programs by
    /// themselves.
    fn of(file: &Path, folder: &Path, stage: &Path) -> io::Result<Self> {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        let name = if is_plain { name } else { OVERLAID };
        let replaced = serde_json::json!({ "Replace": { folder.join(name).to_string_lossy(): file } });
        let overlay = stage.join("overlay.json");
        fs_err::write(&overlay, replaced.to_string())?;
        let mut files = vec![PathBuf::from(name)];
        for entry in fs_err::read_dir(folder)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let is_source =
                name.ends_with(".go") && !name.ends_with("_test.go") && !name.starts_with(['_', '.']);
            if is_source && path != file && path.is_file() {
                let text = fs_err::read_to_string(&path)?;
                if is_of_main(&text) && !is_program(&text) {
                    files.push(name.into());
                }
            }
        }
        files.sort();
        Ok(Self { files, overlay })
    }

    fn arguments(&self) -> impl Iterator<Item = &OsStr> {
        let overlay = [OsStr::new("-overlay"), self.overlay.as_os_str()];
        overlay.into_iter().chain(self.files.iter().map(|file| file.as_os_str()))
    }
}

/// All that the program was made of, beside what its go.sum fixes.
fn inputs(
    toolchain: &Toolchain,
    (file, folder): (&Path, &Path),
    sources: &Sources,
) -> Result<Inputs, ToolError> {
    let output = go(toolchain, folder)
        .args(["list", "-deps", "-json=Dir,Standard,GoFiles,EmbedFiles,Module"])
        .args(sources.arguments())
        .output()
        .map_err(ToolError::io("run go list"))?;
    let packages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Package>();
    let packages = packages.collect::<Result<Vec<_>, _>>();
    let packages =
        packages.map_err(|error| ToolError::Io { action: "read go list's answer", source: error.into() })?;
    let mut inputs = Inputs::default();
    let mut note = || {
        inputs.folder(folder)?;
        inputs.file(file)?;
        for package in packages.iter().filter(|package| package.is_local()) {
            inputs.folder(&package.dir)?;
            for file in package.go_files.iter().chain(&package.embed_files) {
                inputs.file(&package.dir.join(file))?;
            }
        }
        // Wherever a module could begin: one that is added counts too.
        for above in folder.ancestors() {
            for name in ["go.mod", "go.sum", "go.work", "go.work.sum"] {
                inputs.file(&above.join(name))?;
            }
        }
        Ok(())
    };
    note().map_err(ToolError::io("read Go source"))?;
    Ok(inputs)
}

/// What the user has to know of the compiler's words: places are below the
/// project, as everywhere.
fn failed(report: &str, source: &WorkerSource) -> ToolError {
    let (folder, name) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let line = |line: &str| match line.replace(OVERLAID, name).strip_prefix("./") {
        Some(place) if !folder.is_empty() => format!("{folder}/{place}"),
        Some(place) => place.to_owned(),
        None => line.replace(OVERLAID, name),
    };
    // The name of the package that `go build` puts above its errors says nothing.
    let lines = report.lines().filter(|line| !line.starts_with("# command-line-arguments"));
    let report: Vec<String> = lines.map(line).collect();
    let report = report.join("\n");
    let hint = if report.contains("no required module provides package")
        || report.contains("go.mod file not found")
    {
        Some("in the folder of the worker: go mod init PROJECT, then go mod tidy".into())
    } else if report.contains("missing go.sum entry") {
        Some("run: go mod tidy".into())
    } else if report.contains("build constraints exclude all Go files") {
        Some("the package does not exist for WebAssembly (GOOS=wasip1): it needs C or another system".into())
    } else {
        None
    };
    ToolError::Source { language: Language::Go, report, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_from_what_belongs_to_them() {
        assert!(is_program("// A worker.\npackage main // it is\n\nfunc main() {\n}\n"));
        assert!(!is_program("package main\n\nfunc greet() {}\n"));
        assert!(!is_program("package greet\n\nfunc main() {}\n"));
        let of_kit = "package main\nimport \"github.com/vmware-labs/wasm-workers-server/kits/go/worker\"\nfunc main() {}\n";
        assert!(!is_program(of_kit));
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs_err::write(folder.path().join(name), text).unwrap();
        write("a.go", "package main\nfunc main() {}\n");
        write("b.go", "package main\nfunc main() {}\n");
        write("greet.go", "package main\nfunc greet() {}\n");
        write("greet_test.go", "package main\n");
        write("_old.go", "package main\n");
        let files = |name: &str| {
            let stage = tempfile::tempdir().unwrap();
            Sources::of(&folder.path().join(name), folder.path(), stage.path()).unwrap().files
        };
        assert_eq!(files("a.go"), [Path::new("a.go"), Path::new("greet.go")]);
        write("[id].go", "package main\nfunc main() {}\n");
        assert_eq!(files("[id].go"), [Path::new("greet.go"), Path::new(OVERLAID)]);
    }

    #[test]
    fn errors_have_places_below_the_project() {
        let source = WorkerSource::of_file("api/x.go".into(), Language::Go).unwrap();
        let error = failed("# command-line-arguments\n./x.go:3:2: undefined: y", &source);
        assert_eq!(error.to_string(), "cannot build Go workers\napi/x.go:3:2: undefined: y");
        let error = failed("x.go:3:8: no required module provides package a.example/b", &source);
        assert!(error.hint().unwrap().contains("go mod tidy"));
    }
}
