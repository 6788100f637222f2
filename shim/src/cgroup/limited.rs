//! A cgroup of our own, with limits, for one process that works for the node.
//!
//! It lies at the top, beside those of containers: what it takes is the
//! node's, not the pod's, and below it cgroup v2 would not allow limits.

use std::io;
use std::path::{Path, PathBuf};

use super::{Cgroup, Hierarchy, hierarchies};

/// Microseconds after which the CPU's limit starts anew.
const PERIOD: u32 = 100_000;

/// A cgroup with limits, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Limited {
    cgroup: Cgroup,
    /// The file that counts what the kernel killed for want of memory.
    kills: PathBuf,
}

impl Limited {
    /// Makes the cgroup `PREFIX-PID`, after this process's id, and removes those
    /// of processes that ended without doing so. `cpu` is in thousandths of a
    /// CPU; where that can't be limited, only memory is.
    ///
    /// # Errors
    /// Memory can't be limited.
    pub(crate) fn create(prefix: &str, memory: u64, cpu: u32) -> io::Result<Self> {
        let name = format!("{prefix}-{}", std::process::id());
        let mut made = Self { cgroup: Cgroup::default(), kills: PathBuf::new() };
        for hierarchy in hierarchies()? {
            remove_old(&hierarchy.mounted_at, prefix);
            let folder = hierarchy.mounted_at.join(&name);
            let has = |controller| hierarchy.has(controller);
            let (memory_here, cpu_here) = (has("memory"), has("cpu"));
            if !memory_here && !cpu_here {
                continue;
            }
            // Of an earlier process with this id.
            let _ = std::fs::remove_dir(&folder);
            fs_err::create_dir(&folder)?;
            made.cgroup.folders.push(folder.clone());
            let is_v2 = hierarchy.controllers.is_empty();
            if memory_here {
                made.kills = limit_memory(&folder, memory, is_v2)?;
            }
            if cpu_here && let Err(error) = limit_cpu(&folder, cpu, is_v2) {
                tracing::warn!(%error, "cannot limit the compiler's CPU time");
            }
        }
        if made.kills.as_os_str().is_empty() {
            return Err(io::Error::other("no hierarchy of cgroups limits memory"));
        }
        Ok(made)
    }

    /// Its folders, for a process to join.
    pub(crate) fn folders(&self) -> &[PathBuf] {
        self.cgroup.folders()
    }

    /// Whether the kernel has killed a process of it for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let text = std::fs::read_to_string(&self.kills).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.is_some_and(|count| count.trim() != "0")
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.cgroup.kill();
        let _ = self.cgroup.remove();
    }
}

/// Moves this process into a cgroup.
///
/// # Errors
/// It is gone, or is not ours.
pub(crate) fn join(folder: &Path) -> io::Result<()> {
    fs_err::write(folder.join("cgroup.procs"), "0")
}

impl Hierarchy {
    /// Whether cgroups at its top can have this controller.
    fn has(&self, controller: &str) -> bool {
        if !self.controllers.is_empty() {
            return self.controllers.iter().any(|name| name == controller);
        }
        let is_in = |file: &str| {
            let text = std::fs::read_to_string(self.mounted_at.join(file)).unwrap_or_default();
            text.split_whitespace().any(|name| name == controller)
        };
        let enabled = "cgroup.subtree_control";
        // Usually systemd has enabled it already.
        is_in(enabled)
            || is_in("cgroup.controllers")
                && std::fs::write(self.mounted_at.join(enabled), format!("+{controller}")).is_ok()
    }
}

fn limit_memory(folder: &Path, memory: u64, is_v2: bool) -> io::Result<PathBuf> {
    let memory = memory.to_string();
    if is_v2 {
        fs_err::write(folder.join("memory.max"), memory)?;
        // Or it would fill the swap first. There may be no such file.
        let _ = std::fs::write(folder.join("memory.swap.max"), "0");
        Ok(folder.join("memory.events"))
    } else {
        fs_err::write(folder.join("memory.limit_in_bytes"), &memory)?;
        let _ = std::fs::write(folder.join("memory.memsw.limit_in_bytes"), memory);
        Ok(folder.join("memory.oom_control"))
    }
}

/// A limit and no smaller share: a container waits for it, and with a fifth of
/// the usual share it took 75 s on a busy machine for 12 s of work.
fn limit_cpu(folder: &Path, cpu: u32, is_v2: bool) -> io::Result<()> {
    let quota = u64::from(cpu) * u64::from(PERIOD) / 1000;
    if is_v2 {
        fs_err::write(folder.join("cpu.max"), format!("{quota} {PERIOD}"))
    } else {
        fs_err::write(folder.join("cpu.cfs_period_us"), PERIOD.to_string())?;
        fs_err::write(folder.join("cpu.cfs_quota_us"), quota.to_string())
    }
}

/// Removes cgroups whose makers were killed. One with a process in it stays:
/// the kernel does not remove it.
fn remove_old(top: &Path, prefix: &str) {
    for entry in std::fs::read_dir(top).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_prefix('-'));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_limits_are_the_kernels_and_it_goes_when_dropped() {
        // Only root may make one, and only where there are cgroups.
        let Ok(limited) = Limited::create("wharf-test", 64 << 20, 1500) else { return };
        let folders = limited.folders().to_vec();
        let read =
            |file: &str| folders.iter().find_map(|folder| std::fs::read_to_string(folder.join(file)).ok());
        let memory = read("memory.max").or_else(|| read("memory.limit_in_bytes"));
        assert_eq!(memory.as_deref().map(str::trim), Some("67108864"));
        let quota = read("cpu.max").or_else(|| read("cpu.cfs_quota_us"));
        assert!(quota.is_none_or(|quota| quota.starts_with("150000")));
        assert!(!limited.ran_out_of_memory());
        drop(limited);
        assert!(folders.iter().all(|folder| !folder.exists()));
    }

    #[test]
    fn both_versions_are_told_the_limits_in_their_words() {
        let folder = tempfile::tempdir().unwrap();
        let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
        let kills = limit_memory(folder.path(), 64 << 20, true).unwrap();
        limit_cpu(folder.path(), 500, true).unwrap();
        assert_eq!(kills, folder.path().join("memory.events"));
        assert_eq!((read("memory.max").as_str(), read("memory.swap.max").as_str()), ("67108864", "0"));
        assert_eq!(read("cpu.max"), "50000 100000");
        limit_memory(folder.path(), 64 << 20, false).unwrap();
        limit_cpu(folder.path(), 500, false).unwrap();
        assert_eq!(read("memory.limit_in_bytes"), "67108864");
        assert_eq!(read("cpu.cfs_quota_us"), "50000");
    }

    #[test]
    fn one_whose_maker_was_killed_is_removed() {
        let top = tempfile::tempdir().unwrap();
        let ours = top.path().join(format!("wharf-{}", std::process::id()));
        let old = top.path().join("wharf-999999999");
        let other = top.path().join("other-999999999");
        for folder in [&ours, &old, &other] {
            std::fs::create_dir(folder).unwrap();
        }
        remove_old(top.path(), "wharf");
        assert!(ours.exists() && other.exists() && !old.exists());
    }
}
