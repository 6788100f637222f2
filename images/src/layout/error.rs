//! What can go wrong with a layout.

use std::io;
use std::path::PathBuf;

use crate::Digest;

/// A layout that cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The path is no folder.
    #[error("cannot open layout {root:?}: expected a folder, found none")]
    NoSuchFolder {
        /// The path.
        root: PathBuf,
    },
    /// The folder is something else.
    #[error("cannot open layout {root:?}: expected an OCI image layout, found {found}")]
    NotALayout {
        /// The folder.
        root: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// Reading failed; the cause names the file.
    #[error("cannot read layout")]
    Read {
        /// Names the file.
        source: io::Error,
    },
    /// Writing failed; the cause names the file.
    #[error("cannot write layout")]
    Write {
        /// Names the file.
        source: io::Error,
    },
    /// A blob that a document names is not there.
    #[error("cannot read blob {digest}: not found in layout {root:?}")]
    NoSuchBlob {
        /// Its digest.
        digest: Digest,
        /// The layout.
        root: PathBuf,
    },
    /// A blob is shorter or longer than the document that names it says.
    #[error("blob {digest} is damaged: expected {expected} bytes, found {found}")]
    SizeDiffers {
        /// Its digest.
        digest: Digest,
        /// The size in its descriptor.
        expected: u64,
        /// Its real size.
        found: u64,
    },
    /// A blob has the right size and the wrong content.
    #[error("blob {digest} is damaged: found content with digest {found}")]
    DigestDiffers {
        /// The digest that names it.
        digest: Digest,
        /// The digest of its content.
        found: Digest,
    },
    /// A document is larger than any real one.
    #[error("cannot read {noun} {digest}: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// What it is.
        noun: &'static str,
        /// Its digest.
        digest: Digest,
        /// The most that is read.
        limit: u64,
        /// Its size.
        found: u64,
    },
    /// A document is not what its descriptor says.
    #[error("cannot read {noun} {digest}")]
    InvalidDocument {
        /// What it should be.
        noun: &'static str,
        /// Its digest.
        digest: Digest,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A descriptor names something else than an index or a manifest.
    #[error("cannot use {digest} as an image: expected an index or a manifest, found {found}")]
    NotAnImage {
        /// Its digest.
        digest: Digest,
        /// Its media type.
        found: String,
    },
    /// An index has no manifest for the platform.
    #[error("image {digest} has no manifest for {expected}: found {found}")]
    NoSuchPlatform {
        /// The index's digest.
        digest: Digest,
        /// The platforms that were asked for.
        expected: String,
        /// The platforms that it has.
        found: String,
    },
    /// `index.json` or `referrers.json` is damaged.
    #[error("cannot read {name} of layout {root:?}")]
    InvalidIndex {
        /// The layout.
        root: PathBuf,
        /// Which of them.
        name: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// No image has this name.
    #[error("no such image {reference} in layout {root:?}")]
    NoSuchImage {
        /// The name.
        reference: String,
        /// The layout.
        root: PathBuf,
        /// Names that the layout has, the most similar first.
        similar: Vec<String>,
    },
    /// A layout with one image was expected.
    #[error("layout {root:?} has {} images: expected one", .found.len())]
    NotOneImage {
        /// The layout.
        root: PathBuf,
        /// The names or digests of its images.
        found: Vec<String>,
    },
}

impl LayoutError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSuchImage { similar, .. } if similar.is_empty() => {
                Some("the layout has no images yet".into())
            }
            Self::NoSuchImage { similar, .. } => Some(format!("there is {}", similar.join(", "))),
            Self::NotOneImage { found, .. } if !found.is_empty() => {
                Some(format!("name one of {}", found.join(", ")))
            }
            Self::NoSuchBlob { .. } => Some("build, pull or load the image again".into()),
            Self::SizeDiffers { .. } | Self::DigestDiffers { .. } => {
                Some("delete that file of blobs/sha256, then build or pull the image again".into())
            }
            _ => None,
        }
    }
}
