//! The node's files: written whole or not at all.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The folder that is the node's `/`.
#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

impl Root {
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Where a path of the node is for us.
    pub(crate) fn at(&self, path: &Path) -> PathBuf {
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file of the node, if it is there.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<String>> {
        match fs_err::read_to_string(self.at(path)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Writes a file with what was there replaced at once, with its mode and owner;
/// what a symbolic link names, not the link.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<()> {
    put(path, 0o644, |file| Ok(file.write_all(content)?))
}

/// The same, by what `fill` writes; a new file has `mode`.
pub(super) fn put(path: &Path, mode: u32, fill: impl FnOnce(&mut std::fs::File) -> Result<()>) -> Result<()> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs_err::create_dir_all(folder)?;
    // Hidden, so that no `*.toml` of an import finds it.
    let mut file = tempfile::Builder::new()
        .prefix(".wharf-")
        .suffix(".new")
        .tempfile_in(folder)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    fill(file.as_file_mut()).with_context(|| format!("cannot write {}", path.display()))?;
    let known = std::fs::metadata(&path).ok();
    let mode = known.as_ref().map_or(mode, |known| known.mode() & 0o7777);
    if let Some(known) = &known {
        std::os::unix::fs::fchown(file.as_file(), Some(known.uid()), Some(known.gid()))?;
    }
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(&path)
        .map_err(|error| error.error)
        .with_context(|| format!("cannot write {}", path.display()))?;
    sync_folder(folder)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => sync_folder(path.parent().unwrap_or(Path::new("/"))),
    }
}

fn sync_folder(folder: &Path) -> Result<()> {
    Ok(fs_err::File::open(folder)?.sync_all()?)
}
