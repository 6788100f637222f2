//! Restarting containerd, and doing so from within a container.

use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns, unshare};

use super::NodeError;

/// How containerd is restarted.
#[derive(Clone, Debug)]
pub(crate) enum Restart {
    /// By systemd: the service that is active.
    Systemd,
    /// By a command of the shell.
    Command(String),
}

impl Restart {
    /// Restarts it.
    ///
    /// # Errors
    /// [`NodeError`].
    pub(super) fn run(&self, services: &[&str]) -> Result<()> {
        let mut command = match self {
            Self::Systemd => {
                // What has failed is not active, and is restarted when a change is taken back.
                let found = ["is-active", "is-enabled"].into_iter().find_map(|question| {
                    services.iter().find(|service| {
                        let mut asked = by_systemd(&[question, "--quiet", service]);
                        asked.status().is_ok_and(|status| status.success())
                    })
                });
                let service = found.ok_or_else(|| NodeError::NoService { services: services.join(", ") })?;
                by_systemd(&["restart", service])
            }
            Self::Command(line) => {
                let mut command = on_the_node("/bin/sh");
                command.args(["-c", line]);
                command
            }
        };
        let shown = format!("{command:?}");
        let status = command.status().with_context(|| format!("cannot run {shown}"))?;
        if status.success() {
            return Ok(());
        }
        Err(NodeError::Restart { command: shown, status: status.to_string() }.into())
    }
}

fn by_systemd(arguments: &[&str]) -> Command {
    let mut command = on_the_node("systemctl");
    command.args(arguments);
    command
}

/// A container's PATH says nothing of the node, and may not be set at all.
fn on_the_node(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Runs `work` where the process `pid` is: among its files. From a container with
/// `hostPID`, process 1 is the node's own.
///
/// # Errors
/// It can't be entered, or those of `work`.
pub(crate) fn enter<T: Send>(pid: u32, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = fs_err::File::open(&path).context("cannot see the node's files")?;
    let inside = || {
        // A thread that shares its working directory can't (setns(2)).
        unshare(CloneFlags::CLONE_FS)
            .and_then(|()| setns(&namespace, CloneFlags::CLONE_NEWNS))
            .with_context(|| format!("cannot enter {path}: expected a privileged container"))?;
        work()
    };
    // On a thread of its own: this one stays where it is.
    std::thread::scope(|scope| scope.spawn(inside).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
