//! Layers by what they were made from, so that an unchanged site is not
//! compressed again.

use std::io::Write as _;
use std::path::PathBuf;

use fs_err as fs;

use super::garbage::Sweep;
use super::{Layout, LayoutError, Pruned, unfinished};
use crate::{Digest, Layer};

/// A folder of finished layers' descriptions, one small file each, named by a
/// fingerprint of the layer's inputs that the caller computes.
#[derive(Debug, Clone)]
pub struct LayerCache {
    folder: PathBuf,
}

impl LayerCache {
    /// The cache in `folder`, which is made when the first layer comes. Beside
    /// a store: `cache/layers`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The layer made from these inputs, if its blob is still in `layout` with
    /// the right size. Whatever else is wrong with the cache counts as a miss.
    #[must_use]
    pub fn get(&self, layout: &Layout, fingerprint: &Digest) -> Option<Layer> {
        // Before looking, so that no prune comes between the answer and its use.
        layout.use_blobs().ok()?;
        let content = fs::read(self.path(fingerprint)).ok()?;
        let layer: Layer = serde_json::from_slice(&content).ok()?;
        layout.contains(&layer.descriptor).then_some(layer)
    }

    /// Remembers a layer.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn put(&self, fingerprint: &Digest, layer: &Layer) -> Result<(), LayoutError> {
        let write = |source| LayoutError::Write { source };
        fs::create_dir_all(&self.folder).map_err(write)?;
        let content = serde_json::to_vec(layer).map_err(|error| write(error.into()))?;
        let mut file = unfinished(&self.folder)?;
        file.write_all(&content).map_err(write)?;
        file.persist(self.path(fingerprint)).map_err(|error| write(error.error))?;
        Ok(())
    }

    /// Forgets the layers whose blobs are no longer in `layout`. Nobody may be
    /// building into it meanwhile: what is half-written is removed too.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn prune(&self, layout: &Layout) -> Result<Pruned, LayoutError> {
        self.sweep(layout, Sweep::Remove)
    }

    /// What [`prune`](Self::prune) would forget now.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn prunable(&self, layout: &Layout) -> Result<Pruned, LayoutError> {
        self.sweep(layout, Sweep::Count)
    }

    fn sweep(&self, layout: &Layout, sweep: Sweep) -> Result<Pruned, LayoutError> {
        let write = |source| LayoutError::Write { source };
        let mut pruned = Pruned::default();
        let Ok(entries) = fs::read_dir(&self.folder) else { return Ok(pruned) };
        for entry in entries {
            let path = entry.map_err(write)?.path();
            let layer =
                fs::read(&path).ok().and_then(|content| serde_json::from_slice::<Layer>(&content).ok());
            if !layer.is_some_and(|layer| layout.contains(&layer.descriptor)) {
                pruned.add(&path, sweep).map_err(write)?;
            }
        }
        Ok(pruned)
    }

    fn path(&self, fingerprint: &Digest) -> PathBuf {
        self.folder.join(format!("{}.json", fingerprint.encoded()))
    }
}
