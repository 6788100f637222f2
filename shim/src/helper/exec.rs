//! Running a further process in a container, in the steps of `runc exec`.
//!
//! libcontainer could do it too, but leaves the container's seccomp filter out
//! and asks for a state on disk that our way of starting does not write.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use libcontainer::syscall::syscall::create_syscall;
use libcontainer::{apparmor, capabilities, tty};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_dumpable, set_keepcaps, set_no_new_privs};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{Gid, Pid, Uid, chdir, fchown, pipe2, setgroups, setresgid, setresuid, setsid};
use oci_spec::runtime::Process;
use rustix::process::{PidfdFlags, pidfd_open};

use super::create::adjust_oom_score;
use super::{ExecRequest, Failure, Started, chain};
use crate::bundle::{Bundle, BundleError};
use crate::cgroup::Cgroup;
use crate::cleanup::started;
use crate::executor::{Host, Native};
use crate::node::{self, NodeError};
use crate::recognition;
use crate::seccomp::{self, Filter, FilterError};
use crate::spec::{self, SpecError};
use crate::stdio::{Opened, StreamError};
use crate::{console, sys};

/// Why a process can't be run in a container.
#[derive(Debug, thiserror::Error)]
enum ExecError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("cannot read the process to run")]
    Process(#[source] serde_json::Error),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("the container is not running")]
    NotRunning,
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("a seccomp filter that asks a listener can't be had by a process that is added")]
    SeccompNotify,
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Streams(#[from] StreamError),
    #[error("cannot {work}")]
    Step {
        work: &'static str,
        #[source]
        source: io::Error,
    },
    /// The words of runc, which Docker's clients read to choose their exit
    /// code, and then what failed.
    #[error("OCI runtime exec failed: exec failed: unable to start container process: {0}")]
    InContainer(String),
}

/// All that the process needs, opened before it enters the container.
struct Plan {
    process: Process,
    filter: Option<Filter>,
    program: Program,
    stdio: Stdio,
    namespaces: CloneFlags,
    init: OwnedFd,
}

enum Program {
    Native,
    Host(Host),
}

enum Stdio {
    Streams(Opened),
    Terminal(OwnedFd),
}

/// The kinds of namespaces, as `/proc/PID/ns` names them.
const NAMESPACES: [(&str, CloneFlags); 8] = [
    ("user", CloneFlags::CLONE_NEWUSER),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("time", CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)),
];

/// Starts the process. It becomes the server's child when this one ends.
pub(super) fn exec(request: &ExecRequest) -> Result<Started, Failure> {
    try_exec(request).map_err(|error| Failure::from_error(&error))
}

fn try_exec(request: &ExecRequest) -> Result<Started, ExecError> {
    let bundle = Bundle::new(&request.bundle);
    let mut process: Process = serde_json::from_str(&request.process).map_err(ExecError::Process)?;
    spec::close_capabilities(&mut process);
    let record = bundle.load_record()?;
    let init = Pid::from_raw(record.pid);
    let handle = rustix::process::Pid::from_raw(record.pid).ok_or(ExecError::NotRunning)?;
    let handle = pidfd_open(handle, PidfdFlags::empty()).map_err(|_| ExecError::NotRunning)?;
    // After the handle was opened, so that it is that of this very process.
    if started(record.pid) != Some(record.started) {
        return Err(ExecError::NotRunning);
    }
    let linux = bundle.load_spec()?.linux().clone();
    let profile = linux.and_then(|linux| linux.seccomp().clone());
    if profile.as_ref().is_some_and(seccomp::is_notify) {
        return Err(ExecError::SeccompNotify);
    }
    let filter = profile.as_ref().map(Filter::of).transpose()?;
    let step = |work| move |source| ExecError::Step { work, source };
    let program = if record.is_app { host_command(&mut process)? } else { None };
    let stdio = match &request.console {
        Some(name) => Stdio::Terminal(
            console::connect(&bundle, name).map_err(step("reach the server for a terminal"))?.into(),
        ),
        None => Stdio::Streams(request.streams.open(process.user().uid())?),
    };
    let score = process.oom_score_adj().or_else(|| oom_score(init));
    let size = spec::console_size(&process);
    let plan = Plan {
        filter,
        program: program.map_or(Program::Native, Program::Host),
        stdio,
        namespaces: foreign_namespaces(init).map_err(step("read the container's namespaces"))?,
        init: handle,
        process,
    };
    if let Some(score) = score {
        adjust_oom_score(score);
    }
    // Until it runs its program, nobody in the container may look into it:
    // CVE-2016-9962.
    set_dumpable(false).map_err(|error| step("hide the process")(error.into()))?;
    let cgroup = Cgroup::new(record.cgroup);
    let pid = launch(plan, &cgroup, init)?;
    Ok(Started { pid, console_size: size })
}

