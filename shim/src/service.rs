//! containerd's task API: its messages, to and from the [`Pod`].

use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest,
    PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest,
    StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest,
    WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::oci::Options;
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc::r#async::TtrpcContext;
use containerd_shim_protos::ttrpc::{self, Code, get_status};

use crate::cleanup::timestamp;
use crate::container::Phase;
use crate::helper::{CreateRequest, FailureKind};
use crate::metrics;
use crate::pod::{Pod, TaskError};
use crate::rootfs::Mount;
use crate::stdio::Streams;

/// The name of the runtime options that we read, which are runc's.
const OPTIONS: &str = "containerd.runc.v1.Options";

/// The task API of a pod.
pub(crate) struct TaskService {
    pod: Arc<Pod>,
}

impl TaskService {
    /// The one that serves `pod`.
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        Self { pod }
    }
}

impl From<TaskError> for ttrpc::Error {
    fn from(error: TaskError) -> Self {
        let code = match &error {
            TaskError::NoContainer(_) | TaskError::NoProcess(_) | TaskError::Finished => Code::NOT_FOUND,
            TaskError::Exists(_) => Code::ALREADY_EXISTS,
            TaskError::Phase { .. } | TaskError::Start { .. } => Code::FAILED_PRECONDITION,
            TaskError::Unimplemented(_) => Code::UNIMPLEMENTED,
            TaskError::Helper(failure) => match failure.kind {
                FailureKind::AlreadyExists => Code::ALREADY_EXISTS,
                FailureKind::Unimplemented => Code::UNIMPLEMENTED,
                FailureKind::HelperDied | FailureKind::Other => Code::UNKNOWN,
            },
            TaskError::Console(_)
            | TaskError::Signal(_)
            | TaskError::Processes(_)
            | TaskError::Metrics(_) => Code::UNKNOWN,
        };
        Self::RpcStatus(get_status(code, error.to_string()))
    }
}

/// There is no process but a container's own, so far.
fn refuse_exec_id(exec_id: &str) -> Result<(), TaskError> {
    if exec_id.is_empty() { Ok(()) } else { Err(TaskError::NoProcess(exec_id.to_owned())) }
}

/// What a helper must know to create the container.
fn create_request(request: &CreateTaskRequest) -> CreateRequest {
    let options = request.options.as_ref().filter(|any| any.type_url.ends_with(OPTIONS));
    let options = options.and_then(|any| Options::parse_from_bytes(&any.value).ok());
    let mounts = request.rootfs.iter().map(|mount| Mount {
        kind: mount.type_.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
    });
    CreateRequest {
        id: request.id.clone(),
        bundle: request.bundle.clone().into(),
        mounts: mounts.collect(),
        streams: Streams {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        },
        systemd_cgroup: options.is_some_and(|options| options.systemd_cgroup),
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
            return Err(TaskError::Unimplemented("restoring a checkpoint").into());
        }
        let pid = self.pod.create(create_request(&request), request.rootfs).await?;
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        refuse_exec_id(&request.exec_id)?;
        let pid = self.pod.start(&request.id).await?;
        Ok(StartResponse { pid, ..StartResponse::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        refuse_exec_id(&request.exec_id)?;
        let (pid, exit) = self.pod.delete(&request.id).await?;
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..DeleteResponse::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        refuse_exec_id(&request.exec_id)?;
        let state = self.pod.with(&request.id, |container| {
            let (status, ended) = match container.phase {
                Phase::Created => (Status::CREATED, None),
                Phase::Starting(_) | Phase::Running => (Status::RUNNING, None),
                Phase::Stopped(exit) => (Status::STOPPED, Some(exit)),
            };
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
        });
        Ok(state?)
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        refuse_exec_id(&request.exec_id)?;
        let exit = self.pod.wait(&request.id).await?;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..WaitResponse::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        refuse_exec_id(&request.exec_id)?;
        let signal = request.signal.cast_signed();
        if request.all {
            let all = self.pod.with(&request.id, |container| Ok(container.cgroup.clone()))?;
            all.signal(signal).map_err(TaskError::Signal)?;
        } else {
            self.pod.signal(&request.id, signal)?;
        }
        Ok(Empty::default())
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let cgroup = self.pod.with(&request.id, |container| Ok(container.cgroup.clone()))?;
        let processes = cgroup.processes().map_err(TaskError::Processes)?.into_iter();
        let processes =
            processes.map(|pid| ProcessInfo { pid: pid.cast_unsigned(), ..ProcessInfo::default() });
        Ok(PidsResponse { processes: processes.collect(), ..PidsResponse::default() })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let cgroup = self.pod.with(&request.id, |container| Ok(container.cgroup.clone()))?;
        let stats = metrics::read(&cgroup).map_err(TaskError::Metrics)?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        refuse_exec_id(&request.exec_id)?;
        self.pod.with(&request.id, |container| {
            if request.stdin {
                container.close_input();
            }
            Ok(())
        })?;
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        refuse_exec_id(&request.exec_id)?;
        let characters = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        let (width, height) = (characters(request.width), characters(request.height));
        self.pod.with(&request.id, |container| match container.console() {
            Some(console) => console.resize(width, height).map_err(TaskError::Console),
            // Without a terminal there is nothing to resize.
            None => Ok(()),
        })?;
        Ok(Empty::default())
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        let task_pid = self.pod.with(&request.id, |container| Ok(container.task_pid()));
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            // containerd also asks a shim that has no task yet.
            task_pid: task_pid.unwrap_or(0),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.pod.stop_if_idle();
        Ok(Empty::default())
    }

    async fn pause(&self, _: &TtrpcContext, _: PauseRequest) -> ttrpc::Result<Empty> {
        Err(TaskError::Unimplemented("pause").into())
    }

    async fn resume(&self, _: &TtrpcContext, _: ResumeRequest) -> ttrpc::Result<Empty> {
        Err(TaskError::Unimplemented("resume").into())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(TaskError::Unimplemented("checkpoint").into())
    }

    async fn exec(&self, _: &TtrpcContext, _: ExecProcessRequest) -> ttrpc::Result<Empty> {
        Err(TaskError::Unimplemented("exec").into())
    }

    async fn update(&self, _: &TtrpcContext, _: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        Err(TaskError::Unimplemented("update").into())
    }
}
