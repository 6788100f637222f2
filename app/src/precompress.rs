//! Compressed siblings of a site's files: `.br`, `.zst` and `.gz`.
//!
//! What was made once is kept by the hash of the content, and so is that a
//! coding does not pay: an unchanged site costs a look at what is kept. Each
//! file is encoded by one thread with fixed parameters, so that the bytes are
//! the same on any machine and any number of cores.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Read, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use brotli::enc::BrotliEncoderParams;
use serde::{Deserialize, Serialize};

use crate::build::{BuiltApp, Workshop};
use crate::digest::{Hashed, Sha256};
use crate::encoding::{Coding, Encoding};
use crate::manifest::Asset;

/// Names what this file writes: raise it when the bytes change, as a test
/// notices (`the_bytes_of_each_coding_are_those_of_the_form`).
const FORM: &str = "wharf encodings 1";

/// Smaller files stay as they are, in bytes. They fit into a packet with their
/// headers; the 33 of them in JupyterLite would save 1.6 KB all together.
const SMALLEST: u64 = 256;

/// A form pays if it is at least a twentieth shorter: 5%.
const LEAST_SAVING: u64 = 20;

/// Above this size, in bytes, Brotli searches less: quality 10 would save 6%
/// against 9, but take six times as long.
const THOROUGH: u64 = 512 << 10;

/// Above this size, in bytes, all encoders are quick rather than thorough.
const QUICK: u64 = 64 << 20;

/// Longest file name that Linux takes, in bytes.
const LONGEST_NAME: usize = 255;

/// At the levels here an encoder takes up to 100 MB; more threads than this
/// would gain little on any site.
const MOST_THREADS: usize = 16;

/// Types that are compressed in themselves.
const COMPRESSED_TYPES: [&str; 20] = [
    "application/epub+zip",
    "application/gzip",
    "application/java-archive",
    "application/vnd.rar",
    "application/x-7z-compressed",
    "application/x-bzip2",
    "application/x-gzip",
    "application/x-rar-compressed",
    "application/x-xz",
    "application/zip",
    "application/zstd",
    "font/woff",
    "font/woff2",
    "application/font-woff",
    "image/apng",
    "image/avif",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
];

/// The same by extension, where the type does not say so.
const COMPRESSED_EXTENSIONS: [&str; 12] =
    ["7z", "br", "bz2", "conda", "gz", "jxl", "lz4", "rar", "tgz", "woff", "xz", "zst"];

/// Why siblings can't be made.
#[derive(Debug, thiserror::Error)]
pub enum PrecompressError {
    /// The file was written to since the app was built.
    #[error("cannot compress site file {path:?}: expected {expected} bytes of hash {sha256}, found others")]
    Changed {
        /// Path below the site.
        path: String,
        /// Its size when it was hashed.
        expected: u64,
        /// Its hash then.
        sha256: Sha256,
    },
    /// It can't be read, or its sibling not be written.
    #[error("cannot compress site file {path:?} as {}", coding.name())]
    Encode {
        /// Path below the site.
        path: String,
        /// What was being made.
        coding: Coding,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The cache can't be written; the cause names the file.
    #[error("cannot keep compressed files")]
    Keep(#[source] io::Error),
}

impl PrecompressError {
    /// What the user can do about it, if that isn't plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Changed { .. } => Some("build again when nothing writes to it".into()),
            Self::Encode { .. } | Self::Keep(_) => None,
        }
    }
}

impl BuiltApp {
    /// Adds the encoded forms of the site's files to the manifest where they
    /// pay, made now or before. If any must be made, `start` is told of how
    /// many files.
    ///
    /// A file of the site that has a sibling's name already stays what it is:
    /// there is no form of that coding.
    ///
    /// # Errors
    /// [`PrecompressError`]: a file changed, or the cache can't be written.
    pub fn precompress(
        &mut self,
        workshop: &Workshop,
        start: &dyn Fn(usize),
    ) -> Result<(), PrecompressError> {
        let shelf = Shelf::new(&workshop.encodings());
        let files = &mut self.manifest.site.files;
        let wanted = wanted(files);
        let mut contents: BTreeMap<Sha256, Content<'_>> = BTreeMap::new();
        for ((asset, source), codings) in files.iter().zip(&self.assets).zip(&wanted) {
            if !codings.is_empty() {
                let new = || Content::new(asset, source, shelf.read(&asset.sha256));
                contents.entry(asset.sha256).or_insert_with(new).want(codings);
            }
        }
        let contents: Vec<Content<'_>> = contents.into_values().collect();
        make(&shelf, &contents, start)?;
        let made: BTreeMap<Sha256, Record> =
            contents.into_iter().map(|content| (content.sha256, content.into_record())).collect();
        self.encodings.clear();
        for (asset, codings) in files.iter_mut().zip(wanted) {
            let record = made.get(&asset.sha256);
            let forms = codings.into_iter().filter_map(|coding| {
                let &Form { size, sha256 } = record?.get(&coding)?.as_ref()?;
                Some(Encoding { coding, size, sha256 })
            });
            asset.encodings = forms.collect();
            let siblings = asset.encodings.iter();
            self.encodings.extend(siblings.map(|form| shelf.sibling(&asset.sha256, form.coding)));
        }
        Ok(())
    }
}