/// Forks the process, puts it into the cgroup and waits until it runs its
/// program.
fn launch(plan: Plan, cgroup: &Cgroup, init: Pid) -> Result<i32, ExecError> {
    let step = |work| move |source| ExecError::Step { work, source };
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|error| step("make a pipe")(error.into()));
    let (go, may_go) = pipe()?;
    let (problem, report) = pipe()?;
    if plan.namespaces.contains(CloneFlags::CLONE_NEWPID) {
        // For those that are forked from here on.
        let joined = setns(&plan.init, CloneFlags::CLONE_NEWPID);
        joined.map_err(|error| step("join the container's process ids")(error.into()))?;
    }
    // Nothing that the child needs is behind a lock: this process has one
    // thread, as `fork` asks for.
    let forked = sys::fork().map_err(step("fork"))?;
    let Some(child) = forked else {
        drop((may_go, problem));
        let failed = become_program(plan, &File::from(go));
        // The server reads it as far as it is there.
        let _ = File::from(report).write_all(failed.as_bytes());
        std::process::exit(255);
    };
    drop((plan, go, report));
    let mut message = String::new();
    let outcome = join_cgroup(cgroup, child, init)
        .and_then(|()| File::from(may_go).write_all(b"!"))
        .map_err(step("put the process into the container's cgroup"))
        .and_then(|()| {
            File::from(problem).read_to_string(&mut message).map_err(step("hear from the process"))?;
            if message.is_empty() { Ok(child.as_raw()) } else { Err(ExecError::InContainer(message)) }
        });
    if outcome.is_err() {
        // It has ended, or waits for what does not come.
        let _ = kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
    }
    outcome
}

/// The last steps, in the new process. Returns only the reason of a failure.
fn become_program(plan: Plan, go: &File) -> String {
    let failed = |error: Failed| match error {
        Failed::Program(text) => text,
        Failed::Step(work, error) => format!("cannot {work}: {}", chain(&*error)),
    };
    match enter(plan, go) {
        Ok(never) => match never {},
        Err(error) => failed(error),
    }
}

enum Failed {
    /// The program itself; in runc's words.
    Program(String),
    /// What could not be done.
    Step(&'static str, Box<dyn std::error::Error>),
}

fn step<E: std::error::Error + 'static>(work: &'static str) -> impl FnOnce(E) -> Failed {
    move |error| Failed::Step(work, Box::new(error))
}

fn enter(plan: Plan, mut go: &File) -> Result<std::convert::Infallible, Failed> {
    let Plan { process, filter, program, stdio, namespaces, init } = plan;
    let syscall = create_syscall();
    go.read_exact(&mut [0]).map_err(step("be put into the container's cgroup"))?;
    for limit in process.rlimits().iter().flatten() {
        syscall.set_rlimit(limit).map_err(step("set a resource limit"))?;
    }
    let rest = namespaces - CloneFlags::CLONE_NEWPID;
    if !rest.is_empty() {
        setns(&init, rest).map_err(step("join the container's namespaces"))?;
    }
    drop(init);
    setsid().map_err(step("make a session"))?;
    let user = process.user();
    match stdio {
        Stdio::Streams([stdin, stdout, stderr]) => {
            nix::unistd::dup2_stdin(stdin).map_err(step("set standard input"))?;
            nix::unistd::dup2_stdout(stdout).map_err(step("set standard output"))?;
            nix::unistd::dup2_stderr(stderr).map_err(step("set standard error"))?;
        }
        Stdio::Terminal(server) => {
            // It closes the descriptor.
            tty::setup_console(&*syscall, server.into_raw_fd(), false).map_err(step("make a terminal"))?;
            // Its user may open it anew.
            let owner = Some(Uid::from_raw(user.uid()));
            fchown(io::stdin(), owner, None).map_err(step("give the terminal to the user"))?;
        }
    }
    if process.no_new_privileges() == Some(true) {
        set_no_new_privs().map_err(step("renounce new privileges"))?;
    }
    if let Some(profile) = process.apparmor_profile() {
        apparmor::apply_profile(profile).map_err(step("set the AppArmor profile"))?;
    }
    if let Some(mask) = user.umask() {
        umask(Mode::from_bits_truncate(mask));
    }
    let directory = Some(process.cwd().as_path()).filter(|path| !path.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("/"));
    // Tried first with all privileges, then as the user: each may be refused
    // where the other is not.
    let entered = chdir(directory);
    let groups = user.additional_gids().iter().flatten();
    let groups: Vec<Gid> = groups.map(|gid| Gid::from_raw(*gid)).collect();
    match setgroups(&groups) {
        // A user namespace may forbid it; then there are none to drop either.
        Err(_) if groups.is_empty() => {}
        set => set.map_err(step("set the user's groups"))?,
    }
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    // Those that the process is not to have are dropped below.
    set_keepcaps(true).map_err(step("keep capabilities"))?;
    setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid)).map_err(step("become the user"))?;
    set_keepcaps(false).map_err(step("keep capabilities"))?;
    // The filter below may need them: they are gone from use with the user.
    capabilities::reset_effective(&*syscall).map_err(step("set capabilities"))?;
    syscall.close_range(0).map_err(step("close descriptors"))?;
    // Without no_new_privileges only a process with privileges may set a
    // filter; with it, the later the better.
    let early = process.no_new_privileges() != Some(true);
    let filter = match filter {
        Some(filter) if early => {
            filter.set().map_err(step("set the seccomp filter"))?;
            None
        }
        late => late,
    };
    if let Some(wanted) = process.capabilities() {
        capabilities::drop_privileges(wanted, &*syscall).map_err(step("drop capabilities"))?;
    }
    if entered.is_err() {
        chdir(directory).map_err(step("change to the working directory"))?;
    }
    // A directory that was outside all along could lead out: CVE-2024-21626.
    if nix::unistd::getcwd().is_err() {
        let outside = io::Error::other("it is outside of the container");
        return Err(step("use the working directory")(outside));
    }
    let mut environment = process.env().clone().unwrap_or_default();
    if !environment.iter().any(|entry| entry.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        environment.retain(|entry| !entry.starts_with("HOME="));
        environment.push(format!("HOME={}", home_of(user.uid()).display()));
    }
    let ready = match program {
        Program::Native => Native::under(filter).prepare(&process, &environment),
        Program::Host(host) => host.under(filter).prepare(&process, &environment),
    };
    let ready = ready.map_err(Failed::Program)?;
    Err(Failed::Program(ready.run()))
}

