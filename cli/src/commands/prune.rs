//! `wharf prune`: what no image needs, and what was not used for long.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use wharf_images::LayerCache;

use crate::arguments::Global;
use crate::caches::{self, Freed, Sweep};
use crate::commands::build::layers_of;
use crate::output;
use crate::places::Places;
use crate::progress::Progress;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Remove what no image of the local store needs, and caches not used for long.
///
/// Waits for builds, pushes, pulls, saves and loads that are running. What cannot
/// be removed from the caches is named, the rest is removed, and the exit code is 1.
#[derive(Debug, Args)]
#[command(after_help = "Example: wharf prune --dry-run")]
pub(crate) struct Prune {
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
    /// Empty the caches, however lately used: components, compressed files, machine
    /// code, records of layers, unpacked images; but not images being served.
    #[arg(long)]
    all: bool,
    /// Remove from the caches what was not used for so many days.
    #[arg(long, value_name = "DAYS", default_value_t = 30, conflicts_with = "all")]
    unused_for: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    /// Blobs of the store and unfinished files beside them.
    store: Freed,
    caches: Freed,
    /// Of both.
    bytes: u64,
}

pub(crate) fn run(args: &Prune, global: &Global) -> Result<ExitCode> {
    let places = Places::from_env()?;
    let store = places.store()?;
    let progress = Progress::new(global);
    progress.step("waiting for builds, pushes, pulls, saves and loads that are running");
    let removed = if args.dry_run { store.prunable()? } else { store.prune()? };

    // After the store: a record of a layer goes with its blob.
    let _caches = places.lock_caches().context("cannot lock the caches")?;
    progress.step("pruning the caches");
    let records = LayerCache::new(layers_of(&store, &places));
    let records = if args.dry_run { records.prunable(&store) } else { records.prune(&store) };
    let records = records.map_err(|error| {
        let error = format!("{:#}", anyhow::Error::new(error));
        tracing::warn!(error, "cannot remove records of layers");
    });
    let unused_for = (!args.all).then(|| DAY * args.unused_for);
    let swept = caches::sweep(&places, Sweep { unused_for, dry_run: args.dry_run });
    drop(progress);

    let whole = records.is_ok() && swept.failures == 0;
    let (records, caches) = (records.unwrap_or_default(), swept.freed);
    let caches = Freed { files: caches.files + records.blobs as u64, bytes: caches.bytes + records.bytes };
    let store = Freed { files: removed.blobs as u64, bytes: removed.bytes };
    let report = Report { dry_run: args.dry_run, store, caches, bytes: store.bytes + caches.bytes };
    if args.json {
        output::json(&report)?;
    } else {
        let row = |name: &str, freed: Freed| {
            let files = if freed.files == 1 { "file" } else { "files" };
            [name.to_owned(), format!("{} {files}", freed.files), format!("{} bytes", freed.bytes)]
        };
        output::table(&[row("store", store), row("caches", caches)])?;
        let freed = if args.dry_run { "would free" } else { "freed" };
        output::line(format!("{freed} {} bytes ({})", report.bytes, output::size(report.bytes)))?;
    }
    // Each was told when it failed.
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
