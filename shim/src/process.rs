//! One process of a container: its init, or one that was run in it later.

use std::io;
use std::os::fd::OwnedFd;

use tokio::sync::watch;

use crate::console::Console;
use crate::reaper::Exit;
use crate::relay::Relay;
use crate::stdio::Streams;

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It waits to become its program.
    Created,
    /// A helper starts it; how it ended if it has by now.
    Starting(Option<Exit>),
    /// Its program runs.
    Running,
    /// As `Running`, but the container is frozen.
    Paused,
    /// It has ended.
    Stopped(Exit),
}

/// A process.
pub(crate) struct Process {
    /// Its id on this machine, also after it ended; 0 while there is none.
    pub(crate) pid: i32,
    /// Its standard streams.
    pub(crate) streams: Streams,
    /// Where it is in its life.
    pub(crate) phase: Phase,
    held_input: Option<OwnedFd>,
    console: Option<Console>,
    exit: watch::Sender<Option<Exit>>,
}

/// A process that is, or will be, run in a container beside its init.
pub(crate) struct Exec {
    /// The process.
    pub(crate) process: Process,
    /// What it is to be: the runtime spec's `process`, as JSON.
    pub(crate) spec: String,
    /// What copies its output.
    pub(crate) relay: Relay,
}

impl Process {
    /// One that has yet to be made.
    pub(crate) fn new(streams: Streams) -> Self {
        Self {
            pid: 0,
            streams,
            phase: Phase::Created,
            held_input: None,
            console: None,
            exit: watch::Sender::new(None),
        }
    }

    /// Notes that it was made, as the process `pid`.
    pub(crate) fn begin(&mut self, pid: i32) {
        self.pid = pid;
        self.held_input = self.streams.hold_input().unwrap_or_else(|error| {
            tracing::error!(pid, %error, "cannot hold standard input open");
            None
        });
    }

    /// Its id, as messages have it.
    pub(crate) fn task_pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Gives it the terminal that it has made.
    pub(crate) fn set_console(&mut self, console: Console) {
        self.console = Some(console);
    }

    /// Sets the size of its terminal, in characters. Without one there is
    /// nothing to resize.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(crate) fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        self.console.as_ref().map_or(Ok(()), |console| console.resize(width, height))
    }

    /// Closes our end of its standard input.
    pub(crate) fn close_input(&mut self) {
        self.held_input = None;
        if let Some(console) = &mut self.console {
            console.close_input();
        }
    }

    /// Notes that it ended.
    pub(crate) fn stop(&mut self, exit: Exit) {
        self.phase = Phase::Stopped(exit);
        self.close_input();
        self.exit.send_replace(Some(exit));
    }

    /// Gets how it ended once it has.
    pub(crate) fn watch_exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.subscribe()
    }
}
