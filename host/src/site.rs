//! Static files: from a route's asset to an outcome.
//!
//! Conditional and range requests as RFC 9110 has them (13 and 14); the
//! validator is the content's hash, known since the app was built. A file with
//! encoded forms is negotiated first: conditions and ranges are those of the
//! form that is sent.

use std::borrow::Cow;
use std::collections::HashSet;
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
use http_body_util::StreamBody;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tokio::task;
use tracing::warn;
use wharf_app::{Asset, Sha256};

use crate::app::SiteRoot;
use crate::body::Body;
use crate::mapped_file;
use crate::negotiation::Accepted;
use crate::outcome::{File, Form, Outcome, full};

/// Files up to this size stay in memory once they were asked for.
const CACHED_FILE: u64 = 64 << 10;

/// Bytes of files kept in memory, all together; each form counts by itself.
const CACHE: u64 = 16 << 20;

/// Bytes read at once of a larger file.
const CHUNK: usize = 256 << 10;

/// The contents of the site's files.
pub(crate) struct Site {
    root: Root,
    files: Box<[Prepared]>,
    cached_bytes: AtomicU64,
}

enum Root {
    /// A folder that nobody changes, opened once: nothing below it leads out.
    Sealed(OwnedFd),
    /// A project's files, which their author may change at any moment.
    Live(Vec<PathBuf>),
}

/// What all requests for a file share.
struct Prepared {
    media_type: HeaderValue,
    /// The file as it is, then its encoded forms in the manifest's order.
    cached: Box<[OnceLock<Box<Cached>>]>,
}

struct Cached {
    bytes: Bytes,
    etag: HeaderValue,
}

/// The form of a file that answers a request.
struct Chosen<'a> {
    index: usize,
    /// Where it is in [`Prepared::cached`].
    slot: usize,
    /// Of the file itself.
    path: &'a str,
    size: u64,
    sha256: &'a Sha256,
    form: Form,
}

/// What of a request bears on the way a file answers it.
#[derive(Clone, Copy)]
struct Terms<'a> {
    status: StatusCode,
    /// The headers with conditions, and with a range, where they apply.
    conditions: Option<&'a HeaderMap>,
    ranges: Option<&'a HeaderMap>,
}

/// What the file is right now.
struct Current {
    file: OpenFile,
    size: u64,
    etag: HeaderValue,
}

/// What there is to select from: the whole of a form.
#[derive(Clone, Copy)]
struct Whole<'a> {
    form: Form,
    media_type: &'a HeaderValue,
    size: u64,
    etag: &'a HeaderValue,
}

impl Chosen<'_> {
    /// Where it lies below the site.
    fn path(&self) -> Cow<'_, str> {
        match self.form {
            Form::Only | Form::AsItIs => self.path.into(),
            Form::Encoded(coding) => coding.sibling(self.path).into(),
        }
    }
}

impl Site {
    pub(crate) fn open(root: SiteRoot, assets: &[Asset]) -> io::Result<Self> {
        let root = match root {
            SiteRoot::Sealed(_) if assets.is_empty() => Root::Live(Vec::new()),
            SiteRoot::Sealed(dir) => Root::Sealed(fs_err::File::open(dir)?.into_parts().0.into()),
            SiteRoot::Live(files) => Root::Live(files),
        };
        // Many files, few types: those of one type share its text.
        let mut types: HashSet<HeaderValue> = HashSet::new();
        let files = assets.iter().map(|asset| {
            let media_type = HeaderValue::try_from(&asset.media_type)
                .unwrap_or(HeaderValue::from_static("application/octet-stream"));
            let known = types.get(&media_type).cloned();
            let media_type = known.unwrap_or_else(|| {
                types.insert(media_type.clone());
                media_type
            });
            let cached = (0..=asset.encodings.len()).map(|_| OnceLock::new()).collect();
            Prepared { media_type, cached }
        });
        let files = files.collect();
        Ok(Self { root, files, cached_bytes: AtomicU64::new(0) })
    }

    /// Answers a request with the file `index` of the manifest, `asset`.
    pub(crate) fn answer(&self, index: usize, asset: &Asset, request: &http::request::Parts) -> Outcome {
        let headers = &request.headers;
        let ranges = match request.method {
            Method::GET => Some(headers),
            // A range is defined for GET alone (RFC 9110, 14.2).
            Method::HEAD => None,
            Method::OPTIONS => return Outcome::Options,
            _ => return Outcome::MethodNotAllowed,
        };
        let terms = Terms { status: StatusCode::OK, conditions: Some(headers), ranges };
        self.send(&self.choose(index, asset, headers), terms)
    }

