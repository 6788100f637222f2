//! OCI image layouts: a folder of blobs by digest, and names for some of them
//! (image-spec, image-layout.md). wharf's local store is one.
//!
//! Owns the folder: atomic writes, verified reads, names, garbage. Several
//! processes may use one layout at once. Knows nothing of registries.

mod blob;
mod cache;
mod documents;
mod error;
mod garbage;
mod names;
mod referrers;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;
use serde::{Deserialize, Serialize};

pub(crate) use blob::FinishedBlob;
pub use blob::{BlobReader, BlobWriter};
pub use cache::LayerCache;
pub use documents::LARGEST_DOCUMENT;
pub use error::LayoutError;
pub use garbage::Pruned;
pub use names::{CONTAINERD_NAME, Entry, REF_NAME, is_plain};
pub(crate) use names::{is_printable, named, names_of};
pub(crate) use referrers::REFERRERS;

use crate::{Descriptor, Digest, Index};

const MARKER: &str = "oci-layout";
const INDEX: &str = "index.json";
const BLOBS: &str = "blobs/sha256";
/// Largest `index.json` read, in bytes: room for more than 100,000 images.
const LARGEST_INDEX: u64 = 64 << 20;
/// Largest `oci-layout` read, in bytes.
const LARGEST_MARKER: u64 = 64 << 10;
/// How the name of an unfinished file begins; [`Layout::prune`] removes those
/// that a killed process left.
const UNFINISHED: &str = ".unfinished-";

/// An image layout folder. Cloning gives another handle to the same one.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    in_use: Arc<InUse>,
}

/// A shared lock on the blobs from the first write on, so that `prune` in
/// another process waits until what is being written also has a name.
#[derive(Debug)]
struct InUse {
    blobs: fs::File,
    locked: Mutex<bool>,
}

/// The file `oci-layout`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl Layout {
    /// Opens the layout at `root`.
    ///
    /// # Errors
    ///
    /// There is no such folder, or it is not a layout of version 1.0.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, LayoutError> {
        let root = root.into();
        let marker = match read_file(&root.join(MARKER), LARGEST_MARKER) {
            Ok(marker) => marker,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(if root.is_dir() {
                    LayoutError::NotALayout { root, found: "no file oci-layout".into() }
                } else {
                    LayoutError::NoSuchFolder { root }
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(LayoutError::NoSuchFolder { root });
            }
            Err(source) => return Err(LayoutError::Read { source }),
        };
        let marker: Marker = serde_json::from_slice(&marker).map_err(|error| LayoutError::NotALayout {
            root: root.clone(),
            found: format!("a file oci-layout with {error}"),
        })?;
        if !marker.image_layout_version.starts_with("1.") {
            return Err(LayoutError::NotALayout {
                root,
                found: format!("version {:?}", marker.image_layout_version),
            });
        }
        let blobs = match fs::File::open(root.join(BLOBS)) {
            Ok(blobs) => blobs,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LayoutError::NotALayout { root, found: format!("no folder {BLOBS}") });
            }
            Err(source) => return Err(LayoutError::Read { source }),
        };
        let in_use = Arc::new(InUse { blobs, locked: Mutex::new(false) });
        Ok(Self { root, in_use })
    }

    /// Opens the layout at `root`, or makes one there if there is nothing or an
    /// empty folder.
    ///
    /// # Errors
    ///
    /// There is a file, or a folder with other things in it.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self, LayoutError> {
        let root = root.into();
        let write = |source| LayoutError::Write { source };
        if !root.join(MARKER).exists() {
            if root.exists() && !root.is_dir() {
                return Err(LayoutError::NoSuchFolder { root });
            }
            fs::create_dir_all(&root).map_err(write)?;
            let foreign = fs::read_dir(&root)
                .map_err(write)?
                .filter_map(Result::ok)
                .map(|entry| entry.file_name())
                // What another process that creates the same layout makes.
                .find(|name| {
                    !(name == "blobs"
                        || name == INDEX
                        || name == MARKER
                        || name == REFERRERS
                        || name.to_string_lossy().starts_with(UNFINISHED))
                });
            if let Some(name) = foreign {
                return Err(LayoutError::NotALayout { root, found: format!("{name:?}") });
            }
            fs::create_dir_all(root.join(BLOBS)).map_err(write)?;
            if !root.join(INDEX).exists() {
                write_new(&root, INDEX, &Index::new(Vec::new()))?;
            }
            // Last: with it the folder is a layout.
            write_new(&root, MARKER, &Marker { image_layout_version: "1.0.0".into() })?;
        }
        Self::open(root)
    }

    /// The layout's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob lies, if it is there.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(BLOBS).join(digest.encoded())
    }

    /// Whether the blob is there with the right size. Its content is not read.
    #[must_use]
    pub fn contains(&self, descriptor: &Descriptor) -> bool {
        fs::metadata(self.blob_path(&descriptor.digest))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == descriptor.size)
    }

    /// Whether the blob is there and is what it should be: all of it is read.
    pub(crate) fn holds(&self, descriptor: &Descriptor) -> bool {
        self.contains(descriptor) && self.open_blob(descriptor).and_then(|mut blob| blob.verify()).is_ok()
    }

    /// Keeps `prune` in other processes away for as long as this handle lives.
    /// To be called before looking for blobs that are to be there later; what
    /// writes to the layout does so by itself.
    ///
    /// # Errors
    ///
    /// The folder cannot be locked.
    pub fn use_blobs(&self) -> Result<(), LayoutError> {
        let mut locked = self.in_use.locked.lock().unwrap_or_else(PoisonError::into_inner);
        if !*locked {
            self.in_use.blobs.file().lock_shared().map_err(|source| LayoutError::Write { source })?;
            *locked = true;
        }
        Ok(())
    }
}

/// Opens a file, and nothing that is none: a fifo in a layout that someone else
/// made would be waited for without end.
fn open_file(path: &Path) -> io::Result<fs::File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other(format!("expected a file at {path:?}, found something else")));
    }
    fs::File::open(path)
}

/// Reads a file of at most `limit` bytes.
fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(open_file(path)?, limit + 1), &mut content)?;
    match content.len() as u64 > limit {
        true => Err(io::Error::other(format!("expected at most {limit} bytes in {path:?}, found more"))),
        false => Ok(content),
    }
}

/// Writes a JSON document to `root/name` in one step. If another process has
/// just done so, its file stays.
fn write_new<T: Serialize>(root: &Path, name: &str, document: &T) -> Result<(), LayoutError> {
    let write = |source| LayoutError::Write { source };
    let bytes = serde_json::to_vec(document).map_err(|error| write(error.into()))?;
    let file = unfinished(root)?;
    io::Write::write_all(&mut file.as_file(), &bytes).map_err(write)?;
    file.as_file().sync_all().map_err(write)?;
    match file.persist_noclobber(root.join(name)) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(write(error.error)),
        _ => Ok(()),
    }
}

/// A file in the layout that vanishes unless it gets its name.
fn unfinished(root: &Path) -> Result<tempfile::NamedTempFile, LayoutError> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .prefix(UNFINISHED)
        // As other files: the layout may be served or read by other users.
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(root)
        .map_err(|source| LayoutError::Write { source })
}

#[cfg(test)]
mod tests;
