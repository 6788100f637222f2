//! The server's side: starting a helper and reading its answer.

use std::fs::File;
use std::future::pending;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::getpid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{ACTION, Answer, Created, Envelope, Failure, FailureKind, Request, Started};
use crate::arguments::PROGRAM;
use crate::reaper::Reaper;
use crate::sys;

/// Bytes of a helper's messages that are read.
const MAX_MESSAGES: u64 = 8192;

/// Time to read what a helper wrote just before it ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What a helper must not inherit from containerd: libcontainer would pass
/// systemd's descriptors on, if there are any, to the container.
const NOT_INHERITED: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"];

/// Starts helpers.
#[derive(Clone)]
pub(crate) struct Helper {
    reaper: Arc<Reaper>,
}

/// This program's file, by its name if that is still there: the kernel names
/// a process by the file that was executed.
pub(crate) fn own_program() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_default();
    if path.is_file() { path } else { "/proc/self/exe".into() }
}

impl Helper {
    /// Helpers whose ends `reaper` hears of.
    pub(crate) fn new(reaper: Arc<Reaper>) -> Self {
        Self { reaper }
    }

    /// Has a helper create a container, which is ended once `abandoned` returns.
    ///
    /// # Errors
    /// [`Failure`]; nothing is left of the container, unless the helper died.
    pub(crate) async fn create(
        &self,
        request: Request,
        abandoned: impl Future<Output = ()>,
    ) -> Result<Created, Failure> {
        match self.call("create", request, abandoned).await? {
            Answer::Created(created) => Ok(created),
            Answer::Failed(failure) => Err(failure),
            Answer::Started(_) | Answer::Done => Err(other("the helper gave no container")),
        }
    }

    /// Has a helper start a process in a container.
    ///
    /// # Errors
    /// [`Failure`]; nothing is left of the process.
    pub(crate) async fn exec(&self, request: Request) -> Result<Started, Failure> {
        match self.call("exec", request, pending()).await? {
            Answer::Started(started) => Ok(started),
            Answer::Failed(failure) => Err(failure),
            Answer::Created(_) | Answer::Done => Err(other("the helper gave no process")),
        }
    }

    /// Has a helper do anything else.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn run(&self, work: &str, request: Request) -> Result<(), Failure> {
        match self.call(work, request, pending()).await? {
            Answer::Failed(failure) => Err(failure),
            Answer::Created(_) | Answer::Started(_) | Answer::Done => Ok(()),
        }
    }

    async fn call(
        &self,
        work: &str,
        request: Request,
        abandoned: impl Future<Output = ()>,
    ) -> Result<Answer, Failure> {
        let failed = |error: io::Error| other(&format!("cannot start a helper: {error}"));
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let control = UnixStream::from_std(ours).map_err(failed)?;
        let messages = memfd_create(c"wharf-helper", MFdFlags::MFD_CLOEXEC);
        let messages = File::from(messages.map_err(|error| failed(error.into()))?);

        let mut command = Command::new(own_program());
        command
            .arg0(PROGRAM)
            .args([ACTION, work])
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(messages.try_clone().map_err(failed)?));
        for variable in NOT_INHERITED {
            command.env_remove(variable);
        }
        let (pid, mut ended) = self.reaper.spawn(&mut command).map_err(failed)?;
        // Our copy of its end of the socket goes, so that its death is seen.
        drop(command);

        let envelope = Envelope { server: getpid().as_raw(), request };
        let mut exchange = pin!(exchange(control, &envelope));
        let answer = tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // The container's init holds the socket too, so that a helper that
            // dies midway is only noticed by its end.
            exit = &mut ended => match timeout(LAST_WORDS, exchange).await {
                Ok(answer) => answer,
                Err(_) => Err(io::Error::other(match exit {
                    Ok(exit) => format!("it ended with status {}", exit.status),
                    Err(_) => "it was lost".to_owned(),
                })),
            },
            () = abandoned => {
                // Fails only if it has ended.
                let _ = sys::send_signal(pid, libc::SIGKILL);
                let _ = ended.await;
                Err(io::Error::other("nobody waits for it any more"))
            }
        };
        let messages = read_messages(messages);
        for line in messages.lines() {
            tracing::warn!(work, "{line}");
        }
        match answer {
            Ok(Answer::Failed(mut failure)) => {
                let detail = detail(&messages, &failure.message);
                failure.message.push_str(&detail);
                Ok(Answer::Failed(failure))
            }
            Ok(answer) => Ok(answer),
            Err(error) => {
                let detail = detail(&messages, "");
                let message = format!("the helper failed: {error}{detail}");
                Err(Failure { kind: FailureKind::HelperDied, message })
            }
        }
    }
}

async fn exchange(mut control: UnixStream, envelope: &Envelope) -> io::Result<Answer> {
    let mut request = serde_json::to_vec(envelope)?;
    request.push(b'\n');
    control.write_all(&request).await?;
    let mut answer = String::new();
    BufReader::new(control).read_line(&mut answer).await?;
    if answer.is_empty() {
        // Its end, which is reported next, says more.
        pending::<()>().await;
    }
    Ok(serde_json::from_str(&answer)?)
}

/// What the helper wrote; for an error the detail, else only to be logged.
fn read_messages(mut file: File) -> String {
    let mut bytes = Vec::new();
    // It is memory: reading it can't fail but for lack of that.
    let _ = file.rewind().and_then(|()| file.take(MAX_MESSAGES).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The first error among the messages, in parentheses: libcontainer passes on
/// what failed, but mostly only logs why. Nothing if `told` has it.
fn detail(messages: &str, told: &str) -> String {
    let mut lines = messages.lines().filter(|line| !line.starts_with("WARN "));
    let line = lines.next().map(|line| line.strip_prefix("ERROR ").unwrap_or(line));
    let is_new = |line: &&str| {
        let reason = line.split_once(": ").map_or(*line, |(_, reason)| reason);
        !told.contains(reason.trim())
    };
    line.filter(is_new).map_or_else(String::new, |line| format!(" ({})", line.trim()))
}

fn other(message: &str) -> Failure {
    Failure { kind: FailureKind::Other, message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_told_unless_it_was() {
        let messages = "WARN no hugetlb\nERROR cannot mount path=\"/x\"\nERROR later\n";
        assert_eq!(detail(messages, "failed"), " (cannot mount path=\"/x\")");
        assert_eq!(detail("ERROR init: no such file\n", "exec: no such file"), "");
        assert_eq!(detail("WARN only\n", "failed"), "");
    }
}
