//! A node's containerd gets our shim, or loses it again.
//!
//! The way, one module a step: where containerd is and who starts it ([`place`]),
//! what of its configuration must change ([`plan`], [`configuration`]), our
//! programs ([`programs`]), writing so that no file is ever half there
//! ([`files`]), the restart ([`restart`]) and whether containerd then does what it
//! should ([`cri`]). If it does not, all is put back.

mod configuration;
mod cri;
mod files;
mod place;
mod plan;
mod programs;
mod restart;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use wharf_app::Sha256;

use crate::output;

pub(crate) use files::Root;
pub(crate) use place::{Distribution, Place};
pub(crate) use plan::Change;
pub(crate) use programs::{Programs, Source};
pub(crate) use restart::{Restart, enter};

/// The handler that a RuntimeClass names, and the CRI runtime's name.
pub(crate) const HANDLER: &str = "wasm";

/// Beside containerd's configuration: names the change of it that failed.
const RECORD: &str = ".wharf-node-failed";

/// What is to become of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Installed,
    Removed,
}

/// One node, and how to treat it.
pub(crate) struct Node {
    pub(crate) root: Root,
    pub(crate) place: Place,
    pub(crate) programs: Programs,
    pub(crate) restart: Restart,
    /// For containerd to answer after a restart.
    pub(crate) patience: Duration,
    /// Removes the shim under running pods, and tries again what has failed.
    pub(crate) force: bool,
}

/// A node that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// None of the places is there.
    #[error("cannot find containerd on this node: searched {searched}")]
    NoContainerd {
        /// The sockets.
        searched: String,
    },
    /// It did not even before.
    #[error("containerd at {socket} does not serve Kubernetes (CRI)")]
    NoCri {
        /// Its socket.
        socket: PathBuf,
        /// What it says.
        source: anyhow::Error,
    },
    /// The new configuration was tried, and taken back.
    #[error("containerd did not come up with the runtime {HANDLER:?}: its configuration is as it was before")]
    RolledBack,
    /// The new configuration was tried, and could not be taken back.
    #[error("containerd does not come up with its former configuration either")]
    Down {
        /// What it says.
        source: anyhow::Error,
    },
    /// It would fail again, and each try restarts containerd.
    #[error("the same change of containerd's configuration has failed on this node before: {record}")]
    FailedBefore {
        /// The file that says so.
        record: PathBuf,
    },
    /// Their containers could not be cleaned up without it.
    #[error("cannot remove the shim: {count} pods or containers still run by it")]
    InUse {
        /// Shims that run.
        count: usize,
    },
    /// No service of the distribution is active.
    #[error("cannot restart containerd: none of the services {services} is active")]
    NoService {
        /// The names that were tried.
        services: String,
    },
    /// The restart failed.
    #[error("cannot restart containerd: `{command}` ended with {status}")]
    Restart {
        /// The command.
        command: String,
        /// How it ended.
        status: String,
    },
}

impl NodeError {
    /// What the user can do.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoContainerd { .. } => Some(
                "say where it is: --distribution, --config and --socket; in a container, --enter 1".into(),
            ),
            Self::NoCri { .. } => {
                Some("start it, and take \"cri\" out of disabled_plugins of its configuration".into())
            }
            Self::RolledBack => {
                Some("its log says why; `wharf node install --dry-run` shows the change".into())
            }
            Self::FailedBefore { .. } => Some("once it is mended: --force".into()),
            Self::InUse { .. } => Some("delete the pods with its RuntimeClass first, or --force".into()),
            Self::NoService { .. } => Some("--restart-command has any other".into()),
            Self::Down { .. } => Some("its log says why".into()),
            Self::Restart { .. } => None,
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All was as it should be.
    Unchanged,
    /// Only our programs are others: containerd needs no restart for them.
    Programs,
    /// containerd was restarted and has the new configuration.
    Restarted,
}

impl Node {
    /// What of containerd's configuration would change.
    ///
    /// # Errors
    /// It can't be read, or can't be changed.
    pub(crate) fn changes(&self, wish: Wish) -> Result<Vec<Change>> {
        plan::changes(&self.place, &self.root, &self.programs.shim(), wish)
    }

    /// Makes it so.
    ///
    /// # Errors
    /// [`NodeError`], or a file can't be read or written. The configuration is then
    /// as it was before.
    pub(crate) fn make(&self, wish: Wish) -> Result<Outcome> {
        let known = cri::runtimes(&self.socket())
            .map_err(|source| NodeError::NoCri { socket: self.place.socket.clone(), source })?;
        let changes = self.changes(wish)?;
        if wish == Wish::Removed && !self.force {
            let count = self.programs.shims_running(&self.root);
            if count > 0 {
                return Err(NodeError::InUse { count }.into());
            }
        }
        let copied = wish == Wish::Installed && self.programs.install(&self.root)?;
        let is_there = known.iter().any(|name| name == HANDLER);
        let outcome = if changes.is_empty() && is_there == (wish == Wish::Installed) {
            if copied { Outcome::Programs } else { Outcome::Unchanged }
        } else {
            self.configure(&changes, wish, is_there)?;
            Outcome::Restarted
        };
        if wish == Wish::Removed {
            self.programs.remove(&self.root)?;
        }
        Ok(outcome)
    }

    fn configure(&self, changes: &[Change], wish: Wish, was_there: bool) -> Result<()> {
        let named = self.place.config.with_file_name(RECORD);
        let record = self.root.at(&named);
        let digest = digest(changes);
        if !self.force && fs_err::read_to_string(&record).is_ok_and(|failed| failed.trim() == digest) {
            return Err(NodeError::FailedBefore { record: named }.into());
        }
        let is_there = wish == Wish::Installed;
        let tried = self.apply(changes).and_then(|()| self.restart_until(is_there));
        let Err(error) = tried else {
            changes.iter().try_for_each(|change| change.forget(&self.root))?;
            return files::remove(&record);
        };
        output::remark(format!("{error:#}: putting back what was there"));
        for change in changes.iter().rev() {
            change.revert(&self.root)?;
        }
        // Before the restart: should that end us, nobody tries in vain.
        files::write(&record, format!("{digest}\n").as_bytes())?;
        match self.restart_until(was_there) {
            Ok(()) => Err(NodeError::RolledBack.into()),
            Err(source) => Err(NodeError::Down { source }.into()),
        }
    }

    fn apply(&self, changes: &[Change]) -> Result<()> {
        changes.iter().try_for_each(|change| change.apply(&self.root))
    }

    fn socket(&self) -> PathBuf {
        self.root.at(&self.place.socket)
    }

    /// Restarts containerd, and waits until it has our runtime, or not.
    fn restart_until(&self, is_there: bool) -> Result<()> {
        self.restart.run(self.place.services())?;
        let until = Instant::now() + self.patience;
        loop {
            // One that still ends may answer, too, but with what it had before.
            let found = cri::runtimes(&self.socket());
            if found.as_ref().is_ok_and(|names| names.iter().any(|name| name == HANDLER) == is_there) {
                return Ok(());
            }
            if Instant::now() > until {
                found.with_context(|| format!("containerd did not answer in {:?}", self.patience))?;
                anyhow::bail!("containerd answers, but its runtimes are still those before the change");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Names a set of changes.
fn digest(changes: &[Change]) -> String {
    let mut text = String::new();
    for change in changes {
        text.push_str(&format!("{:?}\n{:?}\n", change.path(), change.after()));
    }
    Sha256::of(text.as_bytes()).to_string()
}

/// A path as people see it in messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
