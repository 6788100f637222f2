//! `wharf routes`: which request goes where.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::arguments::Global;
use crate::output::{self, plain};
use crate::places::Places;
use crate::progress::Progress;
use crate::target::Target;

/// List an app's routes in order of precedence.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf routes examples/hello --json")]
pub(crate) struct Routes {
    /// A project folder, an image of the local store, an OCI layout or a saved archive.
    #[arg(default_value = ".")]
    target: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Routes, global: &Global) -> Result<ExitCode> {
    let places = Places::from_env()?;
    let manifest = Target::find(&args.target, &places)?.manifest(&places, &Progress::new(global))?;
    let lines = wharf_app::Routes::new(&manifest)?.lines(&manifest);
    if args.json {
        output::json(&lines)?;
    } else {
        let rows: Vec<[String; 3]> = lines
            .into_iter()
            .map(|line| [plain(&line.pattern), line.kind.to_owned(), plain(&line.source)])
            .collect();
        output::table(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}
