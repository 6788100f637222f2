//! Tools and packages from PyPI, by the user's own pip.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{Release, ToolError, run};

/// A pip with nothing installed, in a virtual environment of ours: Debian's own
/// Python has none, or one that installs nothing beside the system's packages.
pub(crate) struct Pip {
    python: PathBuf,
}

/// What `pip install --report` tells.
#[derive(Deserialize)]
struct Report {
    install: Vec<Installed>,
}

/// One distribution that was installed.
#[derive(Deserialize)]
struct Installed {
    metadata: Metadata,
}

/// What it says of itself.
#[derive(Deserialize)]
struct Metadata {
    name: String,
    version: String,
}

/// The Python of the virtual environment in `runtimes`.
pub(super) fn python(runtimes: &Path) -> PathBuf {
    runtimes.join("pip/bin/python3")
}

impl Pip {
    /// The pip in `runtimes`, made now if it isn't there or no longer runs, as
    /// after an upgrade of Python.
    pub(crate) fn find_or_make(runtimes: &Path) -> Result<Self, ToolError> {
        let folder = runtimes.join("pip");
        let python = python(runtimes);
        let works = |python: &Path| {
            let asked = Command::new(python).args(["-m", "pip", "--version"]).output();
            asked.is_ok_and(|output| output.status.success())
        };
        if !works(&python) {
            fs_err::create_dir_all(runtimes).map_err(ToolError::io("make the folder of runtimes"))?;
            // In place: a virtual environment can't be moved.
            let mut venv = Command::new("python3");
            venv.args(["-m", "venv", "--clear"]).arg(&folder);
            run("pip", "python3 -m venv", &mut venv)?;
        }
        Ok(Self { python })
    }

    /// The Python that has it.
    pub(crate) fn python(&self) -> Command {
        Command::new(&self.python)
    }

    /// pip with arguments that every use has.
    fn command(&self) -> Command {
        let mut command = self.python();
        command.args(["-I", "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]);
        command
    }

    /// Installs the package `name` into `folder`. Which release it was.
    pub(super) fn install_tool(
        &self,
        name: &str,
        release: &Release,
        folder: &Path,
    ) -> Result<String, ToolError> {
        let wanted = match release {
            Release::Exactly(version) => format!("{name}=={version}"),
            Release::Latest => name.to_owned(),
        };
        let report = tempfile::NamedTempFile::new().map_err(ToolError::io("make a temporary file"))?;
        let mut pip = self.command();
        pip.args(["install", "--target"]).arg(folder).arg("--report").arg(report.path()).arg(&wanted);
        run(&wanted, "pip install", &mut pip)?;
        let report = fs_err::read(report.path()).map_err(ToolError::io("read pip's report"))?;
        let report: Report = serde_json::from_slice(&report).map_err(|error| ToolError::Install {
            tool: wanted.clone(),
            step: "pip install --report",
            report: error.to_string(),
            hint: Some("pip 22.2 or later tells what it installed: upgrade Python"),
        })?;
        let same = |installed: &&Installed| installed.metadata.name.replace('_', "-") == name;
        let version = report.install.iter().find(same).map(|installed| installed.metadata.version.clone());
        version.ok_or_else(|| ToolError::Install {
            tool: wanted,
            step: "pip install",
            report: format!("its report does not name {name}"),
            hint: None,
        })
    }
}
