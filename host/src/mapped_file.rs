//! Files as bytes that the kernel can send without anybody reading them.
//!
//! The bytes of a [`MappedFile`] are ordinary ones: whoever reads them gets
//! the file's content. But whoever is about to write them to a socket can ask
//! [`find`] which file they are, and let the kernel send that (`sendfile`),
//! which copies nothing and touches no page of this process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ptr::null_mut;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// All mapped files by the address where they begin.
static MAPPED: RwLock<BTreeMap<usize, Part>> = RwLock::new(BTreeMap::new());

/// Files that are mapped at most, unless [`allow`] says less: each takes a
/// descriptor.
const MOST: usize = 256;

static ALLOWED: AtomicUsize = AtomicUsize::new(MOST);

/// Lets `most` files be mapped, or what is useful if that is less; returns how
/// many.
pub(crate) fn allow(most: usize) -> usize {
    let most = most.min(MOST);
    ALLOWED.store(most, Ordering::Relaxed);
    most
}

/// A file's bytes, until the last of them is dropped.
#[derive(Debug)]
struct MappedFile {
    start: *const u8,
    length: usize,
}

/// A part of a file.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) file: Arc<File>,
    /// Where it begins in the file.
    pub(crate) offset: u64,
    pub(crate) length: usize,
}

// SAFETY: the memory is read-only and nobody's but the value's own, which
// gives it back when it is dropped, on whatever thread.
unsafe impl Send for MappedFile {}
// SAFETY: as above: it can only be read.
unsafe impl Sync for MappedFile {}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping has this start and length until it is dropped,
        // and the file is one that nobody changes: see `map`.
        unsafe { slice::from_raw_parts(self.start, self.length) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        MAPPED.write().unwrap_or_else(PoisonError::into_inner).remove(&self.start.addr());
        // SAFETY: `start` and `length` are of a mapping that `map` made, and
        // nobody borrows from it any more: this is its owner's end.
        let _ = unsafe { munmap(self.start.cast_mut().cast(), self.length) };
    }
}

/// The first `length` bytes of `file`, at least one.
///
/// To be called for files of a sealed site alone: nobody may change or
/// truncate them while the bytes exist. An image's are read-only.
///
/// # Errors
/// There are too many already, or the kernel can't map it.
pub(crate) fn map(file: File, length: usize) -> io::Result<Bytes> {
    if MAPPED.read().unwrap_or_else(PoisonError::into_inner).len() >= ALLOWED.load(Ordering::Relaxed) {
        return Err(io::ErrorKind::QuotaExceeded.into());
    }
    if length == 0 || file.metadata()?.len() < length as u64 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { mmap(null_mut(), length, ProtFlags::READ, MapFlags::PRIVATE, &file, 0) }?;
    let mapped = MappedFile { start: start.cast::<u8>().cast_const(), length };
    let part = Part { file: Arc::new(file), offset: 0, length };
    MAPPED.write().unwrap_or_else(PoisonError::into_inner).insert(start.addr(), part);
    Ok(Bytes::from_owner(mapped))
}

/// Which part of which mapped file `bytes` are, if of any.
pub(crate) fn find(bytes: &[u8]) -> Option<Part> {
    let address = bytes.as_ptr().addr();
    let mapped = MAPPED.read().unwrap_or_else(PoisonError::into_inner);
    let (start, whole) = mapped.range(..=address).next_back()?;
    let offset = address - start;
    // Addresses of a mapping are nobody else's while it lives, and `bytes`
    // keeps it alive.
    (offset < whole.length && bytes.len() <= whole.length - offset).then(|| Part {
        file: Arc::clone(&whole.file),
        offset: offset as u64,
        length: bytes.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn the_bytes_are_the_file_and_any_part_is_found() {
        let bytes = map(file(b"0123456789"), 10).unwrap();
        assert_eq!(&bytes[..], b"0123456789");
        let part = find(&bytes[3..7]).unwrap();
        assert_eq!((part.offset, part.length), (3, 4));
        let slice = bytes.slice(5..);
        drop(bytes);
        assert_eq!(find(&slice).unwrap().offset, 5);
        assert_eq!(&slice[..], b"56789");
    }

    #[test]
    fn other_bytes_are_of_no_file() {
        let bytes = map(file(b"0123456789"), 10).unwrap();
        let copy = bytes.to_vec();
        assert!(find(&copy).is_none());
        assert!(find(b"").is_none());
    }

    #[test]
    fn a_file_that_is_shorter_is_not_mapped() {
        assert!(map(file(b"01"), 3).is_err());
        assert!(map(file(b""), 0).is_err());
    }
}
