//! The node's own programs: the host that serves apps and `wharf`, which
//! compiles their components.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::User;

use crate::sys;

/// A program of the node that was not found or can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// None of the places has it.
    #[error("cannot find {name} on this node: searched {}", list(places))]
    Missing {
        /// The program.
        name: &'static str,
        /// Where it was searched.
        places: Vec<PathBuf>,
    },
    /// It is there, but can't be opened.
    #[error("cannot open {path}")]
    Open {
        /// The program.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The container's user may not run it.
    #[error("cannot run {path} as user {uid}: its mode is {mode:03o}")]
    Forbidden {
        /// The program.
        path: PathBuf,
        /// The container's user.
        uid: u32,
        /// Its permissions.
        mode: u32,
    },
}

fn list(places: &[PathBuf]) -> String {
    let places: Vec<_> = places.iter().map(|path| path.display().to_string()).collect();
    places.join(", ")
}

/// One program and where it is searched.
struct Program {
    name: &'static str,
    /// Environment variable of the shim with its path.
    variable: &'static str,
    /// Below the folder of the shim.
    places: [&'static str; 2],
}

const HOST: Program = Program {
    name: "wharf-host",
    variable: "WHARF_HOST_BINARY",
    places: ["../libexec/wharf/wharf-host", "wharf-host"],
};

const COMPILER: Program =
    Program { name: "wharf", variable: "WHARF_BINARY", places: ["../bin/wharf", "wharf"] };

/// Opens the host, which `user` of a container must be able to run.
///
/// # Errors
/// [`NodeError`].
pub(crate) fn open_host(user: &User) -> Result<File, NodeError> {
    let path = HOST.find()?;
    let opened = sys::open_read_only(&path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = match opened {
        Ok(opened) => opened,
        Err(source) => return Err(NodeError::Open { path, source }),
    };
    let mode = metadata.mode() & 0o777;
    // Checked now: the container only tries once it was said to have started.
    if metadata.is_file() && may_execute(user, mode, metadata.uid(), metadata.gid()) {
        Ok(file)
    } else {
        let uid = user.uid();
        Err(NodeError::Forbidden { path, uid, mode })
    }
}

/// Where the host is.
///
/// # Errors
/// [`NodeError::Missing`].
pub(crate) fn find_host() -> Result<PathBuf, NodeError> {
    HOST.find()
}

/// Where the compiler is.
///
/// # Errors
/// [`NodeError::Missing`].
pub(crate) fn find_compiler() -> Result<PathBuf, NodeError> {
    COMPILER.find()
}

impl Program {
    fn find(&self) -> Result<PathBuf, NodeError> {
        let shim = std::env::current_exe().unwrap_or_default();
        let given = std::env::var_os(self.variable).filter(|path| !path.is_empty());
        self.find_from(&shim, given.map(PathBuf::from))
    }

    fn find_from(&self, shim: &Path, given: Option<PathBuf>) -> Result<PathBuf, NodeError> {
        let places = match given {
            Some(path) => vec![path],
            None => {
                let folder = shim.parent().unwrap_or(Path::new("/"));
                self.places.iter().map(|place| folder.join(place)).collect()
            }
        };
        let found = places.iter().find(|path| path.is_file()).cloned();
        found.ok_or(NodeError::Missing { name: self.name, places })
    }
}

/// execve(2)'s rule for a file of this owner, group and mode.
fn may_execute(user: &User, mode: u32, owner: u32, group: u32) -> bool {
    let groups = user.additional_gids().iter().flatten();
    if user.uid() == 0 {
        mode & 0o111 != 0
    } else if user.uid() == owner {
        mode & 0o100 != 0
    } else if user.gid() == group || groups.into_iter().any(|gid| *gid == group) {
        mode & 0o010 != 0
    } else {
        mode & 0o001 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, gid: u32) -> User {
        let mut user = User::default();
        user.set_uid(uid).set_gid(gid);
        user
    }

    #[test]
    fn a_program_is_found_beside_the_shim() {
        let folder = tempfile::tempdir().unwrap();
        let shim = folder.path().join("bin/containerd-shim-wasm-v1");
        let beside = folder.path().join("bin/wharf-host");
        let own = folder.path().join("bin/../libexec/wharf/wharf-host");
        std::fs::create_dir_all(folder.path().join("bin")).unwrap();
        let error = HOST.find_from(&shim, None).unwrap_err().to_string();
        assert!(error.contains("libexec/wharf/wharf-host, "), "{error}");

        std::fs::write(&beside, "").unwrap();
        assert_eq!(HOST.find_from(&shim, None).unwrap(), beside);
        std::fs::create_dir_all(folder.path().join("libexec/wharf")).unwrap();
        std::fs::write(&own, "").unwrap();
        assert_eq!(HOST.find_from(&shim, None).unwrap(), own);
    }

    #[test]
    fn a_given_path_is_the_only_place() {
        let given = Some(PathBuf::from("/no/such/host"));
        let error = HOST.find_from(Path::new("/usr/bin/shim"), given).unwrap_err();
        let expected = "cannot find wharf-host on this node: searched /no/such/host";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn the_containers_user_must_be_able_to_run_the_host() {
        assert!(may_execute(&user(65532, 65532), 0o755, 0, 0));
        assert!(!may_execute(&user(65532, 65532), 0o750, 0, 0));
        assert!(may_execute(&user(65532, 7), 0o750, 0, 7));
        assert!(!may_execute(&user(5, 5), 0o677, 5, 5));
        assert!(may_execute(&user(0, 0), 0o700, 5, 5));
        assert!(!may_execute(&user(0, 0), 0o644, 0, 0));
    }
}
