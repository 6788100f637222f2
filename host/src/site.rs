//! Static files: from a route's asset to an outcome.
//!
//! The validator is the content's hash, known since the app was built. A file
//! with encoded forms is negotiated first; then conditions are judged, and then
//! a range selected, all of the form that is sent. Files are looked up by the
//! manifest alone, and opened so that no link leads out of the site.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File as OpenFile;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use tracing::warn;
use wharf_app::{Asset, Sha256};

use crate::app::SiteRoot;
use crate::conditions::{self, Validators, Verdict};
use crate::contents::Contents;
use crate::mapped_file;
use crate::negotiation::Accepted;
use crate::outcome::{File, Form, Outcome, Part, Representation};
use crate::range::{self, Selection};

/// Files up to this size stay in memory once they were asked for.
const CACHED_FILE: u64 = 64 << 10;

/// Bytes of files kept in memory, all together; each form counts by itself.
const CACHE: u64 = 16 << 20;

/// Of a name with a hash in it: what it names never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Of all other files of an image, and of the page for what is missing.
const REVALIDATED: HeaderValue = HeaderValue::from_static("public, max-age=0, must-revalidate");

/// Of a project's files, which change as their author writes.
const LIVE: HeaderValue = HeaderValue::from_static("no-cache");

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
    Live(Vec<LiveFile>),
}

struct LiveFile {
    path: PathBuf,
    /// The project, where a link may lead within.
    within: Option<Arc<Path>>,
}

/// What all requests for a file share, made once: what a request takes of it
/// is counted, not copied.
struct Prepared {
    media_type: HeaderValue,
    cache_control: HeaderValue,
    /// The file as it is, then its encoded forms in the manifest's order.
    cached: Box<[OnceLock<Box<Cached>>]>,
}

struct Cached {
    bytes: Bytes,
    etag: HeaderValue,
    /// Of the whole, for `Content-Length`.
    length: HeaderValue,
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
    modified: Option<SystemTime>,
}

/// What there is to select from: the whole of a form.
struct Whole {
    representation: Representation,
    media_type: HeaderValue,
    size: u64,
    /// The size, as it is sent.
    length: HeaderValue,
    modified: Option<SystemTime>,
    contents: Contents,
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
            SiteRoot::Live(files) => {
                let mut projects = HashMap::new();
                let files = files.into_iter().zip(assets);
                Root::Live(
                    files.map(|(path, asset)| LiveFile::new(path, &asset.path, &mut projects)).collect(),
                )
            }
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
            let cache_control = match root {
                Root::Live(_) => LIVE,
                Root::Sealed(_) if wharf_app::is_fingerprinted(&asset.path) => IMMUTABLE,
                Root::Sealed(_) => REVALIDATED,
            };
            let cached = (0..=asset.encodings.len()).map(|_| OnceLock::new()).collect();
            Prepared { media_type, cache_control, cached }
        });
        let files = files.collect();
        Ok(Self { root, files, cached_bytes: AtomicU64::new(0) })
    }

    /// Answers a request with the file `index` of the manifest, `asset`.
    pub(crate) fn answer(
        &self,
        index: usize,
        asset: &Asset,
        method: &Method,
        headers: &HeaderMap,
    ) -> Outcome {
        let ranges = match *method {
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
        let prepared = &self.files[chosen.index];
        let whole = |current: Found| Whole {
            representation: Representation {
                form: chosen.form,
                etag: current.etag,
                modified: current.modified.and_then(conditions::last_modified),
                // What is missing now may be there tomorrow, under whatever name.
                cache_control: match terms.status {
                    StatusCode::NOT_FOUND if prepared.cache_control == IMMUTABLE => REVALIDATED,
                    _ => prepared.cache_control.clone(),
                },
            },
            media_type: prepared.media_type.clone(),
            size: current.size,
            length: current.length,
            modified: current.modified,
            contents: current.contents,
        };
        if let Some(cached) = prepared.cached[chosen.slot].get() {
            let Cached { bytes, etag, length } = &**cached;
            return select(
                whole(Found {
                    etag: etag.clone(),
                    modified: None,
                    size: chosen.size,
                    length: length.clone(),
                    contents: Contents::Memory(bytes.clone()),
                }),
                terms,
            );
        }
        let Current { file, size, etag, modified } = match self.open_file(chosen) {
            Ok(current) => current,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Outcome::NotFound,
            Err(error) => {
                warn!(path = %chosen.path(), %error, "file can't be opened");
                return Outcome::FileFailed;
            }
        };
        let length = HeaderValue::from(size);
        let contents = if size > CACHED_FILE {
            match self.map(chosen, &file, &etag, &length) {
                Some(bytes) => Contents::Memory(bytes),
                None => Contents::File(file),
            }
        } else {
            match Contents::read(&file, size) {
                Ok(bytes) => {
                    self.remember(chosen, &bytes, &etag, &length);
                    Contents::Memory(bytes)
                }
                Err(error) => {
                    warn!(path = %chosen.path(), %error, "file can't be read");
                    return Outcome::FileFailed;
                }
            }
        };
        select(whole(Found { etag, modified, size, length, contents }), terms)
    }

    fn open_file(&self, chosen: &Chosen<'_>) -> io::Result<Current> {
        match &self.root {
            Root::Sealed(dir) => {
                let path: &str = &chosen.path();
                let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let file = match rustix::fs::openat2(dir, path, OPEN, Mode::empty(), beneath) {
                    // Linux before 5.6, or a seccomp profile of that age.
                    Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => open_beneath(dir, path),
                    other => other,
                }?;
                let file = OpenFile::from(file);
                let metadata = file.metadata()?;
                if !metadata.is_file() || metadata.len() != chosen.size {
                    let text = format!("expected {} bytes, found {}", chosen.size, metadata.len());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                // The time of a file in an image says nothing of its content.
                Ok(Current { file, size: chosen.size, etag: etag_of(chosen.sha256), modified: None })
            }
            Root::Live(files) => {
                let live = files.get(chosen.index).ok_or(io::ErrorKind::NotFound)?;
                let file = live.open()?;
                let metadata = file.metadata()?;
                let modified = metadata.modified()?;
                let age = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let etag = format!("\"{:x}-{:x}\"", age.as_nanos(), metadata.len());
                let etag = HeaderValue::try_from(etag).unwrap_or_else(|_| etag_of(chosen.sha256));
                Ok(Current { file, size: metadata.len(), etag, modified: Some(modified) })
            }
        }
    }

    /// Maps a larger file, which takes addresses but no memory.
    fn map(
        &self,
        chosen: &Chosen<'_>,
        file: &OpenFile,
        etag: &HeaderValue,
        length: &HeaderValue,
    ) -> Option<Bytes> {
        if matches!(self.root, Root::Live(_)) {
            return None;
        }
        let bytes = mapped_file::map(file.try_clone().ok()?, usize::try_from(chosen.size).ok()?).ok()?;
        let cached = Cached { bytes: bytes.clone(), etag: etag.clone(), length: length.clone() };
        // If another request was first, this mapping ends with its response.
        let _ = self.files[chosen.index].cached[chosen.slot].set(Box::new(cached));
        Some(bytes)
    }

    /// Keeps a small file in memory, if there is room for it.
    fn remember(&self, chosen: &Chosen<'_>, bytes: &Bytes, etag: &HeaderValue, length: &HeaderValue) {
        let size = bytes.len() as u64;
        let with_it = |cached: u64| cached.checked_add(size).filter(|sum| *sum <= CACHE);
        let count = &self.cached_bytes;
        if matches!(self.root, Root::Live(_))
            || count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_it).is_err()
        {
            return;
        }
        let cached = Box::new(Cached { bytes: bytes.clone(), etag: etag.clone(), length: length.clone() });
        if self.files[chosen.index].cached[chosen.slot].set(cached).is_err() {
            // Another request was first, with the same bytes.
            count.fetch_sub(size, Ordering::Relaxed);
        }
    }
}

