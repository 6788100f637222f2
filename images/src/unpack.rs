//! An image's files on disk, as `wharf serve IMAGE` needs them.
//!
//! Trusts nothing in a layer: digest and diffID are compared, no entry leaves
//! the folder, and the folder appears only when all of it is right. Owners and
//! special files are not restored: this is no container engine.

mod tree;

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use fs_err as fs;

use crate::digest::HashReader;
use crate::layout::{BlobReader, Layout, LayoutError};
use crate::tarball::TarReader;
use crate::{Descriptor, Digest, Manifest, MediaType};
use tree::Tree;

const BUFFER: usize = 128 << 10;
/// Docker's layer without compression, which only old archives hold.
const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// No standard names it, but some builders do.
const DOCKER_LAYER_TAR_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Largest window of a zstd frame, as a power of two: 128 MiB, the memory that
/// reading a layer may take. zstd's own decoders accept no more unasked.
const LARGEST_WINDOW: u32 = 27;

/// What of an image is unpacked.
pub struct UnpackOptions<'a> {
    /// Most bytes that all layers together may have uncompressed, whether or
    /// not the filter takes them.
    pub limit: u64,
    /// Says by its relative path whether an entry is wanted.
    pub filter: &'a dyn Fn(&Path) -> bool,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files written, over all layers.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// An image that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// A blob is missing or damaged.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The folder has something in it already, or is a file.
    #[error("cannot unpack into {folder:?}: expected an empty folder or none")]
    Occupied {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder cannot be written; the cause names the file.
    #[error("cannot unpack")]
    Write(#[source] io::Error),
    /// Configuration and manifest do not belong together.
    #[error("cannot unpack image: expected as many diffIDs as layers, found {diff_ids} for {layers}")]
    LayersDiffer {
        /// Layers in the manifest.
        layers: usize,
        /// DiffIDs in the configuration.
        diff_ids: usize,
    },
    /// The layer is not tar, plain or compressed.
    #[error("cannot unpack layer {layer}: expected tar, tar+gzip or tar+zstd, found {found}")]
    Unsupported {
        /// The layer's digest.
        layer: Digest,
        /// Its media type.
        found: String,
    },
    /// The layer's stream is not compressed as it says, or no tar.
    #[error("cannot unpack layer {layer}")]
    Damaged {
        /// The layer's digest.
        layer: Digest,
        /// What is wrong with the stream.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The layer's content is not what the configuration says.
    #[error("cannot unpack layer {layer}: expected diffID {expected}, found {found}")]
    DiffIdDiffers {
        /// The layer's digest.
        layer: Digest,
        /// The diffID in the configuration.
        expected: Digest,
        /// The digest of the uncompressed stream.
        found: Digest,
    },
    /// The layers unpack to more than was allowed.
    #[error("cannot unpack layer {layer}: expected at most {limit} bytes in all layers, found more")]
    TooLarge {
        /// The layer's digest.
        layer: Digest,
        /// The limit in bytes.
        limit: u64,
    },
    /// An entry leads out of the folder, or is no file that an app can have.
    #[error("cannot unpack {path:?} of layer {layer}: {found}")]
    Refused {
        /// The layer's digest.
        layer: Digest,
        /// The entry.
        path: String,
        /// What is wrong with it.
        found: &'static str,
    },
}

impl UnpackError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Layout(error) => error.hint(),
            _ => None,
        }
    }
}

/// Unpacks the layers of an image, bottom first, into `folder`, which must be
/// absent or empty.
///
/// # Errors
///
/// A layer is damaged, hostile or too large. Nothing is left of it then.
pub fn unpack(
    layout: &Layout,
    manifest: &Manifest,
    folder: &Path,
    options: &UnpackOptions<'_>,
) -> Result<Unpacked, UnpackError> {
    let diff_ids = layout.read_config(manifest)?.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(UnpackError::LayersDiffer { layers: manifest.layers.len(), diff_ids: diff_ids.len() });
    }
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(UnpackError::Write)?;
    if folder.exists() && !fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none()) {
        return Err(UnpackError::Occupied { folder: folder.into() });
    }
    let partial =
        tempfile::Builder::new().prefix(".unpacking-").tempdir_in(parent).map_err(UnpackError::Write)?;

    let mut tree = Tree::new(partial.path(), options.filter);
    let budget = Cell::new(options.limit);
    for (layer, diff_id) in manifest.layers.iter().zip(diff_ids) {
        unpack_layer(layout, layer, diff_id, &mut tree, &budget, options.limit)?;
    }
    let unpacked = tree.unpacked;

    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(partial.path(), std::fs::Permissions::from_mode(0o755))
        .map_err(UnpackError::Write)?;
    // An empty folder of this name is replaced (rename(2)).
    fs::rename(partial.path(), folder).map_err(UnpackError::Write)?;
    // It is no longer there to be removed.
    let _ = partial.keep();
    Ok(unpacked)
}

