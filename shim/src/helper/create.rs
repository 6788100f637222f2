//! Creating a container: its root file system mounted, recognised, its code
//! compiled if need be, and its init left waiting for the start.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{Process, Spec, User};
use wharf_app::{Component, Manifest, Sha256};

use super::program::{self, ProgramError};
use super::{Answer, CreateRequest, Created, Failure, FailureKind};
use crate::aot::{AotError, Cache, Progress};
use crate::bundle::{Bundle, BundleError, ProcessMark, Record};
use crate::cgroup::Cgroup;
use crate::cleanup::{self, started};
use crate::console::SOCKET_FROM_STATE;
use crate::devices;
use crate::executor::{Host, Native};
use crate::mounts;
use crate::node::{self, NodeError};
use crate::recognition::{Kind, RecognitionError, recognise};
use crate::rootfs::{MountError, Rootfs, mount_all};
use crate::seccomp::{self, FilterError};
use crate::spec::{self, SpecError};
use crate::stdio::{StreamError, Streams};

/// Why a container can't be created.
#[derive(Debug, thiserror::Error)]
enum CreateError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("cannot open the root file system")]
    Rootfs(#[source] io::Error),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Recognition(#[from] RecognitionError),
    #[error("cannot prepare app {name:?}")]
    Host {
        name: String,
        #[source]
        source: NodeError,
    },
    #[error("cannot prepare app {name:?}")]
    Precompile {
        name: String,
        #[source]
        source: AotError,
    },
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("cannot pass files to the container")]
    Descriptors(#[source] io::Error),
    #[error(transparent)]
    Streams(#[from] StreamError),
    #[error("cannot create the container")]
    Container(#[from] LibcontainerError),
    #[error("cannot find the container's process")]
    Process,
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("cannot limit the container's devices")]
    Devices(#[source] io::Error),
    #[error("cannot set the container's mounts as its spec asks")]
    Mounts(#[source] io::Error),
    #[error("cannot make the working directory")]
    Directory(#[source] io::Error),
    #[error("cannot find the container's cgroup")]
    Cgroup(#[source] io::Error),
}

/// Creates the container. If that fails, nothing is left of it.
pub(super) fn create(request: &CreateRequest) -> Result<Created, Failure> {
    let bundle = Bundle::new(&request.bundle);
    bundle.create_state().map_err(|error| {
        let mut failure = Failure::from_error(&error);
        if error.kind() == io::ErrorKind::AlreadyExists {
            failure.kind = FailureKind::AlreadyExists;
        }
        failure
    })?;
    mark_creator(&bundle).and_then(|()| try_create(request, &bundle)).map_err(|error| {
        let failure = Failure::from_error(&error);
        if let Err(error) = cleanup::remove(&bundle) {
            tracing::warn!(%error, "cannot clean up after a failed create");
        }
        failure
    })
}

/// Says who creates the container, for who has to stop it. Its own group: what
/// libcontainer forks stays in it until it is the container's init.
fn mark_creator(bundle: &Bundle) -> Result<(), CreateError> {
    let ourselves = nix::unistd::getpid();
    nix::unistd::setpgid(ourselves, ourselves).map_err(|error| BundleError::Io(error.into()))?;
    let started = started(ourselves.as_raw()).ok_or(CreateError::Process)?;
    Ok(bundle.save_creator(ProcessMark { pid: ourselves.as_raw(), started })?)
}

fn try_create(request: &CreateRequest, bundle: &Bundle) -> Result<Created, CreateError> {
    let mut spec = bundle.load_spec()?;
    let oom_score = spec.process().as_ref().and_then(Process::oom_score_adj);
    mount_all(&request.mounts, &bundle.rootfs())?;
    spec::prepare(&mut spec, bundle.path())?;
    let root = spec.root().as_ref().ok_or(SpecError::Missing("root"))?;
    let rootfs = Rootfs::open(root.path()).map_err(CreateError::Rootfs)?;
    let directory = spec.process().as_ref().map_or(Path::new("/"), |process| process.cwd());
    rootfs.make_folder(directory).map_err(CreateError::Directory)?;
    // Before anything is written to the container's log: were that closed again
    // before these are open, its reader would take it for the end.
    let streams = match request.streams.terminal {
        true => None,
        false => Some(request.streams.open(user(&spec)?.uid())?),
    };
    let kind = recognise(&spec, &rootfs)?;
    let is_app = matches!(kind, Kind::App(_));
    let host = match kind {
        Kind::Native => None,
        Kind::App(manifest) => Some(prepare_app(&manifest, &mut spec, &rootfs, &request.streams)?),
        Kind::Program(program) => Some(program::prepare(&program, &mut spec, &rootfs, &request.streams)?),
        Kind::Absent(program) => program::prepare_of_layer(&program, &mut spec, request)?,
    };
    let filter = seccomp::take(&mut spec)?;
    bundle.save_edited_spec(&spec)?;
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let systemd_cgroup = request.systemd_cgroup || path.is_some_and(spec::is_systemd_path);
    // libcontainer keeps ours for a user that has none. In a user namespace
    // that forbids it we have none that count.
    let _ = nix::unistd::setgroups(&[]);
    if let Some(score) = oom_score {
        adjust_oom_score(score);
    }

    let builder = ContainerBuilder::new(request.id.clone(), SyscallType::default());
    let builder = builder.with_root_path(bundle.state())?;
    let builder = match streams {
        // The server listens there.
        None => builder.with_console_socket(Some(SOCKET_FROM_STATE)),
        Some([stdin, stdout, stderr]) => builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr),
    };
    let builder = match host {
        Some(host) => builder.with_executor(host.under(filter)),
        None => builder.with_executor(Native::under(filter)),
    };
    let container = builder.as_init(bundle.state()).with_systemd(systemd_cgroup).with_detach(true).build()?;

    let pid = container.pid().ok_or(CreateError::Process)?.as_raw();
    let cgroup = Cgroup::of_process(pid).map_err(CreateError::Cgroup)?;
    let record = Record {
        pid,
        started: started(pid).ok_or(CreateError::Process)?,
        cgroup: cgroup.folders().to_vec(),
        is_app,
        systemd_cgroup,
    };
    bundle.save_record(&record)?;
    // Its init waits for the start: no program has run by now.
    devices::limit(&spec, &cgroup).map_err(CreateError::Devices)?;
    mounts::repair(&spec, pid).map_err(CreateError::Mounts)?;
    let hooks = spec.hooks().as_ref().and_then(|hooks| hooks.poststart().as_ref());
    Ok(Created {
        pid,
        cgroup: record.cgroup,
        own_pid_namespace: spec::has_own_pid_namespace(&spec),
        has_start_hooks: hooks.is_some_and(|hooks| !hooks.is_empty()),
        console_size: spec.process().as_ref().and_then(spec::console_size),
    })
}

/// Has the container serve the app by the node's host.
fn prepare_app(
    manifest: &Manifest,
    spec: &mut Spec,
    rootfs: &Rootfs,
    streams: &Streams,
) -> Result<Host, CreateError> {
    let name = || manifest.name.clone();
    let program =
        node::open_host(user(spec)?).map_err(|source| CreateError::Host { name: name(), source })?;
    let components = precompile(manifest, rootfs, streams)
        .map_err(|source| CreateError::Precompile { name: name(), source })?;
    let (digests, code): (Vec<Sha256>, Vec<OwnedFd>) = components.into_iter().unzip();
    spec::serve_app(spec, &digests)?;
    Host::new(&program.into(), &code).map_err(CreateError::Descriptors)
}

fn precompile(
    manifest: &Manifest,
    rootfs: &Rootfs,
    streams: &Streams,
) -> Result<Vec<(Sha256, OwnedFd)>, AotError> {
    if manifest.components.is_empty() {
        return Ok(Vec::new());
    }
    let cache = Cache::open()?;
    let mut progress = Progress::of_container(streams);
    let get = |component: &Component| {
        let source = || rootfs.read(&format!("/app/{}", component.file));
        Ok((component.sha256, cache.get(component, source, &mut progress)?))
    };
    manifest.components.iter().map(get).collect()
}

pub(super) fn user(spec: &Spec) -> Result<&User, SpecError> {
    let process = spec.process().as_ref().ok_or(SpecError::Missing("process"))?;
    Ok(process.user())
}

/// Sets how early the kernel ends the container when memory is short. Its
/// processes inherit it from this one.
pub(super) fn adjust_oom_score(wanted: i32) {
    let file = "/proc/self/oom_score_adj";
    let set = |score: i32| fs::write(file, score.to_string());
    let Err(error) = set(wanted) else {
        return;
    };
    // Lowering it takes CAP_SYS_RESOURCE; containers that are a little easier
    // to end are better than none. The present score is always allowed.
    let present = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    let (mut refused, mut allowed) = (wanted, present.unwrap_or(0));
    while allowed - refused > 1 {
        let middle = refused.midpoint(allowed);
        match set(middle) {
            Ok(()) => allowed = middle,
            Err(_) => refused = middle,
        }
    }
    tracing::warn!(wanted, allowed, %error, "cannot set oom_score_adj as low as asked for");
}

/// Starts a created container by libcontainer.
pub(super) fn start(id: &str, bundle: &Bundle) -> Result<Answer, Failure> {
    let started = load(id, bundle).and_then(|mut container| container.start());
    started.map_err(|error| Failure::from_error(&error))?;
    Ok(Answer::Done)
}

/// Runs the spec's `poststop` hooks. Should they fail, the container is
/// deleted all the same, as the runtime spec has it.
pub(super) fn run_stop_hooks(id: &str, bundle: &Bundle) {
    let hooks = bundle.load_spec().ok().and_then(|spec| spec.hooks().clone());
    let hooks = hooks.and_then(|hooks| hooks.poststop().clone());
    if hooks.is_none_or(|hooks| hooks.is_empty()) {
        return;
    }
    let deleted = load(id, bundle).and_then(|mut container| container.delete(true));
    if let Err(error) = deleted {
        tracing::warn!(%error, "cannot run the container's poststop hooks");
    }
}

fn load(id: &str, bundle: &Bundle) -> Result<Container, LibcontainerError> {
    Container::load(bundle.state().join(id))
}
