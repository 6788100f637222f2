//! Archive → layout, for archives that anyone may have made.
//!
//! All blobs are staged without names and verified first; they get their names
//! only when everything that the index needs is there.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufReader, Read};
use std::path::Path;

use fs_err as fs;
use serde::de::DeserializeOwned;

use super::ArchiveError;
use crate::layout::{Entry, FinishedBlob, LARGEST_DOCUMENT, Layout, REFERRERS, is_printable, names_of};
use crate::tarball::{EntryKind, TarReader};
use crate::{Descriptor, Digest, Index, Manifest, MediaType};

const BUFFER: usize = 256 << 10;
/// Most blobs of one archive.
const MOST_BLOBS: usize = 16_384;
/// Most images of one archive.
const MOST_IMAGES: usize = 1024;
/// Characters of a name that an error shows.
const SHOWN: usize = 100;

/// Reads the images of an archive into `layout` and returns them with their
/// names there. An image that has no whole name is listed as it came. What
/// refers to an image comes along, and is not returned.
///
/// # Errors
///
/// The file is no archive of images, or a blob in it is missing or not what its
/// digest says. The layout is as before then.
pub fn load(layout: &Layout, path: &Path) -> Result<Vec<Entry>, ArchiveError> {
    let file = fs::File::open(path).map_err(ArchiveError::Open)?;
    // Before looking, as an archive may leave out what the layout has.
    layout.use_blobs()?;
    let mut staged = Staged {
        layout,
        path,
        blobs: HashMap::new(),
        read: HashSet::new(),
        seen: HashMap::new(),
        needed: Vec::new(),
    };
    let (index, attached) = staged.read(BufReader::with_capacity(BUFFER, file))?;
    staged.check_names(&index)?;
    staged.check_names(&attached)?;
    if let Some(other) = attached.manifests.iter().find(|listed| !listed.media_type.is_manifest()) {
        return Err(staged.not_an_image(other));
    }
    for image in index.manifests.iter().chain(&attached.manifests) {
        staged.need_image(image)?;
    }
    let Staged { mut blobs, needed, .. } = staged;
    for (digest, media_type) in needed {
        if let Some(blob) = blobs.remove(&digest) {
            blob.commit(media_type)?;
        }
    }
    let (referrers, images): (Vec<_>, Vec<_>) =
        index.manifests.into_iter().partition(|listed| layout.referrer_of_index(listed).is_some());
    for referrer in attached.manifests.iter().chain(&referrers) {
        layout.refer(referrer)?;
    }
    let entries: Vec<Entry> = images.into_iter().map(Entry::new).collect();
    layout.enter(&entries)?;
    Ok(entries)
}

/// The archive's blobs, verified but not yet in the layout.
struct Staged<'a> {
    layout: &'a Layout,
    path: &'a Path,
    blobs: HashMap<Digest, FinishedBlob>,
    /// Documents whose blobs are checked already, by what they were read as: an
    /// archive may name one many times.
    read: HashSet<(Digest, MediaType)>,
    /// Blobs that are checked already, with the size that was said of them.
    seen: HashMap<Digest, u64>,
    /// In the order in which they are to be named: what others need first.
    needed: Vec<(Digest, MediaType)>,
}

