//! Static files: from a route's asset to an outcome.
//!
//! Conditional and range requests as RFC 9110 has them (13 and 14); the
//! validator is the content's hash, known since the app was built.

use std::fs::File as OpenFile;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http::header::{HeaderMap, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tokio::task;
use tracing::warn;
use wharf_app::Asset;

use crate::app::SiteRoot;
use crate::outcome::{Body, File, Outcome, full};

/// Files up to this size stay in memory once they were asked for.
const CACHED_FILE: u64 = 64 << 10;

/// Bytes of files kept in memory, all together.
const CACHE: u64 = 16 << 20;

/// Bytes read at once of a larger file.
const CHUNK: usize = 256 << 10;

/// The contents of the site's files.
pub(crate) struct Site {
    root: Root,
    cached: Box<[OnceLock<Bytes>]>,
    cached_bytes: AtomicU64,
}

enum Root {
    /// A folder that nobody changes, opened once: nothing below it leads out.
    Sealed(OwnedFd),
    /// A project's files, which their author may change at any moment.
    Live(Vec<PathBuf>),
}

/// What the file is right now.
struct Current {
    file: OpenFile,
    size: u64,
    etag: HeaderValue,
}

impl Site {
    pub(crate) fn open(root: SiteRoot, assets: &[Asset]) -> io::Result<Self> {
        let root = match root {
            SiteRoot::Sealed(_) if assets.is_empty() => Root::Live(Vec::new()),
            SiteRoot::Sealed(dir) => Root::Sealed(fs_err::File::open(dir)?.into_parts().0.into()),
            SiteRoot::Live(files) => Root::Live(files),
        };
        let cached = assets.iter().map(|_| OnceLock::new()).collect();
        Ok(Self { root, cached, cached_bytes: AtomicU64::new(0) })
    }

    /// Answers a request with the file `index` of the manifest, `asset`.
    pub(crate) fn answer(&self, index: usize, asset: &Asset, request: &http::request::Parts) -> Outcome {
        match request.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return Outcome::Options,
            _ => return Outcome::MethodNotAllowed,
        }
        if request.method == Method::HEAD {
            // A range is defined for GET alone (RFC 9110, 14.2).
            let mut headers = request.headers.clone();
            headers.remove(RANGE);
            return self.send(index, asset, StatusCode::OK, &headers);
        }
        self.send(index, asset, StatusCode::OK, &request.headers)
    }

    /// The page that says that nothing is there.
    pub(crate) fn not_found(&self, index: usize, asset: &Asset) -> Outcome {
        self.send(index, asset, StatusCode::NOT_FOUND, &HeaderMap::new())
    }

    fn send(&self, index: usize, asset: &Asset, status: StatusCode, headers: &HeaderMap) -> Outcome {
        if let (Root::Sealed(_), Some(bytes)) = (&self.root, self.cached[index].get()) {
            return select(asset, status, headers, asset.size, &etag_of(asset), |first, length| {
                full(bytes.slice(to_usize(first)..to_usize(first + length)))
            });
        }
        let current = match self.open_asset(index, asset) {
            Ok(current) => current,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Outcome::NotFound,
            Err(error) => {
                warn!(path = asset.path, %error, "file can't be opened");
                return Outcome::FileFailed;
            }
        };
        if current.size <= CACHED_FILE {
            let bytes = match read_whole(&current) {
                Ok(bytes) => bytes,
                Err(error) => {
                    warn!(path = asset.path, %error, "file can't be read");
                    return Outcome::FileFailed;
                }
            };
            self.remember(index, &bytes);
            return select(asset, status, headers, current.size, &current.etag, |first, length| {
                full(bytes.slice(to_usize(first)..to_usize(first + length)))
            });
        }
        let Current { file, size, etag } = current;
        select(asset, status, headers, size, &etag, |first, length| stream_file(file, first, length))
    }

    fn open_asset(&self, index: usize, asset: &Asset) -> io::Result<Current> {
        match &self.root {
            Root::Sealed(dir) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let file = match rustix::fs::openat2(dir, &asset.path, flags, Mode::empty(), beneath) {
                    // Linux before 5.6, or a seccomp profile of that age. The
                    // path has no `..`, and the folder is read-only.
                    Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                        rustix::fs::openat(dir, &asset.path, flags | OFlags::NOFOLLOW, Mode::empty())
                    }
                    other => other,
                }?;
                let file = OpenFile::from(file);
                let metadata = file.metadata()?;
                if !metadata.is_file() || metadata.len() != asset.size {
                    let text = format!("expected {} bytes, found {}", asset.size, metadata.len());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                Ok(Current { file, size: asset.size, etag: etag_of(asset) })
            }
            Root::Live(files) => {
                let path = files.get(index).ok_or(io::ErrorKind::NotFound)?;
                let file = OpenFile::open(path)?;
                let metadata = file.metadata()?;
                let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let etag = format!("\"{:x}-{:x}\"", modified.as_nanos(), metadata.len());
                let etag = HeaderValue::try_from(etag).unwrap_or_else(|_| etag_of(asset));
                Ok(Current { file, size: metadata.len(), etag })
            }
        }
    }

    fn remember(&self, index: usize, bytes: &Bytes) {
        let size = bytes.len() as u64;
        if matches!(self.root, Root::Sealed(_))
            && self.cached_bytes.fetch_add(size, Ordering::Relaxed) + size <= CACHE
        {
            // Another request may have been first, with the same bytes.
            let _ = self.cached[index].set(bytes.clone());
        }
    }
}

