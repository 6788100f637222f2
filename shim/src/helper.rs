//! The helper: this program started anew, with a single thread, for the work
//! that forks, changes the working directory or takes long.
//!
//! It is `containerd-shim-wasm-v1 helper WORK`, for people to see; what it is
//! to do comes as one line of JSON through the socket at its standard input,
//! and its answer goes back the same way. Its standard error, and the warnings
//! of libcontainer, go to a file in memory that the server reads afterwards. The
//! processes that compile are started by it in turn: see [`compilation`].

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::aot::compilation;
use crate::bundle::Bundle;
use crate::rootfs::Mount;
use crate::stdio::Streams;
use crate::{cleanup, log, sys};

mod client;
mod create;
mod exec;
mod update;

pub(crate) use client::{Helper, own_program};

/// The first word of a helper's command line.
pub(crate) const ACTION: &str = "helper";

/// What a helper is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Create a container.
    Create(Box<CreateRequest>),
    /// Start it by libcontainer, which runs the spec's `poststart` hooks.
    Start {
        /// The container.
        id: String,
        /// Its bundle.
        bundle: PathBuf,
    },
    /// Run a further process in it.
    Exec(Box<ExecRequest>),
    /// Set new limits.
    Update(Box<UpdateRequest>),
    /// Remove all that is left of it.
    Delete {
        /// The container.
        id: String,
        /// Its bundle.
        bundle: PathBuf,
    },
}

/// A container to create.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CreateRequest {
    /// Its id.
    pub(crate) id: String,
    /// Its bundle.
    pub(crate) bundle: PathBuf,
    /// What makes its root file system; none if it is there already.
    pub(crate) mounts: Vec<Mount>,
    /// Its standard streams.
    pub(crate) streams: Streams,
    /// Whether systemd manages its cgroup.
    pub(crate) systemd_cgroup: bool,
}

/// A process to run in a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    /// The container's bundle.
    pub(crate) bundle: PathBuf,
    /// The runtime spec's `process`, as JSON.
    pub(crate) process: String,
    /// The socket in the bundle that takes its terminal, if it is to have one.
    pub(crate) console: Option<String>,
    /// Its standard streams.
    pub(crate) streams: Streams,
}

/// New limits of a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UpdateRequest {
    /// Its id.
    pub(crate) id: String,
    /// Its bundle.
    pub(crate) bundle: PathBuf,
    /// The runtime spec's `resources`, as JSON.
    pub(crate) resources: String,
}

/// A container that was created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Created {
    /// Its init process.
    pub(crate) pid: i32,
    /// Its cgroup in each hierarchy.
    pub(crate) cgroup: Vec<PathBuf>,
    /// Whether its other processes end with the init process.
    pub(crate) own_pid_namespace: bool,
    /// Whether starting it takes a helper.
    pub(crate) has_start_hooks: bool,
    /// Columns and rows that its terminal begins with, if it is told.
    pub(crate) console_size: Option<(u16, u16)>,
}

/// A process that was started in a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    /// The process.
    pub(crate) pid: i32,
    /// Columns and rows that its terminal begins with, if it is told.
    pub(crate) console_size: Option<(u16, u16)>,
}

/// A helper's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To [`Request::Create`].
    Created(Created),
    /// To [`Request::Exec`].
    Started(Started),
    /// To the others.
    Done,
    /// It was not done.
    Failed(Failure),
}

/// Why a helper failed, for containerd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// Its kind.
    pub(crate) kind: FailureKind,
    /// The whole reason, causes included.
    pub(crate) message: String,
}

/// The kinds of failure that containerd tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    /// There is such a container already.
    AlreadyExists,
    /// The helper ended midway: what it did is not undone.
    HelperDied,
    /// Anything else.
    Other,
}

impl Failure {
    /// A failure of the kind `Other`, with the causes of `error`.
    pub(crate) fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { kind: FailureKind::Other, message: chain(error) }
    }
}

/// The error and its causes in one line. A cause that the text of the error
/// before it has already is left out.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// A request and who sends it.
#[derive(Serialize, Deserialize)]
struct Envelope {
    /// The server; the helper dies with it.
    server: i32,
    request: Request,
}

/// Does what the words after [`ACTION`] say: what the server asks for, whose
/// word only names it to people, or a helper's own further work.
///
/// # Errors
/// The server can't be talked to, or the work fails.
pub(crate) fn run(mut words: impl Iterator<Item = String>) -> Result<()> {
    let work = words.next().unwrap_or_default();
    let done = match (work.as_str(), words.next()) {
        (compilation::OVERSEE, Some(order)) => compilation::oversee(&order),
        (compilation::BECOME_COMPILER, Some(order)) => compilation::become_compiler(&order),
        _ => return serve(),
    };
    done.or_else(|error| compilation::fail(&error))
}

fn serve() -> Result<()> {
    let control = sys::take_stdin().context("a helper is started by the shim alone")?;
    let control = UnixStream::from(control);
    log::to_file(sys::duplicate_high(io::stderr().as_fd())?);
    let mut line = String::new();
    BufReader::new(&control).read_line(&mut line)?;
    let Envelope { server, request } = serde_json::from_str(&line)?;
    sys::die_with_parent(Pid::from_raw(server))?;
    let answer = match request {
        Request::Create(request) => create::create(&request).map(Answer::Created),
        Request::Start { id, bundle } => create::start(&id, &Bundle::new(bundle)),
        Request::Exec(request) => exec::exec(&request).map(Answer::Started),
        Request::Update(request) => update::update(&request),
        Request::Delete { id, bundle } => delete(&id, &Bundle::new(bundle)),
    };
    let mut answer = serde_json::to_vec(&answer.unwrap_or_else(Answer::Failed))?;
    answer.push(b'\n');
    (&control).write_all(&answer)?;
    Ok(())
}

fn delete(id: &str, bundle: &Bundle) -> Result<Answer, Failure> {
    create::run_stop_hooks(id, bundle);
    cleanup::remove(bundle).map_err(|error| Failure::from_error(&error))?;
    Ok(Answer::Done)
}

/// Sets how early the kernel ends the process `pid` when memory is short: one
/// step before this process's parent, containerd. It stays as it is if that
/// can't be.
pub(crate) fn raise_oom_score(pid: u32) {
    let parent = format!("/proc/{}/oom_score_adj", std::os::unix::process::parent_id());
    let score = std::fs::read_to_string(parent).ok();
    if let Some(score) = score.and_then(|score| score.trim().parse::<i32>().ok()) {
        let score = (score + 1).min(1000);
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot do it")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("no room")]
    struct Inner;

    #[test]
    fn a_failure_has_all_causes_once() {
        assert_eq!(chain(&Outer(Inner)), "cannot do it: no room");
        let repeated = io::Error::other(Inner);
        assert_eq!(chain(&repeated), "no room");
    }
}
