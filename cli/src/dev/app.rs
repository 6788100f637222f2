//! The app itself, in a process of its own.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex as AsyncMutex;
use wharf_app::Project;

use crate::arguments::Global;
use crate::places::Places;
use crate::progress::Progress;
use crate::target;

/// Bytes of what an app said last that are kept.
const MOST_SAID: usize = 64 << 10;

/// How long requests in flight may take when another app has taken over.
const GRACE: Duration = Duration::from_secs(5);

/// An app that is being served.
pub(super) struct Running {
    socket: PathBuf,
    child: AsyncMutex<Child>,
    said: Arc<Mutex<Said>>,
}

/// The end of what an app wrote to its log.
#[derive(Default)]
struct Said {
    bytes: VecDeque<u8>,
    /// Bytes that it wrote in all.
    total: u64,
}

/// Builds the project in `dir`: what it consists of, as `wharf.json` has it.
pub(super) fn build(dir: &Path, global: &Global) -> Result<Vec<u8>> {
    let places = Places::from_env()?;
    let _caches = places.use_caches();
    let project = Project::open(dir)?;
    let progress = Progress::new(global);
    Ok(target::build(&project, &places, &progress)?.manifest.to_json())
}

impl Running {
    /// Serves the project in `dir`, which was built just now, on `socket`.
    pub(super) async fn start(dir: &Path, socket: &Path) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program itself")?;
        let mut child = Command::new(program)
            .args(["serve", "--addr"])
            .arg(format!("unix:{}", socket.display()))
            .arg("--")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the app")?;
        let said = Arc::new(Mutex::new(Said::default()));
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            bail!("cannot read what the app says");
        };
        let kept = Arc::clone(&said);
        let listening = tokio::spawn(async move {
            let mut bytes = vec![0; 8 << 10];
            while let Ok(read @ 1..) = stderr.read(&mut bytes).await {
                kept.lock().unwrap_or_else(PoisonError::into_inner).add(&bytes[..read]);
                // Whoever looks at the terminal sees it as with `wharf serve`.
                let _ = tokio::io::stderr().write_all(&bytes[..read]).await;
            }
        });
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("Serving ") {
                return Ok(Self { socket: socket.to_owned(), child: AsyncMutex::new(child), said });
            }
        }
        let _ = listening.await;
        let said = said.lock().unwrap_or_else(PoisonError::into_inner).since(0);
        // Its error is ours, without what we put in front of it again.
        let text = said.trim_start_matches("error: ").trim_end();
        bail!("{}", if text.is_empty() { "the app ended at once" } else { text })
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// How many bytes it has written to its log so far.
    pub(super) fn said_so_far(&self) -> u64 {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    /// What it has written since then, as far as it is kept.
    pub(super) fn said_since(&self, before: u64) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).since(before)
    }

    /// Lets requests in flight end, and ends it.
    pub(super) async fn stop(&self) {
        let mut child = self.child.lock().await;
        let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else { return };
        // It is our child, and not waited for yet: the number is its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
            let _ = child.kill().await;
        }
    }
}

impl Said {
    fn add(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(MOST_SAID);
        self.bytes.drain(..excess);
    }

    fn since(&self, before: u64) -> String {
        let new = usize::try_from(self.total.saturating_sub(before)).unwrap_or(usize::MAX);
        let skip = self.bytes.len().saturating_sub(new);
        let bytes: Vec<u8> = self.bytes.iter().skip(skip).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_since_a_moment_is_known_as_far_as_it_is_kept() {
        let mut said = Said::default();
        said.add(b"one ");
        let moment = said.total;
        said.add(b"two");
        assert_eq!((said.since(moment), said.since(0)), ("two".to_owned(), "one two".to_owned()));
        said.add(&vec![b'x'; MOST_SAID]);
        assert_eq!(said.since(moment).len(), MOST_SAID);
        assert_eq!(said.since(said.total), "");
    }
}
