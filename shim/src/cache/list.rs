//! `cache list`: what the cache has.

use std::fmt::Write;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use humantime::format_rfc3339_seconds;
use serde_json::json;

use super::{print, remark};
use crate::aot::Cache;
use crate::aot::sweep::{self, Listed};

/// Digits of a digest that people need to tell it from others.
const SHORT: usize = 12;

pub(super) fn run(json: bool) -> Result<()> {
    let cache = Cache::open()?;
    let entries = sweep::list(cache.folder()).context("cannot list the cache")?;
    let total: u64 = entries.iter().map(|entry| entry.size).sum();
    if json {
        return print(&as_json(&cache, &entries, total));
    }
    print(&as_table(&entries, cache.engine()))?;
    let (total, most) = (ByteSize(total).display().si(), ByteSize(cache.size()).display().si());
    let folder = cache.folder().display();
    remark(&format!("{} entries in {folder}, {total} of {most}", entries.len()));
    Ok(())
}

fn as_json(cache: &Cache, entries: &[Listed], total: u64) -> String {
    let entry = |entry: &Listed| {
        json!({
            "component": entry.component(),
            "file": entry.file,
            "engine": entry.engine(),
            "current": entry.engine() == cache.engine(),
            "code": entry.code,
            "bytes": entry.size,
            "used": format_rfc3339_seconds(entry.used).to_string(),
        })
    };
    let all = json!({
        "folder": cache.folder(),
        "engine": cache.engine(),
        "bytes": total,
        "max_bytes": cache.size(),
        "entries": entries.iter().map(entry).collect::<Vec<_>>(),
    });
    format!("{all:#}\n")
}

fn as_table(entries: &[Listed], engine: &str) -> String {
    let mut table = format!("{:SHORT$}  {:>9}  {:20}  {:16}  FILE\n", "COMPONENT", "SIZE", "USED", "ENGINE");
    for entry in entries {
        let component = entry.component().to_string();
        let size = ByteSize(entry.size).display().si().to_string();
        let used = format_rfc3339_seconds(entry.used).to_string();
        let engine = if entry.engine() == engine { "current" } else { entry.engine() };
        // Writing to a text does not fail.
        let _ = writeln!(
            table,
            "{:SHORT$}  {size:>9}  {used:20}  {engine:16}  {}",
            &component[..SHORT],
            entry.file.escape_default()
        );
    }
    table
}
