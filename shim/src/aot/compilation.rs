//! Compiling, in processes of their own:
//!
//! 1. The helper that creates a container locks the entry, copies the component
//!    out of the image, and starts
//! 2. the overseer, this program as `helper compile`. It publishes the entry,
//!    whatever becomes of the helper: a create that took too long for its
//!    caller is not in vain, the next one finds its result. It starts
//! 3. the compiler, by way of this program as `helper limited`, which puts
//!    itself under the limits and becomes `wharf compile`. It dies with the
//!    overseer.
//!
//! All hold the entry's lock, so it is free once the last has ended, and whatever
//! was killed has left an entry that is not yet one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytesize::ByteSize;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use wharf_app::Sha256;

use super::entry::{Entry, Lock};
use super::progress::{Doing, Watch};
use super::settings::{self, Limits};
use super::{AotError, sweep};
use crate::cgroup::limited::{self, Limited};
use crate::sys;

/// The work of the overseer, for [`super::program`].
pub(crate) const OVERSEE: &str = "compile";

/// The work of the process that becomes the compiler.
pub(crate) const BECOME_COMPILER: &str = "limited";

/// Compilers that run at a time on a node. Each uses several CPUs already.
const SLOTS: usize = 2;

/// How often an ended process, or a free slot, is looked for.
const POLL: Duration = Duration::from_millis(20);

/// Bytes of a process's messages that an error quotes.
const MAX_MESSAGE: u64 = 4096;

/// What an overseer is to do.
#[derive(Serialize, Deserialize)]
pub(super) struct Order {
    /// The cache.
    pub(super) root: PathBuf,
    pub(super) engine: String,
    pub(super) component: Sha256,
    /// The component's name, for people.
    pub(super) file: String,
    pub(super) compiler: PathBuf,
    pub(super) limits: Limits,
    /// Bytes that the cache may have.
    pub(super) size: u64,
}

/// What becomes of a process before it is the compiler.
#[derive(Serialize, Deserialize)]
struct Confinement {
    /// It dies with this one.
    overseer: i32,
    /// To join; none where memory can't be limited by cgroups.
    cgroup: Vec<PathBuf>,
    /// In bytes.
    memory: u64,
    threads: u32,
    compiler: PathBuf,
    source: PathBuf,
    output: PathBuf,
}

