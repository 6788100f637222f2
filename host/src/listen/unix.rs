//! Unix sockets' files: made with their mode, never over another program's, and
//! removed by who made them.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::SocketMode;

/// The file of a listening socket; removed with this, if it is still the same,
/// by the process that made it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    process: u32,
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A process that inherited the socket leaves the file to its parent.
        if self.process == std::process::id()
            && identity(&self.path).is_ok_and(|found| found == self.identity)
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on `path`. A socket there to which nobody listens any more gives
/// way; anything else stays, and is an error.
pub(super) fn bind(path: &Path, mode: SocketMode) -> io::Result<(UnixListener, SocketFile)> {
    check_free(path)?;
    // Under another name first: nobody can connect before the mode is right,
    // and renaming replaces a stale socket without a moment in between.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&temporary)?;
    let named = fs::set_permissions(&temporary, fs::Permissions::from_mode(mode.0))
        .and_then(|()| identity(&temporary))
        .and_then(|identity| fs::rename(&temporary, path).map(|()| identity));
    match named {
        Ok(identity) => {
            let file = SocketFile { path: path.to_owned(), identity, process: std::process::id() };
            Ok((listener, file))
        }
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn check_free(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // Somebody listens, even if it has no time for us.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_gives_way_and_the_file_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        // As a program leaves it that was killed.
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = bind(&path, SocketMode(0o600)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop((listener, file));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_in_use_or_another_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let first = bind(&path, SocketMode::default()).unwrap();
        assert_eq!(bind(&path, SocketMode::default()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).unwrap();
        drop(first);
        fs::write(&path, "precious").unwrap();
        assert_eq!(bind(&path, SocketMode::default()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_successors_socket_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let (listener, file) = bind(&path, SocketMode::default()).unwrap();
        drop(listener);
        let successor = bind(&path, SocketMode::default()).unwrap();
        drop(file);
        UnixStream::connect(&path).unwrap();
        drop(successor);
    }
}