    /// The page that says that nothing is there.
    pub(crate) fn not_found(&self, index: usize, asset: &Asset, headers: &HeaderMap) -> Outcome {
        let terms = Terms { status: StatusCode::NOT_FOUND, conditions: None, ranges: None };
        self.send(&self.choose(index, asset, headers), terms)
    }

    fn choose<'a>(&self, index: usize, asset: &'a Asset, headers: &HeaderMap) -> Chosen<'a> {
        // A project's own files are sent as they are, whatever its image would have.
        let only = asset.encodings.is_empty() || matches!(self.root, Root::Live(_));
        let encoded = if only { None } else { Accepted::of(headers).choose(asset) };
        match encoded {
            Some((at, encoding)) => Chosen {
                index,
                slot: at + 1,
                path: &asset.path,
                size: encoding.size,
                sha256: &encoding.sha256,
                form: Form::Encoded(encoding.coding),
            },
            None => Chosen {
                index,
                slot: 0,
                path: &asset.path,
                size: asset.size,
                sha256: &asset.sha256,
                form: if only { Form::Only } else { Form::AsItIs },
            },
        }
    }

    fn send(&self, chosen: &Chosen<'_>, terms: Terms<'_>) -> Outcome {
        let Prepared { media_type, cached } = &self.files[chosen.index];
        let whole = |size, etag| Whole { form: chosen.form, media_type, size, etag };
        if let Some(cached) = cached[chosen.slot].get() {
            let Cached { bytes, etag } = &**cached;
            return select(whole(chosen.size, etag), terms, |first, length| slice(bytes, first, length));
        }
        let Current { file, size, etag } = match self.open_file(chosen) {
            Ok(current) => current,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Outcome::NotFound,
            Err(error) => {
                warn!(path = %chosen.path(), %error, "file can't be opened");
                return Outcome::FileFailed;
            }
        };
        if size > CACHED_FILE {
            return match self.map(chosen, &file, size, &etag) {
                Some(bytes) => {
                    select(whole(size, &etag), terms, |first, length| slice(&bytes, first, length))
                }
                None => select(whole(size, &etag), terms, |first, length| stream_file(file, first, length)),
            };
        }
        let bytes = match read_whole(&file, size) {
            Ok(bytes) => bytes,
            Err(error) => {
                warn!(path = %chosen.path(), %error, "file can't be read");
                return Outcome::FileFailed;
            }
        };
        self.remember(chosen, &bytes, &etag);
        select(whole(size, &etag), terms, |first, length| slice(&bytes, first, length))
    }

    fn open_file(&self, chosen: &Chosen<'_>) -> io::Result<Current> {
        match &self.root {
            Root::Sealed(dir) => {
                let path: &str = &chosen.path();
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let file = match rustix::fs::openat2(dir, path, flags, Mode::empty(), beneath) {
                    // Linux before 5.6, or a seccomp profile of that age. The
                    // path has no `..`, and the folder is read-only.
                    Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                        rustix::fs::openat(dir, path, flags | OFlags::NOFOLLOW, Mode::empty())
                    }
                    other => other,
                }?;
                let file = OpenFile::from(file);
                let metadata = file.metadata()?;
                if !metadata.is_file() || metadata.len() != chosen.size {
                    let text = format!("expected {} bytes, found {}", chosen.size, metadata.len());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                Ok(Current { file, size: chosen.size, etag: etag_of(chosen.sha256) })
            }
            Root::Live(files) => {
                let path = files.get(chosen.index).ok_or(io::ErrorKind::NotFound)?;
                let file = OpenFile::open(path)?;
                let metadata = file.metadata()?;
                let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let etag = format!("\"{:x}-{:x}\"", modified.as_nanos(), metadata.len());
                let etag = HeaderValue::try_from(etag).unwrap_or_else(|_| etag_of(chosen.sha256));
                Ok(Current { file, size: metadata.len(), etag })
            }
        }
    }

    /// Maps a larger file, which takes addresses but no memory.
    fn map(&self, chosen: &Chosen<'_>, file: &OpenFile, size: u64, etag: &HeaderValue) -> Option<Bytes> {
        if matches!(self.root, Root::Live(_)) {
            return None;
        }
        let bytes = mapped_file::map(file.try_clone().ok()?, usize::try_from(size).ok()?).ok()?;
        let cached = Box::new(Cached { bytes: bytes.clone(), etag: etag.clone() });
        // If another request was first, this mapping ends with its response.
        let _ = self.files[chosen.index].cached[chosen.slot].set(cached);
        Some(bytes)
    }

    /// Keeps a small file in memory, if there is room for it.
    fn remember(&self, chosen: &Chosen<'_>, bytes: &Bytes, etag: &HeaderValue) {
        let size = bytes.len() as u64;
        let with_it = |cached: u64| cached.checked_add(size).filter(|sum| *sum <= CACHE);
        let count = &self.cached_bytes;
        if matches!(self.root, Root::Live(_))
            || count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_it).is_err()
        {
            return;
        }
        let cached = Box::new(Cached { bytes: bytes.clone(), etag: etag.clone() });
        if self.files[chosen.index].cached[chosen.slot].set(cached).is_err() {
            // Another request was first, with the same bytes.
            count.fetch_sub(size, Ordering::Relaxed);
        }
    }
}

