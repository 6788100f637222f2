//! containerd's task API.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest,
    PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest,
    StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest,
    WaitRequest, WaitResponse,
};
use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskIO, TaskStart};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::oci::Options;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc::r#async::TtrpcContext;
use containerd_shim_protos::ttrpc::{self, Code, get_status};
use tokio::sync::Notify;

use crate::bundle::Bundle;
use crate::cleanup::timestamp;
use crate::console::{Console, ConsoleListener};
use crate::container::{Container, Phase};
use crate::events::Publisher;
use crate::helper::{CreateRequest, Failure, FailureKind, Helper, Request};
use crate::reaper::{Exit, Reaper};
use crate::rootfs::Mount;
use crate::stdio::Streams;
use crate::{metrics, sys};

/// The containers of one pod and what serves them.
pub(crate) struct Shim {
    containers: Mutex<Containers>,
    reaper: Arc<Reaper>,
    helper: Helper,
    publisher: Publisher,
    stop: Notify,
}

/// The task API of a shim, which ttrpc calls.
pub(crate) struct TaskService(pub(crate) Arc<Shim>);

impl std::ops::Deref for TaskService {
    type Target = Shim;

    fn deref(&self) -> &Shim {
        &self.0
    }
}

#[derive(Default)]
struct Containers {
    ready: HashMap<String, Container>,
    /// Those that a helper is creating.
    creating: HashSet<String>,
}

fn status(code: Code, message: impl Into<String>) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(get_status(code, message.into()))
}

fn unimplemented(what: &str) -> ttrpc::Error {
    let message = format!("{what} is not yet implemented by the wasm runtime");
    status(Code::UNIMPLEMENTED, message)
}

fn no_container(id: &str) -> ttrpc::Error {
    status(Code::NOT_FOUND, format!("container {id:?} not found"))
}

/// There is no process but a container's own, so far.
fn refuse_exec_id(exec_id: &str) -> ttrpc::Result<()> {
    if exec_id.is_empty() {
        Ok(())
    } else {
        Err(status(Code::NOT_FOUND, format!("process {exec_id:?} not found")))
    }
}

impl From<Failure> for ttrpc::Error {
    fn from(failure: Failure) -> Self {
        let code = match failure.kind {
            FailureKind::AlreadyExists => Code::ALREADY_EXISTS,
            FailureKind::Unimplemented => Code::UNIMPLEMENTED,
            FailureKind::HelperDied | FailureKind::Other => Code::UNKNOWN,
        };
        status(code, failure.message)
    }
}

impl Shim {
    /// A shim without containers.
    pub(crate) fn new(reaper: Arc<Reaper>, publisher: Publisher) -> Self {
        Self {
            containers: Mutex::default(),
            helper: Helper::new(Arc::clone(&reaper)),
            reaper,
            publisher,
            stop: Notify::new(),
        }
    }

    /// Whether it has no container.
    pub(crate) fn is_idle(&self) -> bool {
        let containers = self.lock();
        containers.ready.is_empty() && containers.creating.is_empty()
    }

    /// Returns once containerd has asked it to end.
    pub(crate) async fn stopped(&self) {
        self.stop.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, id: &str, work: impl FnOnce(&mut Container) -> ttrpc::Result<T>) -> ttrpc::Result<T> {
        let mut containers = self.lock();
        work(containers.ready.get_mut(id).ok_or_else(|| no_container(id))?)
    }

    /// Notes the end of a container's init; at once, or after its start.
    fn exited(&self, id: &str, exit: Exit) {
        let mut containers = self.lock();
        let Some(container) = containers.ready.get_mut(id) else {
            return;
        };
        if let Phase::Starting(ended) = &mut container.phase {
            *ended = Some(exit);
            return;
        }
        self.stop_container(container, exit);
    }

    fn stop_container(&self, container: &mut Container, exit: Exit) {
        container.stop(exit);
        self.publisher.publish(&TaskExit {
            container_id: container.id.clone(),
            id: container.id.clone(),
            pid: container.task_pid(),
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..TaskExit::default()
        });
    }

    fn publish_start(&self, container: &Container) {
        self.publisher.publish(&TaskStart {
            container_id: container.id.clone(),
            pid: container.task_pid(),
            ..TaskStart::default()
        });
    }

    /// Starts a container whose spec has start hooks.
    async fn start_by_helper(&self, id: &str) -> ttrpc::Result<u32> {
        let bundle = self.with(id, |container| {
            container.phase = Phase::Starting(None);
            Ok(container.bundle.path().to_owned())
        })?;
        let id = id.to_owned();
        let request = Request::Start { id: id.clone(), bundle };
        let started = self.helper.run("start", request).await;
        self.with(&id, |container| {
            let Phase::Starting(ended) = container.phase else {
                return Ok(container.task_pid());
            };
            container.phase = Phase::Running;
            if started.is_ok() {
                self.publish_start(container);
            }
            if let Some(exit) = ended {
                self.stop_container(container, exit);
            }
            started?;
            Ok(container.task_pid())
        })
    }
}