/// The codings that each file may have, in the order of the files.
fn wanted(files: &[Asset]) -> Vec<Vec<Coding>> {
    let names: BTreeSet<&str> = files.iter().map(|asset| asset.path.as_str()).collect();
    let is_free = |path: &str| {
        let below = format!("{path}/");
        let next = names.range(below.as_str()..).next();
        !names.contains(path) && !next.is_some_and(|next| next.starts_with(&below))
    };
    let codings = |asset: &Asset| {
        if asset.size < SMALLEST || is_compressed(&asset.path, &asset.media_type) {
            return Vec::new();
        }
        let name = asset.path.rsplit('/').next().unwrap_or(&asset.path);
        let fits = |coding: &Coding| coding.sibling(name).len() <= LONGEST_NAME;
        let free = |coding: &Coding| fits(coding) && is_free(&coding.sibling(&asset.path));
        Coding::ALL.into_iter().filter(free).collect()
    };
    files.iter().map(codings).collect()
}

fn is_compressed(path: &str, media_type: &str) -> bool {
    let media_type = media_type.split(';').next().unwrap_or_default();
    let is_sound = media_type.starts_with("audio/") && !media_type.ends_with("wav");
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str());
    is_sound
        || media_type.starts_with("video/")
        || media_type.starts_with("application/vnd.openxmlformats-")
        || COMPRESSED_TYPES.contains(&media_type)
        || extension.is_some_and(|extension| {
            COMPRESSED_EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension))
        })
}

/// What is known of a content's forms; `None` does not pay.
type Record = BTreeMap<Coding, Option<Form>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    size: u64,
    sha256: Sha256,
}

/// What one or more files hold, and what is still to be made of it.
struct Content<'a> {
    /// The first of these files: its path below the site, and where it is.
    path: &'a str,
    source: &'a Path,
    size: u64,
    sha256: Sha256,
    missing: BTreeSet<Coding>,
    left: AtomicUsize,
    record: Mutex<Record>,
}

impl<'a> Content<'a> {
    fn new(asset: &'a Asset, source: &'a Path, record: Record) -> Self {
        Self {
            path: &asset.path,
            source,
            size: asset.size,
            sha256: asset.sha256,
            missing: BTreeSet::new(),
            left: AtomicUsize::new(0),
            record: Mutex::new(record),
        }
    }

    fn want(&mut self, codings: &[Coding]) {
        let known = self.record.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.missing.extend(codings.iter().filter(|coding| !known.contains_key(coding)));
        *self.left.get_mut() = self.missing.len();
    }

