//! One container as the server knows it: where it is in its life, and what
//! belongs to it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use tokio::sync::watch;

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::console::Console;
use crate::helper::Created;
use crate::reaper::Exit;
use crate::stdio::Streams;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its init waits to become the program.
    Created,
    /// Its start hooks run; how its program ended if it has by now.
    Starting(Option<Exit>),
    /// Its program runs.
    Running,
    /// Its init has ended.
    Stopped(Exit),
}

/// A container.
pub(crate) struct Container {
    /// Its id.
    pub(crate) id: String,
    /// Its bundle.
    pub(crate) bundle: Bundle,
    /// Its init process, also after that ended.
    pub(crate) pid: i32,
    /// Its standard streams.
    pub(crate) streams: Streams,
    /// Its cgroup.
    pub(crate) cgroup: Cgroup,
    /// Where it is in its life.
    pub(crate) phase: Phase,
    /// Whether its start takes a helper.
    pub(crate) has_start_hooks: bool,
    own_pid_namespace: bool,
    held_input: Option<OwnedFd>,
    console: Option<Console>,
    exit: watch::Sender<Option<Exit>>,
}

impl Container {
    /// The container that a helper has created.
    pub(crate) fn new(id: String, bundle: Bundle, streams: Streams, created: Created) -> Self {
        let held_input = streams.hold_input().unwrap_or_else(|error| {
            tracing::error!(id, %error, "cannot hold standard input open");
            None
        });
        Self {
            id,
            bundle,
            pid: created.pid,
            streams,
            cgroup: Cgroup::new(created.cgroup),
            phase: Phase::Created,
            has_start_hooks: created.has_start_hooks,
            own_pid_namespace: created.own_pid_namespace,
            held_input,
            console: None,
            exit: watch::Sender::new(None),
        }
    }

    /// Its init's process id, as messages have it.
    pub(crate) fn task_pid(&self) -> u32 {
        self.pid.cast_unsigned()
    }

    /// Lets its init become the program: a connection to libcontainer's
    /// socket, without a process.
    ///
    /// # Errors
    /// Its init does not listen: it has ended.
    pub(crate) fn notify_start(&self) -> io::Result<()> {
        let state = self.bundle.state().join(&self.id);
        // By descriptor, for a socket's address has at most 107 bytes.
        let mut options = File::options();
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let folder = options.read(true).custom_flags(flags).open(state)?;
        let socket = format!("/proc/self/fd/{}/notify.sock", folder.as_raw_fd());
        UnixStream::connect(socket)?.write_all(b"start container")
    }

    /// Gives it the terminal that its init has made.
    pub(crate) fn set_console(&mut self, console: Console) {
        self.console = Some(console);
    }

    /// Its terminal, if it has one.
    pub(crate) fn console(&self) -> Option<&Console> {
        self.console.as_ref()
    }

    /// Closes our end of its standard input.
    pub(crate) fn close_input(&mut self) {
        self.held_input = None;
        if let Some(console) = &mut self.console {
            console.close_input();
        }
    }

    /// Notes that its init ended, and ends what it leaves behind.
    pub(crate) fn stop(&mut self, exit: Exit) {
        self.phase = Phase::Stopped(exit);
        self.close_input();
        if !self.own_pid_namespace {
            let killed = self.cgroup.signal(libc::SIGKILL);
            if let Err(error) = killed {
                tracing::error!(id = self.id, %error, "cannot end the container's processes");
            }
        }
        self.exit.send_replace(Some(exit));
    }

    /// Gets how its init ended once it has.
    pub(crate) fn watch_exit(&self) -> watch::Receiver<Option<Exit>> {
        self.exit.subscribe()
    }
}
