//! The folder that layers are applied to, one entry at a time.
//!
//! Every directory on the way to an entry is a real one made here, so no
//! entry can be written through a symbolic link.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;

use super::{UnpackError, Unpacked};
use crate::Digest;
use crate::tarball::EntryKind;
use crate::tarball::reader::{Entry, relative};

const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// Longest path of an entry, in bytes: half of what the system takes.
const LONGEST_PATH: usize = 2048;
/// Most directories above an entry. Each of them is made and remembered for it.
const DEEPEST: usize = 128;
/// Most bytes of names remembered at a time: room for a million entries.
const MOST_NAMES: usize = 256 << 20;

pub(super) struct Tree<'a> {
    root: &'a Path,
    filter: &'a dyn Fn(&Path) -> bool,
    layer: Digest,
    /// Paths that the current layer made: its whiteouts do not touch them.
    made: HashSet<String>,
    /// Directories whose lower layers' content is hidden already. Once is
    /// enough, and each time looks at all that is in it.
    hidden: HashSet<String>,
    /// Directories known to be real.
    directories: HashSet<String>,
    /// Bytes of the names above.
    names: usize,
    pub(super) unpacked: Unpacked,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: &'a Path, filter: &'a dyn Fn(&Path) -> bool) -> Self {
        Self {
            root,
            filter,
            layer: Digest::of(b""),
            made: HashSet::new(),
            hidden: HashSet::new(),
            directories: HashSet::new(),
            names: 0,
            unpacked: Unpacked::default(),
        }
    }

    pub(super) fn begin_layer(&mut self, layer: Digest) {
        self.layer = layer;
        self.made.clear();
        self.hidden.clear();
        self.directories.clear();
        self.names = 0;
    }

    /// Applies an entry, whose content comes from `content`.
    pub(super) fn apply(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), UnpackError> {
        let path = entry.path.as_str();
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.white_out(parent, name, hidden);
        }
        if path.is_empty() || !(self.filter)(Path::new(path)) {
            return Ok(());
        }
        if path.len() > LONGEST_PATH {
            return Err(self.refused(path, "expected a path of at most 2048 bytes, found a longer one"));
        }
        if path.bytes().filter(|byte| *byte == b'/').count() > DEEPEST {
            return Err(self.refused(path, "expected at most 128 directories above it, found more"));
        }
        if self.names > MOST_NAMES {
            return Err(self.refused(path, "expected fewer names in one layer, found more than 256 MiB"));
        }
        self.make_directories(parent)?;
        match &entry.kind {
            EntryKind::Directory => self.make_directory(path, entry.mode)?,
            EntryKind::File => self.make_file(entry, content)?,
            EntryKind::Symlink { target } => self.make_symlink(path, target)?,
            EntryKind::HardLink { target } => self.make_hard_link(path, target)?,
            EntryKind::Special => {
                return Err(
                    self.refused(path, "expected a file, a directory or a link, found a device or fifo")
                );
            }
        }
        self.mark_made(path);
        Ok(())
    }

    fn make_file(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), UnpackError> {
        self.remove(&entry.path)?;
        let path = self.root.join(&entry.path);
        let write = UnpackError::Write;
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(write)?;
        let copied = copy(content, &mut file).map_err(|failed| match failed {
            Failed::Read(error) => UnpackError::Damaged { layer: self.layer, source: error.into() },
            Failed::Write(error) => UnpackError::Write(error),
        })?;
        if copied != entry.size {
            return Err(self.refused(&entry.path, "expected its whole content, found the layer's end"));
        }
        // Never setuid: the files are only served.
        file.set_permissions(std::fs::Permissions::from_mode(entry.mode & 0o777)).map_err(write)?;
        if let Some(modified) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(entry.mtime)) {
            // A time that the file system can't hold is no reason to fail.
            let _ = file.set_modified(modified);
        }
        self.unpacked.files += 1;
        self.unpacked.bytes += copied;
        Ok(())
    }

    fn make_directory(&mut self, path: &str, mode: u32) -> Result<(), UnpackError> {
        if !self.is_directory(path) {
            self.remove(path)?;
            fs::create_dir(self.root.join(path)).map_err(UnpackError::Write)?;
            self.know_directory(path);
        }
        // Always open to ourselves, who must write into it and remove it.
        let permissions = std::fs::Permissions::from_mode(mode & 0o777 | 0o700);
        fs::set_permissions(self.root.join(path), permissions).map_err(UnpackError::Write)
    }

    /// Makes a symbolic link that stays in the folder: `..` only at the
    /// target's beginning and no more often than the link is deep. Since every
    /// link obeys this, none can be used to get out by another.
    fn make_symlink(&mut self, path: &str, target: &str) -> Result<(), UnpackError> {
        let depth = path.matches('/').count();
        let parts: Vec<&str> = target.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let up = parts.iter().take_while(|part| **part == "..").count();
        let stays = !target.starts_with('/') && up <= depth && !parts[up..].contains(&"..");
        if !stays || target.is_empty() || target.contains('\0') {
            return Err(
                self.refused(path, "expected a link to a place in the image, found one that may lead out")
            );
        }
        self.remove(path)?;
        symlink(target, self.root.join(path)).map_err(UnpackError::Write)
    }

    fn make_hard_link(&mut self, path: &str, target: &str) -> Result<(), UnpackError> {
        let target = relative(target.as_bytes()).map_err(|_| {
            self.refused(path, "expected a link to a place in the image, found one that leads out")
        })?;
        let parent = target.rsplit_once('/').map_or("", |(parent, _)| parent);
        let is_file = self.is_real(parent)
            && fs::symlink_metadata(self.root.join(&target)).is_ok_and(|metadata| metadata.is_file());
        if !is_file || target == path {
            return Err(self.refused(path, "expected a link to a file that is unpacked, found none"));
        }
        self.remove(path)?;
        fs::hard_link(self.root.join(&target), self.root.join(path)).map_err(UnpackError::Write)
    }

    /// Deletes what lower layers put at a name, or all in a directory
    /// (image-spec, layer.md, "Whiteouts").
    fn white_out(&mut self, parent: &str, name: &str, hidden: &str) -> Result<(), UnpackError> {
        if !self.is_real(parent) {
            return Ok(());
        }
        let join = |name: &str| if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
        if name == OPAQUE {
            return match self.hidden.contains(parent) {
                true => Ok(()),
                false => {
                    self.names += parent.len();
                    self.hidden.insert(parent.into());
                    self.hide_children(parent)
                }
            };
        }
        // Names of aufs's own, and what would mean the directory or its parent.
        if hidden.starts_with(WHITEOUT) || matches!(hidden, "" | "." | "..") {
            return Ok(());
        }
        match join(hidden) {
            path if self.made.contains(&path) => Ok(()),
            path => self.remove(&path),
        }
    }

    /// Removes what lower layers put into a directory, at any depth.
    fn hide_children(&mut self, directory: &str) -> Result<(), UnpackError> {
        let names: Vec<PathBuf> = fs::read_dir(self.root.join(directory))
            .map_err(UnpackError::Write)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .collect();
        for name in names {
            let Some(path) = name.strip_prefix(self.root).ok().and_then(Path::to_str) else { continue };
            match self.made.contains(path) {
                true if self.is_directory(path) => self.hide_children(path)?,
                true => {}
                false => self.remove(path)?,
            }
        }
        Ok(())
    }

    /// Makes the directories down to `path`, none of which may be a link.
    fn make_directories(&mut self, path: &str) -> Result<(), UnpackError> {
        if path.is_empty() || self.directories.contains(path) {
            self.mark_made(path);
            return Ok(());
        }
        let slashes = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in slashes {
            let directory = &path[..end];
            match fs::symlink_metadata(self.root.join(directory)) {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => {
                    return Err(self.refused(path, "expected directories above it, found a file or link"));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir(self.root.join(directory)).map_err(UnpackError::Write)?;
                }
                Err(error) => return Err(UnpackError::Write(error)),
            }
            self.know_directory(directory);
        }
        self.mark_made(path);
        Ok(())
    }

    /// Directories above an entry belong to its layer, even if not listed in it.
    fn mark_made(&mut self, path: &str) {
        let mut rest = path;
        while !rest.is_empty() && self.made.insert(rest.into()) {
            self.names += rest.len();
            rest = rest.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }

    fn know_directory(&mut self, path: &str) {
        if self.directories.insert(path.into()) {
            self.names += path.len();
        }
    }

    fn is_directory(&self, path: &str) -> bool {
        fs::symlink_metadata(self.root.join(path)).is_ok_and(|metadata| metadata.is_dir())
    }

    /// Whether `path` is a directory, reached through directories only.
    fn is_real(&self, path: &str) -> bool {
        path.is_empty()
            || path
                .match_indices('/')
                .map(|(at, _)| at)
                .chain([path.len()])
                .all(|end| self.is_directory(&path[..end]))
    }

    fn remove(&mut self, path: &str) -> Result<(), UnpackError> {
        let full = self.root.join(path);
        match fs::symlink_metadata(&full) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(UnpackError::Write(error)),
            Ok(metadata) if metadata.is_dir() => {
                self.directories.clear();
                fs::remove_dir_all(&full).map_err(UnpackError::Write)
            }
            Ok(_) => fs::remove_file(&full).map_err(UnpackError::Write),
        }
    }

    fn refused(&self, path: &str, found: &'static str) -> UnpackError {
        UnpackError::Refused { layer: self.layer, path: path.into(), found }
    }
}

enum Failed {
    Read(io::Error),
    Write(io::Error),
}

/// As `io::copy`, but tells which side failed: the layer or the disk.
fn copy(from: &mut impl Read, to: &mut impl io::Write) -> Result<u64, Failed> {
    let mut buffer = [0; 64 << 10];
    let mut copied = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(read) => {
                to.write_all(&buffer[..read]).map_err(Failed::Write)?;
                copied += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failed::Read(error)),
        }
    }
}
