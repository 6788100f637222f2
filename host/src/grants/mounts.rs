//! Folders of the host that workers see.
//!
//! Each is opened once, when the app is loaded, and all instances share the
//! open folder: what a name leads to later does not matter, and a request makes
//! no syscall for it. wasmtime-wasi keeps guests below it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::{FsPerms, WasiCtx};
use wharf_app::{Mount, Mounts};

use super::GrantError;
use super::key_value::Folder;
use crate::app::SiteRoot;

/// Why a folder can't be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no such folder, or it may not be read.
    #[error("cannot open it")]
    Open(#[source] io::Error),
    /// Something else has that name.
    #[error("expected a folder, found something else")]
    NotAFolder,
    /// The settings say `write = true`, the folder does not.
    #[error("expected a folder that this user may write to")]
    ReadOnly(#[source] io::Error),
    /// Static files lie in it, which workers never write to.
    #[error("expected another folder for `write = true` than one with the site's files")]
    Site,
    /// A key-value store lies in it, or it lies in one: a guest that writes to a
    /// database's files can end the host, or read what others' stores hold.
    #[error(
        "expected another folder for `write = true` than one with a key-value store, found {}",
        store.display()
    )]
    Store {
        /// The store's folder.
        store: PathBuf,
    },
    /// wasmtime can't open it.
    #[error("cannot open it")]
    Preopen(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl MountError {
    pub(super) fn hint(&self, folder: &str) -> Option<String> {
        match self {
            Self::Open(error) if error.kind() == io::ErrorKind::NotFound => {
                Some(format!("make the folder, or give the container a volume: docker run -v NAME:{folder}"))
            }
            Self::ReadOnly(_) => Some(
                "let the user that the host runs as (in images 65532) write there: chown the volume, or in Kubernetes set securityContext.fsGroup to 65532"
                    .into(),
            ),
            Self::Store { .. } => Some(
                "mount a folder beside the store's: /data/files for the worker, kv = { default = \"/data/kv\" }".into(),
            ),
            Self::Open(_) | Self::NotAFolder | Self::Site | Self::Preopen(_) => None,
        }
    }
}

/// A folder that a worker may write to.
pub(super) struct Writable {
    worker: String,
    /// As the settings have it.
    folder: PathBuf,
    /// Without links.
    path: PathBuf,
}

impl Writable {
    /// Whether who writes here can change files of `store`, or where it is.
    pub(super) fn reaches(&self, store: &Folder) -> bool {
        self.path.starts_with(store.path()) || store.way().iter().any(|part| part.starts_with(&self.path))
    }

    pub(super) fn refused(&self, store: &Folder) -> GrantError {
        GrantError::Mount {
            worker: self.worker.clone(),
            folder: self.folder.display().to_string(),
            source: MountError::Store { store: store.path().to_owned() },
        }
    }
}

/// The folders of `mounts`, which are open, that `worker` may write to.
pub(super) fn writable<'a>(worker: &'a str, mounts: &'a Mounts) -> impl Iterator<Item = Writable> + 'a {
    mounts.iter().filter(|mount| mount.write && mount.app.is_none()).map(|mount| Writable {
        worker: worker.to_owned(),
        folder: mount.host.clone(),
        path: mount.host.canonicalize().unwrap_or_else(|_| mount.host.clone()),
    })
}

/// The folders, open; `None` if there are none. Those of the app lie in `files`.
///
/// # Errors
/// The host's folder that can't be mounted, and why.
pub(super) fn open(
    mounts: &Mounts,
    (site, files): (&SiteRoot, &Path),
) -> Result<Option<WasiFilesystemCtx>, (PathBuf, MountError)> {
    if mounts.is_empty() {
        return Ok(None);
    }
    let mut builder = WasiCtx::builder();
    for mount in mounts.iter() {
        let folder = mount.folder(files);
        check(mount, &folder, site).map_err(|error| (folder.clone(), error))?;
        let permissions = if mount.write { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        builder
            .preopened_dir(&folder, &mount.guest, permissions)
            .map_err(|error| (folder.clone(), MountError::Preopen(error.into())))?;
    }
    Ok(Some(builder.build().filesystem().clone()))
}

fn check(mount: &Mount, folder: &Path, site: &SiteRoot) -> Result<(), MountError> {
    let open = File::open(folder).map_err(MountError::Open)?;
    if !open.metadata().map_err(MountError::Open)?.is_dir() {
        return Err(MountError::NotAFolder);
    }
    if !mount.write {
        return Ok(());
    }
    let path = folder.canonicalize().map_err(MountError::Open)?;
    if holds_site(&path, site) {
        return Err(MountError::Site);
    }
    let writable = accessat(CWD, &path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        // Linux before 5.8 can't ask for the effective user; here that is the
        // real one.
        .or_else(|error| match error {
            Errno::NOSYS | Errno::INVAL => {
                accessat(CWD, &path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::empty())
            }
            other => Err(other),
        });
    writable.map_err(|errno| MountError::ReadOnly(errno.into()))
}

/// Whether static files lie in `folder`, or it lies among them.
fn holds_site(folder: &Path, site: &SiteRoot) -> bool {
    let among = |path: &Path| {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        path.starts_with(folder)
    };
    match site {
        SiteRoot::Sealed(site) => {
            among(site) || site.canonicalize().is_ok_and(|site| folder.starts_with(site))
        }
        SiteRoot::Live(files) => files.iter().any(|file| among(file)),
    }
}
