//! Blobs: written under their digest in one step, verified when read.

use std::io::{self, BufWriter, Read, Write};

use fs_err as fs;
use tempfile::{NamedTempFile, TempPath};

use super::{BLOBS, Layout, LayoutError, open_file, unfinished};
use crate::digest::{HashReader, HashWriter};
use crate::{Descriptor, Digest, MediaType};

/// Bytes collected before they are written to disk.
const BUFFER: usize = 256 << 10;

impl Layout {
    /// Starts a blob.
    ///
    /// # Errors
    ///
    /// The layout cannot be written.
    pub fn blob_writer(&self) -> Result<BlobWriter, LayoutError> {
        self.use_blobs()?;
        let file = BufWriter::with_capacity(BUFFER, unfinished(self.root())?);
        Ok(BlobWriter { layout: self.clone(), file: HashWriter::new(file) })
    }

    /// Writes a blob that is in memory.
    ///
    /// # Errors
    ///
    /// The layout cannot be written.
    pub fn write_blob(&self, media_type: MediaType, content: &[u8]) -> Result<Descriptor, LayoutError> {
        let mut writer = self.blob_writer()?;
        writer.write_all(content).map_err(|source| LayoutError::Write { source })?;
        writer.commit(media_type)
    }

    /// Opens a blob; its size is checked now, its digest by [`BlobReader::verify`].
    ///
    /// # Errors
    ///
    /// The blob is missing, or its size differs.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<BlobReader, LayoutError> {
        let digest = descriptor.digest;
        let file = open_file(&self.blob_path(&digest)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LayoutError::NoSuchBlob { digest, root: self.root().into() },
            _ => LayoutError::Read { source },
        })?;
        let found = file.metadata().map_err(|source| LayoutError::Read { source })?.len();
        if found != descriptor.size {
            return Err(LayoutError::SizeDiffers { digest, expected: descriptor.size, found });
        }
        Ok(BlobReader { file: HashReader::new(file), digest, size: descriptor.size })
    }
}

/// A blob being written. Dropped without [`commit`](Self::commit), it leaves nothing.
pub struct BlobWriter {
    layout: Layout,
    file: HashWriter<BufWriter<NamedTempFile>>,
}

impl BlobWriter {
    /// Gives the blob its name and returns its descriptor.
    ///
    /// # Errors
    ///
    /// The layout cannot be written.
    pub fn commit(self, media_type: MediaType) -> Result<Descriptor, LayoutError> {
        self.finish()?.commit(media_type)
    }

    /// Ends the content, and tells its digest before the blob has its name.
    pub(crate) fn finish(self) -> Result<FinishedBlob, LayoutError> {
        let (file, digest, size) = self.file.finish();
        let file = file.into_inner().map_err(|error| LayoutError::Write { source: error.into_error() })?;
        // Closed, since an archive may hold more blobs than a process may open files.
        Ok(FinishedBlob { layout: self.layout, path: file.into_temp_path(), digest, size })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A blob whose content is complete. Dropped without
/// [`commit`](Self::commit), it leaves nothing.
pub(crate) struct FinishedBlob {
    layout: Layout,
    path: TempPath,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl FinishedBlob {
    pub(crate) fn commit(self, media_type: MediaType) -> Result<Descriptor, LayoutError> {
        let write = |source| LayoutError::Write { source };
        let descriptor = Descriptor::new(media_type, self.digest, self.size);
        // One that is there and damaged is healed by this.
        if self.layout.holds(&descriptor) {
            return Ok(descriptor);
        }
        fs::File::open(&self.path).and_then(|file| file.sync_data()).map_err(write)?;
        self.path.persist(self.layout.blob_path(&self.digest)).map_err(|error| write(error.error))?;
        // The name, too, is to survive a power cut.
        fs::File::open(self.layout.root().join(BLOBS)).and_then(|blobs| blobs.sync_all()).map_err(write)?;
        Ok(descriptor)
    }

    /// The content, which the caller checked to be of bearable size.
    pub(crate) fn content(&self) -> Result<Vec<u8>, LayoutError> {
        fs::read(&self.path).map_err(|source| LayoutError::Read { source })
    }
}

/// A blob being read.
#[derive(Debug)]
pub struct BlobReader {
    file: HashReader<fs::File>,
    digest: Digest,
    size: u64,
}

impl BlobReader {
    /// Reads what is left and compares all of it with digest and size. What was
    /// read before must not be trusted until this says so.
    ///
    /// # Errors
    ///
    /// The content is not what the descriptor says.
    pub fn verify(&mut self) -> Result<(), LayoutError> {
        io::copy(&mut self.file, &mut io::sink()).map_err(|source| LayoutError::Read { source })?;
        let digest = self.digest;
        if self.file.count() != self.size {
            let (expected, found) = (self.size, self.file.count());
            return Err(LayoutError::SizeDiffers { digest, expected, found });
        }
        match self.file.digest() {
            found if found == digest => Ok(()),
            found => Err(LayoutError::DigestDiffers { digest, found }),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}
