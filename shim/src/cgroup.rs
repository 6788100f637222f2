//! A container's cgroup: its folder in each hierarchy, its processes, its end.
//!
//! libcontainer makes the cgroup and sets its limits. Here it is only found,
//! read, killed and removed, the same way for cgroup v1, v2 and both mixed.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys;

pub(crate) mod limited;

/// Longest wait for killed processes to be gone. One in an uninterruptible
/// system call may take longer; then removing the cgroup fails and says so.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file with a cgroup's processes.
const PROCESSES: &str = "cgroup.procs";

/// A mounted cgroup file system.
#[derive(Debug)]
struct Hierarchy {
    mounted_at: PathBuf,
    /// The folder of the file system that is mounted there.
    root: PathBuf,
    /// Its controllers and, with `name=`, its name; empty for cgroup v2.
    controllers: Vec<String>,
}

/// A process's place in a hierarchy: the controllers, none for cgroup v2, and the
/// path.
type Membership = (Vec<String>, PathBuf);

/// A container's folder in each hierarchy that it has one in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cgroup {
    folders: Vec<PathBuf>,
}

/// Why a cgroup can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    /// A file of it can't be read; the cause names it.
    #[error("cannot read cgroup")]
    Read(#[from] io::Error),
    /// Processes in it survive being killed.
    #[error("cannot empty cgroup {path}: process {pid} does not end")]
    Alive {
        /// The folder.
        path: PathBuf,
        /// One of them.
        pid: i32,
    },
    /// It can't be removed; the cause names the folder.
    #[error("cannot remove cgroup")]
    Remove(#[source] io::Error),
}

impl Cgroup {
    /// The cgroup with these folders.
    pub(crate) fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    /// The cgroup that the process `pid` is in, as far as it is not also ours.
    ///
    /// # Errors
    /// The process or the mounts can't be read.
    pub(crate) fn of_process(pid: i32) -> io::Result<Self> {
        let ours = memberships(&fs_err::read_to_string("/proc/self/cgroup")?);
        let theirs = memberships(&fs_err::read_to_string(format!("/proc/{pid}/cgroup"))?);
        let hierarchies = hierarchies()?;
        let own = theirs.iter().filter(|membership| !ours.contains(membership));
        Ok(Self::new(own.filter_map(|membership| folder_of(&hierarchies, membership)).collect()))
    }

    /// The cgroup that a spec's `cgroupsPath` names, wherever it exists.
    ///
    /// # Errors
    /// The mounts can't be read.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let path = unit_path(path).unwrap_or_else(|| path.to_owned());
        let ours = memberships(&fs_err::read_to_string("/proc/self/cgroup")?);
        if path == Path::new("/") || ours.iter().any(|(_, own)| *own == path) {
            return Ok(Self::default());
        }
        let folders = hierarchies()?.into_iter().map(|hierarchy| hierarchy.folder(&path));
        Ok(Self::new(folders.filter(|folder| folder.is_dir()).collect()))
    }

    /// Its folders.
    pub(crate) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The processes in it and in the cgroups below it.
    ///
    /// # Errors
    /// A file can't be read. A cgroup that is gone has no processes.
    pub(crate) fn processes(&self) -> io::Result<BTreeSet<i32>> {
        let mut found = BTreeSet::new();
        for folder in self.folders.iter().flat_map(|folder| tree(folder)) {
            found.extend(read_processes(&folder)?);
        }
        Ok(found)
    }

    /// Puts the process `pid` into it.
    ///
    /// # Errors
    /// The kernel refuses in one of the hierarchies.
    pub(crate) fn join(&self, pid: i32) -> io::Result<()> {
        self.folders.iter().try_for_each(|folder| fs_err::write(folder.join(PROCESSES), pid.to_string()))
    }

    /// Stops all its processes where they are, and returns once they stand.
    ///
    /// # Errors
    /// The kernel refuses, or does not get there in some seconds.
    pub(crate) async fn freeze(&self) -> io::Result<()> {
        let freezer = self.freezer()?;
        freezer.set(true)?;
        let deadline = Instant::now() + PATIENCE;
        while !freezer.is_frozen()? {
            if Instant::now() > deadline {
                return Err(io::Error::other("its processes do not stand still"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            // Of version 1, a process that came late makes it begin anew.
            freezer.set(true)?;
        }
        Ok(())
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.freezer()?.set(false)
    }

    fn freezer(&self) -> io::Result<Freezer> {
        let with = |file: &str| {
            let mut files = self.folders.iter().map(|folder| folder.join(file));
            files.find(|path| path.exists())
        };
        let v1 = with("freezer.state").map(Freezer::V1);
        let v2 = || Some(Freezer::V2 { set: with("cgroup.freeze")?, events: with("cgroup.events")? });
        v1.or_else(v2).ok_or_else(|| io::Error::other("it has no freezer"))
    }

    /// Sends `signal` to every process in it.
    ///
    /// # Errors
    /// Its processes can't be read.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        for pid in self.processes()? {
            // One that has ended meanwhile needs no signal.
            let _ = sys::send_signal(pid, signal);
        }
        Ok(())
    }

    /// Kills all processes in it and waits until they have left it.
    ///
    /// # Errors
    /// [`CgroupError::Alive`] after some seconds.
    pub(crate) fn kill(&self) -> Result<(), CgroupError> {
        // A frozen process of version 1 does not end. Most have no freezer by
        // now, or are not frozen.
        let _ = self.thaw();
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(200);
        loop {
            let processes = self.processes()?;
            let Some(&pid) = processes.first() else {
                return Ok(());
            };
            if Instant::now() > deadline {
                let path = self.folders.first().cloned().unwrap_or_default();
                return Err(CgroupError::Alive { path, pid });
            }
            self.signal(libc::SIGKILL)?;
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Removes it and the cgroups below it, which must have no processes.
    ///
    /// # Errors
    /// A folder can't be removed.
    pub(crate) fn remove(&self) -> Result<(), CgroupError> {
        for folder in self.folders.iter().flat_map(|folder| tree(folder)) {
            remove_folder(&folder).map_err(CgroupError::Remove)?;
        }
        Ok(())
    }
}

/// Has the kernel get ready for processes to join cgroups, which takes it a
/// grace period of RCU: 5 to 20 ms, unless one joined just before. A container's
/// init would wait for that; so it begins here, beside all that comes before. A
/// process joins the cgroup that it is in already, which changes nothing.
pub(crate) fn expect_joins() {
    let join = || {
        let memberships = memberships(&fs_err::read_to_string("/proc/self/cgroup")?);
        let hierarchies = hierarchies()?;
        let folder = memberships.iter().find_map(|membership| folder_of(&hierarchies, membership));
        let folder = folder.ok_or_else(|| io::Error::other("no cgroup is mounted"))?;
        fs_err::write(folder.join(PROCESSES), "0")
    };
    let thread = thread::Builder::new().name("cgroup".into()).stack_size(64 << 10);
    let thread =
        thread.spawn(move || join().inspect_err(|error| tracing::debug!(%error, "cannot expect joins")));
    // Without it containers start all the same.
    drop(thread);
}

/// What stops all processes of a cgroup: cgroup-v1/freezer-subsystem.txt and
/// cgroup-v2.rst, `cgroup.freeze`.
enum Freezer {
    V1(PathBuf),
    V2 { set: PathBuf, events: PathBuf },
}

impl Freezer {
    fn set(&self, frozen: bool) -> io::Result<()> {
        match self {
            Self::V1(state) => fs_err::write(state, if frozen { "FROZEN" } else { "THAWED" }),
            Self::V2 { set, .. } => fs_err::write(set, if frozen { "1" } else { "0" }),
        }
    }

    fn is_frozen(&self) -> io::Result<bool> {
        match self {
            Self::V1(state) => Ok(fs_err::read_to_string(state)?.trim() == "FROZEN"),
            Self::V2 { events, .. } => {
                Ok(fs_err::read_to_string(events)?.lines().any(|line| line == "frozen 1"))
            }
        }
    }
}

impl Hierarchy {
    fn folder(&self, path: &Path) -> PathBuf {
        // Within a container, a part of the hierarchy is mounted.
        let path = path.strip_prefix(&self.root).unwrap_or(path);
        self.mounted_at.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// The mounted hierarchies.
fn hierarchies() -> io::Result<Vec<Hierarchy>> {
    Ok(parse_mounts(&fs_err::read_to_string("/proc/self/mountinfo")?))
}

/// Reads the cgroup file systems of a `mountinfo`, proc(5).
fn parse_mounts(mounts: &str) -> Vec<Hierarchy> {
    let parse = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, mounted_at) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        let controllers = match file_system.next()? {
            "cgroup2" => Vec::new(),
            "cgroup" => file_system.nth(1)?.split(',').map(str::to_owned).collect(),
            _ => return None,
        };
        Some(Hierarchy { mounted_at: mounted_at.into(), root: root.into(), controllers })
    };
    mounts.lines().filter_map(parse).collect()
}

/// Reads a process's `cgroup` file, cgroups(7).
fn memberships(text: &str) -> Vec<Membership> {
    let parse = |line: &str| {
        let (_, line) = line.split_once(':')?;
        let (controllers, path) = line.split_once(':')?;
        let controllers = controllers.split(',').filter(|name| !name.is_empty());
        Some((controllers.map(str::to_owned).collect(), path.into()))
    };
    text.lines().filter_map(parse).collect()
}

/// Where the cgroup of a membership is mounted, if it is.
fn folder_of(hierarchies: &[Hierarchy], (controllers, path): &Membership) -> Option<PathBuf> {
    let has = |hierarchy: &&Hierarchy| {
        hierarchy.controllers.is_empty() == controllers.is_empty()
            && controllers.iter().all(|name| hierarchy.controllers.contains(name))
    };
    Some(hierarchies.iter().find(has)?.folder(path))
}

/// Where systemd puts the unit of a `slice:prefix:name`.
fn unit_path(path: &Path) -> Option<PathBuf> {
    let mut parts = path.to_str()?.splitn(3, ':');
    let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    let mut folder = PathBuf::from("/");
    let stem = slice.strip_suffix(".slice")?;
    // `a-b.slice` lies in `a.slice`; the root slice is `-`.
    for (dash, _) in stem.match_indices('-').filter(|(dash, _)| *dash > 0) {
        folder.push(format!("{}.slice", &stem[..dash]));
    }
    if stem != "-" {
        folder.push(slice);
    }
    let unit = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
    folder.push(if unit.ends_with(".slice") { unit } else { format!("{unit}.scope") });
    Some(folder)
}

/// The cgroup `folder` and all below it, innermost first.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        found.extend(tree(&entry.path()));
    }
    found.push(folder.to_owned());
    found
}

fn read_processes(folder: &Path) -> io::Result<Vec<i32>> {
    match fs_err::read_to_string(folder.join(PROCESSES)) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // ENODEV: removed between open and read.
        Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs_err::remove_dir(folder) {
            // A process that has left may hold it busy a moment longer.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) if !is_gone(&error) => return Err(error),
            _ => return Ok(()),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 /outer /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let found = parse_mounts(MOUNTS);
        let folder = |n: usize, path: &str| found[n].folder(Path::new(path));
        assert_eq!(found.len(), 3);
        assert_eq!(folder(0, "/docker/a"), Path::new("/sys/fs/cgroup/cpu/docker/a"));
        assert!(found[1].controllers.contains(&"name=systemd".to_owned()));
        assert_eq!(folder(2, "/outer/b"), Path::new("/sys/fs/cgroup/unified/b"));
    }

    #[test]
    fn the_memberships_of_a_process_are_read() {
        let found = memberships("9:name=systemd:/a\n1:cpu,cpuacct:/b:c\n0::/d\n");
        assert_eq!(found[0], (vec!["name=systemd".into()], "/a".into()));
        assert_eq!(found[1].1, Path::new("/b:c"));
        assert_eq!(found[2], (vec![], "/d".into()));
    }

    #[test]
    fn a_systemd_unit_lies_in_its_slices() {
        let path = |text: &str| unit_path(Path::new(text)).unwrap();
        let expected = "/kube.slice/kube-pod.slice/cri-abc.scope";
        assert_eq!(path("kube-pod.slice:cri:abc"), Path::new(expected));
        assert_eq!(path(":docker:x"), Path::new("/system.slice/docker-x.scope"));
        assert_eq!(path("-.slice:a:b"), Path::new("/a-b.scope"));
        assert_eq!(unit_path(Path::new("/default/abc")), None);
    }

    #[test]
    fn our_own_cgroup_is_never_taken_for_a_containers() {
        let ourselves = i32::try_from(std::process::id()).unwrap();
        assert_eq!(Cgroup::of_process(ourselves).unwrap(), Cgroup::default());
        assert_eq!(Cgroup::at(Path::new("/")).unwrap(), Cgroup::default());
    }

    #[test]
    fn a_cgroup_that_is_gone_has_no_processes() {
        let cgroup = Cgroup::new(vec!["/sys/fs/cgroup/no/such".into()]);
        assert!(cgroup.processes().unwrap().is_empty());
        cgroup.kill().unwrap();
        cgroup.remove().unwrap();
    }
}