impl Staged<'_> {
    /// Reads the whole stream and returns the archive's index and its list of referrers.
    fn read(&mut self, stream: impl Read) -> Result<(Index, Index), ArchiveError> {
        let path = self.path;
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| ArchiveError::Damaged {
            path: path.into(),
            source,
        };
        let mut tar = TarReader::new(stream);
        let (mut marker, mut index, mut attached) = (None, None, None);
        while let Some(entry) = tar.next_entry().map_err(|error| damaged(error.into()))? {
            let refused =
                |found| ArchiveError::Refused { path: path.into(), entry: entry.path.clone(), found };
            match entry.kind {
                EntryKind::File => {}
                EntryKind::Directory => continue,
                EntryKind::Symlink { .. } => return Err(refused("a symbolic link")),
                EntryKind::HardLink { .. } => return Err(refused("a hard link")),
                EntryKind::Special => return Err(refused("a device or fifo")),
            }
            match entry.path.as_str() {
                "oci-layout" | "index.json" | REFERRERS => {
                    if entry.size > LARGEST_DOCUMENT {
                        return Err(ArchiveError::TooLarge {
                            path: path.into(),
                            entry: entry.path,
                            limit: LARGEST_DOCUMENT,
                            found: entry.size,
                        });
                    }
                    let mut content = Vec::new();
                    tar.read_to_end(&mut content).map_err(|error| damaged(error.into()))?;
                    if (content.len() as u64) < entry.size {
                        return Err(damaged(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                    }
                    let place = match entry.path.as_str() {
                        "index.json" => &mut index,
                        REFERRERS => &mut attached,
                        _ => &mut marker,
                    };
                    if place.replace(content).is_some() {
                        return Err(refused("a second one of this name"));
                    }
                }
                name => {
                    let Some(digest) = name
                        .strip_prefix("blobs/sha256/")
                        .and_then(|encoded| format!("sha256:{encoded}").parse().ok())
                    else {
                        // Docker's files, and whatever else other tools add.
                        continue;
                    };
                    self.stage(digest, entry.size, &mut tar)?;
                }
            }
        }
        if marker.is_none() {
            return Err(ArchiveError::NotALayout { path: path.into(), missing: "oci-layout" });
        }
        let index =
            index.ok_or_else(|| ArchiveError::NotALayout { path: path.into(), missing: "index.json" })?;
        let attached = match attached {
            Some(attached) => self.parse(REFERRERS.into(), &attached)?,
            None => Index::new(Vec::new()),
        };
        Ok((self.parse("index.json".into(), &index)?, attached))
    }

    fn stage(&mut self, digest: Digest, size: u64, content: &mut impl Read) -> Result<(), ArchiveError> {
        if self.blobs.len() == MOST_BLOBS {
            return Err(ArchiveError::TooMany { path: self.path.into(), limit: MOST_BLOBS });
        }
        let mut writer = self.layout.blob_writer()?;
        let copied = io::copy(content, &mut writer)
            .map_err(|error| ArchiveError::Damaged { path: self.path.into(), source: error.into() })?;
        if copied < size {
            return Err(ArchiveError::SizeDiffers {
                path: self.path.into(),
                digest,
                expected: size,
                found: copied,
            });
        }
        let blob = writer.finish()?;
        if blob.digest != digest {
            return Err(ArchiveError::DigestDiffers { path: self.path.into(), digest, found: blob.digest });
        }
        self.blobs.insert(digest, blob);
        Ok(())
    }

    fn check_names(&self, index: &Index) -> Result<(), ArchiveError> {
        let found = index.manifests.len();
        if found > MOST_IMAGES {
            return Err(ArchiveError::TooManyImages { path: self.path.into(), limit: MOST_IMAGES, found });
        }
        match index.manifests.iter().flat_map(names_of).find(|name| !is_printable(name)) {
            Some(name) => Err(ArchiveError::InvalidName {
                path: self.path.into(),
                found: name.chars().take(SHOWN).collect(),
            }),
            None => Ok(()),
        }
    }

    fn need_image(&mut self, image: &Descriptor) -> Result<(), ArchiveError> {
        // Its size may be another one this time.
        if self.read.contains(&(image.digest, image.media_type.clone())) {
            return self.need("index or manifest", image);
        }
        let children = match &image.media_type {
            kind if kind.is_manifest() => vec![image.clone()],
            kind if kind.is_index() => self.document::<Index>("index", image)?.manifests,
            _ => return Err(self.not_an_image(image)),
        };
        for child in &children {
            if !child.media_type.is_manifest() {
                return Err(self.not_an_image(child));
            }
            if self.read.insert((child.digest, child.media_type.clone())) {
                let manifest: Manifest = self.document("manifest", child)?;
                for blob in manifest.blobs() {
                    self.need("layer or configuration", blob)?;
                }
            }
            self.need("manifest", child)?;
        }
        self.read.insert((image.digest, image.media_type.clone()));
        self.need("index", image)
    }

    /// Notes that a blob is needed, having checked that it is there.
    fn need(&mut self, noun: &'static str, blob: &Descriptor) -> Result<(), ArchiveError> {
        let digest = blob.digest;
        match self.seen.insert(digest, blob.size) {
            Some(size) if size == blob.size => return Ok(()),
            Some(size) => {
                return Err(ArchiveError::SizeDiffers {
                    path: self.path.into(),
                    digest,
                    expected: blob.size,
                    found: size,
                });
            }
            None => {}
        }
        match self.blobs.get(&digest) {
            Some(staged) if staged.size != blob.size => {
                return Err(ArchiveError::SizeDiffers {
                    path: self.path.into(),
                    digest,
                    expected: blob.size,
                    found: staged.size,
                });
            }
            Some(_) => {}
            // Archives may leave out what the layout has, if it is whole.
            None if self.layout.contains(blob) => self.layout.open_blob(blob)?.verify()?,
            None => return Err(ArchiveError::NoSuchBlob { path: self.path.into(), noun, digest }),
        }
        self.needed.push((digest, blob.media_type.clone()));
        Ok(())
    }

    fn document<T: DeserializeOwned>(
        &self,
        noun: &'static str,
        blob: &Descriptor,
    ) -> Result<T, ArchiveError> {
        let content = match self.blobs.get(&blob.digest) {
            Some(staged) if staged.size > LARGEST_DOCUMENT => {
                return Err(ArchiveError::TooLarge {
                    path: self.path.into(),
                    entry: format!("{noun} {}", blob.digest),
                    limit: LARGEST_DOCUMENT,
                    found: staged.size,
                });
            }
            Some(staged) => staged.content()?,
            None if self.layout.contains(blob) => self.layout.read_blob(blob)?,
            None => {
                return Err(ArchiveError::NoSuchBlob { path: self.path.into(), noun, digest: blob.digest });
            }
        };
        self.parse(format!("{noun} {}", blob.digest), &content)
    }

    fn parse<T: DeserializeOwned>(&self, entry: String, content: &[u8]) -> Result<T, ArchiveError> {
        serde_json::from_slice(content).map_err(|source| ArchiveError::InvalidDocument {
            path: self.path.into(),
            entry,
            source,
        })
    }

    fn not_an_image(&self, blob: &Descriptor) -> ArchiveError {
        ArchiveError::NotAnImage {
            path: self.path.into(),
            digest: blob.digest,
            found: blob.media_type.to_string(),
        }
    }
}
