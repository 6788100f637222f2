//! The folder of an embedded store, and the way that leads there.

use std::io;
use std::path::{Path, PathBuf};

/// A folder that exists.
#[derive(Clone, Debug)]
pub(in crate::grants) struct Folder {
    path: PathBuf,
    way: Vec<PathBuf>,
}

impl Folder {
    /// The folder at `path`, which is made if it is not there.
    ///
    /// # Errors
    /// It can't be made; the error names it.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        fs_err::create_dir_all(path)?;
        let absolute = std::path::absolute(path)?;
        let way = absolute.ancestors().map(fs_err::canonicalize).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { path: fs_err::canonicalize(path)?, way })
    }

    /// Without links.
    pub(in crate::grants) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder and those above it as the settings name them, each without
    /// links: who can write to one of them can lead the name elsewhere.
    pub(in crate::grants) fn way(&self) -> &[PathBuf] {
        &self.way
    }
}
