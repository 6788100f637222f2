//! The folder of an embedded store, and the way that leads there.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Links on the way to a file, as Linux has it (path_resolution(7)).
const MOST_LINKS: u32 = 40;

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
        Ok(Self { path: fs_err::canonicalize(path)?, way: way_to(&absolute)? })
    }

    /// Without links.
    pub(in crate::grants) fn path(&self) -> &Path {
        &self.path
    }

    /// All folders on the way that the settings name, each without links: who can
    /// write to one of them can lead the name elsewhere.
    pub(in crate::grants) fn way(&self) -> &[PathBuf] {
        &self.way
    }
}

/// The folders that `absolute` leads through, and where it ends; also those that
/// links lead through (path_resolution(7)).
fn way_to(absolute: &Path) -> io::Result<Vec<PathBuf>> {
    let mut at = PathBuf::from("/");
    let mut way = vec![at.clone()];
    let mut links = 0;
    let mut left = absolute.to_owned();
    loop {
        let mut parts = left.components();
        let Some(part) = parts.next() else { return Ok(way) };
        let rest = parts.as_path().to_owned();
        match part {
            Component::Prefix(_) | Component::CurDir => {}
            Component::RootDir => at = "/".into(),
            Component::ParentDir => _ = at.pop(),
            Component::Normal(name) => {
                let next = at.join(name);
                if fs_err::symlink_metadata(&next)?.is_symlink() {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(io::Error::other("too many links on the way"));
                    }
                    left = fs_err::read_link(&next)?.join(rest);
                    continue;
                }
                at = next;
            }
        }
        way.push(at.clone());
        left = rest;
    }
}
