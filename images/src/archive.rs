//! One tar file of an image that every engine reads.
//!
//! It is an OCI layout, so containerd, podman and skopeo read it, and has
//! Docker's `manifest.json`, which `docker load` needs with its classic store.

mod load;
mod save;

use std::io;
use std::path::PathBuf;

pub use load::load;
pub use save::save;

use crate::Digest;
use crate::layout::LayoutError;

/// An archive that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The image or the local layout is not as expected.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The file cannot be written.
    #[error("cannot write archive {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file cannot be opened; the cause names it.
    #[error("cannot read archive")]
    Open(#[source] io::Error),
    /// The stream is no tar, or ends early.
    #[error("cannot read archive {path:?}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with the stream.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An entry is nothing that an archive of images holds.
    #[error("cannot load {entry:?} of archive {path:?}: expected a plain file, found {found}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The entry.
        entry: String,
        /// What it is.
        found: &'static str,
    },
    /// There are more blobs than any real archive has.
    #[error("cannot load archive {path:?}: expected at most {limit} blobs, found more")]
    TooMany {
        /// The file.
        path: PathBuf,
        /// The most that are read.
        limit: usize,
    },
    /// There are more images than any real archive has.
    #[error("cannot load archive {path:?}: expected at most {limit} images, found {found}")]
    TooManyImages {
        /// The file.
        path: PathBuf,
        /// The most that are read.
        limit: usize,
        /// The images in its index.
        found: usize,
    },
    /// An image's name would do something to the terminal that shows it.
    #[error("cannot load archive {path:?}: expected a name without control characters, found {found:?}")]
    InvalidName {
        /// The file.
        path: PathBuf,
        /// How the name begins.
        found: String,
    },
    /// An entry's content is not what its name says.
    #[error("cannot load blob {digest} of archive {path:?}: found content with digest {found}")]
    DigestDiffers {
        /// The file.
        path: PathBuf,
        /// The digest that names the blob.
        digest: Digest,
        /// The digest of its content.
        found: Digest,
    },
    /// A blob is shorter or longer than the document that names it says.
    #[error("cannot load blob {digest} of archive {path:?}: expected {expected} bytes, found {found}")]
    SizeDiffers {
        /// The file.
        path: PathBuf,
        /// The blob.
        digest: Digest,
        /// The size in its descriptor.
        expected: u64,
        /// Its real size.
        found: u64,
    },
    /// A document names a blob that the archive lacks.
    #[error("cannot load archive {path:?}: expected {noun} {digest}, found no such blob")]
    NoSuchBlob {
        /// The file.
        path: PathBuf,
        /// What it would be.
        noun: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// The file is a tar, but no OCI layout.
    #[error("cannot load archive {path:?}: expected an OCI image layout, found no {missing}")]
    NotALayout {
        /// The file.
        path: PathBuf,
        /// The entry that is missing.
        missing: &'static str,
    },
    /// A document is malformed.
    #[error("cannot load {entry} of archive {path:?}")]
    InvalidDocument {
        /// The file.
        path: PathBuf,
        /// The entry.
        entry: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A document is larger than any real one.
    #[error("cannot load {entry} of archive {path:?}: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The entry.
        entry: String,
        /// The most that is read.
        limit: u64,
        /// Its size.
        found: u64,
    },
    /// The archive's index lists something else than images.
    #[error(
        "cannot load {digest} of archive {path:?}: expected an index of manifests or a manifest, found {found}"
    )]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// Its digest.
        digest: Digest,
        /// Its media type.
        found: String,
    },
}

impl ArchiveError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Layout(error) => error.hint(),
            Self::NotALayout { .. } => {
                Some("save the image with wharf, Docker 25 or later, or skopeo (oci-archive:)".into())
            }
            Self::Damaged { .. } | Self::DigestDiffers { .. } => {
                Some("copy or save the archive again".into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
