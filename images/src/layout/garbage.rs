//! Blobs that no image needs any more.

use std::collections::HashSet;
use std::path::Path;
use std::sync::PoisonError;

use fs_err as fs;

use super::{BLOBS, Layout, LayoutError, UNFINISHED};
use crate::Digest;

/// What a prune removed, or would remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Number of files.
    pub blobs: usize,
    /// Their bytes together.
    pub bytes: u64,
}

/// What is done with garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweep {
    Remove,
    Count,
}

impl Pruned {
    /// Takes `path` away, or only counts it.
    pub(super) fn add(&mut self, path: &Path, sweep: Sweep) -> std::io::Result<()> {
        let size = fs::symlink_metadata(path)?.len();
        if sweep == Sweep::Remove {
            fs::remove_file(path)?;
        }
        self.blobs += 1;
        self.bytes += size;
        Ok(())
    }
}

impl Layout {
    /// What [`prune`](Self::prune) would remove now.
    ///
    /// # Errors
    ///
    /// As of `prune`.
    pub fn prunable(&self) -> Result<Pruned, LayoutError> {
        self.sweep(Sweep::Count)
    }

    /// Removes the blobs that no listed image needs, and what killed processes
    /// left. Waits for other processes that are writing to the layout.
    ///
    /// # Errors
    ///
    /// A document of a listed image is missing or damaged, so that what it
    /// needs is not known; or the layout cannot be written. Nothing is removed
    /// in the first case.
    pub fn prune(&self) -> Result<Pruned, LayoutError> {
        self.sweep(Sweep::Remove)
    }

    fn sweep(&self, sweep: Sweep) -> Result<Pruned, LayoutError> {
        let write = |source| LayoutError::Write { source };
        let blobs = &self.in_use.blobs;
        // Held throughout: a writer with this handle would turn the exclusive
        // lock into a shared one.
        let locked = self.in_use.locked.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.file().lock().map_err(write)?;
        let pruned = self.sweep_locked(sweep);
        // Back to what this handle had.
        if *locked {
            blobs.file().lock_shared().map_err(write)?;
        } else {
            blobs.file().unlock().map_err(write)?;
        }
        pruned
    }

    fn sweep_locked(&self, sweep: Sweep) -> Result<Pruned, LayoutError> {
        let (needed, gone) = self.needed()?;
        if sweep == Sweep::Remove {
            self.drop_referrers(&gone)?;
        }
        let mut pruned = Pruned::default();
        let write = |source| LayoutError::Write { source };
        for entry in fs::read_dir(self.root().join(BLOBS)).map_err(write)? {
            let entry = entry.map_err(write)?;
            let digest = format!("sha256:{}", entry.file_name().to_string_lossy()).parse::<Digest>();
            if digest.is_ok_and(|digest| !needed.contains(&digest)) {
                pruned.add(&entry.path(), sweep).map_err(write)?;
            }
        }
        for entry in fs::read_dir(self.root()).map_err(write)? {
            let entry = entry.map_err(write)?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                pruned.add(&entry.path(), sweep).map_err(write)?;
            }
        }
        Ok(pruned)
    }

    /// Every blob that a listed image needs, with what refers to it; and the
    /// listed referrers that are damaged or whose subject nobody needs.
    fn needed(&self) -> Result<(HashSet<Digest>, HashSet<Digest>), LayoutError> {
        let mut needed = HashSet::new();
        let mut images = Vec::new();
        let mut referrers = Vec::new();
        let mut gone = HashSet::new();
        for listed in self.index()?.manifests {
            match self.referrer_of_index(&listed) {
                Some(manifest) => referrers.push((listed, manifest)),
                None => images.push(listed),
            }
        }
        for listed in self.attached()? {
            match self.referrer(&listed) {
                Some(manifest) => referrers.push((listed, manifest)),
                None => drop(gone.insert(listed.digest)),
            }
        }
        while let Some(image) = images.pop() {
            if !needed.insert(image.digest) {
                continue;
            }
            // Indexes in indexes are kept whole, though wharf makes none.
            if image.media_type.is_index() {
                images.extend(self.read_index(&image)?.manifests);
            } else if image.media_type.is_manifest() {
                needed.extend(self.read_manifest(&image)?.blobs().map(|blob| blob.digest));
            }
        }
        // Again for as long as it finds some: a signature may refer to an SBOM.
        loop {
            let (kept, rest): (Vec<_>, Vec<_>) = referrers.into_iter().partition(|(_, manifest)| {
                manifest.subject.as_ref().is_some_and(|subject| needed.contains(&subject.digest))
            });
            if kept.is_empty() {
                gone.extend(rest.into_iter().map(|(descriptor, _)| descriptor.digest));
                return Ok((needed, gone));
            }
            for (descriptor, manifest) in kept {
                needed.insert(descriptor.digest);
                needed.extend(manifest.blobs().map(|blob| blob.digest));
            }
            referrers = rest;
        }
    }
}
