//! What libcontainer leaves undone of a spec's mounts, put right while the
//! container's init waits for its start.
//!
//! It mounts the hierarchies of cgroup v1 writable whatever the spec says, so
//! that root in a container could raise its own limits; it ignores the
//! propagation of a single mount, and spreads all where one is to; and folders that it makes for devices may be
//! written to by anybody. A process in the container's mount namespace, which
//! runs nothing of the image, sets all three.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::waitpid;
use nix::unistd::pipe2;
use oci_spec::runtime::{Mount, Spec};

use crate::{rootfs, sys};

/// Where devices lie.
const DEVICES: &str = "/dev";

/// One thing to set.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Repair {
    /// New flags of what is mounted there.
    Flags(PathBuf, MsFlags),
    /// How mounts spread from and to it.
    Propagation(PathBuf, MsFlags),
    /// A folder for others to look into only.
    Folder(PathBuf),
}

/// Sets what the spec asks for in the container whose init is `pid`. This
/// process must have one thread.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn repair(spec: &Spec, pid: i32) -> io::Result<()> {
    let mounted = fs_err::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let repairs = repairs(spec, &mounted);
    if repairs.is_empty() {
        return Ok(());
    }
    let namespace = fs_err::File::open(format!("/proc/{pid}/ns/mnt"))?;
    let (problem, report) = pipe2(OFlag::O_CLOEXEC)?;
    let Some(child) = sys::fork()? else {
        drop(problem);
        let outcome = setns(&namespace, CloneFlags::CLONE_NEWNS).map_err(io::Error::from);
        let outcome = outcome.and_then(|()| repairs.iter().try_for_each(Repair::make));
        if let Err(error) = outcome {
            // Who waits for it learns of the failure by an empty report too.
            let _ = std::fs::File::from(report).write_all(error.to_string().as_bytes());
            std::process::exit(1);
        }
        std::process::exit(0);
    };
    drop(report);
    let mut message = String::new();
    std::fs::File::from(problem).read_to_string(&mut message)?;
    match waitpid(child, None)? {
        nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
        _ if message.is_empty() => Err(io::Error::other("the process that does it was ended")),
        _ => Err(io::Error::other(message)),
    }
}

/// What is to be set, given a `mountinfo`, proc(5).
fn repairs(spec: &Spec, mounted: &str) -> Vec<Repair> {
    let propagation = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref());
    let shared = propagation == Some("shared");
    let mut repairs = Vec::new();
    if shared {
        repairs.push(Repair::Propagation("/".into(), MsFlags::MS_PRIVATE));
    }
    for mount in spec.mounts().iter().flatten() {
        let options = rootfs::Options::parse(mount.options().as_deref().unwrap_or_default());
        if mount.typ().as_deref() == Some("cgroup") {
            let flags = options.flags & !(MsFlags::MS_BIND | MsFlags::MS_REC);
            let of_it = cgroup_mounts(mounted, mount);
            repairs.extend(of_it.into_iter().map(|at| Repair::Flags(at, flags)));
        }
        match options.propagation {
            Some(propagation) => {
                repairs.push(Repair::Propagation(mount.destination().clone(), propagation));
            }
            // Only what asks for it spreads: libcontainer shares all.
            None if shared => {
                repairs.push(Repair::Propagation(mount.destination().clone(), MsFlags::MS_PRIVATE));
            }
            None => {}
        }
    }
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    for device in devices.into_iter().flatten() {
        let folders = device.path().ancestors().skip(1);
        let below = folders.take_while(|folder| *folder != Path::new(DEVICES) && *folder != Path::new("/"));
        for folder in below.filter(|folder| folder.starts_with(DEVICES)) {
            let repair = Repair::Folder(folder.to_owned());
            if !repairs.contains(&repair) {
                repairs.push(repair);
            }
        }
    }
    repairs
}

/// The hierarchies of version 1 at `mount`. The file system that holds them
/// stays writable, as by runc.
fn cgroup_mounts(mounted: &str, mount: &Mount) -> Vec<PathBuf> {
    let lines = mounted.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let at = PathBuf::from(mount.split(' ').nth(4)?);
        Some((at, file_system.split(' ').next()?))
    });
    // Version 2, unless it is beside version 1, is one mount with its options.
    let below = lines.filter(|(at, kind)| at != mount.destination() && kind.starts_with("cgroup"));
    below.map(|(at, _)| at).filter(|at| at.starts_with(mount.destination())).collect()
}

impl Repair {
    fn make(&self) -> io::Result<()> {
        let none: Option<&str> = None;
        let (at, made) = match self {
            Self::Flags(at, flags) => {
                let flags = *flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
                (at, mount(none, at, none, flags, none).map_err(io::Error::from))
            }
            Self::Propagation(at, propagation) => {
                match mount(none, at, none, *propagation, none) {
                    // Not a mount of its own: covered by a later one.
                    Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => return Ok(()),
                    made => (at, made.map_err(io::Error::from)),
                }
            }
            Self::Folder(at) => (at, std::fs::set_permissions(at, Permissions::from_mode(0o755))),
        };
        made.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", at.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mounts: &str) -> Spec {
        let mut spec = Spec::default();
        spec.set_mounts(Some(serde_json::from_str(mounts).unwrap()));
        spec
    }

    #[test]
    fn the_hierarchies_of_version_1_get_the_flags_of_their_mount() {
        let spec = spec(
            r#"[{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup",
                 "options":["nosuid","noexec","nodev","relatime","ro"]}]"#,
        );
        let mounted = "\
            30 23 0:28 / /sys rw - sysfs sysfs rw\n\
            31 30 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 /pod /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n";
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
        let flags = flags | MsFlags::MS_RELATIME | MsFlags::MS_RDONLY;
        assert_eq!(repairs(&spec, mounted), [Repair::Flags("/sys/fs/cgroup/cpu".into(), flags)]);
        let unified = "31 30 0:28 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(repairs(&spec, unified), []);
    }

    #[test]
    fn a_mounts_own_propagation_is_set() {
        let spec = spec(
            r#"[{"destination":"/data","type":"bind","source":"/x","options":["rbind","rprivate"]},
                {"destination":"/proc","type":"proc","source":"proc","options":["nosuid"]}]"#,
        );
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        assert_eq!(repairs(&spec, ""), [Repair::Propagation("/data".into(), private)]);

        let mut spec = spec;
        spec.linux_mut().as_mut().unwrap().set_rootfs_propagation(Some("shared".into()));
        let alone = |at: &str| Repair::Propagation(at.into(), MsFlags::MS_PRIVATE);
        let expected = [alone("/"), Repair::Propagation("/data".into(), private), alone("/proc")];
        assert_eq!(repairs(&spec, ""), expected);
    }

    #[test]
    fn folders_of_devices_are_not_for_anybody_to_write_to() {
        let mut spec = spec("[]");
        let devices = r#"[{"path":"/dev/net/tun","type":"c","major":10,"minor":200},
                          {"path":"/dev/null","type":"c","major":1,"minor":3}]"#;
        let linux = spec.linux_mut().as_mut().unwrap();
        linux.set_devices(Some(serde_json::from_str(devices).unwrap()));
        assert_eq!(repairs(&spec, ""), [Repair::Folder("/dev/net".into())]);
    }
}
