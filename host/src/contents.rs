//! The bytes of a file on their way out: whole, a part, or several.

use std::fs::File as OpenFile;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec;

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::task;

use crate::body::Body;
use crate::range::ByteRange;

/// Bytes read at once of a larger file.
const CHUNK: usize = 256 << 10;

/// Where the bytes of a file are.
pub(crate) enum Contents {
    /// A small one's, or a large one's that is mapped.
    Memory(Bytes),
    /// A large one's, read as they are sent.
    File(OpenFile),
}

/// What a body is made of, in turn.
enum Piece {
    Text(Bytes),
    Range { first: u64, length: u64 },
}

/// A body of several parts (RFC 9110, 14.6).
pub(crate) struct Multipart {
    /// What parts them, for the `Content-Type`.
    pub(crate) boundary: String,
    /// Its length, in bytes.
    pub(crate) length: u64,
    pub(crate) body: Body,
}

impl Contents {
    /// Reads a small file of `size` bytes.
    pub(crate) fn read(file: &OpenFile, size: u64) -> io::Result<Bytes> {
        let mut bytes = vec![0; to_usize(size)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes.into())
    }

    /// `length` bytes from `first` on.
    pub(crate) fn part(self, first: u64, length: u64) -> Body {
        match self {
            Self::Memory(bytes) => Body::Whole(bytes.slice(to_usize(first)..to_usize(first + length))),
            Self::File(file) => stream_pieces(file, vec![Piece::Range { first, length }]),
        }
    }

    /// All of `ranges` of a file with this type, if any, and size.
    pub(crate) fn parts(self, ranges: &[ByteRange], media_type: Option<&[u8]>, size: u64) -> Multipart {
        let boundary = boundary();
        let mut pieces = Vec::with_capacity(2 * ranges.len() + 1);
        let mut length = 0;
        for (index, range) in ranges.iter().enumerate() {
            let ByteRange { first, last } = *range;
            let before = if index == 0 { "" } else { "\r\n" };
            let mut head = format!("{before}--{boundary}\r\n").into_bytes();
            if let Some(media_type) = media_type {
                head.extend_from_slice(&[b"Content-Type: ", media_type, b"\r\n"].concat());
            }
            head.extend_from_slice(format!("Content-Range: bytes {first}-{last}/{size}\r\n\r\n").as_bytes());
            length += head.len() as u64 + range.length();
            pieces.push(Piece::Text(head.into()));
            pieces.push(Piece::Range { first, length: range.length() });
        }
        let end = format!("\r\n--{boundary}--\r\n");
        length += end.len() as u64;
        pieces.push(Piece::Text(end.into()));
        let body = match self {
            Self::File(file) => stream_pieces(file, pieces),
            Self::Memory(bytes) => {
                let frames = pieces.into_iter().map(move |piece| {
                    Ok(Frame::data(match piece {
                        Piece::Text(text) => text,
                        Piece::Range { first, length } => {
                            bytes.slice(to_usize(first)..to_usize(first + length))
                        }
                    }))
                });
                Body::pieces(StreamBody::new(stream::iter(frames)))
            }
        };
        Multipart { boundary, length, body }
    }
}

/// Text that no file holds but by a chance of one to 2^128: nobody can have
/// written it before, since it begins anew with each process.
fn boundary() -> String {
    static KEYS: LazyLock<(RandomState, RandomState)> = LazyLock::new(Default::default);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("wharf-{:016x}{:016x}", KEYS.0.hash_one(count), KEYS.1.hash_one(count))
}

/// The pieces in turn; those of the file are read in chunks off the event loop.
fn stream_pieces(file: OpenFile, pieces: Vec<Piece>) -> Body {
    let start = (file, pieces.into_iter(), None);
    let chunks = stream::try_unfold(start, |(file, mut rest, current): State| async move {
        let Some(piece) = current.or_else(|| rest.next()) else { return Ok(None) };
        let (first, length) = match piece {
            Piece::Text(text) => return Ok(Some((Frame::data(text), (file, rest, None)))),
            Piece::Range { first, length } => (first, length),
        };
        let size = length.min(CHUNK as u64);
        let read = task::spawn_blocking(move || {
            let mut chunk = vec![0; to_usize(size)];
            file.read_exact_at(&mut chunk, first)?;
            Ok::<_, io::Error>((Bytes::from(chunk), file))
        });
        let (chunk, file) = read.await.map_err(io::Error::other)??;
        let left = (length > size).then(|| Piece::Range { first: first + size, length: length - size });
        Ok(Some((Frame::data(chunk), (file, rest, left))))
    });
    Body::pieces(StreamBody::new(chunks))
}

type State = (OpenFile, vec::IntoIter<Piece>, Option<Piece>);

/// Sizes here are below a limit that fits, or of a file in memory.
pub(crate) fn to_usize(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn several_parts_are_the_same_bytes_from_memory_and_from_a_file() {
        let content: Vec<u8> = (0..600_000_u32).map(|n| (n % 251) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), &content).unwrap();
        let ranges = [ByteRange { first: 5, last: 5 }, ByteRange { first: 100, last: 599_999 }];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for contents in [Contents::Memory(content.clone().into()), Contents::File(file.reopen().unwrap())] {
            let Multipart { boundary, length, body } = contents.parts(&ranges, Some(b"a/b"), 600_000);
            let sent = runtime.block_on(body.collect()).unwrap().to_bytes();
            let head = |range: &str| {
                format!("--{boundary}\r\nContent-Type: a/b\r\nContent-Range: bytes {range}/600000\r\n\r\n")
            };
            let mut expected = head("5-5").into_bytes();
            expected.push(content[5]);
            expected.extend_from_slice(b"\r\n");
            expected.extend_from_slice(head("100-599999").as_bytes());
            expected.extend_from_slice(&content[100..]);
            expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
            assert!(sent == expected);
            assert_eq!(length, sent.len() as u64);
        }
        assert_ne!(boundary(), boundary());
    }
}
