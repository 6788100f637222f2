//! Processes that the kernel ended because their container had no memory left.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use crate::cgroup::Cgroup;
use crate::sys;

/// Counts them by the kernel's own counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct OomCounter {
    /// Which has a line `oom_kill N`.
    file: Option<PathBuf>,
    seen: u64,
}

/// Tells when a cgroup's counter may have grown.
pub(crate) struct OomWatch {
    notice: AsyncFd<File>,
}

impl OomCounter {
    /// That of `cgroup`; one that stays at 0 if it has no memory controller.
    pub(crate) fn of(cgroup: &Cgroup) -> Self {
        // Of version 1 and of version 2.
        let files = ["memory.oom_control", "memory.events"];
        let paths = cgroup.folders().iter().flat_map(|folder| files.map(|file| folder.join(file)));
        let mut counter = Self { file: paths.into_iter().find(|path| path.exists()), seen: 0 };
        counter.has_grown();
        counter
    }

    /// Whether it has grown since this was asked last.
    pub(crate) fn has_grown(&mut self) -> bool {
        let text = self.file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        let text = text.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        let count = line.and_then(|count| count.trim().parse().ok()).unwrap_or(self.seen);
        std::mem::replace(&mut self.seen, count) < count
    }

    /// Watches it; nothing if there is no memory controller.
    ///
    /// # Errors
    /// The kernel refuses, chiefly because of a limit.
    pub(crate) fn watch(&self) -> io::Result<Option<OomWatch>> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let notice = match file.parent() {
            Some(folder) if file.ends_with("memory.oom_control") => watch_v1(file, folder)?,
            _ => watch_v2(file)?,
        };
        Ok(Some(OomWatch { notice: sys::register(notice)? }))
    }
}

impl OomWatch {
    /// Returns when the counter may have grown, or the cgroup is gone.
    ///
    /// # Errors
    /// The runtime ends.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut ready = self.notice.readable().await?;
            match ready.try_io(|notice| Ok(rustix::io::read(notice, &mut buffer)?)) {
                Ok(read) => return read.map(drop),
                Err(_not_ready) => {}
            }
        }
    }
}

/// cgroup-v1/memory.txt, section 10: a descriptor that counts.
fn watch_v1(control: &Path, folder: &Path) -> io::Result<File> {
    let notice = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = fs_err::File::open(control)?;
    let line = format!("{} {}", notice.as_raw_fd(), control.as_raw_fd());
    fs_err::write(folder.join("cgroup.event_control"), line)?;
    Ok(notice.into())
}

/// cgroup-v2.rst: the file is modified when a counter of it grows.
fn watch_v2(events: &Path) -> io::Result<File> {
    let notice = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&notice, events, inotify::WatchFlags::MODIFY)?;
    Ok(notice.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn counter(name: &str, text: &str) -> (tempfile::TempDir, OomCounter) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
        let counter = OomCounter::of(&Cgroup::new(vec![folder.path().to_owned()]));
        (folder, counter)
    }

    #[test]
    fn only_growth_counts() {
        for file in ["memory.oom_control", "memory.events"] {
            let (folder, mut counter) = counter(file, "low 0\noom 3\noom_kill 1\n");
            assert!(!counter.has_grown(), "what was before");
            std::fs::write(folder.path().join(file), "oom_kill 2\n").unwrap();
            assert!(counter.has_grown());
            assert!(!counter.has_grown());
            std::fs::remove_file(folder.path().join(file)).unwrap();
            assert!(!counter.has_grown(), "a cgroup that is gone");
        }
    }

    #[tokio::test]
    async fn a_change_of_version_2_is_noticed() {
        let (folder, counter) = counter("memory.events", "oom_kill 0\n");
        let watch = counter.watch().unwrap().unwrap();
        std::fs::write(folder.path().join("memory.events"), "oom_kill 1\n").unwrap();
        tokio::time::timeout(Duration::from_secs(5), watch.wait()).await.unwrap().unwrap();
    }

    #[test]
    fn without_a_memory_controller_there_is_nothing_to_watch() {
        let mut counter = OomCounter::of(&Cgroup::default());
        assert!(!counter.has_grown());
        assert!(counter.watch().unwrap().is_none());
    }
}
