//! When files of a project change.

use std::path::{Component, Path};
use std::time::Duration;

use anyhow::{Context as _, Result};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};

/// Silence after which an editor has written all that it writes.
const SILENCE: Duration = Duration::from_millis(50);

/// How long a folder that never falls silent is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Folders of other programs: what happens there is their own doing.
const FOREIGN: [&str; 6] = ["node_modules", "target", "venv", "zig-cache", "zig-out", "__pycache__"];

/// Changes of a folder's files.
pub(super) struct Changes {
    events: UnboundedReceiver<()>,
    /// Watches for as long as it lives.
    _watcher: RecommendedWatcher,
}

impl Changes {
    /// Of the files below `dir`, but for hidden ones and those of other programs.
    pub(super) fn of(dir: &Path) -> Result<Self> {
        let (sender, events) = unbounded_channel();
        let root = dir.to_owned();
        let told = move |event: notify::Result<notify::Event>| {
            // An error is that events were lost: better to look than not.
            let matters = event.as_ref().map_or(true, |event| {
                !matches!(event.kind, EventKind::Access(_))
                    && event
                        .paths
                        .iter()
                        .any(|path| is_project_file(path.strip_prefix(&root).unwrap_or(path)))
            });
            if matters {
                let _ = sender.send(());
            }
        };
        let mut watcher = notify::recommended_watcher(told).context("cannot watch files")?;
        watcher
            .watch(dir, RecursiveMode::Recursive)
            .with_context(|| format!("cannot watch {}", dir.display()))?;
        Ok(Self { events, _watcher: watcher })
    }

    /// Forgets what has changed so far.
    pub(super) fn take(&mut self) {
        while self.events.try_recv().is_ok() {}
    }

    /// Waits until something has changed, and nothing more does.
    pub(super) async fn wait(&mut self) {
        if self.events.recv().await.is_none() {
            // Nothing will ever be told: what is served stays.
            std::future::pending::<()>().await;
        }
        let silence = async { while let Ok(Some(())) = timeout(SILENCE, self.events.recv()).await {} };
        tokio::select! {
            () = silence => {}
            () = sleep(PATIENCE) => {}
        }
    }
}

/// Whether a path below the project is one of its files, not an editor's or a
/// compiler's.
fn is_project_file(path: &Path) -> bool {
    let mut names = path.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    // vim tries with a file 4913 whether it can write.
    !names
        .any(|name| name.starts_with('.') || name.ends_with('~') || name == "4913" || FOREIGN.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_editors_and_compilers_are_not_the_projects() {
        for path in ["api/x.py", "_lib.py", "public/a/b.css", "wharf.toml"] {
            assert!(is_project_file(Path::new(path)), "{path}");
        }
        for path in [".git/index", "api/.x.py.swp", "x.py~", "node_modules/a/b.js", "_w/target/x", "4913"] {
            assert!(!is_project_file(Path::new(path)), "{path}");
        }
    }

    #[tokio::test]
    async fn a_change_is_told_once_and_a_foreign_one_never() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("node_modules")).unwrap();
        let mut changes = Changes::of(dir.path()).unwrap();
        fs_err::write(dir.path().join("node_modules/x"), "").unwrap();
        fs_err::write(dir.path().join("index.py"), "a").unwrap();
        fs_err::write(dir.path().join("index.py"), "b").unwrap();
        timeout(Duration::from_secs(10), changes.wait()).await.unwrap();
        assert!(changes.events.try_recv().is_err());
    }
}
