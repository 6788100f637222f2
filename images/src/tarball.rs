//! Tar streams, for layers and for archives of whole layouts.
//!
//! Writing is deterministic: a header says nothing of who made it. Reading
//! trusts nothing: names are checked, and no header makes it allocate more than
//! [`reader::LONGEST_EXTENSION`] bytes. The crate `tar` encodes and decodes the
//! 512-byte headers; its own reader has no limit for extension records.

pub(crate) mod reader;
pub(crate) mod writer;

pub(crate) use reader::{EntryKind, TarReader};
pub(crate) use writer::TarWriter;

/// Headers and contents fill whole blocks of this length.
const BLOCK: usize = 512;

/// The zero bytes that fill `size` up to a whole block.
fn padding(size: u64) -> usize {
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    (BLOCK - rest) % BLOCK
}
