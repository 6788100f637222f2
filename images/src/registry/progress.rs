//! What a push or pull tells while it runs.

use crate::{Descriptor, Digest};

/// How a blob's way ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// All of it went over the network.
    Complete,
    /// The other side had it.
    AlreadyThere,
    /// The registry had it in another repository.
    Mounted,
}

/// Hears of each layer and configuration on its way. Called from several
/// threads; should return at once.
pub trait Progress: Send + Sync {
    /// A blob's turn has come; `blob.size` bytes are to go.
    fn started(&self, blob: &Descriptor) {
        let _ = blob;
    }

    /// Some more bytes of a blob have gone.
    fn advanced(&self, digest: &Digest, bytes: u64) {
        let _ = (digest, bytes);
    }

    /// Bytes that had gone were in vain, and will go again.
    fn withdrawn(&self, digest: &Digest, bytes: u64) {
        let _ = (digest, bytes);
    }

    /// A blob is where it should be.
    fn finished(&self, digest: &Digest, transfer: Transfer) {
        let _ = (digest, transfer);
    }
}

/// Tells nobody.
impl Progress for () {}
