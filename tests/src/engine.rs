//! Container engines, by version: unpacked by tests/testbed/engines.sh, each
//! instance in a namespace and folder of its own.

mod containerd;
mod docker;
mod node;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use containerd::Containerd;
pub(crate) use containerd::cgroup_hierarchies;
pub use docker::{Docker, Store};
pub use node::{Container, Executed, Handler, Node, Pod, Terminal};

use crate::testbed;

/// A generation of engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Docker 26.1 and containerd 1.7, of Debian's trixie.
    Trixie,
    /// Docker 28 and containerd 2.1, of Debian's forky.
    Forky,
}

impl Generation {
    fn folder(self) -> PathBuf {
        let name = match self {
            Self::Trixie => "engines/trixie",
            Self::Forky => "engines/forky",
        };
        testbed::part(name, "engines.sh")
    }

    /// A program of the generation.
    #[must_use]
    pub fn program(self, path: &str) -> PathBuf {
        self.folder().join(path)
    }

    /// Where the engine finds shims: ours, its own, and this machine's runc.
    #[must_use]
    pub fn path(self) -> OsString {
        let own = std::env::var_os("PATH").unwrap_or_default();
        let folders = [testbed::prefix().join("bin"), self.program("usr/bin"), self.program("usr/sbin")];
        std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&own)))
            .expect("no folder holds a colon")
    }
}

/// Takes down whatever an engine left mounted in its folder.
fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // The last mounted first.
    for mount in mounts.lines().rev() {
        if let Some(target) = mount.split(' ').nth(1).filter(|target| Path::new(target).starts_with(folder)) {
            let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
