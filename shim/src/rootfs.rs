//! The container's root file system: mounting containerd's snapshot, and
//! opening files of it safely from outside.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};
use serde::{Deserialize, Serialize};

/// Bytes of mount options that the kernel takes: a page, less its last byte.
const MAX_OPTIONS: usize = 4095;

/// One of containerd's mounts, which together make the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// `overlay`, `bind`, …
    pub(crate) kind: String,
    /// Device or folder.
    pub(crate) source: String,
    /// Below the root file system; mostly empty.
    pub(crate) target: String,
    /// As in fstab(5).
    pub(crate) options: Vec<String>,
}

/// Why a root file system can't be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    /// A folder can't be made; the cause names it.
    #[error("cannot make the mount point")]
    Point(#[source] io::Error),
    /// The kernel refuses.
    #[error("cannot mount {kind} on {target}")]
    Mount {
        /// The type.
        kind: String,
        /// Where.
        target: PathBuf,
        /// Its reason.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses.
    #[error("cannot unmount {target}")]
    Unmount {
        /// What.
        target: PathBuf,
        /// Its reason.
        #[source]
        source: io::Error,
    },
}

/// Mounts `mounts`, in order, on `rootfs`. Changes the working directory while
/// it does, so only a process with one thread may call it.
///
/// # Errors
/// [`MountError`]; what is mounted by then stays for [`unmount_all`].
pub(crate) fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<(), MountError> {
    for mount in mounts {
        let target = rootfs.join(mount.target.trim_start_matches('/'));
        fs_err::create_dir_all(&target).map_err(MountError::Point)?;
        mount_one(mount, &target).map_err(|source| MountError::Mount {
            kind: mount.kind.clone(),
            target,
            source,
        })?;
    }
    Ok(())
}

/// Unmounts everything on `rootfs`. That nothing is mounted is no error.
///
/// # Errors
/// [`MountError::Unmount`].
pub(crate) fn unmount_all(rootfs: &Path) -> Result<(), MountError> {
    loop {
        // Detached: a process that is dying may still hold a file open.
        match umount2(rootfs, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(error) => {
                return Err(MountError::Unmount { target: rootfs.to_owned(), source: error.into() });
            }
        }
    }
}

fn mount_one(request: &Mount, target: &Path) -> io::Result<()> {
    let mut options = Options::parse(&request.options);
    let working_directory = std::env::current_dir()?;
    if options.data.len() > MAX_OPTIONS
        && let Some(folder) = options.shorten()
    {
        std::env::set_current_dir(folder)?;
    }
    let kind = (request.kind != "bind").then_some(request.kind.as_str());
    let data = Some(options.data.as_str()).filter(|data| !data.is_empty());
    let mounted = mount(Some(request.source.as_str()), target, kind, options.flags, data);
    std::env::set_current_dir(working_directory)?;
    mounted?;

    let nothing = None::<&str>;
    // The kernel takes a bind mount's other flags only in a second call.
    if options.flags.contains(MsFlags::MS_BIND | MsFlags::MS_RDONLY) {
        mount(nothing, target, nothing, options.flags | MsFlags::MS_REMOUNT, nothing)?;
    }
    if let Some(propagation) = options.propagation {
        mount(nothing, target, nothing, propagation, nothing)?;
    }
    Ok(())
}

/// Mount options, sorted into what mount(2) takes them as.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Of the mount itself.
    pub(crate) flags: MsFlags,
    /// How mounts spread from and to it, if that is said.
    pub(crate) propagation: Option<MsFlags>,
    data: String,
}

impl Options {
    /// Reads options as fstab(5) and the runtime spec have them.
    pub(crate) fn parse(options: &[String]) -> Self {
        let mut parsed = Self { flags: MsFlags::empty(), propagation: None, data: String::new() };
        for option in options {
            let (flag, set) = match option.as_str() {
                "" | "defaults" | "loop" => continue,
                "ro" => (MsFlags::MS_RDONLY, true),
                "rw" => (MsFlags::MS_RDONLY, false),
                "nosuid" => (MsFlags::MS_NOSUID, true),
                "suid" => (MsFlags::MS_NOSUID, false),
                "nodev" => (MsFlags::MS_NODEV, true),
                "dev" => (MsFlags::MS_NODEV, false),
                "noexec" => (MsFlags::MS_NOEXEC, true),
                "exec" => (MsFlags::MS_NOEXEC, false),
                "noatime" => (MsFlags::MS_NOATIME, true),
                "atime" => (MsFlags::MS_NOATIME, false),
                "relatime" => (MsFlags::MS_RELATIME, true),
                "norelatime" => (MsFlags::MS_RELATIME, false),
                "strictatime" => (MsFlags::MS_STRICTATIME, true),
                "sync" => (MsFlags::MS_SYNCHRONOUS, true),
                "async" => (MsFlags::MS_SYNCHRONOUS, false),
                "bind" => (MsFlags::MS_BIND, true),
                "rbind" => (MsFlags::MS_BIND | MsFlags::MS_REC, true),
                "private" => (MsFlags::MS_PRIVATE, true),
                "rprivate" => (MsFlags::MS_PRIVATE | MsFlags::MS_REC, true),
                "slave" => (MsFlags::MS_SLAVE, true),
                "rslave" => (MsFlags::MS_SLAVE | MsFlags::MS_REC, true),
                "shared" => (MsFlags::MS_SHARED, true),
                "rshared" => (MsFlags::MS_SHARED | MsFlags::MS_REC, true),
                data => {
                    if !parsed.data.is_empty() {
                        parsed.data.push(',');
                    }
                    parsed.data.push_str(data);
                    continue;
                }
            };
            let propagation = MsFlags::MS_PRIVATE | MsFlags::MS_SLAVE | MsFlags::MS_SHARED;
            if flag.intersects(propagation) {
                parsed.propagation = Some(flag);
            } else {
                parsed.flags.set(flag, set);
            }
        }
        parsed
    }

