//! What of the caches is no longer used: components, machine code, unpacked
//! images, and whatever else lies there. All of it can be made again.
//!
//! A file's last use is the later of when it was written and when it was read,
//! as far as the file system keeps that (with `relatime`, to the day).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;

use crate::places::Places;

/// What was removed, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Freed {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Which files go, and whether they really do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    /// Not used for this long; none is all.
    pub(crate) unused_for: Option<Duration>,
    /// Only counts.
    pub(crate) dry_run: bool,
}

/// Removes from the caches. The caller has them for itself: see
/// [`Places::lock_caches`].
pub(crate) fn sweep(places: &Places, sweep: Sweep) -> io::Result<Freed> {
    let mut freed = Freed::default();
    let oldest = sweep.unused_for.map(|time| SystemTime::now().checked_sub(time));
    let is_old = |used: SystemTime| match oldest {
        None => true,
        // So long ago that nothing is older.
        Some(None) => false,
        Some(Some(oldest)) => used < oldest,
    };
    for folder in folders(places.cache())? {
        let whole = folder == places.unpacked();
        let units = if whole { entries(&folder)? } else { files(&folder)? };
        for unit in units {
            let content = files(&unit)?;
            let used = content.iter().map(|file| last_use(file)).collect::<io::Result<BTreeSet<_>>>()?;
            // An empty folder: nobody has made it just now, since we hold the lock.
            let used = used.last().copied().unwrap_or(SystemTime::UNIX_EPOCH);
            if !is_old(used) {
                continue;
            }
            // An image that is being served: its files are opened when asked for.
            let lock = match unit.is_dir() {
                true => Some(fs::File::open(&unit)?),
                false => None,
            };
            if lock.as_ref().is_some_and(|folder| folder.file().try_lock().is_err()) {
                continue;
            }
            for file in &content {
                freed.files += 1;
                freed.bytes += fs::symlink_metadata(file)?.len();
            }
            if sweep.dry_run {
                continue;
            }
            match unit.is_dir() {
                true => fs::remove_dir_all(&unit)?,
                false => fs::remove_file(&unit)?,
            }
        }
        if !sweep.dry_run {
            remove_empty(&folder)?;
        }
    }
    Ok(freed)
}

fn last_use(file: &Path) -> io::Result<SystemTime> {
    let metadata = fs::symlink_metadata(file)?;
    let written = metadata.modified()?;
    Ok(metadata.accessed().map_or(written, |read| read.max(written)))
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// The folders in `folder`; links are not followed, here and below.
fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| is_folder(path)).collect())
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// The file `path`, or all files below it.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        if is_folder(&path) {
            waiting.extend(entries(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes the folders below `folder`, and itself, that hold nothing.
fn remove_empty(folder: &Path) -> io::Result<()> {
    for inner in folders(folder)? {
        remove_empty(&inner)?;
    }
    if entries(folder)?.is_empty() {
        fs::remove_dir(folder)?;
    }
    Ok(())
}
