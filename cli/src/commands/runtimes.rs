//! `wharf runtimes`: the toolchains that make components of workers.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use wharf_app::{COMPONENTIZE_PY, PythonToolchain};

use crate::arguments::Global;
use crate::output;
use crate::places::Places;
use crate::progress::Progress;

/// List, install or remove language toolchains.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf runtimes install python")]
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
    /// Install a toolchain, through your own pip.
    Install {
        /// The language.
        name: Name,
    },
    /// Remove a toolchain that `install` made.
    Remove {
        /// The language.
        name: Name,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    Python,
}

#[derive(Serialize)]
struct Runtime {
    name: &'static str,
    tool: String,
    installed: Option<String>,
}

pub(crate) fn run(args: &Runtimes, global: &Global) -> Result<ExitCode> {
    let runtimes = Places::from_env()?.workshop().runtimes;
    match args.action.as_ref().unwrap_or(&Action::List { json: false }) {
        Action::List { json } => {
            let found = PythonToolchain::find(&runtimes);
            let python = Runtime {
                name: "python",
                tool: format!("componentize-py {COMPONENTIZE_PY}"),
                installed: found.ok().map(|found| found.program.display().to_string()),
            };
            if *json {
                output::json(&[python])?;
            } else {
                let state =
                    python.installed.unwrap_or_else(|| "missing: wharf runtimes install python".into());
                output::table(&[[python.name.to_owned(), python.tool, state]])?;
            }
        }
        Action::Install { name: Name::Python } => {
            let progress = Progress::new(global);
            progress.step(format!("installing componentize-py {COMPONENTIZE_PY}"));
            let toolchain = PythonToolchain::install(&runtimes)?;
            drop(progress);
            output::line(toolchain.program.display())?;
        }
        Action::Remove { name: Name::Python } => {
            if !PythonToolchain::remove(&runtimes)? {
                output::remark("nothing to remove");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