/// Decides between the whole, a part of it, and none.
fn select(whole: Whole<'_>, terms: Terms<'_>, body: impl FnOnce(u64, u64) -> Body) -> Outcome {
    let Whole { form, media_type, size, etag } = whole;
    if terms.conditions.is_some_and(|headers| is_known(headers, etag)) {
        return Outcome::NotModified { etag: etag.clone(), form };
    }
    let ranges = terms.ranges.filter(|headers| may_use_range(headers, etag));
    let range = ranges.and_then(|headers| parse_range(headers.get(RANGE)?.to_str().ok()?, size));
    let (status, range, first, length) = match range {
        None => (terms.status, None, 0, size),
        Some(None) => return Outcome::RangeNotSatisfiable { size, form },
        Some(Some((first, last))) => {
            (StatusCode::PARTIAL_CONTENT, Some((first, last, size)), first, last - first + 1)
        }
    };
    Outcome::File(File {
        status,
        media_type: media_type.clone(),
        form,
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

/// The first half of the hash, in quotes.
fn etag_of(sha256: &Sha256) -> HeaderValue {
    let mut tag = *b"\"................................\"";
    let digits = sha256.as_bytes().iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    for (place, digit) in tag[1..33].iter_mut().zip(digits) {
        *place = b"0123456789abcdef"[usize::from(digit)];
    }
    HeaderValue::from_bytes(&tag).unwrap_or(HeaderValue::from_static("\"\""))
}

fn read_whole(file: &OpenFile, size: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; to_usize(size)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes.into())
}

fn slice(bytes: &Bytes, first: u64, length: u64) -> Body {
    full(bytes.slice(to_usize(first)..to_usize(first + length)))
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
    Body::pieces(StreamBody::new(chunks))
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

    /// 24 MB of small files and their forms, twice asked for: those that are in
    /// memory are counted, each once, and no more than there is room for.
    #[test]
    fn forms_share_one_budget_and_each_counts_by_its_own_size() {
        let folder = tempfile::tempdir().unwrap();
        let content = vec![b'a'; 60_000];
        let codings = wharf_app::Coding::ALL;
        let assets: Vec<Asset> = (0..100)
            .map(|n| {
                let path = format!("{n}.js");
                let size = content.len() as u64;
                fs_err::write(folder.path().join(&path), &content).unwrap();
                let forms = codings.iter().zip(1..).map(|(&coding, less)| {
                    let size = size - less;
                    let sibling = folder.path().join(coding.sibling(&path));
                    fs_err::write(sibling, &content[..to_usize(size)]).unwrap();
                    wharf_app::Encoding { coding, size, sha256: Sha256::of(b"") }
                });
                let encodings = forms.collect();
                Asset { path, size, sha256: Sha256::of(b""), media_type: "text/javascript".into(), encodings }
            })
            .collect();
        let site = Site::open(SiteRoot::Sealed(folder.path().to_owned()), &assets).unwrap();
        for _ in 0..2 {
            for (index, asset) in assets.iter().enumerate() {
                for accept in ["identity", "br", "zstd", "gzip"] {
                    let request =
                        http::Request::builder().header("accept-encoding", accept).body(()).unwrap();
                    let outcome = site.answer(index, asset, &request.into_parts().0);
                    assert!(matches!(outcome, Outcome::File(_)));
                }
            }
        }
        let kept = site.files.iter().flat_map(|file| &file.cached).filter_map(OnceLock::get);
        let kept: u64 = kept.map(|cached| cached.bytes.len() as u64).sum();
        assert_eq!(site.cached_bytes.load(Ordering::Relaxed), kept);
        assert!(kept <= CACHE && kept > CACHE - 60_000, "{kept}");
    }

    #[test]
    fn a_tag_is_half_of_the_hash_in_quotes() {
        let sha256 = Sha256::of(b"abc");
        assert_eq!(etag_of(&sha256), format!("\"{}\"", &sha256.to_string()[..32]));
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
