//! A container's standard streams: the fifos of containerd's clients.
//!
//! The container gets the fifos themselves, so no byte passes through the
//! server. They are opened for reading and writing: opening does not wait for
//! the other side, and a reader that is restarted finds its writer again
//! instead of killing it by SIGPIPE.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use nix::unistd::{Uid, fchown};
use serde::{Deserialize, Serialize};

use crate::sys;

/// Begins the address of a fifo that is opened for writing alone: that of a
/// logging program, whose end the writer is to notice.
pub(crate) const LOGGED: &str = "logged://";

/// Where the streams of a container go, as in the create request: paths,
/// empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Streams {
    /// A fifo, or empty.
    pub(crate) stdin: String,
    /// A fifo, a `file://` or `binary://` address, or empty.
    pub(crate) stdout: String,
    /// As `stdout`.
    pub(crate) stderr: String,
    /// Whether a terminal takes the place of all three.
    pub(crate) terminal: bool,
}

/// Why a stream can't be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The file can't be opened or given to the container's user.
    #[error("cannot open {name} at {path:?}")]
    Open {
        /// Which stream.
        name: &'static str,
        /// Where it should go.
        path: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// No way of logging that we know.
    #[error("cannot send {name} to {path:?}: expected a fifo, file:// or binary://")]
    Unknown {
        /// Which stream.
        name: &'static str,
        /// Where it should go.
        path: String,
    },
}

/// A container's standard input, output and error, in this order.
pub(crate) type Opened = [OwnedFd; 3];

impl Streams {
    /// Opens all three, for the user `uid` to own.
    ///
    /// # Errors
    /// [`StreamError`].
    pub(crate) fn open(&self, uid: u32) -> Result<Opened, StreamError> {
        Ok([
            open_input(&self.stdin, uid)?,
            open_output("stdout", &self.stdout, uid)?,
            open_output("stderr", &self.stderr, uid)?,
        ])
    }

    /// Standard error, for lines of our own before the container starts: none
    /// where it is a terminal, which is opened later, or can't be opened, which
    /// [`Streams::open`] reports. Writing to it does not wait.
    pub(crate) fn open_log(&self) -> Option<File> {
        if self.terminal || self.stderr.is_empty() {
            return None;
        }
        let log = output("stderr", &self.stderr).ok()?;
        sys::set_nonblocking(&log).ok()?;
        Some(log.into())
    }

    /// The server's own writer of standard input: while it is open, the
    /// container sees no end of it, though a client detaches. `close_io`
    /// closes it.
    ///
    /// # Errors
    /// The fifo can't be opened.
    pub(crate) fn hold_input(&self) -> io::Result<Option<OwnedFd>> {
        if self.stdin.is_empty() || self.terminal {
            return Ok(None);
        }
        // The container's end is open by now, so this does not wait for it.
        let options = |options: &mut std::fs::OpenOptions| {
            options.write(true).custom_flags(libc::O_NONBLOCK).open(&self.stdin)
        };
        Ok(Some(options(&mut File::options())?.into()))
    }
}

fn open_input(path: &str, uid: u32) -> Result<OwnedFd, StreamError> {
    let failed = |source| StreamError::Open { name: "stdin", path: path.to_owned(), source };
    if path.is_empty() {
        let null = File::options().read(true).open("/dev/null").map_err(failed)?;
        return Ok(null.into());
    }
    // For reading only: with a writer of its own it would never see the end.
    let mut options = File::options();
    let input = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let block = FcntlArg::F_SETFL(OFlag::O_RDONLY);
    fcntl(&input, block).map_err(|error| failed(error.into()))?;
    let input = OwnedFd::from(input);
    give(&input, uid).map_err(failed)?;
    Ok(input)
}

fn open_output(name: &'static str, path: &str, uid: u32) -> Result<OwnedFd, StreamError> {
    let failed = |source| StreamError::Open { name, path: path.to_owned(), source };
    let output = output(name, path)?;
    give(&output, uid).map_err(failed)?;
    Ok(output)
}

fn output(name: &'static str, path: &str) -> Result<OwnedFd, StreamError> {
    let failed = |source| StreamError::Open { name, path: path.to_owned(), source };
    let output = match path.split_once("://") {
        None if path.is_empty() => File::options().write(true).open("/dev/null"),
        None => File::options().read(true).write(true).open(path),
        Some(("fifo", path)) => File::options().read(true).write(true).open(path),
        Some(("file", path)) => append(Path::new(path)),
        Some(("logged", path)) => File::options().write(true).open(path),
        Some(_) => {
            let path = path.to_owned();
            return Err(StreamError::Unknown { name, path });
        }
    };
    Ok(output.map_err(failed)?.into())
}

fn append(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    File::options().append(true).create(true).mode(0o644).open(path)
}

/// Makes the container's user the owner, as runc does, so that a program can
/// open `/dev/stdout` anew.
fn give(stream: &OwnedFd, uid: u32) -> io::Result<()> {
    let status = fstat(stream)?;
    // Not a device: that is shared with the whole machine.
    let is_device = status.st_mode & libc::S_IFMT == libc::S_IFCHR;
    if status.st_uid == uid || is_device {
        return Ok(());
    }
    match fchown(stream, Some(Uid::from_raw(uid)), None) {
        // As runc: some files have no owner to change.
        Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn output_goes_to_a_fifo_without_waiting_for_a_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let uid = std::fs::metadata(&path).unwrap().uid();
        let output = open_output("stdout", path.to_str().unwrap(), uid).unwrap();
        let mut options = File::options();
        let mut reader = options.read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        File::from(output).write_all(b"hello").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn input_ends_when_the_held_writer_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let streams = Streams { stdin: path.to_str().unwrap().to_owned(), ..Streams::default() };
        let [input, ..] = streams.open(nix::unistd::getuid().as_raw()).unwrap();
        let held = streams.hold_input().unwrap();
        let client = File::options().write(true).open(&path).unwrap();
        (&client).write_all(b"hello").unwrap();
        drop(client);
        drop(held);
        let mut text = String::new();
        File::from(input).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    #[test]
    fn a_file_is_appended_to_and_an_unknown_address_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/log");
        let address = format!("file://{}", path.display());
        for _ in 0..2 {
            let output = open_output("stdout", &address, 0).unwrap();
            File::from(output).write_all(b"line\n").unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "line\nline\n");
        let error = open_output("stderr", "npipe:///x", 0).unwrap_err();
        assert!(matches!(error, StreamError::Unknown { .. }));
    }
}
