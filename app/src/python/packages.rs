//! Packages from PyPI that Python workers import, by the user's own pip.
//!
//! What `requirements.txt` or `pyproject.toml` asks for is installed once into a
//! folder of the cache, as CPython 3.14 for WASI would have it: markers are the
//! guest's, wheels are those of any Linux, and their compiled modules are removed.
//! Many a package goes on without those; which they were is told to the guest, so
//! that one that does not is named. `wharf.lock` fixes releases and hashes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde::{Deserialize, Serialize};

use crate::build::Workshop;
use crate::digest::Sha256;
use crate::language::Language;
use crate::project::Project;
use crate::toolchain::{Pip, ToolError, words};

/// Raised when the same requirements would become another folder.
const FORM: &str = "1";

/// Where a project says what it needs.
const REQUIREMENTS: &str = "requirements.txt";
const PYPROJECT: &str = "pyproject.toml";

/// pip with the markers of the guest: its own `--python-version` does not reach them.
const PIP: &str = r#"
import sys
from pip._vendor.packaging import markers
own = markers.default_environment
guest = dict(
    implementation_name="cpython", implementation_version="3.14.0", os_name="posix",
    platform_machine="wasm32", platform_python_implementation="CPython", platform_release="",
    platform_system="WASI", platform_version="", python_full_version="3.14.0",
    python_version="3.14", sys_platform="wasi",
)
markers.default_environment = lambda: {**own(), **guest}
from pip._internal.cli.main import main
sys.exit(main())
"#;

/// What has wheels: nothing of them runs on this machine.
const PLATFORMS: [&str; 7] = [
    "any",
    "linux_x86_64",
    "manylinux2014_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux_2_27_x86_64",
    "manylinux_2_28_x86_64",
    "musllinux_1_2_x86_64",
];

/// The file in the folder that says which compiled modules were removed.
const REMOVED: &str = "wharf_removed.json";

/// The packages that a project is built with, as `wharf.lock` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LockedPackages {
    /// Hash of what asked for them; of another one they are looked for anew.
    requirements: String,
    /// `NAME==VERSION --hash=sha256:HASH`, sorted.
    packages: Vec<String>,
}

impl LockedPackages {
    /// Name, version and hash of each.
    pub(crate) fn list(&self) -> impl Iterator<Item = (&str, &str, Option<Sha256>)> {
        self.packages.iter().filter_map(|line| {
            let (package, hash) = line.split_once(' ').unwrap_or((line, ""));
            let (name, version) = package.split_once("==")?;
            Some((name, version, hash.strip_prefix("--hash=sha256:").and_then(|hash| hash.parse().ok())))
        })
    }
}

/// The packages in a folder.
pub(super) struct Packages {
    pub(super) folder: PathBuf,
    /// Names all that is in it.
    pub(super) key: Sha256,
}

/// What pip's report says of one package.
#[derive(Deserialize)]
struct Report {
    install: Vec<Installed>,
}

#[derive(Deserialize)]
struct Installed {
    metadata: Metadata,
    download_info: Download,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct Download {
    archive_info: Archive,
}

#[derive(Deserialize)]
struct Archive {
    hashes: BTreeMap<String, String>,
}

impl Packages {
    /// What names the packages that `project` asks for, as far as `wharf.lock` tells:
    /// `None` if it doesn't, `Some(None)` if it asks for none.
    pub(super) fn known(project: &Project) -> Result<Option<Option<Sha256>>, ToolError> {
        let Some((requirements, _)) = requirements(project.dir())? else { return Ok(Some(None)) };
        let locked = project.lock().python().filter(|locked| locked.requirements == requirements);
        Ok(locked.map(|locked| Some(key(locked))))
    }

