//! What is noted of an entry's code, so that a change of it is seen.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use wharf_app::Sha256;

/// Longest time in which the kernel gives two changes of a file the same time:
/// a tick of its clock, 10 ms at most, and as much again.
const TICK: Duration = Duration::from_millis(20);

/// What an entry's code is. No field needs a checksum of its own: a damaged
/// one differs from what it is compared with, and then the code is read anew,
/// or is made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The component that it was compiled from: that of the entry's name.
    pub(super) component: Sha256,
    /// The engine that it is for: that of the entry's folder.
    pub(super) engine: String,
    /// The component's name in the image that it came from first, for people.
    pub(super) file: String,
    /// The code's digest,
    pub(super) code: Sha256,
    /// and its length.
    pub(super) size: u64,
    /// The file that had this digest when it was last read.
    seen: Identity,
}

/// A file that was not changed since. Reading 40 MB at each create would take
/// 25 ms, so that code is only read after it was changed, and once after each
/// start of the machine. Any change of a file's content, owner or mode sets its
/// change time, and unlike its modification time that can't be set back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// A disk may be changed while the machine is off, and only while it is on
    /// are devices numbered the same.
    boot: String,
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            boot: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// When the file was changed last.
    fn changed(&self) -> Option<SystemTime> {
        let (seconds, nanoseconds) = self.changed;
        let since = Duration::new(seconds.try_into().ok()?, nanoseconds.try_into().ok()?);
        UNIX_EPOCH.checked_add(since)
    }
}

impl Record {
    /// Of the code in `file`, which is read.
    ///
    /// # Errors
    /// It can't be read, or is changed meanwhile.
    pub(super) fn of(component: Sha256, engine: &str, name: &str, file: &File) -> io::Result<Self> {
        let (code, size, seen) = read(file)?;
        Ok(Self { component, engine: engine.to_owned(), file: name.to_owned(), code, size, seen })
    }

    /// Whether `file` is the one that was read last, and was not changed since.
    pub(super) fn knows(&self, file: &File) -> bool {
        let length = file.metadata().map(|metadata| metadata.len());
        length.is_ok_and(|length| length == self.size)
            && Identity::of(file).is_ok_and(|identity| identity == self.seen)
    }

    /// The record with `file` as the one that was read last; none if its code
    /// is not what was recorded.
    ///
    /// # Errors
    /// It can't be read, or is changed meanwhile.
    pub(super) fn renewed(&self, file: &File) -> io::Result<Option<Self>> {
        if file.metadata()?.len() != self.size {
            return Ok(None);
        }
        let (code, size, seen) = read(file)?;
        let is_same = code == self.code && size == self.size;
        Ok(is_same.then(|| Self { seen, ..self.clone() }))
    }
}

/// A file's digest and length, and what it is known by.
fn read(file: &File) -> io::Result<(Sha256, u64, Identity)> {
    let before = Identity::of(file)?;
    // A change that comes while we read must get a time of its own.
    let age = || before.changed().and_then(|changed| changed.elapsed().ok());
    if age().is_none_or(|age| age < TICK) {
        thread::sleep(TICK);
    }
    let mut reader = file;
    io::Seek::rewind(&mut reader)?;
    let (digest, size) = Sha256::of_reader(reader)?;
    io::Seek::rewind(&mut reader)?;
    if Identity::of(file)? == before {
        Ok((digest, size, before))
    } else {
        Err(io::Error::other("it is changed while it is read"))
    }
}
