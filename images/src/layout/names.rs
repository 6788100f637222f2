//! Names: `index.json`, which lists the images that have one.

use std::collections::BTreeMap;
use std::io::Write as _;

use fs_err as fs;

use super::{INDEX, LARGEST_INDEX, Layout, LayoutError, MARKER, read_file, unfinished};
use crate::{Descriptor, Digest, Index, Reference, Target};

/// The annotation of an image's name in a layout (image-spec, annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation that containerd and Docker take an image's whole name from.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Longest name of an image, in bytes, that is one: no reference comes near it.
const LONGEST_NAME: usize = 1024;
/// Names listed at most in an error.
const SIMILAR: usize = 5;

/// An image in a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The index or manifest.
    pub descriptor: Descriptor,
    /// Its whole name, if it has one.
    pub reference: Option<Reference>,
    /// What it is called, which in layouts by other tools may be a tag alone.
    pub name: Option<String>,
}

impl Entry {
    pub(crate) fn new(descriptor: Descriptor) -> Self {
        let name = names_of(&descriptor).find(|name| is_printable(name)).map(str::to_owned);
        let reference = names_of(&descriptor)
            .filter_map(Reference::from_annotation)
            // A name by digest of something else would be found under no name.
            .find(|name| name.digest().is_none_or(|digest| digest == descriptor.digest));
        Self { descriptor, reference, name }
    }

    /// What to call the image in a message.
    fn label(&self) -> String {
        match (&self.reference, &self.name) {
            (Some(reference), _) => reference.familiar(),
            (None, Some(name)) => name.clone(),
            (None, None) => self.descriptor.digest.to_string(),
        }
    }
}

impl Layout {
    /// Gives an image a name, taking it from any other that had it.
    ///
    /// # Errors
    ///
    /// The image is not in the layout, or the layout cannot be written.
    pub fn tag(&self, reference: &Reference, descriptor: &Descriptor) -> Result<(), LayoutError> {
        self.enter(&[Entry {
            descriptor: descriptor.clone(),
            reference: Some(reference.clone()),
            name: None,
        }])
    }

    /// Lists images in one step: those with a whole name under it, taking it
    /// from any other that had it, and the others as they were named elsewhere.
    pub(crate) fn enter(&self, entries: &[Entry]) -> Result<(), LayoutError> {
        for entry in entries {
            self.open_blob(&entry.descriptor)?;
        }
        self.update(|manifests| {
            // Once for all: an archive may have many, and so may the layout.
            let mut names: Vec<Option<Reference>> =
                manifests.iter().cloned().map(|listed| Entry::new(listed).reference).collect();
            for Entry { descriptor, reference, .. } in entries {
                let (descriptor, at) = match reference {
                    Some(reference) => (
                        named(reference, descriptor),
                        names.iter().position(|other| other.as_ref() == Some(reference)),
                    ),
                    None => (descriptor.clone(), manifests.iter().position(|other| other == descriptor)),
                };
                match at {
                    Some(at) => manifests[at] = descriptor,
                    None => {
                        manifests.push(descriptor);
                        names.push(reference.clone());
                    }
                }
            }
            Ok(())
        })
    }

    /// The image of this name. By digest: the index or manifest of that digest
    /// in any image of the same repository.
    ///
    /// # Errors
    ///
    /// There is none; the error lists similar names.
    pub fn resolve(&self, reference: &Reference) -> Result<Descriptor, LayoutError> {
        let entries = self.list()?;
        let same_name = |entry: &&Entry| {
            entry.reference.as_ref().is_some_and(|other| {
                other.registry() == reference.registry() && other.repository() == reference.repository()
            })
        };
        let found = match reference.target() {
            Target::Tag(_) => entries
                .iter()
                .find(|entry| entry.reference.as_ref() == Some(reference))
                .map(|entry| entry.descriptor.clone()),
            Target::Digest(digest) => {
                entries.iter().filter(same_name).find_map(|entry| self.find(&entry.descriptor, *digest))
            }
        };
        found.ok_or_else(|| self.no_such_image(reference, &entries))
    }

    /// All images, in the order in which they came. What refers to them is not
    /// among them: see [`Layout::referrers`].
    ///
    /// # Errors
    ///
    /// `index.json` is missing or damaged.
    pub fn list(&self) -> Result<Vec<Entry>, LayoutError> {
        let manifests = self.index()?.manifests.into_iter();
        Ok(manifests.filter(|listed| self.referrer_of_index(listed).is_none()).map(Entry::new).collect())
    }

    /// The only image of a layout, whatever its name.
    ///
    /// # Errors
    ///
    /// There are several, or none; the error lists them.
    pub fn sole(&self) -> Result<Entry, LayoutError> {
        let mut entries = self.list()?;
        match entries.pop() {
            Some(entry) if entries.iter().all(|other| other.descriptor.digest == entry.descriptor.digest) => {
                Ok(entry)
            }
            last => Err(LayoutError::NotOneImage {
                root: self.root().into(),
                found: entries.iter().chain(&last).map(Entry::label).collect(),
            }),
        }
    }

