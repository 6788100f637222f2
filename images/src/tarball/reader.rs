//! The reading half, for streams that anyone may have made.

use std::borrow::Cow;
use std::io::{self, Read};

use tar::{EntryType, Header};

use super::{BLOCK, padding};

/// Largest pax or GNU extension record read, in bytes: no real path or link
/// comes near it.
pub(crate) const LONGEST_EXTENSION: u64 = 64 * 1024;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    Symlink {
        target: String,
    },
    HardLink {
        target: String,
    },
    /// Devices, fifos and anything that is not known.
    Special,
}

/// An entry, its content still in the stream.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Relative, without `.`, `..`, doubled slashes or a slash at its end;
    /// empty for the root itself.
    pub(crate) path: String,
    pub(crate) kind: EntryKind,
    pub(crate) size: u64,
    pub(crate) mode: u32,
    pub(crate) mtime: u64,
}

/// A stream that is no acceptable tar.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidTar {
    #[error("cannot read tar stream")]
    Read(#[source] io::Error),
    #[error("tar stream is truncated: expected {expected}, found its end")]
    Truncated { expected: &'static str },
    #[error("tar header {position} is damaged: {found}")]
    Header { position: u64, found: &'static str },
    #[error("tar entry {path:?}: expected a relative name inside the archive")]
    Path { path: String },
    #[error(
        "tar entry {path:?}: expected an extension record of at most {LONGEST_EXTENSION} bytes, found {found}"
    )]
    Extension { path: String, found: u64 },
    #[error("tar entry {path:?}: expected no sparse file")]
    Sparse { path: String },
}

/// Reads entries one after the other; their content comes through [`Read`].
pub(crate) struct TarReader<R> {
    inner: R,
    /// Content bytes of the current entry that are still unread.
    content: u64,
    /// Bytes after the content up to the next header.
    padding: usize,
    /// Bytes read so far, for messages.
    position: u64,
}

