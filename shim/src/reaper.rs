//! The server's children: helpers, and the init processes of containers,
//! which become its children when their helper ends.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::sync::oneshot;

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its exit code; 128 + N if signal N ended it.
    pub(crate) status: u32,
    /// When that was seen.
    pub(crate) at: SystemTime,
}

impl Exit {
    /// That of a process that never became its program.
    pub(crate) fn failed_start() -> Self {
        Self { status: 255, at: SystemTime::now() }
    }
}

/// Collects ended children and tells those who wait for them.
#[derive(Default)]
pub(crate) struct Reaper {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    awaited: HashMap<i32, oneshot::Sender<Exit>>,
    /// Ends of which nobody has asked yet, kept while someone may.
    unclaimed: HashMap<i32, Exit>,
    expecting: usize,
}

/// While it lives, no end is forgotten: that of a process whose id the caller
/// has yet to learn can be asked for by [`Reaper::watch`].
pub(crate) struct Expectation(Arc<Reaper>);

impl Reaper {
    /// Starts a child: its id, and a receiver that gets its end.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<(i32, oneshot::Receiver<Exit>)> {
        // Locked until its id is known, so that its end isn't missed.
        let mut state = self.lock();
        let child = command.spawn()?;
        let (sender, receiver) = oneshot::channel();
        let pid = child.id().cast_signed();
        state.awaited.insert(pid, sender);
        Ok((pid, receiver))
    }

    /// Keeps all ends until the result is dropped.
    pub(crate) fn expect(self: &Arc<Self>) -> Expectation {
        self.lock().expecting += 1;
        Expectation(Arc::clone(self))
    }

    /// The receiver gets the end of the process `pid`, a child that someone
    /// else started. If it may have ended already, hold an [`Expectation`].
    pub(crate) fn watch(&self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        match state.unclaimed.remove(&pid) {
            // The receiver is ours, so there is one.
            Some(exit) => drop(sender.send(exit)),
            None => drop(state.awaited.insert(pid, sender)),
        }
        receiver
    }

    /// Collects all children that have ended. To be called on SIGCHLD.
    pub(crate) fn reap(&self) {
        let mut state = self.lock();
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code.cast_unsigned()),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + (signal as i32).cast_unsigned()),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            let at = SystemTime::now();
            let exit = Exit { status, at };
            if let Some(sender) = state.awaited.remove(&pid.as_raw()) {
                // One who no longer waits need not know.
                let _ = sender.send(exit);
            } else if state.expecting > 0 {
                state.unclaimed.insert(pid.as_raw(), exit);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Expectation {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.expecting -= 1;
        if state.expecting == 0 {
            state.unclaimed.clear();
        }
    }
}
