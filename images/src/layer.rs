//! Layers: files in, one reproducible blob of compressed tar out.
//!
//! The same paths, contents and modes give the same bytes, in whatever order
//! and from whatever folder they come, on any machine and any number of cores.

mod gzip;
mod zstd;

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::io::{self, Read, Write as _};
use std::path::PathBuf;

use fs_err as fs;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, HashWriter};
use crate::layout::{Layout, LayoutError};
use crate::tarball::TarWriter;
use crate::{Descriptor, MediaType, Timestamp};

/// A finished layer: a blob in a layout, and what an image's configuration says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// The digest of the uncompressed tar stream.
    pub diff_id: Digest,
    /// The length of the uncompressed tar stream in bytes.
    pub uncompressed_size: u64,
}

/// How a layer's blob is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// What every engine and tool reads.
    #[default]
    Gzip,
    /// Smaller, and several times faster to unpack. containerd 1.5, Docker 23 and
    /// Podman 3 read it; Docker 20.10 and some tools do not.
    Zstd,
}

impl Compression {
    fn media_type(self) -> MediaType {
        match self {
            Self::Gzip => MediaType::LayerTarGzip,
            Self::Zstd => MediaType::LayerTarZstd,
        }
    }
}

/// Who may do what with a file of a layer. All belong to root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileMode {
    /// 0644.
    Regular,
    /// 0755.
    Executable,
}

impl FileMode {
    fn bits(self) -> u32 {
        match self {
            Self::Regular => 0o644,
            Self::Executable => 0o755,
        }
    }
}

/// A layer that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The path in the layer is not relative, plain and normalised.
    #[error("cannot add {path:?} to layer: expected a relative path without empty, \".\" and \"..\" parts")]
    InvalidPath {
        /// The path in the layer.
        path: String,
    },
    /// Container engines would take the file as an order to delete another one.
    #[error("cannot add {path:?} to layer: names that begin with \".wh.\" mean deletions in an image")]
    Whiteout {
        /// The path in the layer.
        path: String,
    },
    /// Two entries have one path, or a file stands where a directory must be.
    #[error("cannot add {path:?} to layer: expected it once, found {found} there already")]
    Occupied {
        /// The path in the layer.
        path: String,
        /// `a file` or `a directory`.
        found: &'static str,
    },
    /// The source is a directory, a device or something else without content.
    #[error("cannot add {source_path:?} to layer as {path:?}: expected a regular file")]
    NotAFile {
        /// The path in the layer.
        path: String,
        /// The path on disk.
        source_path: PathBuf,
    },
    /// The source was written to while the layer was made.
    #[error(
        "cannot add {source_path:?} to layer as {path:?}: expected {expected} bytes, found that it changed while it was read"
    )]
    Changed {
        /// The path in the layer.
        path: String,
        /// The path on disk.
        source_path: PathBuf,
        /// Its size when it was opened.
        expected: u64,
    },
    /// The source cannot be read.
    #[error("cannot add {path:?} to layer")]
    Read {
        /// The path in the layer.
        path: String,
        /// Names the path on disk.
        source: io::Error,
    },
    /// The blob cannot be written.
    #[error("cannot compress layer")]
    Write(#[source] io::Error),
    /// The layout does not take the blob.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl LayerError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => Some("build again when nothing writes to it".into()),
            Self::Whiteout { .. } => Some("rename the file".into()),
            Self::Layout(error) => error.hint(),
            _ => None,
        }
    }
}

enum Content {
    Directory(Owner),
    Bytes { bytes: Vec<u8>, mode: FileMode },
    File { source: PathBuf, mode: FileMode },
}

/// Who may write to a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Root,
    /// Anybody, and remove what is their own there.
    All,
}

impl Owner {
    fn bits(self) -> u32 {
        match self {
            Self::Root => 0o755,
            Self::All => 0o1777,
        }
    }
}

impl Content {
    fn noun(&self) -> &'static str {
        match self {
            Self::Directory(_) => "a directory",
            Self::Bytes { .. } | Self::File { .. } => "a file",
        }
    }
}

/// Collects a layer's entries and writes them as a blob.
pub struct LayerBuilder {
    mtime: Timestamp,
    compression: Compression,
    /// Sorted by the bytes of the path, so that a directory precedes what is in it.
    entries: BTreeMap<String, Content>,
}

impl LayerBuilder {
    /// A layer without entries, all of which will have the time `mtime`.
    #[must_use]
    pub fn new(mtime: Timestamp) -> Self {
        Self { mtime, compression: Compression::default(), entries: BTreeMap::new() }
    }

    /// Says how the blob is compressed; if nothing does, by gzip.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Whether there is no entry yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds the file at `source`, which is read when the layer is written, and
    /// the directories above `path`. Symbolic links to a file are followed.
    ///
    /// # Errors
    ///
    /// `path` is not a plain relative path, or is taken.
    pub fn add_file(
        &mut self,
        path: &str,
        source: impl Into<PathBuf>,
        mode: FileMode,
    ) -> Result<(), LayerError> {
        self.add(path, Content::File { source: source.into(), mode })
    }