/// The host's own commands of an app, which has no shell: `routes`, `health`
/// and `dump`, with or without the host's name before them. Anything else is
/// looked for in the image.
fn host_command(process: &mut Process) -> Result<Option<Host>, ExecError> {
    let mut arguments = process.args().clone().unwrap_or_default();
    let first = arguments.first().map(String::as_str).unwrap_or_default();
    if recognition::HOST_COMMANDS.contains(&first) {
        arguments.insert(0, recognition::HOST.to_owned());
    } else if first != recognition::HOST && first != recognition::HOST.trim_start_matches('/') {
        return Ok(None);
    }
    process.set_args(Some(arguments));
    process.set_no_new_privileges(Some(true));
    let program = node::open_host(process.user())?;
    let host = Host::new(&program.into(), &[]);
    Ok(Some(host.map_err(|source| ExecError::Step { work: "pass files to the process", source })?))
}

/// The namespaces of `init` that are not ours.
fn foreign_namespaces(init: Pid) -> io::Result<CloneFlags> {
    let mut foreign = CloneFlags::empty();
    for (name, flag) in NAMESPACES {
        let link = |process: &str| fs::read_link(format!("/proc/{process}/ns/{name}"));
        match (link("self"), link(&init.to_string())) {
            (Ok(ours), Ok(theirs)) if ours == theirs => {}
            (Ok(_), Ok(_)) => foreign |= flag,
            // A kernel without this kind.
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {}
            (Err(error), _) | (_, Err(error)) => return Err(error),
        }
    }
    Ok(foreign)
}

fn oom_score(process: Pid) -> Option<i32> {
    fs::read_to_string(format!("/proc/{process}/oom_score_adj")).ok()?.trim().parse().ok()
}

fn join_cgroup(cgroup: &Cgroup, process: Pid, init: Pid) -> io::Result<()> {
    match cgroup.join(process.as_raw()) {
        // Of cgroup v2 only a leaf may hold processes: the container has made
        // cgroups of its own below, and its init is in one of them.
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
            Cgroup::of_process(init.as_raw())?.join(process.as_raw())
        }
        joined => joined,
    }
}

/// The user's folder by the container's `/etc/passwd`; `/` if it has none.
fn home_of(uid: u32) -> PathBuf {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let home = users.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let found = fields.next()?.parse::<u32>().ok()? == uid;
        found.then(|| fields.nth(2)).flatten()
    });
    home.filter(|home| !home.is_empty()).unwrap_or("/").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_namespaces_are_not_foreign() {
        let ourselves = nix::unistd::getpid();
        assert!(foreign_namespaces(ourselves).unwrap().is_empty());
        assert!(foreign_namespaces(Pid::from_raw(i32::MAX)).is_err());
    }

    #[test]
    fn roots_home_is_found_and_an_unknown_users_is_the_root() {
        assert_eq!(home_of(0), Path::new("/root"));
        assert_eq!(home_of(4_000_000), Path::new("/"));
    }

    #[test]
    fn only_the_hosts_commands_run_the_host() {
        let mut process = Process::default();
        process.set_args(Some(vec!["ls".into()]));
        assert!(host_command(&mut process).unwrap().is_none());
        assert_eq!(process.args().as_deref(), Some(&["ls".to_owned()][..]));
    }
}
