//! One entry: its files, its lock, and whether it can be trusted.
//!
//! | file | |
//! | --- | --- |
//! | `SHA256.cwasm` | the code |
//! | `SHA256.json` | its [`Record`]; code without one is none |
//! | `SHA256.lock` | there while someone compiles or removes the entry |
//! | `SHA256.work/` | what the compiler reads and writes |

use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use wharf_app::Sha256;

use super::make_folder;
use super::record::Record;
use crate::sys;

/// How exact the time of an entry's last use is.
const USE_NOTED: Duration = Duration::from_secs(60);

/// Longest record that is read.
const MAX_RECORD: u64 = 64 << 10;

/// The files of one entry. They need not exist.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    folder: PathBuf,
    engine: String,
    component: Sha256,
}

/// Work on an entry that only one process may do. Its name goes when it is
/// dropped: it is there only while there is work.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// None once another process is to remove the name.
    path: Option<PathBuf>,
}

impl Entry {
    /// The entry for a component in the cache `root`.
    pub(super) fn new(root: &Path, engine: &str, component: Sha256) -> Self {
        Self { folder: root.join(engine), engine: engine.to_owned(), component }
    }

    pub(super) fn component(&self) -> Sha256 {
        self.component
    }

    pub(super) fn engine(&self) -> &str {
        &self.engine
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.component))
    }

    fn code(&self) -> PathBuf {
        self.path("cwasm")
    }

    fn record(&self) -> PathBuf {
        self.path("json")
    }

    fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// The component as copied out of the image.
    pub(super) fn source(&self) -> PathBuf {
        self.work().join("component.wasm")
    }

    /// What the compiler writes.
    pub(super) fn output(&self) -> PathBuf {
        self.work().join("code.cwasm")
    }

    /// What the compiler says.
    pub(super) fn messages(&self) -> PathBuf {
        self.work().join("messages")
    }

    /// The code, if the entry is complete and known to be unchanged. Takes no
    /// lock and reads no code: this is what a usual create waits for.
    pub(super) fn open(&self) -> Option<File> {
        let (record, noted) = self.read_record()?;
        let code = sys::open_ours(&self.code()).ok()?;
        if !record.knows(&code) {
            return None;
        }
        note_use(&noted);
        Some(sys::read_only(code))
    }

    /// As [`Entry::open`], but reads the code if it is not known: after it was
    /// changed, or the machine was started. Code that is not what was recorded
    /// is removed.
    ///
    /// # Errors
    /// The entry can't be read or removed.
    pub(super) fn check(&self, lock: &Lock) -> io::Result<Option<File>> {
        if let Some(code) = self.open() {
            return Ok(Some(code));
        }
        let known = self.read_record().zip(sys::open_ours(&self.code()).ok());
        if let Some(((record, _), code)) = known
            // One that can't be read is as bad as one that differs.
            && let Ok(Some(record)) = record.renewed(&code)
        {
            if let Err(error) = self.write_record(&record) {
                tracing::warn!(%error, "cannot note that an entry of the cache was read");
            }
            return Ok(Some(sys::read_only(code)));
        }
        if fs::symlink_metadata(self.code()).is_ok() {
            tracing::warn!(component = %self.component, "an entry of the cache is not what was written: it is made anew");
        }
        self.remove(lock)?;
        Ok(None)
    }

    /// What is recorded of the entry, and when it was last used.
    pub(super) fn recorded(&self) -> Option<(Record, SystemTime)> {
        let (record, noted) = self.read_record()?;
        let used = noted.metadata().and_then(|metadata| metadata.modified()).ok()?;
        Some((record, used))
    }

    /// The record and its file. None if it is not this entry's: an entry may
    /// have been renamed.
    fn read_record(&self) -> Option<(Record, File)> {
        let file = sys::open_ours(&self.record()).ok()?;
        // At once: serde_json would ask for byte after byte.
        let mut text = Vec::new();
        (&file).take(MAX_RECORD).read_to_end(&mut text).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        let is_ours = record.component == self.component && record.engine == self.engine;
        is_ours.then_some((record, file))
    }

    fn write_record(&self, record: &Record) -> io::Result<()> {
        let temporary = self.path("json.new");
        // Not one that somebody else may have opened.
        remove_if_there(&temporary)?;
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        fs::rename(temporary, self.record())?;
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// Makes an empty folder to work in.
    pub(super) fn begin(&self, _: &Lock) -> io::Result<()> {
        remove_tree(&self.work())?;
        make_folder(&self.work()).map_err(io::Error::other)
    }

    /// Removes whatever is not the entry itself.
    pub(super) fn end(&self, _: &Lock) -> io::Result<()> {
        remove_if_there(&self.path("json.new"))?;
        remove_tree(&self.work())
    }

    /// Makes what the compiler wrote the entry: whoever looks at any moment, or
    /// after the machine failed at any moment, finds a whole entry or none.
    pub(super) fn publish(&self, file: &str, _: &Lock) -> io::Result<()> {
        let output = sys::open_ours(&self.output())?;
        if output.metadata()?.len() == 0 {
            return Err(io::Error::other("the compiler wrote nothing"));
        }
        // Readable by the user of the container, who reopens it by descriptor: the
        // folder, which is not, keeps everybody else out.
        output.set_permissions(Permissions::from_mode(0o644))?;
        output.sync_all()?;
        // Code without its record is none.
        remove_if_there(&self.record())?;
        fs::rename(self.output(), self.code())?;
        // Renaming is a change as well, so it is read after that.
        let record = Record::of(self.component, &self.engine, file, &output)?;
        self.write_record(&record)
    }

    /// Removes the entry. Containers that have it open keep it: a file lasts
    /// until nobody has it open or mapped.
    pub(super) fn remove(&self, lock: &Lock) -> io::Result<()> {
        remove_tree(&self.record())?;
        remove_tree(&self.code())?;
        self.end(lock)
    }

    /// Waits for the lock; calls `waiting` again and again while it does.
    pub(super) fn lock(&self, mut waiting: impl FnMut()) -> io::Result<Lock> {
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            waiting();
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// The lock, if nobody has it.
    pub(super) fn try_lock(&self) -> io::Result<Option<Lock>> {
        let path = self.path("lock");
        loop {
            let file = match open_lock(&path) {
                // `prune` may have removed an empty folder.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make_folder(&self.folder).map_err(io::Error::other)?;
                    open_lock(&path)?
                }
                other => other?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Whoever had it may have removed its name: then others lock another
            // file by now.
            let ours = file.metadata()?;
            match fs::symlink_metadata(&path) {
                Ok(there) if there.ino() == ours.ino() && there.dev() == ours.dev() => {
                    return Ok(Some(Lock { file, path: Some(path) }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The lock that the process holds at its standard input, by the one that
    /// started it.
    pub(super) fn inherited_lock(&self) -> io::Result<Lock> {
        Ok(Lock { file: sys::take_stdin()?.into(), path: Some(self.path("lock")) })
    }
}

impl Lock {
    /// Leaves it to another process to remove the name.
    pub(super) fn hand_over(&mut self) {
        self.path = None;
    }

    /// The same lock for another process: it is held until both have ended.
    pub(super) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before it is given up: the name is never removed from under another's.
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path)
}

/// Notes that the entry is used now, by the time of its record: not at each
/// use, so that many starts don't all write to the disk.
fn note_use(record: &File) {
    let used = record.metadata().and_then(|metadata| metadata.modified());
    let age = used.ok().and_then(|used| used.elapsed().ok());
    if age.is_none_or(|age| age > USE_NOTED) {
        // On a disk that can't be written to nothing is removed either.
        let _ = record.set_modified(SystemTime::now());
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a file, or a folder with all that is in it.
fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