    /// The packages that `project` asks for, from the cache if they are there. What was
    /// looked for is noted in `lock`. None: it asks for none.
    pub(super) fn of(
        project: &Project,
        workshop: &Workshop,
        lock: &mut Option<LockedPackages>,
    ) -> Result<Option<Self>, ToolError> {
        let Some((requirements, arguments)) = requirements(project.dir())? else {
            *lock = None;
            return Ok(None);
        };
        let locked = lock.clone().filter(|locked| locked.requirements == requirements);
        if let Some(locked) = &locked {
            let packages = Self::at(workshop, locked);
            if packages.folder.join(REMOVED).is_file() {
                return Ok(Some(packages));
            }
        }
        if !workshop.is_trusted {
            return Err(ToolError::Source {
                language: Language::Python,
                report: format!(
                    "{REQUIREMENTS} or {PYPROJECT} asks for packages, and projects from elsewhere install none: \
                     their builds could do anything"
                ),
                hint: Some("read it, and if you trust it give --trust".into()),
            });
        }
        let cache = workshop.components();
        fs_err::create_dir_all(&cache).map_err(ToolError::io("make the cache folder"))?;
        let stage = tempfile::tempdir_in(&cache).map_err(ToolError::io("make a folder to install into"))?;
        let pip = Pip::find_or_make(&workshop.runtimes)?;
        let installation = Installation { pip, project, stage: stage.path() };
        let packages = match &locked {
            Some(locked) => {
                let file = stage.path().join("locked.txt");
                fs_err::write(&file, locked.packages.join("\n"))
                    .map_err(ToolError::io("write what is locked"))?;
                let file = file.to_string_lossy().into_owned();
                installation.install(&["--require-hashes".into(), "--no-deps".into(), "-r".into(), file])?;
                locked.packages.clone()
            }
            None => installation.install(&arguments)?,
        };
        let made = LockedPackages { requirements, packages };
        let packages = Self::at(workshop, &made);
        let files = stage.path().join("packages");
        let removed = remove_compiled(&files).map_err(ToolError::io("remove compiled modules"))?;
        let removed = serde_json::to_vec(&removed).unwrap_or_default();
        fs_err::write(files.join(REMOVED), removed).map_err(ToolError::io("keep the packages"))?;
        match fs_err::rename(&files, &packages.folder) {
            // Another process was first, with the same.
            Err(_) if packages.folder.join(REMOVED).is_file() => {}
            kept => kept.map_err(ToolError::io("keep the packages"))?,
        }
        *lock = Some(made);
        Ok(Some(packages))
    }

    fn at(workshop: &Workshop, locked: &LockedPackages) -> Self {
        let key = key(locked);
        Self { folder: workshop.components().join(format!("packages-{key}")), key }
    }

    /// Where the guest's build finds which compiled modules were removed.
    pub(super) fn removed(&self) -> PathBuf {
        self.folder.join(REMOVED)
    }
}

/// Names all that is in the folder of these packages.
fn key(locked: &LockedPackages) -> Sha256 {
    Sha256::of(format!("{FORM}\n{}", locked.packages.join("\n")).as_bytes())
}

/// What a project asks for: a name of it, and pip's arguments.
fn requirements(dir: &Path) -> Result<Option<(String, Vec<String>)>, ToolError> {
    let read = |name: &str| match fs_err::read_to_string(dir.join(name)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ToolError::io("read what the project requires")(error)),
    };
    if let Some(text) = read(REQUIREMENTS)? {
        let asks = text.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
        if !asks {
            return Ok(None);
        }
        // Those that it names count as well.
        let mut all = text.clone();
        for line in text.lines() {
            let other =
                ["-r ", "-c ", "--requirement ", "--constraint "].iter().find_map(|o| line.strip_prefix(o));
            if let Some(other) = other {
                all += &read(other.trim())?.unwrap_or_default();
            }
        }
        let name = Sha256::of(all.as_bytes()).to_string();
        return Ok(Some((name, vec!["-r".into(), REQUIREMENTS.into()])));
    }
    let Some(text) = read(PYPROJECT)? else { return Ok(None) };
    let packages = dependencies(&text).map_err(|report| ToolError::Source {
        language: Language::Python,
        report: format!("{PYPROJECT}: {report}"),
        hint: None,
    })?;
    let name = Sha256::of(packages.join("\n").as_bytes()).to_string();
    Ok((!packages.is_empty()).then_some((name, packages)))
}

/// `[project] dependencies` (PEP 621).
fn dependencies(pyproject: &str) -> Result<Vec<String>, String> {
    #[derive(Default, Deserialize)]
    struct Pyproject {
        #[serde(default)]
        project: Metadata,
    }

    #[derive(Default, Deserialize)]
    struct Metadata {
        #[serde(default)]
        dependencies: Vec<String>,
    }

    let parsed: Pyproject = toml::from_str(pyproject).map_err(|error| error.to_string())?;
    match parsed.project.dependencies.iter().find(|text| text.starts_with('-')) {
        // It would be an option of pip's.
        Some(text) => Err(format!("malformed dependency {text:?}: expected a package")),
        None => Ok(parsed.project.dependencies),
    }
}

