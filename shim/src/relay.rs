//! Output of a process that is run in a container beside its init, copied to
//! the fifos of containerd's clients.
//!
//! The init has those fifos itself, and no byte passes through the server. A
//! further process may leave others behind that keep its output open: a
//! client that waits for its end must not wait for theirs. So it is cut off
//! some time after the process was deleted, as runc's shim does.

use std::path::Path;
use std::time::Duration;

use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::bundle::Bundle;
use crate::logger::Fifos;
use crate::stdio::{LOGGED, Streams};

/// Time for the last output to be copied once the process was deleted: what
/// runc's shim waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// What copies.
#[derive(Default)]
pub(crate) struct Relay {
    /// Until the process has them.
    fifos: Option<Fifos>,
    copies: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Copies from fifos of its own, which the process is to open by the
    /// result's [`Relay::streams`].
    ///
    /// # Errors
    /// A fifo can't be made or opened.
    pub(crate) fn start(streams: &Streams, bundle: &Bundle) -> std::io::Result<Self> {
        if !is_fifo(streams, &streams.stdout) && !is_fifo(streams, &streams.stderr) {
            return Ok(Self::default());
        }
        let fifos = Fifos::make(bundle)?;
        let mut copies = Vec::new();
        for (to, from) in [(&streams.stdout, &fifos.stdout), (&streams.stderr, &fifos.stderr)] {
            if is_fifo(streams, to) {
                let receiver = Receiver::from_owned_fd(Fifos::reader(from)?)?;
                // For both, so that it outlives its other side: see `stdio`.
                let to = to.strip_prefix("fifo://").unwrap_or(to);
                let sender = OpenOptions::new().read_write(true).open_sender(Path::new(to))?;
                copies.push(tokio::spawn(copy(receiver, sender)));
            }
        }
        Ok(Self { fifos: Some(fifos), copies })
    }

    /// `streams` as the process is to open them.
    pub(crate) fn streams(&self, streams: &Streams) -> Streams {
        let Some(fifos) = &self.fifos else {
            return streams.clone();
        };
        let replace = |stream: &String, fifo: &Path| {
            if is_fifo(streams, stream) { format!("{LOGGED}{}", fifo.display()) } else { stream.clone() }
        };
        Streams {
            stdout: replace(&streams.stdout, &fifos.stdout),
            stderr: replace(&streams.stderr, &fifos.stderr),
            ..streams.clone()
        }
    }

    /// To be called once the process has its streams: from then on their end
    /// is seen.
    pub(crate) fn begin(&mut self) {
        self.fifos = None;
    }

    /// Waits until all is copied, but not for long.
    pub(crate) async fn finish(mut self) {
        let deadline = Instant::now() + PATIENCE;
        for mut copy in std::mem::take(&mut self.copies) {
            if timeout_at(deadline, &mut copy).await.is_err() {
                copy.abort();
                // Then the fifo is closed.
                let _ = copy.await;
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.copies.iter().for_each(JoinHandle::abort);
    }
}

/// Whether a stream is a fifo of a client. A terminal is copied anyway, and
/// logging programs and files are nobody's to wait for.
fn is_fifo(streams: &Streams, stream: &str) -> bool {
    !streams.terminal && !stream.is_empty() && (!stream.contains("://") || stream.starts_with("fifo://"))
}

/// Copies to the end, or until nobody takes it.
async fn copy(mut from: Receiver, mut to: Sender) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::fs::OpenOptionsExt;

    use nix::sys::stat::Mode;

    use super::*;

    /// A relay to a fifo, the process's standard output, and the client's end.
    fn relay(folder: &Path) -> (Relay, File, File) {
        let path = folder.join("out");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let streams = Streams { stdout: path.to_str().unwrap().to_owned(), ..Streams::default() };
        let client = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let mut relay = Relay::start(&streams, &Bundle::new(folder)).unwrap();
        let [_, stdout, _] =
            relay.streams(&streams).open(nix::unistd::getuid().as_raw()).unwrap().map(File::from);
        relay.begin();
        (relay, stdout, client)
    }

    #[tokio::test]
    async fn all_output_of_a_process_that_ends_arrives_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (relay, mut stdout, mut client) = relay(folder.path());
        stdout.write_all(b"said").unwrap();
        drop(stdout);
        relay.finish().await;
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "said");
    }

    #[tokio::test]
    async fn output_that_somebody_keeps_open_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (relay, mut stdout, mut client) = relay(folder.path());
        stdout.write_all(b"said").unwrap();
        let since = Instant::now();
        relay.finish().await;
        assert!(since.elapsed() >= PATIENCE);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "said", "and the end");
    }
}
