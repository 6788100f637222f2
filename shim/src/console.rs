//! A container's terminal: its master side, copied from and to the fifos of
//! containerd's clients.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::bundle::Bundle;
use crate::stdio::Streams;
use crate::sys;

/// The name of the init's socket in the bundle.
pub(crate) const CONSOLE: &str = "console.sock";

/// Where libcontainer finds that, from its folder of the container's state.
/// Relative, for a socket's address has at most 107 bytes.
pub(crate) const SOCKET_FROM_STATE: &str = "../../console.sock";

/// Waits for the terminal that the container's init makes.
pub(crate) struct ConsoleListener {
    listener: UnixListener,
    /// The bundle's folder.
    folder: File,
    name: String,
}

/// The master side of a container's terminal.
pub(crate) struct Console {
    master: Arc<AsyncFd<File>>,
    input: Option<JoinHandle<()>>,
}

impl ConsoleListener {
    /// Listens at the socket `name` in the bundle.
    ///
    /// # Errors
    /// The socket can't be made.
    pub(crate) fn bind(bundle: &Bundle, name: &str) -> io::Result<Self> {
        let folder = open_folder(bundle)?;
        let listener = UnixListener::bind(socket(&folder, name))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, folder, name: name.to_owned() })
    }

    /// The terminal, which the init has sent before its helper answers.
    ///
    /// # Errors
    /// It has not.
    pub(crate) fn receive(self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        sys::receive_descriptor(&stream)
    }
}

impl Drop for ConsoleListener {
    fn drop(&mut self) {
        // Fails only if the bundle is gone with all that is in it.
        let _ = std::fs::remove_file(socket(&self.folder, &self.name));
    }
}

/// Connects to the socket `name` in the bundle, to send a terminal there.
///
/// # Errors
/// Nobody listens.
pub(crate) fn connect(bundle: &Bundle, name: &str) -> io::Result<UnixStream> {
    UnixStream::connect(socket(&open_folder(bundle)?, name))
}

fn open_folder(bundle: &Bundle) -> io::Result<File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    File::options().read(true).custom_flags(flags).open(bundle.path())
}

/// By descriptor, for a socket's address has at most 107 bytes.
fn socket(folder: &File, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", folder.as_raw_fd())
}

impl Console {
    /// Copies between the terminal and `streams` from now on.
    ///
    /// # Errors
    /// A fifo can't be opened.
    pub(crate) fn attach(master: OwnedFd, streams: &Streams) -> io::Result<Self> {
        sys::set_nonblocking(&master)?;
        let master = Arc::new(sys::register(File::from(master))?);
        let mut fifo = pipe::OpenOptions::new();
        // For both, so that it outlives its other side: see `stdio`.
        fifo.read_write(true);
        let output = fifo.open_sender(Path::new(&streams.stdout))?;
        tokio::spawn(copy_output(Arc::clone(&master), output));
        let input = if streams.stdin.is_empty() {
            None
        } else {
            let input = fifo.open_receiver(Path::new(&streams.stdin))?;
            Some(tokio::spawn(copy_input(input, Arc::clone(&master))))
        };
        Ok(Self { master, input })
    }

    /// Sets the terminal's size, in characters.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(crate) fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        sys::set_window_size(self.master.get_ref(), width, height)
    }

    /// Reads no more input.
    pub(crate) fn close_input(&mut self) {
        if let Some(input) = self.input.take() {
            input.abort();
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.close_input();
    }
}

/// Copies until the last process has closed the terminal: EIO.
async fn copy_output(master: Arc<AsyncFd<File>>, mut output: pipe::Sender) {
    let mut buffer = vec![0; 8192];
    while let Ok(mut ready) = master.readable().await {
        match ready.try_io(|master| master.get_ref().read(&mut buffer)) {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(read)) => {
                if output.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
            Err(_not_ready) => {}
        }
    }
}

async fn copy_input(mut input: pipe::Receiver, master: Arc<AsyncFd<File>>) {
    let mut buffer = vec![0; 4096];
    while let Ok(read) = input.read(&mut buffer).await {
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let Ok(mut ready) = master.writable().await else {
                return;
            };
            match ready.try_io(|master| master.get_ref().write(rest)) {
                Ok(Ok(written)) => rest = &rest[written..],
                Ok(Err(_)) => return,
                Err(_not_ready) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;

    #[tokio::test]
    async fn a_terminal_is_copied_from_and_to_its_fifos() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for name in ["in", "out"] {
            nix::unistd::mkfifo(path(name).as_str(), Mode::S_IRWXU).unwrap();
        }
        let streams =
            Streams { stdin: path("in"), stdout: path("out"), terminal: true, ..Streams::default() };
        let pair = nix::pty::openpty(None, None).unwrap();
        let console = Console::attach(pair.master, &streams).unwrap();
        console.resize(100, 40).unwrap();
        let mut client = pipe::OpenOptions::new().open_receiver(path("out")).unwrap();
        let mut writer = pipe::OpenOptions::new().open_sender(path("in")).unwrap();
        writer.write_all(b"typed\n").await.unwrap();
        // The terminal echoes what is typed.
        let mut echo = [0; 7];
        client.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"typed\r\n");
        File::from(pair.slave).write_all(b"shown").unwrap();
        let mut shown = String::new();
        client.read_to_string(&mut shown).await.unwrap();
        assert_eq!(shown, "shown");
    }
}