struct Installation<'a> {
    pip: Pip,
    project: &'a Project,
    stage: &'a Path,
}

impl Installation<'_> {
    /// Installs what the `arguments` ask for: the releases and hashes of all of it.
    fn install(&self, arguments: &[String]) -> Result<Vec<String>, ToolError> {
        let report = self.stage.join("report.json");
        let built = self.stage.join("built");
        fs_err::create_dir_all(&built).map_err(ToolError::io("make a folder to install into"))?;
        let mut tried = Vec::new();
        loop {
            let output = self.pip(|pip| {
                pip.arg("install").arg("--target").arg(self.stage.join("packages")).args(["--upgrade"]);
                pip.args(["--python-version", "3.14", "--implementation", "cp"]);
                pip.args(["--abi", "cp314", "--abi", "abi3", "--abi", "none"]);
                pip.args(PLATFORMS.iter().flat_map(|platform| ["--platform", platform]));
                pip.args(["--only-binary=:all:", "--no-compile", "--find-links"]).arg(&built);
                pip.arg("--report").arg(&report).args(arguments);
            })?;
            if output.status.success() {
                break;
            }
            let text = words(&output);
            let missing = text.lines().find_map(|line| {
                let (_, rest) = line.split_once("No matching distribution found for ")?;
                rest.split(|c: char| c.is_whitespace() || c == '(').next().map(ToOwned::to_owned)
            });
            match missing {
                Some(name) if !tried.contains(&name) => {
                    self.build(&name, &built)?;
                    tried.push(name);
                }
                _ => return Err(refused(&text)),
            }
        }
        let report = fs_err::read(report).map_err(ToolError::io("read pip's report"))?;
        let report: Report = serde_json::from_slice(&report)
            .map_err(|error| ToolError::Io { action: "read pip's report", source: error.into() })?;
        let mut packages: Vec<String> = report
            .install
            .iter()
            .map(|package| {
                let hash = package.download_info.archive_info.hashes.get("sha256");
                let hash = hash.map_or_else(String::new, |hash| format!(" --hash=sha256:{hash}"));
                format!("{}=={}{hash}", package.metadata.name, package.metadata.version)
            })
            .collect();
        packages.sort_by_key(|package| package.to_ascii_lowercase());
        Ok(packages)
    }

    /// Makes a wheel of a package that is published as source alone, if it is pure Python.
    fn build(&self, name: &str, built: &Path) -> Result<(), ToolError> {
        let wheels = self.stage.join("wheels");
        let output = self.pip(|pip| {
            pip.args(["wheel", "--no-deps", "--wheel-dir"]).arg(&wheels).arg("--").arg(name);
        })?;
        if !output.status.success() {
            return Err(refused(&words(&output)));
        }
        let entries = fs_err::read_dir(&wheels).map_err(ToolError::io("read what pip built"))?;
        for entry in entries {
            let path = entry.map_err(ToolError::io("read what pip built"))?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !file.ends_with("-none-any.whl") {
                return Err(refused(&format!(
                    "{name} needs compiled code, which does not exist for WebAssembly (pip built {file})"
                )));
            }
            fs_err::rename(&path, built.join(file)).map_err(ToolError::io("keep what pip built"))?;
        }
        Ok(())
    }

    fn pip(&self, arguments: impl FnOnce(&mut std::process::Command)) -> Result<Output, ToolError> {
        let mut pip = self.pip.python();
        pip.args(["-I", "-c", PIP, "--quiet", "--disable-pip-version-check", "--no-input"]);
        arguments(&mut pip);
        pip.current_dir(self.project.dir()).stdin(Stdio::null()).output().map_err(ToolError::io("run pip"))
    }
}

fn refused(report: &str) -> ToolError {
    let report = format!("pip cannot install what {REQUIREMENTS} or {PYPROJECT} asks for\n{report}");
    ToolError::Source { language: Language::Python, report, hint: None }
}

