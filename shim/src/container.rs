//! One container as the server knows it: its processes, and what belongs to it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::helper::Created;
use crate::oom::OomCounter;
use crate::process::{Exec, Phase, Process};
use crate::reaper::Exit;
use crate::stdio::Streams;

/// A container.
pub(crate) struct Container {
    /// Its id.
    pub(crate) id: String,
    /// Its bundle.
    pub(crate) bundle: Bundle,
    /// Its cgroup.
    pub(crate) cgroup: Cgroup,
    /// Its first process.
    pub(crate) init: Process,
    /// Those that were run in it later, by their ids.
    pub(crate) execs: HashMap<String, Exec>,
    /// Whether its start takes a helper.
    pub(crate) has_start_hooks: bool,
    /// What the kernel had to end in it for want of memory.
    pub(crate) oom: OomCounter,
    own_pid_namespace: bool,
    /// How its init ended, while others of its processes have not.
    held_exit: Option<Exit>,
}

impl Container {
    /// The container that a helper has created.
    pub(crate) fn new(id: String, bundle: Bundle, streams: Streams, created: Created) -> Self {
        let cgroup = Cgroup::new(created.cgroup);
        let mut init = Process::new(streams);
        init.begin(created.pid);
        Self {
            id,
            bundle,
            oom: OomCounter::of(&cgroup),
            cgroup,
            init,
            execs: HashMap::new(),
            has_start_hooks: created.has_start_hooks,
            own_pid_namespace: created.own_pid_namespace,
            held_exit: None,
        }
    }

    /// The process `exec_id`, or its init if that is empty.
    pub(crate) fn process(&mut self, exec_id: &str) -> Option<&mut Process> {
        if exec_id.is_empty() {
            return Some(&mut self.init);
        }
        self.execs.get_mut(exec_id).map(|exec| &mut exec.process)
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

    /// Notes that its init ended, and ends what it leaves behind.
    pub(crate) fn hold_exit(&mut self, exit: Exit) {
        self.held_exit = Some(exit);
        if !self.own_pid_namespace {
            let killed = self.cgroup.signal(libc::SIGKILL);
            if let Err(error) = killed {
                tracing::error!(id = self.id, %error, "cannot end the container's processes");
            }
        }
    }

    /// How its init ended, once all others have ended too: nobody must hear of
    /// a container's end before that of its last process.
    pub(crate) fn take_exit(&mut self) -> Option<Exit> {
        let runs = |exec: &Exec| exec.process.phase == Phase::Running;
        if self.execs.values().any(runs) { None } else { self.held_exit.take() }
    }
}
