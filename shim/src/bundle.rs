//! containerd's runtime bundle and what we keep in it.
//!
//! All state of a container on disk lies in the bundle, in `wharf/`, so that
//! the `delete` action finds it there and containerd removes it with the rest.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

/// A runtime bundle of containerd.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    path: PathBuf,
}

/// What `delete` must know of a container, written while it is created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The init process; 0 while there is none.
    pub(crate) pid: i32,
    /// When that process was started, in clock ticks since boot: tells it from
    /// a later process of the same id.
    pub(crate) started: u64,
    /// The container's cgroup in each hierarchy.
    pub(crate) cgroup: Vec<PathBuf>,
    /// Whether it is an app, which the node's host serves.
    #[serde(default)]
    pub(crate) is_app: bool,
    /// Whether systemd manages its cgroup.
    #[serde(default)]
    pub(crate) systemd_cgroup: bool,
}

/// A process, told from a later one of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessMark {
    /// Its id.
    pub(crate) pid: i32,
    /// As in [`Record`].
    pub(crate) started: u64,
}

/// Why the bundle can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    /// A file of it can't be read or written; the cause names it.
    #[error("cannot use runtime bundle")]
    Io(#[from] io::Error),
    /// `config.json` is not a runtime spec.
    #[error("cannot load {path}")]
    Spec {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: OciSpecError,
    },
    /// Our own record is damaged.
    #[error("cannot read the container's record {path}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Bundle {
    /// The bundle in the folder `path`.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The bundle in the working directory, where containerd starts a shim.
    ///
    /// # Errors
    /// The working directory is gone.
    pub(crate) fn current() -> io::Result<Self> {
        Ok(Self::new(std::env::current_dir()?))
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where containerd's snapshot is mounted.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// Where the server's address lies for containerd.
    pub(crate) fn address_file(&self) -> PathBuf {
        self.path.join("address")
    }

    /// Our own folder: libcontainer's bundle, with the edited spec, and its
    /// state.
    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("wharf")
    }

    fn record_file(&self) -> PathBuf {
        self.state().join("record.json")
    }

    /// Makes [`Self::state`], for root alone.
    ///
    /// # Errors
    /// It is there already, or can't be made.
    pub(crate) fn create_state(&self) -> io::Result<()> {
        let path = self.state();
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// The runtime spec that containerd wrote.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) fn load_spec(&self) -> Result<Spec, BundleError> {
        let path = self.path.join("config.json");
        Spec::load(&path).map_err(|source| BundleError::Spec { path, source })
    }

    /// The spec that libcontainer has read.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) fn load_edited_spec(&self) -> Result<Spec, BundleError> {
        let path = self.state().join("config.json");
        Spec::load(&path).map_err(|source| BundleError::Spec { path, source })
    }

    /// Writes the spec that libcontainer reads.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn save_edited_spec(&self, spec: &Spec) -> Result<(), BundleError> {
        let path = self.state().join("config.json");
        let json = serde_json::to_vec(spec).map_err(io::Error::from)?;
        fs_err::write(&path, json)?;
        // It has the container's environment.
        fs_err::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// Notes the helper that creates the container: with all that it starts it
    /// is one process group.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn save_creator(&self, creator: ProcessMark) -> Result<(), BundleError> {
        let json = serde_json::to_vec(&creator).map_err(io::Error::from)?;
        Ok(fs_err::write(self.creator_file(), json)?)
    }

    /// The helper that creates, or has created, the container.
    pub(crate) fn load_creator(&self) -> Option<ProcessMark> {
        // Half written, it had not begun.
        serde_json::from_slice(&std::fs::read(self.creator_file()).ok()?).ok()
    }

    fn creator_file(&self) -> PathBuf {
        self.state().join("creator.json")
    }

    /// The record; a default one if there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) fn load_record(&self) -> Result<Record, BundleError> {
        let path = self.record_file();
        match fs_err::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|source| BundleError::Record { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the record.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn save_record(&self, record: &Record) -> Result<(), BundleError> {
        let json = serde_json::to_vec(record).map_err(io::Error::from)?;
        let temporary = self.state().join("record.json.new");
        fs_err::write(&temporary, json)?;
        fs_err::rename(temporary, self.record_file())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(folder.path());
        assert_eq!(bundle.load_record().unwrap(), Record::default());
        bundle.create_state().unwrap();
        let record = Record {
            pid: 7,
            started: 99,
            cgroup: vec!["/sys/fs/cgroup/a".into()],
            is_app: true,
            systemd_cgroup: true,
        };
        bundle.save_record(&record).unwrap();
        assert_eq!(bundle.load_record().unwrap(), record);
    }

    #[test]
    fn a_spec_that_is_not_json_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), "{").unwrap();
        let error = Bundle::new(folder.path()).load_spec().unwrap_err();
        assert!(error.to_string().ends_with("config.json"), "{error}");
    }
}
