//! `wharf man`: the manual's pages, made of the commands' help.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
use clap_mangen::Man;

use crate::arguments::Arguments;
use crate::output;

/// Print a page of the manual, or write all of them.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf man build | man -l -")]
pub(crate) struct Manual {
    /// The command whose page is printed [default: wharf itself].
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    command: Option<String>,
    /// Write the pages of all commands there, as wharf.1 and wharf-COMMAND.1.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Manual) -> Result<ExitCode> {
    let mut wharf = Arguments::command();
    if let Some(folder) = &args.output {
        fs_err::create_dir_all(folder)?;
        clap_mangen::generate_to(wharf, folder)
            .with_context(|| format!("cannot write the pages to {}", folder.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    // So that a command knows its whole name.
    wharf.build();
    let command = match &args.command {
        None => wharf,
        Some(name) => {
            let found = wharf.find_subcommand(name).cloned();
            found.with_context(|| {
                format!("there is no command {name:?}: `wharf --help` lists those that there are")
            })?
        }
    };
    let title = command.get_display_name().unwrap_or("wharf").to_owned();
    let mut page = Vec::new();
    Man::new(command).title(title).render(&mut page)?;
    output::line(String::from_utf8(page).context("the page is not UTF-8")?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
