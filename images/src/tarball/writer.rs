//! The writing half: POSIX (pax) tar with fixed owner, no names and one time.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::{BLOCK, padding};
use crate::Timestamp;

/// Largest size that the 11 octal digits of a header can hold: 8 GiB - 1.
const LARGEST_OCTAL: u64 = 0o777_7777_7777;

/// Writes entries one after the other.
pub(crate) struct TarWriter<W> {
    inner: W,
    mtime: Timestamp,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(inner: W, mtime: Timestamp) -> Self {
        Self { inner, mtime }
    }

    /// Writes a directory. `path` has no slash at its end.
    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.header(&format!("{path}/"), EntryType::Directory, mode, 0)
    }

    /// Writes a file of exactly `size` bytes from `content`.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if `content` is shorter. More than `size` bytes are not read.
    pub(crate) fn file(
        &mut self,
        path: &str,
        mode: u32,
        size: u64,
        content: &mut impl Read,
    ) -> io::Result<()> {
        self.header(path, EntryType::Regular, mode, size)?;
        let copied = io::copy(&mut content.take(size), &mut self.inner)?;
        if copied < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.inner.write_all(&[0; BLOCK][..padding(size)])
    }

    /// Writes the two zero blocks that end an archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&[0; 2 * BLOCK])?;
        Ok(self.inner)
    }

    fn header(&mut self, path: &str, kind: EntryType, mode: u32, size: u64) -> io::Result<()> {
        let mut header = self.blank(kind, mode);
        let mut records = Vec::new();
        if !set_path(&mut header, path) {
            records.extend(pax_record("path", path));
            // What a reader without pax would see; no such reader is known.
            let end = path.len().min(100);
            let short: Vec<u8> = path.as_bytes()[..end]
                .iter()
                .map(|byte| if byte.is_ascii() { *byte } else { b'_' })
                .collect();
            header.as_old_mut().name[..end].copy_from_slice(&short);
        }
        if size > LARGEST_OCTAL {
            records.extend(pax_record("size", &size.to_string()));
            header.set_size(0);
        } else {
            header.set_size(size);
        }
        header.set_cksum();
        if !records.is_empty() {
            let length = records.len() as u64;
            let mut extension = self.blank(EntryType::XHeader, 0o644);
            set_path(&mut extension, "PaxHeaders.0/entry");
            extension.set_size(length);
            extension.set_cksum();
            self.inner.write_all(extension.as_bytes())?;
            self.inner.write_all(&records)?;
            self.inner.write_all(&[0; BLOCK][..padding(length)])?;
        }
        self.inner.write_all(header.as_bytes())
    }

    fn blank(&self, kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.mtime.seconds());
        header
    }
}

/// Puts `path` into the header's name, or into prefix and name. False if it
/// needs a pax record: too long, or not ASCII (whose encoding ustar leaves open).
fn set_path(header: &mut Header, path: &str) -> bool {
    let bytes = path.as_bytes();
    if !path.is_ascii() {
        return false;
    }
    let Some(ustar) = header.as_ustar_mut() else { return false };
    if bytes.len() <= ustar.name.len() {
        ustar.name[..bytes.len()].copy_from_slice(bytes);
        return true;
    }
    // The last slash that leaves a prefix short enough and a name not empty.
    let split = (1..bytes.len().min(ustar.prefix.len() + 1))
        .rev()
        .find(|&at| bytes[at] == b'/' && at + 1 < bytes.len());
    match split {
        Some(at) if bytes.len() - at - 1 <= ustar.name.len() => {
            ustar.prefix[..at].copy_from_slice(&bytes[..at]);
            ustar.name[..bytes.len() - at - 1].copy_from_slice(&bytes[at + 1..]);
            true
        }
        _ => false,
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself (POSIX, "pax Extended Header").
fn pax_record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pax_record_counts_its_own_length() {
        assert_eq!(pax_record("a", "b"), b"6 a=b\n");
        // No record is 100 bytes long: the third digit makes it 101.
        assert_eq!(pax_record("path", &"x".repeat(90)).len(), 99);
        assert_eq!(pax_record("path", &"x".repeat(91)).len(), 101);
        for length in 0..2000 {
            let record = pax_record("path", &"x".repeat(length));
            let text = String::from_utf8(record).unwrap();
            let said: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, text.len());
        }
    }

    #[test]
    fn the_tar_crate_reads_back_every_length_of_path() {
        let mut writer = TarWriter::new(Vec::new(), Timestamp::EPOCH);
        let mut paths = Vec::new();
        for length in 1..400 {
            paths.push("x".repeat(length));
            paths.push(format!("{}/{}", "d".repeat(length), "f".repeat(120)));
            paths.push(format!("{}/{}", "d/".repeat(length), "f".repeat(90)));
            paths.push(format!("ü{}", "y".repeat(length)));
        }
        for path in &paths {
            writer.file(path, 0o644, 2, &mut b"hi".as_slice()).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let read: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| String::from_utf8(entry.unwrap().path_bytes().to_vec()).unwrap())
            .collect();
        // The crate joins prefix and name with one slash, "d//f" stays as it is.
        assert_eq!(read, paths);
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let mut writer = TarWriter::new(Vec::new(), Timestamp::EPOCH);
        let error = writer.file("a", 0o644, 3, &mut b"hi".as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