    /// Makes overlay's long list of layers relative to their common folder,
    /// which is the result: the mount must then be made from there.
    fn shorten(&mut self) -> Option<PathBuf> {
        let mut options: Vec<String> = self.data.split(',').map(str::to_owned).collect();
        let layers = options.iter_mut().find(|option| option.starts_with("lowerdir="))?;
        let paths: Vec<&str> = layers.strip_prefix("lowerdir=")?.split(':').collect();
        let first = paths.first()?.as_bytes();
        let common =
            |end: &usize| paths.iter().all(|path| path.as_bytes().get(..*end) == Some(&first[..*end]));
        let ends = (1..=first.len()).filter(|end| first[end - 1] == b'/');
        let end = ends.take_while(common).last()?;
        let folder = PathBuf::from(&paths[0][..end]);
        let relative: Vec<&str> = paths.iter().map(|path| &path[end..]).collect();
        if relative.iter().any(|path| path.is_empty()) {
            return None;
        }
        *layers = format!("lowerdir={}", relative.join(":"));
        self.data = options.join(",");
        Some(folder)
    }
}

/// A mounted root file system, seen from outside of the container.
#[derive(Debug)]
pub(crate) struct Rootfs {
    folder: OwnedFd,
}

impl Rootfs {
    /// The one mounted at `path`.
    ///
    /// # Errors
    /// It can't be opened.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Self { folder })
    }

    /// Makes the folder `path` and those above it, where there is nothing yet:
    /// a working directory need not be in an image. What is mounted later may
    /// cover it.
    ///
    /// # Errors
    /// Something else is in the way, or the image can't be written to.
    pub(crate) fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut made = PathBuf::from("/");
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let parent = self.open_folder(&made)?;
            made.push(name);
            if self.open_folder(&made).is_ok() {
                continue;
            }
            let mode = Mode::from_bits_truncate(0o755);
            match mkdirat(&parent, name, mode) {
                // A link that leads nowhere, say: the start tells of it.
                Ok(()) | Err(Errno::EEXIST | Errno::EROFS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn open_folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let below = path.strip_prefix("/").unwrap_or(path);
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        Ok(openat2(&self.folder, below, how)?)
    }

    /// Whether there is anything at `path`, as the container would find it.
    pub(crate) fn has(&self, path: &str) -> bool {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.folder, path.trim_start_matches('/'), how).is_ok()
    }

    /// Opens a regular file for reading. Links in the image are followed as
    /// the container would follow them: none leads out of it.
    ///
    /// # Errors
    /// There is no such file, or it is not a regular one.
    pub(crate) fn read(&self, path: &str) -> io::Result<File> {
        let how = OpenHow::new()
            // Not blocked by a fifo that an image has at this path.
            .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = File::from(openat2(&self.folder, path.trim_start_matches('/'), how)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn options(text: &str) -> Options {
        let options: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Options::parse(&options)
    }

    #[test]
    fn options_become_flags_and_data() {
        let parsed = options("rbind ro nosuid rprivate index=off upperdir=/u");
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID;
        assert_eq!(parsed.flags, flags);
        assert_eq!(parsed.propagation, Some(MsFlags::MS_PRIVATE | MsFlags::MS_REC));
        assert_eq!(parsed.data, "index=off,upperdir=/u");
        assert_eq!(options("ro rw").flags, MsFlags::empty());
    }

    #[test]
    fn layers_are_made_relative_to_their_common_folder() {
        let mut parsed = options("workdir=/s/9/work lowerdir=/s/10/fs:/s/1/fs");
        assert_eq!(parsed.shorten(), Some("/s/".into()));
        assert_eq!(parsed.data, "workdir=/s/9/work,lowerdir=10/fs:1/fs");
        assert_eq!(options("lowerdir=a:b").shorten(), None);
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("app")).unwrap();
        std::fs::write(folder.path().join("secret"), "outside").unwrap();
        std::fs::write(root.join("secret"), "inside").unwrap();
        std::os::unix::fs::symlink("../../secret", root.join("app/up")).unwrap();
        std::os::unix::fs::symlink("/secret", root.join("app/absolute")).unwrap();
        let rootfs = Rootfs::open(&root).unwrap();
        for path in ["/app/up", "/app/absolute", "/../secret"] {
            let mut text = String::new();
            rootfs.read(path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside", "{path}");
        }
        assert!(rootfs.read("/app").is_err());
    }

    #[test]
    fn a_working_directory_is_made_within_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("../../outside", root.join("link")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        let rootfs = Rootfs::open(&root).unwrap();
        rootfs.make_folder(Path::new("/a/b/../c")).unwrap();
        assert!(root.join("a/b").is_dir() && root.join("a/b/c").is_dir());
        rootfs.make_folder(Path::new("/")).unwrap();
        assert!(rootfs.make_folder(Path::new("/file/a")).is_err());
        let _ = rootfs.make_folder(Path::new("/link/a"));
        assert!(!folder.path().join("outside").exists());
    }

    #[test]
    fn nothing_mounted_is_nothing_to_unmount() {
        let folder = tempfile::tempdir().unwrap();
        unmount_all(&folder.path().join("rootfs")).unwrap();
    }
}