/// A signal to one process; that it has ended is an error of its own kind.
fn send_signal(pid: i32, signal: i32) -> ttrpc::Result<()> {
    match sys::send_signal(pid, signal) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            Err(status(Code::NOT_FOUND, "process already finished"))
        }
        Err(error) => Err(status(Code::UNKNOWN, format!("cannot signal process: {error}"))),
    }
}

#[async_trait]
impl Task for TaskService {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        if !request.checkpoint.is_empty() {
            return Err(unimplemented("restoring a checkpoint"));
        }
        let id = request.id;
        {
            let mut containers = self.lock();
            if containers.ready.contains_key(&id) || !containers.creating.insert(id.clone()) {
                let message = format!("container {id:?} exists already");
                return Err(status(Code::ALREADY_EXISTS, message));
            }
        }
        let options = request.options.as_ref();
        let options = options.filter(|any| any.type_url.ends_with("containerd.runc.v1.Options"));
        let options = options.and_then(|any| Options::parse_from_bytes(&any.value).ok());
        let streams = Streams {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let mounts = request.rootfs.iter().map(|mount| Mount {
            kind: mount.type_.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
        });
        let create = CreateRequest {
            id: id.clone(),
            bundle: request.bundle.clone().into(),
            mounts: mounts.collect(),
            streams: streams.clone(),
            systemd_cgroup: options.is_some_and(|options| options.systemd_cgroup),
        };
        let console = match streams.terminal.then(|| ConsoleListener::bind(&Bundle::new(&request.bundle))) {
            Some(Err(error)) => {
                self.lock().creating.remove(&id);
                let message = format!("cannot listen for the container's terminal: {error}");
                return Err(status(Code::UNKNOWN, message));
            }
            Some(Ok(listener)) => Some(listener),
            None => None,
        };
        // Its init may end before we know its process id.
        let expectation = self.reaper.expect();
        let created = self.helper.create(Request::Create(Box::new(create))).await;
        if created.as_ref().is_err_and(|failure| failure.kind == FailureKind::HelperDied) {
            let delete = Request::Delete { id: id.clone(), bundle: request.bundle.clone().into() };
            if let Err(error) = self.helper.run("delete", delete).await {
                tracing::error!(id, %error, "cannot clean up after a helper that died");
            }
        }
        let mut containers = self.lock();
        containers.creating.remove(&id);
        let created = created?;
        let ended = self.reaper.watch(created.pid);
        drop(expectation);

        let bundle = Bundle::new(&request.bundle);
        let mut container = Container::new(id.clone(), bundle, streams, created);
        if let Some(listener) = console {
            let attached = listener.receive().and_then(|master| Console::attach(master, &container.streams));
            match attached {
                Ok(console) => container.set_console(console),
                // Its init waits: a client that deletes it ends it.
                Err(error) => tracing::error!(id, %error, "cannot attach the container's terminal"),
            }
        }
        let pid = container.task_pid();
        self.publisher.publish(&TaskCreate {
            container_id: id.clone(),
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: MessageField::some(TaskIO {
                stdin: container.streams.stdin.clone(),
                stdout: container.streams.stdout.clone(),
                stderr: container.streams.stderr.clone(),
                terminal: container.streams.terminal,
                ..TaskIO::default()
            }),
            pid,
            ..TaskCreate::default()
        });
        containers.ready.insert(id.clone(), container);
        drop(containers);
        let shim = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Ok(exit) = ended.await {
                shim.exited(&id, exit);
            }
        });
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        refuse_exec_id(&request.exec_id)?;
        let started = self.with(&request.id, |container| {
            if container.phase != Phase::Created {
                let message = format!("container {:?} was started already", container.id);
                return Err(status(Code::FAILED_PRECONDITION, message));
            }
            if container.has_start_hooks {
                return Ok(None);
            }
            container.notify_start().map_err(|error| {
                let message = format!("cannot start container {:?}: {error}", container.id);
                status(Code::FAILED_PRECONDITION, message)
            })?;
            container.phase = Phase::Running;
            // Queued before anyone else can see its end.
            self.publish_start(container);
            Ok(Some(container.task_pid()))
        })?;
        let pid = match started {
            Some(pid) => pid,
            None => self.start_by_helper(&request.id).await?,
        };
        Ok(StartResponse { pid, ..StartResponse::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        refuse_exec_id(&request.exec_id)?;
        let mut ended = self.with(&request.id, |container| {
            match container.phase {
                Phase::Stopped(_) => {}
                Phase::Created => send_signal(container.pid, libc::SIGKILL)?,
                Phase::Running | Phase::Starting(_) => {
                    let message = format!("container {:?} is running", container.id);
                    return Err(status(Code::FAILED_PRECONDITION, message));
                }
            }
            Ok(container.watch_exit())
        })?;
        let exit = wait_for(&mut ended).await?;
        let bundle = self.with(&request.id, |container| Ok(container.bundle.path().to_owned()))?;
        let delete = Request::Delete { id: request.id.clone(), bundle };
        self.helper.run("delete", delete).await?;
        let removed = self.lock().ready.remove(&request.id);
        let container = removed.ok_or_else(|| no_container(&request.id))?;
        let pid = container.task_pid();
        let exited_at = MessageField::some(timestamp(exit.at));
        self.publisher.publish(&TaskDelete {
            container_id: request.id.clone(),
            id: request.id,
            pid,
            exit_status: exit.status,
            exited_at: exited_at.clone(),
            ..TaskDelete::default()
        });
        Ok(DeleteResponse { pid, exit_status: exit.status, exited_at, ..DeleteResponse::default() })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        refuse_exec_id(&request.exec_id)?;
        self.with(&request.id, |container| {
            let status = match container.phase {
                Phase::Created => Status::CREATED,
                Phase::Starting(_) | Phase::Running => Status::RUNNING,
                Phase::Stopped(_) => Status::STOPPED,
            };
            let ended = container.ended();
            Ok(StateResponse {
                id: container.id.clone(),
                bundle: container.bundle.path().display().to_string(),
                pid: container.task_pid(),
                status: status.into(),
                stdin: container.streams.stdin.clone(),
                stdout: container.streams.stdout.clone(),
                stderr: container.streams.stderr.clone(),
                terminal: container.streams.terminal,
                exit_status: ended.map_or(0, |exit| exit.status),
                exited_at: ended.map(|exit| timestamp(exit.at)).into(),
                ..StateResponse::default()
            })
        })
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        refuse_exec_id(&request.exec_id)?;
        let mut ended = self.with(&request.id, |container| Ok(container.watch_exit()))?;
        let exit = wait_for(&mut ended).await?;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..WaitResponse::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        refuse_exec_id(&request.exec_id)?;
        self.with(&request.id, |container| {
            if request.all {
                let sent = container.cgroup.signal(request.signal.cast_signed());
                sent.map_err(|error| status(Code::UNKNOWN, error.to_string()))?;
            } else if container.ended().is_some() {
                return Err(status(Code::NOT_FOUND, "process already finished"));
            } else {
                send_signal(container.pid, request.signal.cast_signed())?;
            }
            Ok(Empty::default())
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        self.with(&request.id, |container| {
            let processes = container.cgroup.processes();
            let processes = processes.map_err(|error| status(Code::UNKNOWN, error.to_string()))?.into_iter();
            let processes =
                processes.map(|pid| ProcessInfo { pid: pid.cast_unsigned(), ..ProcessInfo::default() });
            Ok(PidsResponse { processes: processes.collect(), ..PidsResponse::default() })
        })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        self.with(&request.id, |container| {
            let metrics = metrics::read(&container.cgroup);
            let metrics = metrics.map_err(|error| status(Code::UNKNOWN, error.to_string()))?;
            Ok(StatsResponse { stats: MessageField::some(metrics), ..StatsResponse::default() })
        })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        refuse_exec_id(&request.exec_id)?;
        self.with(&request.id, |container| {
            if request.stdin {
                container.close_input();
            }
            Ok(Empty::default())
        })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        let task_pid = self.with(&request.id, |container| Ok(container.task_pid()));
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            // containerd also asks a shim that has no task yet.
            task_pid: task_pid.unwrap_or(0),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        // containerd asks after each task; the pod's last one ends us.
        if self.is_idle() {
            self.stop.notify_one();
        }
        Ok(Empty::default())
    }

    async fn pause(&self, _: &TtrpcContext, _: PauseRequest) -> ttrpc::Result<Empty> {
        Err(unimplemented("pause"))
    }

    async fn resume(&self, _: &TtrpcContext, _: ResumeRequest) -> ttrpc::Result<Empty> {
        Err(unimplemented("resume"))
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(unimplemented("checkpoint"))
    }

    async fn exec(&self, _: &TtrpcContext, _: ExecProcessRequest) -> ttrpc::Result<Empty> {
        Err(unimplemented("exec"))
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        refuse_exec_id(&request.exec_id)?;
        self.with(&request.id, |container| {
            let characters = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
            let (width, height) = (characters(request.width), characters(request.height));
            // One without a terminal has nothing to resize.
            let resized = container.console().map(|console| console.resize(width, height));
            let resized = resized.unwrap_or(Ok(()));
            resized.map_err(|error| status(Code::UNKNOWN, format!("cannot resize terminal: {error}")))?;
            Ok(Empty::default())
        })
    }

    async fn update(&self, _: &TtrpcContext, _: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        Err(unimplemented("update"))
    }
}

async fn wait_for(ended: &mut tokio::sync::watch::Receiver<Option<Exit>>) -> ttrpc::Result<Exit> {
    let exit = ended.wait_for(Option::is_some).await.map(|exit| *exit).ok().flatten();
    exit.ok_or_else(|| status(Code::NOT_FOUND, "the container was deleted meanwhile"))
}
