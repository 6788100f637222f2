//! The log: this process's own lines and the guests' output, to stderr.
//!
//! Whoever reads stderr may stop reading, and then a write blocks. So one
//! thread writes, behind a queue with an end: what does not fit is dropped,
//! and no request, no timer and no signal waits for a reader.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::io::AsyncWrite;
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// Writes that wait to be written at most.
const QUEUE: usize = 256;

/// Bytes of one write at most: the rest of it is another.
const LARGEST_WRITE: usize = 16 << 10;

/// Time for the queue to be written at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The log of this process. A write never blocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

enum Message {
    Write(Vec<u8>),
    /// Answered once all before it is written.
    Flush(SyncSender<()>),
}

static QUEUED: LazyLock<SyncSender<Message>> = LazyLock::new(|| {
    let (sender, receiver) = sync_channel(QUEUE);
    // Without the thread the receiver goes, and the log is silent.
    let _ =
        thread::Builder::new().name("log".into()).stack_size(64 * 1024).spawn(move || write_all(&receiver));
    sender
});

fn write_all(messages: &Receiver<Message>) {
    let mut stderr = io::stderr();
    for message in messages {
        match message {
            // Nobody can be told that the log fails.
            Message::Write(bytes) => _ = stderr.write_all(&bytes),
            Message::Flush(done) => _ = done.try_send(()),
        }
    }
}

impl Log {
    /// Waits until all is written, at most a second.
    pub fn flush(self) {
        let (done, written) = sync_channel(1);
        if QUEUED.try_send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    /// Queues `lines` as one write, all or nothing; `false` if there was no room.
    pub(crate) fn lines(self, lines: Vec<u8>) -> bool {
        QUEUED.try_send(Message::Write(lines)).is_ok()
    }

    fn queue(bytes: &[u8]) -> usize {
        let bytes = &bytes[..bytes.len().min(LARGEST_WRITE)];
        let _ = QUEUED.try_send(Message::Write(bytes.to_vec()));
        bytes.len()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(Self::queue(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

/// The log of one instance: its stdout and stderr, up to a number of bytes a
/// request.
#[derive(Clone, Debug)]
pub(crate) struct GuestLog {
    left: Arc<AtomicU64>,
}

impl GuestLog {
    /// A log for `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self { left: Arc::new(AtomicU64::new(limit)) }
    }

    /// Another request may write `limit` bytes.
    pub(crate) fn renew(&self, limit: u64) {
        self.left.store(limit, Ordering::Relaxed);
    }
}

/// What is past the limit is dropped, as if it had been written: a guest has
/// no better answer to a log that is full.
impl AsyncWrite for GuestLog {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // One instance, one thread at a time: nobody writes in between.
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Ok(bytes.len()));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let written = Log::queue(&bytes[..most]);
        let left = left.saturating_sub(written as u64);
        self.left.store(left, Ordering::Relaxed);
        if left == 0 {
            warn!("the rest of a worker's output is dropped: it is longer than its limit a request");
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl StdoutStream for GuestLog {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}
