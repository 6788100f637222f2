//! Counters that all processes of a host see.
//!
//! One region of 64-bit words, mapped by every process of the same host. It
//! knows nothing of what the words mean, and there is no way to anything in it
//! but an atomic, so processes of one program can't tear each other's data.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::null_mut;
use std::slice;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Words of memory that other processes see too.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    file: OwnedFd,
    words: &'static [AtomicU64],
}

impl SharedMemory {
    /// `count` words, all zero.
    ///
    /// # Errors
    /// The kernel has no memory for them.
    pub(crate) fn create(count: usize) -> io::Result<Self> {
        // Inherited by processes that this one starts, so without CLOEXEC.
        let file = memfd_create("wharf-shared", MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, bytes(count) as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(file, count)
    }

    /// The words that the process which started this one created.
    ///
    /// # Errors
    /// `file` is not such memory, or can't be mapped.
    pub(crate) fn open(file: OwnedFd) -> io::Result<Self> {
        let size = usize::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or_default();
        let sealed = rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK);
        if !sealed || size % size_of::<AtomicU64>() != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not memory that is shared"));
        }
        Self::map(file, size / size_of::<AtomicU64>())
    }

    fn map(file: OwnedFd, count: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, so it
        // replaces none.
        let address =
            unsafe { mmap(null_mut(), bytes(count).max(1), protection, MapFlags::SHARED, &file, 0) }?;
        // SAFETY: the mapping is page-aligned, has `count` words, is never
        // unmapped, and the file can't shrink (it is sealed), so reading it
        // never faults. All access anywhere is by atomics of this width, and
        // any bit pattern is a valid `AtomicU64`.
        let words = unsafe { slice::from_raw_parts(address.cast::<AtomicU64>(), count) };
        Ok(Self { file, words })
    }

    /// The words.
    pub(crate) const fn words(&self) -> &'static [AtomicU64] {
        self.words
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

const fn bytes(words: usize) -> usize {
    words * size_of::<AtomicU64>()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let ours = SharedMemory::create(3).unwrap();
        let theirs = SharedMemory::open(ours.as_fd().try_clone_to_owned().unwrap()).unwrap();
        ours.words()[2].store(7, Ordering::Relaxed);
        assert_eq!(theirs.words()[2].load(Ordering::Relaxed), 7);
        assert_eq!(theirs.words()[0].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_file_that_could_shrink_is_refused() {
        let plain = tempfile::tempfile().unwrap();
        plain.set_len(24).unwrap();
        assert!(SharedMemory::open(plain.into()).is_err());
    }
}
