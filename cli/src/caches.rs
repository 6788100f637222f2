//! What of the caches is no longer used: components, compressed files, machine
//! code, records of layers, unpacked images. All of it can be made again.
//!
//! Only what wharf made goes: in its own folders, what bears a hash or the name
//! of an unfinished file. `WHARF_CACHE` may name a folder with other things in it.
//!
//! A file's last use is the later of when it was written and when it was read,
//! as far as the file system keeps that (with `relatime`, to the day).

use std::ffi::OsStr;
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

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) freed: Freed,
    /// How many files and folders could not be read or removed; each was told.
    pub(crate) failures: u64,
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
pub(crate) fn sweep(places: &Places, sweep: Sweep) -> Swept {
    let mut swept = Swept::default();
    let oldest = sweep.unused_for.map(|time| SystemTime::now().checked_sub(time));
    let is_old = |used: SystemTime| match oldest {
        None => true,
        // So long ago that nothing is older.
        Some(None) => false,
        Some(Some(oldest)) => used < oldest,
    };
    for folder in places.caches().into_iter().filter(|folder| is_folder(folder)) {
        let whole = folder == places.unpacked();
        let units = if whole { swept.entries(&folder) } else { swept.files(&folder) };
        for unit in units.into_iter().filter(|unit| is_ours(&folder, unit)) {
            let removed = swept.unit(&unit, sweep, is_old);
            swept.unless_failed(&unit, removed);
            if !sweep.dry_run {
                remove_empty(&folder, &unit);
            }
        }
        if !sweep.dry_run {
            // It fails, as it should, if something is left.
            let _ = fs::remove_dir(&folder);
        }
    }
    swept
}

impl Swept {
    /// Removes a file, or a folder as a whole.
    fn unit(&mut self, unit: &Path, sweep: Sweep, is_old: impl Fn(SystemTime) -> bool) -> io::Result<()> {
        let content = self.files(unit);
        let content = content.into_iter().map(|file| {
            let metadata = fs::symlink_metadata(&file)?;
            Ok((file, metadata))
        });
        let content = content.collect::<io::Result<Vec<_>>>()?;
        // An empty folder: nobody has made it just now, since we hold the lock.
        let used = content.iter().map(|(_, metadata)| last_use(metadata)).collect::<io::Result<Vec<_>>>()?;
        if !is_old(used.into_iter().max().unwrap_or(SystemTime::UNIX_EPOCH)) {
            return Ok(());
        }
        // An image that is being served: its files are opened when asked for.
        let lock = match is_folder(unit) {
            true => Some(fs::File::open(unit)?),
            false => None,
        };
        if lock.as_ref().is_some_and(|folder| folder.file().try_lock().is_err()) {
            return Ok(());
        }
        let removed = match (sweep.dry_run, is_folder(unit)) {
            (true, _) => Ok(()),
            (false, true) => fs::remove_dir_all(unit),
            (false, false) => fs::remove_file(unit),
        };
        for (file, metadata) in &content {
            // Of a folder that could not be removed, a part may be gone.
            if sweep.dry_run || fs::symlink_metadata(file).is_err() {
                self.freed.files += 1;
                self.freed.bytes += metadata.len();
            }
        }
        removed
    }

    /// The file `path`, or all files below it that can be found; links are not
    /// followed.
    fn files(&mut self, path: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![path.to_owned()];
        while let Some(path) = waiting.pop() {
            if is_folder(&path) {
                waiting.extend(self.entries(&path));
            } else {
                found.push(path);
            }
        }
        found
    }

    fn entries(&mut self, folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
        let mut paths = self.unless_failed(folder, entries).unwrap_or_default();
        paths.sort();
        paths
    }

    /// One that fails keeps no other from being removed.
    fn unless_failed<T>(&mut self, path: &Path, result: io::Result<T>) -> Option<T> {
        result
            .inspect_err(|error| {
                self.failures += 1;
                tracing::warn!(path = %path.display(), %error, "cannot remove from the cache");
            })
            .ok()
    }
}

fn last_use(metadata: &std::fs::Metadata) -> io::Result<SystemTime> {
    let written = metadata.modified()?;
    Ok(metadata.accessed().map_or(written, |read| read.max(written)))
}

