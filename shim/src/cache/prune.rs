//! `cache prune`: what nobody needs leaves the cache.

use std::time::Duration;

use anyhow::{Context, Result};
use bytesize::ByteSize;

use super::print;
use crate::aot::Cache;
use crate::aot::sweep::{self, Listed, Removed};

/// What is to leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Everything.
    pub(super) all: bool,
    /// What was not used for so long.
    pub(super) older_than: Option<Duration>,
    /// The longest unused, until no more is left than this.
    pub(super) max_bytes: Option<u64>,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let cache = Cache::open()?;
    let (folder, engine) = (cache.folder(), cache.engine());
    let is_unwanted = |listed: &Listed| {
        options.all
            || match options.older_than {
                Some(age) => listed.age() > age,
                // Who names a measure wants just that.
                None => options.max_bytes.is_none() && listed.engine() != engine,
            }
    };
    let removed = sweep::remove_all(folder, is_unwanted).context("cannot prune the cache")?;
    let size = options.max_bytes.unwrap_or_else(|| cache.size());
    let bounded = sweep::bound(folder, size, engine, Duration::ZERO).context("cannot prune the cache")?;
    sweep::remove_leftovers(folder).context("cannot clear the cache up")?;
    print(&report(removed, bounded))
}

fn report(removed: Removed, bounded: Removed) -> String {
    let entries = removed.entries + bounded.entries;
    let bytes = ByteSize(removed.bytes + bounded.bytes).display().si().to_string();
    let busy = match removed.busy + bounded.busy {
        0 => String::new(),
        busy => format!("; {busy} in use just now"),
    };
    format!("removed {entries} entries, {bytes}{busy}\n")
}
