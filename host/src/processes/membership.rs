//! What process 0 hands to a process that it starts.

use std::env;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Board;
use crate::shared_memory::SharedMemory;

/// Names the environment variable: the process's number, how many there may
/// be, and the descriptors of the socket to accept from, the shared memory and
/// the control socket, with colons between them.
pub(super) const VARIABLE: &str = "WHARF_PROCESS";

/// What a process that another one started needs to serve with it.
#[derive(Debug)]
pub struct Membership {
    board: Board,
    processes: usize,
    metrics: &'static [AtomicU64],
    listener: OwnedFd,
    control: UnixStream,
}

/// The variable is not what process 0 writes.
#[derive(Debug, thiserror::Error)]
#[error("malformed {VARIABLE} {text:?}: expected it to be set by wharf-host alone")]
pub struct MembershipError {
    text: String,
    #[source]
    source: Option<io::Error>,
}

/// The variable as process 0 writes it.
pub(super) struct Ticket {
    pub(super) index: usize,
    pub(super) processes: usize,
    pub(super) listener: RawFd,
    pub(super) memory: RawFd,
    pub(super) control: RawFd,
}

impl Ticket {
    pub(super) fn text(&self) -> String {
        let Self { index, processes, listener, memory, control } = self;
        format!("{index}:{processes}:{listener}:{memory}:{control}")
    }

    fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<usize> = text.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let [index, processes, listener, memory, control] = numbers.try_into().ok()?;
        let descriptor = |number: usize| RawFd::try_from(number).ok().filter(|fd| *fd >= 3);
        let (listener, memory, control) = (descriptor(listener)?, descriptor(memory)?, descriptor(control)?);
        let distinct = listener != memory && memory != control && control != listener;
        (distinct && 0 < index && index < processes).then_some(Self {
            index,
            processes,
            listener,
            memory,
            control,
        })
    }
}

impl Membership {
    /// What this process was started with; `None` for process 0. To be called
    /// once, in the context of a tokio runtime.
    ///
    /// # Errors
    /// [`MembershipError`]: somebody else set the variable.
    pub fn from_env() -> Result<Option<Self>, MembershipError> {
        let Ok(text) = env::var(VARIABLE) else { return Ok(None) };
        let Some(ticket) = Ticket::parse(&text) else {
            return Err(MembershipError { text, source: None });
        };
        Self::open(&ticket).map(Some).map_err(|source| MembershipError { text, source: Some(source) })
    }

    fn open(ticket: &Ticket) -> io::Result<Self> {
        let memory = SharedMemory::open(inherited(ticket.memory)?)?;
        let (board, metrics) = memory
            .words()
            .split_at_checked(Board::words(ticket.processes))
            .ok_or(io::ErrorKind::InvalidInput)?;
        let control = std::os::unix::net::UnixStream::from(inherited(ticket.control)?);
        control.set_nonblocking(true)?;
        Ok(Self {
            board: Board::new(board, ticket.index),
            processes: ticket.processes,
            metrics,
            listener: inherited(ticket.listener)?,
            control: UnixStream::from_std(control)?,
        })
    }

    /// How many processes there may be.
    #[must_use]
    pub const fn processes(&self) -> usize {
        self.processes
    }

    /// Memory for the counters of all of them.
    #[must_use]
    pub const fn metrics_memory(&self) -> &'static [AtomicU64] {
        self.metrics
    }

    /// The parts: the board, the socket to accept from, and the rest.
    pub(crate) fn into_parts(self) -> (Board, OwnedFd, Leave) {
        (self.board, self.listener, Leave(self.control))
    }
}

/// Tells when process 0 wants this one to go, or is gone itself.
#[derive(Debug)]
pub(crate) struct Leave(UnixStream);

impl Leave {
    /// Says that this process accepts connections from now on.
    pub(crate) async fn ready(&mut self) -> io::Result<()> {
        self.0.write_all(b"1").await
    }

    /// Returns when this process is to go.
    /// Process 0 takes this one for ended when the value is dropped.
    pub(crate) async fn told(&mut self) {
        // Whatever it is that comes: process 0 only ever closes the socket.
        let _ = self.0.read(&mut [0]).await;
    }
}

/// Takes the descriptor `fd`, which this process was started with.
fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: only asks whether the descriptor is open; nothing is done to it.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let flags = fcntl_getfd(borrowed)?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: it is open and above stderr. Process 0 opened it for this one,
    // and this is the start of `main`, where nothing else owns a descriptor
    // without CLOEXEC: tokio's and the standard library's have it.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl_setfd(&owned, FdFlags::CLOEXEC)?;
    Ok(owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_read_as_they_are_written() {
        let ticket = Ticket { index: 1, processes: 4, listener: 5, memory: 6, control: 7 };
        let read = Ticket::parse(&ticket.text()).unwrap();
        assert_eq!((read.index, read.processes), (1, 4));
        assert_eq!((read.listener, read.memory, read.control), (5, 6, 7));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "1",
            "1:4:5:6",
            "0:4:5:6:7",
            "4:4:5:6:7",
            "1:4:5:5:7",
            "1:4:2:6:7",
            "1:4:5:6:7:8",
            "a:4:5:6:7",
        ] {
            assert!(Ticket::parse(text).is_none(), "{text:?}");
        }
    }
}
