//! Logging programs: `binary://` addresses for a container's output.
//!
//! The program gets the output of one process as containerd's own shim gives
//! it: standard output at descriptor 3, standard error at 4, and at 5 a pipe
//! that it closes once it is ready. It ends by itself when the output does.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, access, mkfifo, pipe2};
use percent_encoding::percent_decode_str;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use crate::bundle::Bundle;
use crate::reaper::Reaper;
use crate::stdio::{LOGGED, Streams};
use crate::sys;

/// Begins the address of a logging program.
const SCHEME: &str = "binary://";

/// Time for a logging program to say that it is ready.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a logging program can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoggerError {
    /// The address has no absolute path.
    #[error("malformed address {0:?} of a logging program: expected binary:///PATH?ARGUMENT=VALUE")]
    Address(String),
    /// It can't be started.
    #[error("cannot run logging program {program}: {source}")]
    Run {
        /// Its path.
        program: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It does not close the pipe that says so.
    #[error("logging program {0} was not ready after {PATIENCE:?}")]
    NotReady(PathBuf),
}

/// What connects a process that is being made with its logging program, if it
/// has one. To be kept until the process has its streams.
pub(crate) struct Logger(Option<Fifos>);

/// Two fifos in a bundle, until they are opened at both sides.
pub(crate) struct Fifos {
    /// For standard output.
    pub(crate) stdout: PathBuf,
    /// For standard error.
    pub(crate) stderr: PathBuf,
    /// While they are open, the program sees no end.
    _held: [File; 2],
}

impl Logger {
    /// Starts the logging program that `streams` name, and waits until it is
    /// ready.
    ///
    /// # Errors
    /// [`LoggerError`].
    pub(crate) async fn start(
        streams: &Streams,
        bundle: &Bundle,
        id: &str,
        namespace: &str,
        reaper: &Reaper,
    ) -> Result<Self, LoggerError> {
        let Some(address) = streams.stdout.strip_prefix(SCHEME) else {
            return Ok(Self(None));
        };
        let malformed = || LoggerError::Address(streams.stdout.clone());
        let (program, arguments) = parse(address).ok_or_else(malformed)?;
        let failed = |source| LoggerError::Run { program: program.clone(), source };
        access(&program, AccessFlags::X_OK).map_err(|error| failed(error.into()))?;
        let fifos = Fifos::make(bundle).map_err(failed)?;
        let (ready, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(|error| failed(error.into()))?;
        let high = sys::duplicate_high(theirs.as_fd());
        drop(theirs);
        let passed = [Fifos::reader(&fifos.stdout), Fifos::reader(&fifos.stderr), high];
        let passed: io::Result<Vec<OwnedFd>> = passed.into_iter().collect();

        let mut command = Command::new(&program);
        command.args(arguments);
        // Nothing of containerd's environment is its business.
        command.env_clear().env("CONTAINER_ID", id).env("CONTAINER_NAMESPACE", namespace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        let passed = passed.and_then(|passed| sys::pass_descriptors(&mut command, passed));
        passed.and_then(|()| reaper.spawn(&mut command)).map(drop).map_err(failed)?;
        // Our copies go, so that its end of the pipe is the last one.
        drop(command);

        let mut ready = Receiver::from_owned_fd(ready).map_err(failed)?;
        // A byte, or the pipe's end.
        match timeout(PATIENCE, ready.read(&mut [0])).await {
            Ok(read) => read.map(drop).map_err(failed)?,
            Err(_) => return Err(LoggerError::NotReady(program)),
        }
        Ok(Self(Some(fifos)))
    }

    /// `streams`, but for those that go to the logging program: what the
    /// process opens instead.
    pub(crate) fn streams(&self, streams: &Streams) -> Streams {
        let Some(fifos) = &self.0 else {
            return streams.clone();
        };
        let replace = |stream: &str, fifo: &Path| match (streams.terminal, stream.starts_with(SCHEME)) {
            (true, true) => fifo.display().to_string(),
            (false, true) => format!("{LOGGED}{}", fifo.display()),
            (_, false) => stream.to_owned(),
        };
        Streams {
            stdout: replace(&streams.stdout, &fifos.stdout),
            stderr: replace(&streams.stderr, &fifos.stderr),
            ..streams.clone()
        }
    }
}

impl Fifos {
    /// Makes them.
    ///
    /// # Errors
    /// They can't be made or opened.
    pub(crate) fn make(bundle: &Bundle) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = |stream: &str| bundle.path().join(format!("{stream}-{number}.fifo"));
        let open = |path: &Path| {
            mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            File::options().read(true).write(true).open(path)
        };
        let (stdout, stderr) = (path("stdout"), path("stderr"));
        let held = [open(&stdout)?, open(&stderr)?];
        Ok(Self { stdout, stderr, _held: held })
    }

    /// The side of one that reads.
    ///
    /// # Errors
    /// It can't be opened.
    pub(crate) fn reader(path: &Path) -> io::Result<OwnedFd> {
        let mut options = File::options();
        let reader = options.read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        // Only opening it must not wait.
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_RDONLY))?;
        sys::duplicate_high(reader.as_fd())
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        // By now both sides have them open, or nobody needs them.
        let _ = std::fs::remove_file(&self.stdout);
        let _ = std::fs::remove_file(&self.stderr);
    }
}

/// The program and its arguments: names and values of the query, in order.
fn parse(address: &str) -> Option<(PathBuf, Vec<String>)> {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let path = PathBuf::from(OsString::from_vec(percent_decode_str(path).collect()));
    let pairs = form_urlencoded::parse(query.as_bytes());
    let arguments = pairs.flat_map(|(name, value)| [name.into_owned(), value.into_owned()]);
    path.is_absolute().then(|| (path, arguments.collect()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn an_address_has_a_path_and_arguments() {
        let (program, arguments) = parse("/usr/bin/my%20logger?--tag=a+b&-v").unwrap();
        assert_eq!(program, Path::new("/usr/bin/my logger"));
        assert_eq!(arguments, ["--tag", "a b", "-v", ""]);
        assert_eq!(parse("logger"), None);
    }

    #[tokio::test]
    async fn a_program_gets_both_streams_and_ends_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("logger");
        let script = "#!/bin/sh\n\
            exec >\"$2\"; echo \"$CONTAINER_ID $CONTAINER_NAMESPACE\"; exec 5>&-\n\
            cat <&3; cat <&4; echo end\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let log = folder.path().join("log");
        let address = format!("binary://{}?--to={}", program.display(), log.display());
        let streams = Streams { stdout: address.clone(), stderr: address, ..Streams::default() };
        let bundle = Bundle::new(folder.path());
        let reaper = Arc::new(Reaper::default());
        let logger = Logger::start(&streams, &bundle, "abc", "test", &reaper).await.unwrap();
        let [_, stdout, stderr] =
            logger.streams(&streams).open(nix::unistd::getuid().as_raw()).unwrap().map(File::from);
        drop(logger);
        (&stdout).write_all(b"out\n").unwrap();
        (&stderr).write_all(b"err\n").unwrap();
        drop((stdout, stderr));
        let expected = "abc test\nout\nerr\nend\n";
        for _ in 0..500 {
            if std::fs::read_to_string(&log).unwrap() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("found {:?}", std::fs::read_to_string(&log));
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let streams = Streams { stdout: "binary:///no/such".into(), ..Streams::default() };
        let started =
            Logger::start(&streams, &Bundle::new(folder.path()), "abc", "test", &Reaper::default()).await;
        let error = started.err().unwrap().to_string();
        assert!(error.starts_with("cannot run logging program /no/such: "), "{error}");
    }
}