/// Decides between the whole file, a part of it, and none.
fn select(
    asset: &Asset,
    status: StatusCode,
    headers: &HeaderMap,
    size: u64,
    etag: &HeaderValue,
    body: impl FnOnce(u64, u64) -> Body,
) -> Outcome {
    if status == StatusCode::OK && is_known(headers, etag) {
        return Outcome::NotModified { etag: etag.clone() };
    }
    let range = headers.get(RANGE).filter(|_| may_use_range(headers, etag));
    let range = range.and_then(|range| parse_range(range.to_str().ok()?, size));
    let (status, range, first, length) = match range {
        None => (status, None, 0, size),
        Some(None) => return Outcome::RangeNotSatisfiable { size },
        Some(Some((first, last))) => {
            (StatusCode::PARTIAL_CONTENT, Some((first, last, size)), first, last - first + 1)
        }
    };
    Outcome::File(File {
        status,
        media_type: HeaderValue::try_from(&asset.media_type)
            .unwrap_or(HeaderValue::from_static("application/octet-stream")),
        etag: etag.clone(),
        range,
        length,
        body: body(first, length),
    })
}

/// `If-None-Match` (RFC 9110, 13.1.2): weak comparison.
fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes())
}

/// `If-Range` (RFC 9110, 13.1.5): without our tag in it, the range is void.
fn may_use_range(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get(IF_RANGE).is_none_or(|condition| condition == etag)
}

/// `Range` (RFC 9110, 14.1.2): one range of bytes. `None`: no range that we
/// know, so the whole; `Some(None)`: it holds no byte of the file.
#[allow(clippy::option_option)]
fn parse_range(text: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    if first.is_empty() {
        let suffix: u64 = last.parse().ok()?;
        let length = suffix.min(size);
        return Some((length > 0).then(|| (size - length, size - 1)));
    }
    let first: u64 = first.parse().ok()?;
    let last: u64 = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
    if last < first {
        return None;
    }
    Some((first < size).then(|| (first, last.min(size - 1))))
}

fn etag_of(asset: &Asset) -> HeaderValue {
    let mut tag = asset.sha256.to_string();
    tag.truncate(32);
    HeaderValue::try_from(format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn read_whole(current: &Current) -> io::Result<Bytes> {
    let mut bytes = vec![0; to_usize(current.size)];
    current.file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes.into())
}

/// The bytes of `file` from `first` on, read in chunks off the event loop.
fn stream_file(file: OpenFile, first: u64, length: u64) -> Body {
    let chunks = stream::try_unfold((file, first, length), |(file, at, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let size = left.min(CHUNK as u64);
        let read = task::spawn_blocking(move || {
            let mut chunk = vec![0; to_usize(size)];
            file.read_exact_at(&mut chunk, at)?;
            Ok::<_, io::Error>((Bytes::from(chunk), file))
        });
        let (chunk, file) = read.await.map_err(io::Error::other)??;
        Ok(Some((Frame::data(chunk), (file, at + size, left - size))))
    });
    StreamBody::new(chunks).boxed_unsync()
}

/// Sizes here are below a limit that fits, or of a file in memory.
fn to_usize(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_first_last_open_and_suffix() {
        assert_eq!(parse_range("bytes=0-3", 10), Some(Some((0, 3))));
        assert_eq!(parse_range("bytes=5-", 10), Some(Some((5, 9))));
        assert_eq!(parse_range("bytes=-3", 10), Some(Some((7, 9))));
        assert_eq!(parse_range("bytes=-30", 10), Some(Some((0, 9))));
        assert_eq!(parse_range("bytes=3-100", 10), Some(Some((3, 9))));
    }

    #[test]
    fn a_range_past_the_end_is_not_satisfiable_and_a_malformed_one_is_ignored() {
        assert_eq!(parse_range("bytes=10-", 10), Some(None));
        assert_eq!(parse_range("bytes=-0", 10), Some(None));
        assert_eq!(parse_range("bytes=0-", 0), Some(None));
        for text in ["bytes=3-1", "bytes=a-b", "bytes=1-2,4-5", "lines=1-2", "bytes=", "bytes=-"] {
            assert_eq!(parse_range(text, 10), None, "{text}");
        }
    }

    #[test]
    fn a_known_tag_is_recognised_among_others() {
        let etag = HeaderValue::from_static("\"abc\"");
        let known = |value: &'static str| {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(value))]);
            is_known(&headers, &etag)
        };
        assert!(known("\"abc\""));
        assert!(known("W/\"abc\""));
        assert!(known("\"x\", \"abc\""));
        assert!(known("*"));
        assert!(!known("\"abcd\""));
    }
}