    /// Takes the name from an image, and returns the image. Its blobs stay until
    /// [`Layout::prune`].
    ///
    /// # Errors
    ///
    /// No image has the name, or the layout cannot be written.
    pub fn remove(&self, reference: &Reference) -> Result<Descriptor, LayoutError> {
        let mut removed = None;
        self.update(|manifests| {
            let entries: Vec<Entry> = manifests.iter().cloned().map(Entry::new).collect();
            let at = entries
                .iter()
                .position(|entry| entry.reference.as_ref() == Some(reference))
                .ok_or_else(|| self.no_such_image(reference, &entries))?;
            removed = Some(manifests.remove(at));
            Ok(())
        })?;
        removed.ok_or_else(|| self.no_such_image(reference, &[]))
    }

    fn find(&self, descriptor: &Descriptor, digest: Digest) -> Option<Descriptor> {
        if descriptor.digest == digest {
            return Some(descriptor.clone());
        }
        let children = self.manifest_descriptors(descriptor).ok()?;
        children.into_iter().find(|child| child.digest == digest)
    }

    pub(super) fn index(&self) -> Result<Index, LayoutError> {
        self.list_of(INDEX)
    }

    /// The list in the file `name` of the layout.
    pub(super) fn list_of(&self, name: &'static str) -> Result<Index, LayoutError> {
        let content = read_file(&self.root().join(name), LARGEST_INDEX)
            .map_err(|source| LayoutError::Read { source })?;
        serde_json::from_slice(&content).map_err(|source| LayoutError::InvalidIndex {
            root: self.root().into(),
            name,
            source,
        })
    }

    /// Changes the list of images, one process at a time.
    fn update(
        &self,
        change: impl FnOnce(&mut Vec<Descriptor>) -> Result<(), LayoutError>,
    ) -> Result<(), LayoutError> {
        self.use_blobs()?;
        let _alone = self.alone()?;
        let mut index = self.index()?;
        change(&mut index.manifests)?;
        self.replace(INDEX, &index)
    }

    /// Waits until no other process changes a list. For as long as the file lives.
    pub(super) fn alone(&self) -> Result<fs::File, LayoutError> {
        let write = |source| LayoutError::Write { source };
        // The lock is on the marker, since the lists are replaced.
        let marker = fs::File::open(self.root().join(MARKER)).map_err(write)?;
        marker.file().lock().map_err(write)?;
        Ok(marker)
    }

    /// Writes the list in the file `name` anew, in one step.
    pub(super) fn replace(&self, name: &str, index: &Index) -> Result<(), LayoutError> {
        let write = |source| LayoutError::Write { source };
        let content = serde_json::to_vec(index).map_err(|error| write(error.into()))?;
        let mut file = unfinished(self.root())?;
        file.write_all(&content).map_err(write)?;
        file.as_file().sync_data().map_err(write)?;
        file.persist(self.root().join(name)).map_err(|error| write(error.error))?;
        Ok(())
    }

    fn no_such_image(&self, reference: &Reference, entries: &[Entry]) -> LayoutError {
        let wanted = reference.familiar();
        let mut names: Vec<String> = entries.iter().map(Entry::label).collect();
        names.sort_by_key(|name| (distance(name, &wanted), name.clone()));
        names.dedup();
        names.truncate(SIMILAR);
        LayoutError::NoSuchImage { reference: wanted, root: self.root().into(), similar: names }
    }
}

/// What an image is called, the name that engines take first.
pub(crate) fn names_of(descriptor: &Descriptor) -> impl Iterator<Item = &str> {
    [CONTAINERD_NAME, REF_NAME].into_iter().filter_map(|key| descriptor.annotation(key))
}

/// Whether a name can be shown as it is: a layout may be anyone's, and a
/// terminal obeys control characters.
pub(crate) fn is_printable(name: &str) -> bool {
    name.len() <= LONGEST_NAME && name.chars().all(is_plain)
}

/// Whether a terminal takes a character as text: neither as an order, nor as
/// one to turn the direction of what follows.
pub fn is_plain(character: char) -> bool {
    !character.is_control() && !matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The descriptor as it stands in `index.json` under a name.
pub(crate) fn named(reference: &Reference, descriptor: &Descriptor) -> Descriptor {
    let name = reference.to_string();
    let annotations = BTreeMap::from([(REF_NAME.into(), name.clone()), (CONTAINERD_NAME.into(), name)]);
    Descriptor { annotations: Some(annotations), ..descriptor.clone() }
}

/// Levenshtein's distance, for sorting suggestions.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (line, left) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right) in right.chars().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}
