//! `wharf completions`: what a shell must know to complete our commands.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::output;

/// Print a script by which a shell completes wharf's commands and options.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf completions bash > ~/.local/share/bash-completion/completions/wharf")]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn run(args: &Completions) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "wharf", &mut script);
    let script = String::from_utf8(script).context("the script is not UTF-8")?;
    output::line(script.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
