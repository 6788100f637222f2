//! containerd's task API: its messages, to and from the [`Pod`].

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest,
    PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest,
    StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse, Status, UpdateTaskRequest,
    WaitRequest, WaitResponse,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::oci::{Options, ProcessDetails};
use containerd_shim_protos::shim_async::Task;
use containerd_shim_protos::ttrpc::r#async::TtrpcContext;
use containerd_shim_protos::ttrpc::{self, Code, get_status};

use crate::cleanup::timestamp;
use crate::helper::{Containerd, CreateRequest, FailureKind};
use crate::metrics;
use crate::pod::{Pod, TaskError};
use crate::process::Phase;
use crate::rootfs::Mount;
use crate::stdio::Streams;

/// The name of the runtime options that we read, which are runc's.
const OPTIONS: &str = "containerd.runc.v1.Options";

/// The task API of a pod.
pub(crate) struct TaskService {
    pod: Arc<Pod>,
    containerd: Containerd,
}

impl TaskService {
    /// The one that serves `pod` to `containerd`.
    pub(crate) fn new(pod: Arc<Pod>, containerd: Containerd) -> Self {
        Self { pod, containerd }
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
                FailureKind::HelperDied | FailureKind::Other => Code::UNKNOWN,
            },
            TaskError::Malformed { .. } => Code::INVALID_ARGUMENT,
            TaskError::Console(_)
            | TaskError::Lost(_)
            | TaskError::Logger(_)
            | TaskError::Output(_)
            | TaskError::Freeze { .. }
            | TaskError::Signal(_)
            | TaskError::Processes(_)
            | TaskError::Metrics(_) => Code::UNKNOWN,
        };
        Self::RpcStatus(get_status(code, error.to_string()))
    }
}

/// The text of a message that is JSON, of a type that ends in `kind`.
fn json(any: Option<&Any>, kind: &str, what: &'static str) -> Result<String, TaskError> {
    let malformed = |reason: String| TaskError::Malformed { what, reason };
    let any = any.ok_or_else(|| malformed(format!("expected a {kind}, found nothing")))?;
    if !any.type_url.ends_with(kind) {
        return Err(malformed(format!("expected a {kind}, found type {:?}", any.type_url)));
    }
    String::from_utf8(any.value.clone()).map_err(|error| malformed(error.to_string()))
}

/// What a helper must know to create the container.
fn create_request(request: &CreateTaskRequest, containerd: &Containerd) -> CreateRequest {
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
        containerd: containerd.clone(),
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
        let pid = self.pod.create(create_request(&request, &self.containerd), request.rootfs).await?;
        Ok(CreateTaskResponse { pid, ..CreateTaskResponse::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let pid = if request.exec_id.is_empty() {
            self.pod.start(&request.id).await?
        } else {
            self.pod.start_exec(&request.id, &request.exec_id).await?
        };
        Ok(StartResponse { pid, ..StartResponse::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let (pid, exit) = if request.exec_id.is_empty() {
            self.pod.delete(&request.id).await?
        } else {
            self.pod.delete_exec(&request.id, &request.exec_id).await?
        };
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..DeleteResponse::default()
        })
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let state = self.pod.with(&request.id, |container| {
            let (id, bundle) = (container.id.clone(), container.bundle.path().display().to_string());
            let frozen = container.init.phase == Phase::Paused;
            let process = container.process(&request.exec_id);
            let process = process.ok_or_else(|| TaskError::NoProcess(request.exec_id.clone()))?;
            let (status, ended) = match process.phase {
                Phase::Created => (Status::CREATED, None),
                Phase::Paused => (Status::PAUSED, None),
                Phase::Running if frozen => (Status::PAUSED, None),
                Phase::Starting(_) | Phase::Running => (Status::RUNNING, None),
                Phase::Stopped(exit) => (Status::STOPPED, Some(exit)),
            };
            Ok(StateResponse {
                id,
                bundle,
                exec_id: request.exec_id.clone(),
                pid: process.task_pid(),
                status: status.into(),
                stdin: process.streams.stdin.clone(),
                stdout: process.streams.stdout.clone(),
                stderr: process.streams.stderr.clone(),
                terminal: process.streams.terminal,
                exit_status: ended.map_or(0, |exit| exit.status),
                exited_at: ended.map(|exit| timestamp(exit.at)).into(),
                ..StateResponse::default()
            })
        });
        Ok(state?)
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let exit = self.pod.wait(&request.id, &request.exec_id).await?;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..WaitResponse::default()
        })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        let signal = request.signal.cast_signed();
        if request.all && request.exec_id.is_empty() {
            self.pod.signal_all(&request.id, signal)?;
        } else {
            self.pod.signal(&request.id, &request.exec_id, signal)?;
        }
        Ok(Empty::default())
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let (cgroup, execs) = self.pod.with(&request.id, |container| {
            let execs = container.execs.iter().map(|(id, exec)| (exec.process.pid, id.clone()));
            Ok((container.cgroup.clone(), execs.collect::<HashMap<_, _>>()))
        })?;
        let mut processes = Vec::new();
        for pid in cgroup.processes().map_err(TaskError::Processes)? {
            let details = execs.get(&pid).map(|exec_id| {
                let details = ProcessDetails { exec_id: exec_id.clone(), ..ProcessDetails::default() };
                metrics::pack("containerd.runc.v1.ProcessDetails", &details)
            });
            let info = details.transpose().map_err(TaskError::Metrics)?.into();
            processes.push(ProcessInfo { pid: pid.cast_unsigned(), info, ..ProcessInfo::default() });
        }
        Ok(PidsResponse { processes, ..PidsResponse::default() })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let cgroup = self.pod.with(&request.id, |container| Ok(container.cgroup.clone()))?;
        let stats = metrics::read(&cgroup).map_err(TaskError::Metrics)?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        self.pod.with_process(&request.id, &request.exec_id, |process| {
            if request.stdin {
                process.close_input();
            }
            Ok(())
        })?;
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let characters = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        let (width, height) = (characters(request.width), characters(request.height));
        self.pod.with_process(&request.id, &request.exec_id, |process| {
            process.resize(width, height).map_err(TaskError::Console)
        })?;
        Ok(Empty::default())
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        let task_pid = self.pod.with(&request.id, |container| Ok(container.init.task_pid()));
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

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        self.pod.pause(&request.id).await?;
        Ok(Empty::default())
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        self.pod.resume(&request.id)?;
        Ok(Empty::default())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(TaskError::Unimplemented("making a checkpoint").into())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let spec = json(request.spec.as_ref(), "/Process", "the process to run")?;
        let streams = Streams {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        self.pod.add_exec(&request.id, &request.exec_id, spec, streams)?;
        Ok(Empty::default())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let resources = json(request.resources.as_ref(), "/LinuxResources", "the new limits")?;
        self.pod.update(&request.id, resources).await?;
        Ok(Empty::default())
    }
}