/// The length of a layer's tar stream, which is read for it; of at most `limit`
/// bytes.
pub(crate) fn uncompressed_size(layout: &Layout, layer: &Descriptor, limit: u64) -> Result<u64, UnpackError> {
    let mut blob = layout.open_blob(layer)?;
    let (budget, exceeded) = (Cell::new(limit), Cell::new(false));
    let read = {
        let inner = decoder(&mut blob, layer)?;
        let mut stream = Bounded { inner, budget: &budget, exceeded: &exceeded };
        io::copy(&mut stream, &mut io::sink())
    };
    blob.verify()?;
    if exceeded.get() {
        return Err(UnpackError::TooLarge { layer: layer.digest, limit });
    }
    read.map_err(|source| UnpackError::Damaged { layer: layer.digest, source: source.into() })
}

fn unpack_layer(
    layout: &Layout,
    layer: &Descriptor,
    diff_id: Digest,
    tree: &mut Tree<'_>,
    budget: &Cell<u64>,
    limit: u64,
) -> Result<(), UnpackError> {
    let mut blob = layout.open_blob(layer)?;
    let exceeded = Cell::new(false);
    let found = {
        let stream = decoder(&mut blob, layer)?;
        let bounded = Bounded { inner: stream, budget, exceeded: &exceeded };
        unpack_stream(HashReader::new(bounded), layer.digest, tree)
    };
    // A blob that is not what it should be explains any other error.
    blob.verify()?;
    if exceeded.get() {
        return Err(UnpackError::TooLarge { layer: layer.digest, limit });
    }
    match found? {
        found if found == diff_id => Ok(()),
        found => Err(UnpackError::DiffIdDiffers { layer: layer.digest, expected: diff_id, found }),
    }
}

fn decoder<'a>(blob: &'a mut BlobReader, layer: &Descriptor) -> Result<Box<dyn Read + 'a>, UnpackError> {
    let buffered = BufReader::with_capacity(BUFFER, blob);
    let damaged = |source: io::Error| UnpackError::Damaged { layer: layer.digest, source: source.into() };
    match &layer.media_type {
        MediaType::LayerTarGzip | MediaType::DockerLayerTarGzip => {
            Ok(Box::new(MultiGzDecoder::new(buffered)))
        }
        MediaType::LayerTar => Ok(Box::new(buffered)),
        MediaType::LayerTarZstd => Ok(Box::new(zstd(buffered).map_err(damaged)?)),
        MediaType::Other(name) if name == DOCKER_LAYER_TAR => Ok(Box::new(buffered)),
        MediaType::Other(name) if name == DOCKER_LAYER_TAR_ZSTD => {
            Ok(Box::new(zstd(buffered).map_err(damaged)?))
        }
        other => Err(UnpackError::Unsupported { layer: layer.digest, found: other.to_string() }),
    }
}

/// Reads any number of zstd frames.
fn zstd<R: BufRead>(stream: R) -> io::Result<impl Read> {
    let mut decoder = ::zstd::stream::read::Decoder::with_buffer(stream)?;
    decoder.window_log_max(LARGEST_WINDOW)?;
    Ok(Zstd(decoder))
}

/// Says in our words what the library says of a window that is too large.
struct Zstd<R>(R);

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.to_string().as_str() {
            "Frame requires too much memory for decoding" => {
                let most = (1_u64 << LARGEST_WINDOW) >> 20;
                io::Error::other(format!("expected a zstd window of at most {most} MiB, found a larger one"))
            }
            _ => error,
        })
    }
}

/// Unpacks a tar stream and returns its digest.
fn unpack_stream<R: Read>(
    stream: HashReader<R>,
    layer: Digest,
    tree: &mut Tree<'_>,
) -> Result<Digest, UnpackError> {
    let damaged = |source: Box<dyn std::error::Error + Send + Sync>| UnpackError::Damaged { layer, source };
    let mut tar = TarReader::new(BufReader::with_capacity(BUFFER, stream));
    tree.begin_layer(layer);
    while let Some(entry) = tar.next_entry().map_err(|error| damaged(error.into()))? {
        tree.apply(&entry, &mut tar)?;
    }
    // The diffID is that of the whole stream, with what pads its end.
    let mut rest = tar.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|error| damaged(error.into()))?;
    Ok(rest.into_inner().digest())
}

/// Ends the stream with an error when the budget of all layers is spent.
struct Bounded<'a, R> {
    inner: R,
    budget: &'a Cell<u64>,
    exceeded: &'a Cell<bool>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.budget.get().checked_sub(read as u64) {
            Some(rest) => self.budget.set(rest),
            None => {
                self.exceeded.set(true);
                return Err(io::Error::other("too many bytes"));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
