//! What leaves the cache: entries that were not used for long, when there are
//! too many, and what killed processes left behind.
//!
//! An entry is removed under its lock only, so never while someone makes or
//! checks it, and a container that has just opened it, or serves by it, keeps
//! the file that it has: a name is removed, the file goes when nobody has it
//! open or mapped. So the worst that can come of it is another compilation.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use wharf_app::Sha256;

use super::entry::Entry;
use super::is_engine_id;

/// How long an entry stays after its use, whatever the size: a create that has
/// looked for it may be about to open it.
pub(super) const JUST_USED: Duration = Duration::from_secs(120);

/// How long another engine's entry has been unused when it is the first to go:
/// after an upgrade, nobody asks for it again.
const OLD: Duration = Duration::from_secs(24 * 3600);

/// An entry that is complete as far as can be seen without reading it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(super) entry: Entry,
    /// The component's name in the image that it came from first.
    pub(crate) file: String,
    /// The code's digest.
    pub(crate) code: Sha256,
    /// The code's bytes.
    pub(crate) size: u64,
    /// When it was last used, to a minute.
    pub(crate) used: SystemTime,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// How many entries.
    pub(crate) entries: usize,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Entries that stay since someone works on them.
    pub(crate) busy: usize,
}

impl Listed {
    /// The component that was compiled.
    pub(crate) fn component(&self) -> Sha256 {
        self.entry.component()
    }

    /// The engine that it was compiled for.
    pub(crate) fn engine(&self) -> &str {
        self.entry.engine()
    }

    /// How long it has not been used.
    pub(crate) fn age(&self) -> Duration {
        // A time to come is one of a clock that was set back.
        self.used.elapsed().unwrap_or_default()
    }
}

/// All entries, the longest unused first.
///
/// # Errors
/// A folder can't be read.
pub(crate) fn list(root: &Path) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    for (entry, _) in entries(root)? {
        if let Some((record, used)) = entry.recorded() {
            found.push(Listed { entry, file: record.file, code: record.code, size: record.size, used });
        }
    }
    found.sort_by_key(|listed| listed.used);
    Ok(found)
}

/// Removes entries until all together have at most `size` bytes: those that
/// were not used for long before those that were, and those of engines other
/// than `engine` before its own. What was used in the time `spared` stays.
///
/// # Errors
/// The cache can't be read, or an entry not be removed.
pub(crate) fn bound(root: &Path, size: u64, engine: &str, spared: Duration) -> io::Result<Removed> {
    // Two at a time would each remove enough.
    let lock = fs::File::create(root.join("sweep.lock"))?;
    lock.file().lock()?;
    let mut all = list(root)?;
    let mut total: u64 = all.iter().map(|listed| listed.size).sum();
    let is_unwanted = |listed: &Listed| listed.engine() != engine && listed.age() > OLD;
    // A stable sort: among equals the longest unused stay first.
    all.sort_by_key(|listed| !is_unwanted(listed));
    let mut removed = Removed::default();
    for listed in all.iter().filter(|listed| listed.age() >= spared) {
        if total <= size {
            break;
        }
        if remove(listed, &mut removed)? {
            total -= listed.size;
        }
    }
    Ok(removed)
}

/// Removes all entries that `unwanted` says.
///
/// # Errors
/// The cache can't be read, or an entry not be removed.
pub(crate) fn remove_all(root: &Path, unwanted: impl Fn(&Listed) -> bool) -> io::Result<Removed> {
    let mut removed = Removed::default();
    for listed in list(root)?.iter().filter(|listed| unwanted(listed)) {
        remove(listed, &mut removed)?;
    }
    Ok(removed)
}

/// Removes what is no entry: code without a record, folders of compilers that
/// were killed, and engines' folders with nothing in them.
///
/// # Errors
/// The cache can't be read, or something not be removed.
pub(crate) fn remove_leftovers(root: &Path) -> io::Result<()> {
    for (entry, _) in entries(root)?.into_iter().filter(|(_, is_whole)| !is_whole) {
        // Whoever has the lock is about to make it an entry.
        if let Some(lock) = entry.try_lock()? {
            match entry.recorded() {
                Some(_) => entry.end(&lock)?,
                None => entry.remove(&lock)?,
            }
        }
    }
    for engine in engines(root)? {
        // One that isn't empty stays.
        let _ = std::fs::remove_dir(root.join(engine));
    }
    Ok(())
}

fn remove(listed: &Listed, removed: &mut Removed) -> io::Result<bool> {
    let Some(lock) = listed.entry.try_lock()? else {
        removed.busy += 1;
        return Ok(false);
    };
    // It may have been used, or made anew, since it was listed.
    if listed.entry.recorded().is_some_and(|(_, used)| used != listed.used) {
        removed.busy += 1;
        return Ok(false);
    }
    listed.entry.remove(&lock)?;
    removed.entries += 1;
    removed.bytes += listed.size;
    Ok(true)
}

/// Whatever has files, and whether they are those of a whole entry.
fn entries(root: &Path) -> io::Result<Vec<(Entry, bool)>> {
    let mut found = Vec::new();
    for engine in engines(root)? {
        let mut files: BTreeMap<Sha256, BTreeSet<String>> = BTreeMap::new();
        for file in fs::read_dir(root.join(&engine))? {
            let name = file?.file_name();
            if let Some((component, ending)) = name.to_str().and_then(|name| name.split_once('.'))
                && let Ok(component) = component.parse()
            {
                files.entry(component).or_default().insert(ending.to_owned());
            }
        }
        let whole = BTreeSet::from(["cwasm".to_owned(), "json".to_owned()]);
        let entry = |(component, endings)| (Entry::new(root, &engine, component), endings == whole);
        found.extend(files.into_iter().map(entry));
    }
    Ok(found)
}

fn engines(root: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(root)? {
        let folder = folder?;
        let name = folder.file_name().into_string().unwrap_or_default();
        if folder.file_type()?.is_dir() && is_engine_id(&name) {
            found.push(name);
        }
    }
    found.sort_unstable();
    Ok(found)
}