/// What extension records say about the entry that follows them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, content: 0, padding: 0, position: 0 }
    }

    /// The stream, wherever reading stands.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// Skips what is left of the current entry and reads the next header.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, InvalidTar> {
        let mut extensions = Extensions::default();
        let mut extended = false;
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return match extended {
                    true => Err(InvalidTar::Truncated { expected: "the entry of an extension record" }),
                    false => Ok(None),
                };
            };
            let size = header.entry_size().map_err(|_| self.damaged("its size is no number"))?;
            let name = header.path_bytes().into_owned();
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = self.extension(&name, size)?;
                    parse_pax(&records, &mut extensions)
                        .ok_or_else(|| self.damaged("its pax records are malformed"))?;
                }
                EntryType::GNULongName => extensions.path = Some(self.long_name(&name, size)?),
                EntryType::GNULongLink => extensions.link = Some(self.long_name(&name, size)?),
                // Global records only carry a comment in practice (git archive).
                EntryType::XGlobalHeader => drop(self.extension(&name, size)?),
                EntryType::GNUSparse => {
                    return Err(InvalidTar::Sparse { path: String::from_utf8_lossy(&name).into() });
                }
                _ => return self.entry(&header, name, size, extensions).map(Some),
            }
            extended = true;
        }
    }

    /// The entry of a header, with what extension records said before it.
    fn entry(
        &mut self,
        header: &Header,
        name: Vec<u8>,
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry, InvalidTar> {
        let name = extensions.path.unwrap_or(name);
        let link = extensions.link.or_else(|| header.link_name_bytes().map(Cow::into_owned));
        let target = || String::from_utf8_lossy(link.as_deref().unwrap_or_default()).into_owned();
        let kind = match header.entry_type() {
            // Old tars mark a directory by the slash alone.
            EntryType::Regular | EntryType::Continuous if name.ends_with(b"/") => EntryKind::Directory,
            EntryType::Regular | EntryType::Continuous => EntryKind::File,
            EntryType::Directory => EntryKind::Directory,
            EntryType::Symlink => EntryKind::Symlink { target: target() },
            EntryType::Link => EntryKind::HardLink { target: target() },
            _ => EntryKind::Special,
        };
        let size = match kind {
            EntryKind::File => extensions.size.unwrap_or(size),
            // Some writers put the target's size on a link, without its content.
            EntryKind::HardLink { .. } | EntryKind::Symlink { .. } => 0,
            EntryKind::Directory | EntryKind::Special => size,
        };
        self.expect_content(size);
        Ok(Entry {
            path: relative(&name)?,
            kind,
            size,
            mode: header.mode().map_err(|_| self.damaged("its mode is no number"))?,
            mtime: header.mtime().unwrap_or(0),
        })
    }

    fn damaged(&self, found: &'static str) -> InvalidTar {
        InvalidTar::Header { position: self.position, found }
    }

    fn expect_content(&mut self, size: u64) {
        self.content = size;
        self.padding = padding(size);
    }

    /// The next header, or none at the end: a zero block, or the stream's end.
    fn header(&mut self) -> Result<Option<Header>, InvalidTar> {
        let mut header = Header::new_old();
        let read = read_full(&mut self.inner, header.as_mut_bytes()).map_err(InvalidTar::Read)?;
        self.position += read as u64;
        if read == 0 || header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if read < BLOCK {
            return Err(InvalidTar::Truncated { expected: "a whole header" });
        }
        let said = header.cksum().map_err(|_| self.damaged("its checksum is no number"))?;
        let bytes = header.as_bytes();
        let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum();
        // The checksum's own eight bytes count as spaces.
        if said != sum + 8 * 32 {
            return Err(self.damaged("its checksum differs"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, name: &[u8], size: u64) -> Result<Vec<u8>, InvalidTar> {
        if size > LONGEST_EXTENSION {
            return Err(InvalidTar::Extension { path: String::from_utf8_lossy(name).into(), found: size });
        }
        self.expect_content(size);
        let mut records = Vec::new();
        self.read_to_end(&mut records).map_err(InvalidTar::Read)?;
        if (records.len() as u64) < size {
            return Err(InvalidTar::Truncated { expected: "an extension record" });
        }
        Ok(records)
    }

    fn long_name(&mut self, name: &[u8], size: u64) -> Result<Vec<u8>, InvalidTar> {
        let mut long = self.extension(name, size)?;
        if let Some(end) = long.iter().position(|byte| *byte == 0) {
            long.truncate(end);
        }
        Ok(long)
    }

    fn skip_rest(&mut self) -> Result<(), InvalidTar> {
        // No stream has that many: it ends as truncated.
        let rest = self.content.saturating_add(self.padding as u64);
        let skipped =
            io::copy(&mut (&mut self.inner).take(rest), &mut io::sink()).map_err(InvalidTar::Read)?;
        self.position += skipped;
        (self.content, self.padding) = (0, 0);
        if skipped < rest {
            return Err(InvalidTar::Truncated { expected: "the rest of an entry" });
        }
        Ok(())
    }
}

/// The current entry's content. Ends early if the stream does: compare with
/// [`Entry::size`].
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..limit])?;
        self.content -= read as u64;
        self.position += read as u64;
        Ok(read)
    }
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Checks a name and brings it into one form.
pub(crate) fn relative(name: &[u8]) -> Result<String, InvalidTar> {
    let refused = || InvalidTar::Path { path: String::from_utf8_lossy(name).into() };
    let text = std::str::from_utf8(name).map_err(|_| refused())?;
    if text.starts_with('/') || text.contains('\0') {
        return Err(refused());
    }
    let mut path = String::with_capacity(text.len());
    for component in text.split('/').filter(|component| !matches!(*component, "" | ".")) {
        if component == ".." {
            return Err(refused());
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(component);
    }
    Ok(path)
}

/// Takes path, link and size from pax records; none if they are malformed.
fn parse_pax(mut records: &[u8], extensions: &mut Extensions) -> Option<()> {
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extensions.path = Some(value.into()),
            b"linkpath" => extensions.link = Some(value.into()),
            b"size" => extensions.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            // Sparse files in pax form would be unpacked wrongly without a word.
            key if key.starts_with(b"GNU.sparse.") => return None,
            _ => {}
        }
        records = &records[length..];
    }
    Some(())
}

#[cfg(test)]
mod tests;