/// Removes modules that are machine code, and what they bring: the modules' names,
/// and whose they were.
fn remove_compiled(packages: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut removed = BTreeMap::new();
    for entry in fs_err::read_dir(packages)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".libs") || name == "bin" {
            fs_err::remove_dir_all(&path)?;
        } else if let Some(package) = name.strip_suffix(".dist-info") {
            let record = fs_err::read_to_string(path.join("RECORD"))?;
            let package = package.rsplit_once('-').map_or_else(
                || package.to_owned(),
                |(name, version)| format!("{} {version}", name.replace('_', "-")),
            );
            // PATH,HASH,SIZE; a path with a comma is in quotes, and no module's.
            for file in record.lines().filter_map(|line| line.split(',').next()) {
                if let Some(module) = compiled_module(file) {
                    match fs_err::remove_file(packages.join(file)) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                    removed.insert(module, package.clone());
                }
            }
        }
    }
    Ok(removed)
}

/// The module that a file is, if it is machine code: `a/b.cpython-314-x86_64-linux-gnu.so`
/// is `a.b`.
fn compiled_module(file: &str) -> Option<String> {
    let is_plain = !file.starts_with('/') && !file.split('/').any(|part| part == "..");
    let (folder, name) = file.rsplit_once('/').map_or(("", file), |(folder, name)| (folder, name));
    let is_compiled = name.ends_with(".so") || name.contains(".so.");
    if !is_plain || !is_compiled {
        return None;
    }
    let stem = name.split('.').next()?;
    Some(if folder.is_empty() { stem.to_owned() } else { format!("{}.{stem}", folder.replace('/', ".")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_from_either_file() {
        let folder = tempfile::tempdir().unwrap();
        let asked = || requirements(folder.path()).unwrap().map(|(_, arguments)| arguments);
        assert_eq!(asked(), None);
        let pyproject = "[project]\nname = \"x\"\ndependencies = [\"flask>=3\", \"bottle\"]\n";
        fs_err::write(folder.path().join(PYPROJECT), pyproject).unwrap();
        assert_eq!(asked().unwrap(), ["flask>=3", "bottle"]);
        fs_err::write(folder.path().join(REQUIREMENTS), "# none\n\n").unwrap();
        assert_eq!(asked(), None);
        fs_err::write(folder.path().join(REQUIREMENTS), "flask\n-r more.txt\n").unwrap();
        let (before, arguments) = requirements(folder.path()).unwrap().unwrap();
        assert_eq!(arguments, ["-r", "requirements.txt"]);
        fs_err::write(folder.path().join("more.txt"), "bottle\n").unwrap();
        assert_ne!(requirements(folder.path()).unwrap().unwrap().0, before);
        assert!(dependencies("[project]\ndependencies = [\"--index-url=x\"]").is_err());
    }

    #[test]
    fn a_locked_package_has_a_name_a_version_and_a_hash() {
        let hash = Sha256::of(b"");
        let packages = vec![format!("a-b==1.0 --hash=sha256:{hash}"), "c==2".into(), "nothing".into()];
        let locked = LockedPackages { requirements: String::new(), packages };
        assert_eq!(locked.list().collect::<Vec<_>>(), [("a-b", "1.0", Some(hash)), ("c", "2", None)]);
    }

    #[test]
    fn a_project_from_elsewhere_installs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("project");
        fs_err::create_dir_all(&dir).unwrap();
        fs_err::write(dir.join("index.py"), "").unwrap();
        fs_err::write(dir.join(REQUIREMENTS), "./evil\n").unwrap();
        let workshop = Workshop::new(folder.path().join("cache"), folder.path().join("runtimes"));
        let workshop = Workshop { is_trusted: false, ..workshop };
        let error = Packages::of(&Project::open(&dir).unwrap(), &workshop, &mut None).err().unwrap();
        assert!(error.to_string().contains("install none") && error.hint().is_some(), "{error}");
        assert!(!workshop.runtimes.exists());
    }

    #[test]
    fn compiled_modules_go_and_are_told_by_their_package() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        };
        let compiled = "markup_safe/_speedups.cpython-314-x86_64-linux-gnu.so";
        write(compiled, "");
        write("markup_safe/__init__.py", "");
        write("numpy.libs/x.so.1", "");
        let record = format!("{compiled},sha256=x,1\nmarkup_safe/__init__.py,,\n../../etc/x.so,,\n");
        write("Markup_Safe-3.0.2.dist-info/RECORD", &record);
        let removed = remove_compiled(folder.path()).unwrap();
        assert_eq!(removed, [("markup_safe._speedups".to_owned(), "Markup-Safe 3.0.2".to_owned())].into());
        assert!(!folder.path().join(compiled).exists() && !folder.path().join("numpy.libs").exists());
        assert!(folder.path().join("markup_safe/__init__.py").exists());
    }
}