/// Why the compiler made nothing.
#[derive(Debug, thiserror::Error)]
enum CompilerError {
    #[error("the compiler needs more memory than {}: set {} to more", ByteSize(*.0), settings::MEMORY)]
    Memory(u64),
    #[error("the compiler needs more time than {}: set {} to more", humantime::format_duration(*.0), settings::TIME)]
    Time(Duration),
    #[error("{0}")]
    Said(String),
    #[error("cannot run the compiler")]
    Run(#[source] io::Error),
    #[error("cannot keep what the compiler wrote")]
    Publish(#[source] io::Error),
}

/// Has an overseer compile what lies in the entry's folder to work in, and
/// waits for it.
///
/// # Errors
/// [`AotError::Compile`] with the reason.
pub(super) fn compile(order: &Order, mut lock: Lock, watch: &mut Watch<'_>) -> Result<(), AotError> {
    let failed = |message| AotError::Compile { work: format!("compile component {:?}", order.file), message };
    let run_error = |error: io::Error| failed(format!("cannot start the compilation: {error}"));
    let order_text = serde_json::to_string(order).map_err(|error| run_error(error.into()))?;
    let mut command = super::program(OVERSEE, &order_text);
    command
        .stdin(OwnedFd::from(lock.share().map_err(run_error)?))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // What is sent to the helper's group is not for it.
        .process_group(0);
    let mut overseer = command.spawn().map_err(run_error)?;
    // From here on the entry's files are the overseer's to remove.
    lock.hand_over();
    let status = loop {
        if let Some(status) = overseer.try_wait().map_err(run_error)? {
            break status;
        }
        watch.tick(Doing::Compiling);
        thread::sleep(POLL);
    };
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    if let Some(stderr) = overseer.stderr.take() {
        // The compiler has ended with it: there is nothing to wait for.
        let _ = stderr.take(MAX_MESSAGE).read_to_end(&mut said);
    }
    Err(failed(quote(&said, status)))
}

/// The overseer.
///
/// # Errors
/// What [`compile`] is to tell.
pub(crate) fn oversee(order: &str) -> anyhow::Result<()> {
    let order: Order = serde_json::from_str(order).context("malformed order")?;
    let entry = Entry::new(&order.root, &order.engine, order.component);
    let lock = entry.inherited_lock().context("expected a lock at standard input")?;
    let made = take_slot(&order.root)
        .map_err(CompilerError::Run)
        .and_then(|_slot| run_compiler(&order, &entry, &lock))
        .and_then(|()| entry.publish(&order.file, &lock).map_err(CompilerError::Publish));
    let cleaned = entry.end(&lock);
    drop(lock);
    made?;
    cleaned.context("cannot remove what the compiler left")?;
    // Others are removed after this one is there, so that a compiler that fails
    // costs nobody anything. That there is too much is no reason to fail.
    let swept = sweep::remove_leftovers(&order.root)
        .and_then(|()| sweep::bound(&order.root, order.size, &order.engine, sweep::JUST_USED));
    if let Err(error) = swept {
        tracing::warn!(%error, "cannot keep the cache's size");
    }
    Ok(())
}

/// Waits until less than [`SLOTS`] compilers run.
fn take_slot(root: &Path) -> io::Result<File> {
    loop {
        for slot in 0..SLOTS {
            let path = root.join(format!("slot-{slot}.lock"));
            let file = fs_err::File::create(path)?.into_parts().0;
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        thread::sleep(POLL);
    }
}

fn run_compiler(order: &Order, entry: &Entry, lock: &Lock) -> Result<(), CompilerError> {
    let limits = &order.limits;
    let cgroup = Limited::create("wharf-compile", limits.memory, limits.cpu);
    if let Err(error) = &cgroup {
        tracing::warn!(%error, "cannot limit the compiler by a cgroup: its data is limited instead");
    }
    let confinement = Confinement {
        overseer: std::process::id().cast_signed(),
        cgroup: cgroup.as_ref().map(|cgroup| cgroup.folders().to_vec()).unwrap_or_default(),
        memory: limits.memory,
        threads: limits.threads(),
        compiler: order.compiler.clone(),
        source: entry.source(),
        output: entry.output(),
    };
    let text = serde_json::to_string(&confinement).map_err(|error| CompilerError::Run(error.into()))?;
    let start = || {
        let messages = fs_err::File::create(entry.messages())?.into_parts().0;
        let mut command = super::program(BECOME_COMPILER, &text);
        // It holds the lock until it has ended, should we be killed.
        command.stdin(OwnedFd::from(lock.share()?)).stdout(Stdio::null()).stderr(messages);
        command.spawn()
    };
    let mut compiler = start().map_err(CompilerError::Run)?;
    let status = wait(&mut compiler, limits.time)?;
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    let messages = fs_err::File::open(entry.messages()).map_err(CompilerError::Run)?;
    // They are only quoted.
    let _ = messages.take(MAX_MESSAGE).read_to_end(&mut said);
    let by_cgroup = cgroup.is_ok_and(|cgroup| cgroup.ran_out_of_memory());
    // What Rust's runtime says when it gets no memory.
    let by_itself = status.signal() == Some(libc::SIGABRT)
        && String::from_utf8_lossy(&said).contains("memory allocation of");
    if by_cgroup || by_itself {
        return Err(CompilerError::Memory(limits.memory));
    }
    Err(CompilerError::Said(quote(&said, status)))
}

fn wait(compiler: &mut Child, limit: Duration) -> Result<ExitStatus, CompilerError> {
    let since = Instant::now();
    loop {
        if let Some(status) = compiler.try_wait().map_err(CompilerError::Run)? {
            return Ok(status);
        }
        if since.elapsed() > limit {
            // It may have ended just now.
            let _ = compiler.kill();
            let _ = compiler.wait();
            return Err(CompilerError::Time(limit));
        }
        thread::sleep(POLL);
    }
}

/// Puts this process under limits and has it become the compiler.
///
/// # Errors
/// It can't.
pub(crate) fn become_compiler(confinement: &str) -> anyhow::Result<()> {
    let confinement: Confinement = serde_json::from_str(confinement).context("malformed order")?;
    sys::die_with_parent(Pid::from_raw(confinement.overseer))?;
    for folder in &confinement.cgroup {
        limited::join(folder)?;
    }
    if confinement.cgroup.is_empty() {
        // Private memory that can be written to, so this is near to what is used.
        setrlimit(Resource::RLIMIT_DATA, confinement.memory, confinement.memory)?;
        sys::lower_priority()?;
    }
    // It holds whole apps.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // If memory is short, a create that fails is the least evil.
    let _ = fs_err::write("/proc/self/oom_score_adj", "1000");
    let mut command = Command::new(&confinement.compiler);
    command.arg("compile").arg(&confinement.source).arg("-o").arg(&confinement.output);
    // Nothing of containerd's environment is its business.
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
    command.env("RAYON_NUM_THREADS", confinement.threads.to_string());
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", confinement.compiler.display()))
}

/// What a process said, or how it ended if it said nothing.
pub(super) fn quote(said: &[u8], status: ExitStatus) -> String {
    let said = &said[..said.len().min(MAX_MESSAGE as usize)];
    let said = String::from_utf8_lossy(said).trim().to_owned();
    if said.is_empty() { status.to_string() } else { said }
}

/// Ends the process with the error and its causes in one line, for whoever
/// started it.
pub(crate) fn fail(error: &anyhow::Error) -> ! {
    // If the helper was killed nobody listens.
    let _ = write!(io::stderr(), "{error:#}");
    std::process::exit(1);
}
