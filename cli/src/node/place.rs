//! Which distribution of Kubernetes a node has, and where that one keeps what.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{NodeError, Root, shown};

/// Who brings containerd, and writes its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// containerd itself, as kubeadm and the clouds use it.
    Containerd,
    /// Writes the configuration from a template at each start.
    K3s,
    /// The same, for its own folder.
    Rke2,
    /// Merges what lies in a folder into a configuration that it writes.
    K0s,
    /// Has a template that people may edit.
    Microk8s,
}

/// A node's containerd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) distribution: Distribution,
    /// What containerd reads, or what that is made of.
    pub(crate) config: PathBuf,
    pub(crate) socket: PathBuf,
}

/// Those that bring a containerd of their own first: beside them there may be
/// the machine's, for Docker.
const ORDER: [Distribution; 5] = [
    Distribution::Microk8s,
    Distribution::K0s,
    Distribution::Rke2,
    Distribution::K3s,
    Distribution::Containerd,
];

impl Distribution {
    fn place(self) -> Place {
        let (config, socket) = match self {
            Self::Containerd => ("/etc/containerd/config.toml", "/run/containerd/containerd.sock"),
            Self::K3s => (
                "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
                "/run/k3s/containerd/containerd.sock",
            ),
            Self::Rke2 => (
                "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
                "/run/k3s/containerd/containerd.sock",
            ),
            Self::K0s => ("/etc/k0s/containerd.toml", "/run/k0s/containerd.sock"),
            Self::Microk8s => (
                "/var/snap/microk8s/current/args/containerd-template.toml",
                "/var/snap/microk8s/common/run/containerd.sock",
            ),
        };
        Place { distribution: self, config: config.into(), socket: socket.into() }
    }
}

impl Place {
    /// What is on the node, or what was asked for.
    ///
    /// # Errors
    /// [`NodeError::NoContainerd`].
    pub(crate) fn find(root: &Root, asked: Option<Distribution>) -> Result<Self, NodeError> {
        let is_there = |place: &Self| {
            let folder = place.config.parent().unwrap_or(Path::new("/"));
            // A containerd without a configuration has no folder of one.
            let configured = place.distribution == Distribution::Containerd || root.at(folder).is_dir();
            configured && root.at(&place.socket).exists()
        };
        if let Some(asked) = asked {
            return Ok(asked.place());
        }
        ORDER.into_iter().map(Distribution::place).find(is_there).ok_or_else(|| {
            let sockets = ORDER.into_iter().map(|distribution| shown(&distribution.place().socket));
            NodeError::NoContainerd { searched: sockets.collect::<Vec<_>>().join(", ") }
        })
    }

    /// The services of systemd, one of which runs containerd.
    pub(super) fn services(&self) -> &'static [&'static str] {
        match self.distribution {
            Distribution::Containerd => &["containerd"],
            Distribution::K3s => &["k3s", "k3s-agent"],
            Distribution::Rke2 => &["rke2-server", "rke2-agent"],
            Distribution::K0s => &["k0scontroller", "k0sworker"],
            Distribution::Microk8s => &["snap.microk8s.daemon-containerd"],
        }
    }
}