fn is_folder(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Whether wharf made what lies at `path` below `folder`: it, or a folder that
/// it lies in, is named by a SHA-256 or as unfinished files are.
fn is_ours(folder: &Path, path: &Path) -> bool {
    let is_hex = |byte: &u8| byte.is_ascii_hexdigit();
    path.strip_prefix(folder).is_ok_and(|below| {
        below.iter().map(OsStr::as_encoded_bytes).any(|name| {
            let unfinished = [".tmp", ".unfinished-", ".unpacking-"];
            unfinished.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
                || name.split(|byte| !is_hex(byte)).any(|part| part.len() == 64)
        })
    })
}

/// Removes the folders between `folder` and the removed `unit` that are left empty.
fn remove_empty(folder: &Path, unit: &Path) {
    for parent in unit.ancestors().skip(1).take_while(|parent| *parent != folder) {
        if std::fs::remove_dir(parent).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Sweep = Sweep { unused_for: None, dry_run: false };

    fn places(root: &Path) -> Places {
        Places::new(root.join("store"), root.join("cache"), root.join("runtimes"))
    }

    fn write(root: &Path, path: &str) -> PathBuf {
        let path = root.join("cache").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "12345").unwrap();
        path
    }

    /// Something in each of the folders, as wharf names it.
    fn fill(root: &Path) -> Vec<PathBuf> {
        let hash = "0123456789abcdef".repeat(4);
        let paths = [
            format!("code/0123456789abcdef/{hash}.cwasm"),
            "code/0123456789abcdef/.tmpAbCdEf".to_owned(),
            format!("components/python-{hash}.wasm"),
            "components/.tmpAbCdEf/project/index.py".to_owned(),
            format!("encodings/0123456789abcdef/{hash}.br"),
            format!("layers/0123456789abcdef/{hash}.json"),
            "layers/0123456789abcdef/.unfinished-AbCdEf".to_owned(),
            format!("unpacked/{hash}/app/site/index.html"),
            "unpacked/.unpacking-AbCdEf/app/wharf.json".to_owned(),
        ];
        paths.iter().map(|path| write(root, path)).collect()
    }

    #[test]
    fn what_others_keep_beside_the_caches_stays() {
        let root = tempfile::tempdir().unwrap();
        let foreign = ["thesis/chapter.tex", "notes", "code/project/main.rs", "unpacked/holiday/1.jpg"];
        let foreign = foreign.map(|path| write(root.path(), path));
        fs::create_dir_all(root.path().join("cache/empty")).unwrap();
        let ours = fill(root.path());
        let expected = Freed { files: ours.len() as u64, bytes: 5 * ours.len() as u64 };
        let counted = sweep(&places(root.path()), Sweep { dry_run: true, ..ALL });
        assert_eq!(counted, Swept { freed: expected, failures: 0 });
        assert!(ours.iter().all(|path| path.exists()), "only counted");
        assert_eq!(sweep(&places(root.path()), ALL), counted);
        assert!(!ours.iter().any(|path| path.exists()));
        assert!(foreign.iter().all(|path| path.exists()));
        assert!(root.path().join("cache/empty").is_dir());
        let left = fs::read_dir(root.path().join("cache")).unwrap().count();
        assert_eq!(left, 5, "thesis, notes, code, unpacked and empty");
    }

    /// A folder so deep that its path has more than the 4,096 bytes that Linux
    /// takes: not even root can read it by name.
    #[test]
    fn what_cannot_be_read_ends_no_sweep() {
        let root = tempfile::tempdir().unwrap();
        let ours = fill(root.path());
        let deep = |name: &str| {
            let folder = root.path().join(name);
            let below = vec!["x".repeat(250); 10].join("/");
            fs::create_dir_all(folder.join(&below)).unwrap();
            (folder.clone(), folder.join(below))
        };
        let (_, bottom) = deep(&format!("cache/unpacked/{}", "f".repeat(64)));
        let (top, _) = deep("other");
        fs::rename(top, bottom.join("x")).unwrap();
        let swept = sweep(&places(root.path()), ALL);
        assert_eq!(swept.freed.files, ours.len() as u64);
        assert_eq!(swept.failures, 1);
        assert!(!ours.iter().any(|path| path.exists()));
    }
}