    fn into_record(self) -> Record {
        self.record.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes what is missing, on all cores, the largest first.
fn make(shelf: &Shelf, contents: &[Content<'_>], start: &dyn Fn(usize)) -> Result<(), PrecompressError> {
    let missing =
        contents.iter().flat_map(|content| content.missing.iter().map(move |&coding| (content, coding)));
    let mut jobs: Vec<(&Content<'_>, Coding)> = missing.collect();
    if jobs.is_empty() {
        return Ok(());
    }
    start(contents.iter().filter(|content| !content.missing.is_empty()).count());
    fs_err::create_dir_all(&shelf.folder).map_err(PrecompressError::Keep)?;
    // Stable: files of one size stay in order, and a file's codings together.
    jobs.sort_by_key(|(content, _)| std::cmp::Reverse(content.size));
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS).min(jobs.len());
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = || {
        while let Some((content, coding)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = shelf.add(content, *coding) {
                failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = running.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect()
    })
}

/// Where forms are kept: beside each other `SHA256.json`, a [`Record`], and
/// `SHA256.br` and so on, by the hash of what they were made from.
struct Shelf {
    folder: PathBuf,
}

impl Shelf {
    /// Of these encoders, at these levels: other ones have a folder of their own.
    fn new(encodings: &Path) -> Self {
        let form = format!("{FORM}, zstd {}", zstd::zstd_safe::version_number());
        let name = Sha256::of(form.as_bytes()).to_string();
        Self { folder: encodings.join(&name[..16]) }
    }

    fn sibling(&self, sha256: &Sha256, coding: Coding) -> PathBuf {
        self.folder.join(coding.sibling(&sha256.to_string()))
    }

    fn record(&self, sha256: &Sha256) -> PathBuf {
        self.folder.join(format!("{sha256}.json"))
    }

    /// What is known, less the forms that are no longer there. Whatever else
    /// is wrong with the cache counts as not known.
    fn read(&self, sha256: &Sha256) -> Record {
        let text = fs_err::read(self.record(sha256)).unwrap_or_default();
        let mut record: Record = serde_json::from_slice(&text).unwrap_or_default();
        record.retain(|&coding, form| {
            form.is_none_or(|form| {
                let found = fs_err::metadata(self.sibling(sha256, coding));
                found.is_ok_and(|found| found.is_file() && found.len() == form.size)
            })
        });
        record
    }

    /// Makes a form, and remembers it once the content's others are made too.
    fn add(&self, content: &Content<'_>, coding: Coding) -> Result<(), PrecompressError> {
        let form = self.encode(content, coding)?;
        let mut record = content.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.insert(coding, form);
        if content.left.fetch_sub(1, Ordering::Relaxed) > 1 {
            return Ok(());
        }
        let keep = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(&serde_json::to_vec(&*record)?)?;
            file.persist(self.record(&content.sha256))?;
            Ok(())
        };
        // Not synced: half a record is none, and its forms are made again.
        keep().map_err(PrecompressError::Keep)
    }

    fn encode(&self, content: &Content<'_>, coding: Coding) -> Result<Option<Form>, PrecompressError> {
        let failed = |source| PrecompressError::Encode { path: content.path.to_owned(), coding, source };
        let mut source = Hashed::new(fs_err::File::open(content.source).map_err(failed)?);
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).map_err(PrecompressError::Keep)?;
        let mut sink = Hashed::new(BufWriter::with_capacity(64 << 10, file.as_file_mut()));
        let encoded = encode(coding, content.size, &mut source, &mut sink).and_then(|()| sink.flush());
        let (found, read) = source.finish();
        // Before the error: an encoder that was promised another size fails.
        if read != content.size || (encoded.is_ok() && found != content.sha256) {
            let (path, expected) = (content.path.to_owned(), content.size);
            return Err(PrecompressError::Changed { path, expected, sha256: content.sha256 });
        }
        encoded.map_err(failed)?;
        let (sha256, size) = sink.finish();
        if size > content.size - content.size.div_ceil(LEAST_SAVING) {
            return Ok(None);
        }
        file.as_file().sync_all().map_err(PrecompressError::Keep)?;
        let kept = file.persist(self.sibling(&content.sha256, coding));
        kept.map_err(|error| PrecompressError::Keep(error.error))?;
        Ok(Some(Form { size, sha256 }))
    }
}

/// Encodes all of `source`, of `size` bytes. The levels are the steepest part
/// of the curve, measured on JupyterLite (30 MB that may be compressed).
fn encode(coding: Coding, size: u64, source: &mut impl Read, sink: &mut impl Write) -> io::Result<()> {
    match coding {
        Coding::Br => {
            let parameters = BrotliEncoderParams {
                quality: match (size <= THOROUGH, size <= QUICK) {
                    (true, _) => 10,
                    (false, true) => 9,
                    (false, false) => 5,
                },
                // 4 MiB. A larger window made JupyterLite's files longer.
                lgwin: 22,
                // The same on machines whose `usize` is shorter.
                size_hint: usize::try_from(size.min(1 << 30)).unwrap_or_default(),
                ..BrotliEncoderParams::default()
            };
            brotli::BrotliCompress(source, sink, &parameters)?;
        }
        Coding::Zstd => {
            let mut encoder = zstd::Encoder::new(sink, if size <= QUICK { 19 } else { 9 })?;
            // 8 MiB, the most that clients must take (RFC 9659, 3).
            encoder.window_log(23)?;
            encoder.set_pledged_src_size(Some(size))?;
            io::copy(source, &mut encoder)?;
            encoder.finish()?;
        }
        Coding::Gzip => {
            let level = flate2::Compression::new(if size <= QUICK { 9 } else { 6 });
            // No time, and of an unknown system (RFC 1952, 2.3.1).
            let builder = flate2::GzBuilder::new().mtime(0).operating_system(255);
            let mut encoder = builder.write(sink, level);
            io::copy(source, &mut encoder)?;
            encoder.finish()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