impl LiveFile {
    /// `path` is the file's own, `asset` the end of it that is below the site;
    /// `projects` are those whose true place is known.
    fn new(path: PathBuf, asset: &str, projects: &mut HashMap<PathBuf, Option<Arc<Path>>>) -> Self {
        let depth = asset.split('/').count();
        // The site's folder, and the project around it.
        let within = path.ancestors().nth(depth + 1).and_then(|project| {
            projects.get(project).cloned().unwrap_or_else(|| {
                let place = project.canonicalize().ok().map(Arc::from);
                projects.insert(project.to_owned(), place.clone());
                place
            })
        });
        Self { path, within }
    }

    /// The file, unless what is there now is a link out of the project.
    fn open(&self) -> io::Result<OpenFile> {
        let path = &self.path;
        let file = OpenFile::from(rustix::fs::open(path, OPEN, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Of what was opened, not of the name, which may be another's by now.
        let opened = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        match &self.within {
            Some(within) if !opened.starts_with(within) => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is a link out of the project"))
            }
            _ => Ok(file),
        }
    }
}

/// A file is never waited for, as one would be for the other end of a pipe.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Opens `path`, which has no `..` in it, folder by folder, following no link.
fn open_beneath(dir: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let Some((folders, name)) = path.rsplit_once('/') else {
        return rustix::fs::openat(dir, path, OPEN | OFlags::NOFOLLOW, Mode::empty());
    };
    let mut parts = folders.split('/');
    let first = parts.next().unwrap_or_default();
    let mut at = rustix::fs::openat(dir, first, folder, Mode::empty())?;
    for part in parts {
        at = rustix::fs::openat(&at, part, folder, Mode::empty())?;
    }
    rustix::fs::openat(&at, name, OPEN | OFlags::NOFOLLOW, Mode::empty())
}

/// A form of a file with its contents, wherever they are.
struct Found {
    etag: HeaderValue,
    modified: Option<SystemTime>,
    size: u64,
    length: HeaderValue,
    contents: Contents,
}

/// Decides between the whole, parts of it, and none.
fn select(whole: Whole, terms: Terms<'_>) -> Outcome {
    let Whole { representation, media_type, size, length, modified, contents } = whole;
    let validators = Validators { etag: &representation.etag, modified };
    match terms.conditions.map_or(Verdict::Proceed, |headers| conditions::judge(headers, validators)) {
        Verdict::Proceed => {}
        Verdict::NotModified => return Outcome::NotModified(representation),
        Verdict::Failed => return Outcome::PreconditionFailed(representation.form),
    }
    let ranges = terms.ranges.filter(|headers| headers.contains_key(http::header::RANGE));
    let ranges = ranges.filter(|headers| conditions::may_use_range(headers, validators));
    let selection = ranges.map_or(Selection::Whole, |headers| range::select(headers, size));
    let (status, part) = match selection {
        Selection::Whole => (terms.status, Part::Whole { length }),
        Selection::Unsatisfiable => {
            return Outcome::RangeNotSatisfiable { size, form: representation.form };
        }
        Selection::One(range) => (StatusCode::PARTIAL_CONTENT, Part::One(range)),
        Selection::Several(ranges) => (StatusCode::PARTIAL_CONTENT, Part::Several(ranges)),
    };
    Outcome::File(File { status, media_type: Some(media_type), representation, size, part, contents })
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

#[cfg(test)]
mod tests;