    /// Adds a file of these bytes, and the directories above `path`.
    ///
    /// # Errors
    ///
    /// `path` is not a plain relative path, or is taken.
    pub fn add_bytes(
        &mut self,
        path: &str,
        bytes: impl Into<Vec<u8>>,
        mode: FileMode,
    ) -> Result<(), LayerError> {
        self.add(path, Content::Bytes { bytes: bytes.into(), mode })
    }

    /// Adds a directory, and those above it. That it is there already is no error.
    ///
    /// # Errors
    ///
    /// `path` is not a plain relative path, or a file is there.
    pub fn add_directory(&mut self, path: &str) -> Result<(), LayerError> {
        self.add(path, Content::Directory(Owner::Root))
    }

    /// Adds a directory that any user may write to, as `/tmp` (mode 1777), and those
    /// above it. That it is there already is no error.
    ///
    /// # Errors
    ///
    /// `path` is not a plain relative path, or a file is there.
    pub fn add_shared_directory(&mut self, path: &str) -> Result<(), LayerError> {
        self.add(path, Content::Directory(Owner::All))
    }

    fn add(&mut self, path: &str, content: Content) -> Result<(), LayerError> {
        check_path(path)?;
        for (slash, _) in path.match_indices('/') {
            let parent = &path[..slash];
            match self.entries.get(parent) {
                None => drop(self.entries.insert(parent.into(), Content::Directory(Owner::Root))),
                Some(Content::Directory(_)) => {}
                Some(other) => {
                    return Err(LayerError::Occupied { path: parent.into(), found: other.noun() });
                }
            }
        }
        match self.entries.entry(path.into()) {
            btree_map::Entry::Vacant(entry) => drop(entry.insert(content)),
            btree_map::Entry::Occupied(mut entry) => match (entry.get(), &content) {
                (Content::Directory(_), Content::Directory(Owner::Root)) => {}
                (Content::Directory(_), Content::Directory(Owner::All)) => drop(entry.insert(content)),
                (other, _) => {
                    return Err(LayerError::Occupied { path: path.into(), found: other.noun() });
                }
            },
        }
        Ok(())
    }

    /// Writes the layer into `layout`: tar, compressed and hashed in one pass,
    /// with memory for a few MiB of it at a time.
    ///
    /// # Errors
    ///
    /// A source cannot be read, is no file or changes while it is read, or the
    /// layout cannot be written. Nothing is left in the layout then.
    pub fn write(&self, layout: &Layout) -> Result<Layer, LayerError> {
        let blob = layout.blob_writer()?;
        let (blob, (diff_id, uncompressed_size)) = match self.compression {
            Compression::Gzip => gzip::compress(blob, |gzip| self.write_tar(gzip)),
            Compression::Zstd => zstd::compress(blob, |zstd| self.write_tar(zstd)),
        }?;
        let descriptor = blob.commit(self.compression.media_type())?;
        Ok(Layer { descriptor, diff_id, uncompressed_size })
    }

    /// Writes the entries and returns digest and size of the tar stream.
    fn write_tar(&self, sink: &mut dyn io::Write) -> Result<(Digest, u64), LayerError> {
        let mut tar = TarWriter::new(HashWriter::new(sink), self.mtime);
        for (path, content) in &self.entries {
            write_entry(&mut tar, path, content)?;
        }
        let mut hashed = tar.finish().map_err(LayerError::Write)?;
        hashed.flush().map_err(LayerError::Write)?;
        let (_, digest, size) = hashed.finish();
        Ok((digest, size))
    }
}

fn write_entry<W: io::Write>(
    tar: &mut TarWriter<W>,
    path: &str,
    content: &Content,
) -> Result<(), LayerError> {
    match content {
        Content::Directory(owner) => tar.directory(path, owner.bits()).map_err(LayerError::Write),
        Content::Bytes { bytes, mode } => {
            tar.file(path, mode.bits(), bytes.len() as u64, &mut bytes.as_slice()).map_err(LayerError::Write)
        }
        Content::File { source, mode } => {
            let read = |source| LayerError::Read { path: path.into(), source };
            let metadata = fs::metadata(source).map_err(read)?;
            // Before opening, since opening a fifo would wait for its writer.
            if !metadata.is_file() {
                return Err(LayerError::NotAFile { path: path.into(), source_path: source.clone() });
            }
            let mut file = fs::File::open(source).map_err(read)?;
            let size = file.metadata().map_err(read)?.len();
            let changed =
                || LayerError::Changed { path: path.into(), source_path: source.clone(), expected: size };
            tar.file(path, mode.bits(), size, &mut file).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => changed(),
                // An error of the sink is told by the compressor: what fails is the source.
                _ => read(error),
            })?;
            match file.read(&mut [0]).map_err(read)? {
                0 => Ok(()),
                _ => Err(changed()),
            }
        }
    }
}

fn check_path(path: &str) -> Result<(), LayerError> {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if !path.split('/').all(plain) {
        return Err(LayerError::InvalidPath { path: path.into() });
    }
    if path.split('/').any(|part| part.starts_with(".wh.")) {
        return Err(LayerError::Whiteout { path: path.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
