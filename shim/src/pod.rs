//! The containers of one pod: their creation, start, end and deletion, and
//! the events that tell of these in order. What is done to a container between
//! is in [`exec`] and [`control`].

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskIO, TaskStart};
use containerd_shim_protos::protobuf::{self, MessageField};
use containerd_shim_protos::types::mount::Mount;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinError;
use tokio::time::sleep;

use crate::bundle::Bundle;
use crate::cleanup::timestamp;
use crate::console::{CONSOLE, Console, ConsoleListener};
use crate::container::Container;
use crate::events::Publisher;
use crate::helper::{CreateRequest, Created, Failure, FailureKind, Helper, Request};
use crate::logger::{Logger, LoggerError};
use crate::process::{Phase, Process};
use crate::reaper::{Exit, Reaper};
use crate::stdio::Streams;
use crate::sys;

mod control;
mod exec;

/// Time after a start until containerd's calls for it are over.
const UNTIL_QUIET: Duration = Duration::from_secs(2);

/// Time without a container after which a pod has none any more. containerd makes one
/// at once, and says when the last one is gone; unless it, or the `start` that it waits
/// for, was killed just then, or there was no space for what they write.
const UNTIL_ABANDONED: Duration = Duration::from_secs(30);

/// The containers of one pod and what serves them.
pub(crate) struct Pod {
    containers: Mutex<Containers>,
    reaper: Arc<Reaper>,
    helper: Helper,
    publisher: Publisher,
    /// containerd's namespace of its containers.
    namespace: String,
    /// Tells that a container is no longer being created.
    settled: Notify,
    /// Tells that there is one container less, or one that was not created.
    emptied: Notify,
    stop: Notify,
}

#[derive(Default)]
struct Containers {
    ready: HashMap<String, Container>,
    /// Those that a helper is creating.
    creating: HashSet<String>,
    /// How many were begun.
    begun: u64,
}

/// Why a request about a container can't be fulfilled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    /// There is none of this id.
    #[error("container {0:?} not found")]
    NoContainer(String),
    /// It has no process of this id.
    #[error("process {0:?} not found")]
    NoProcess(String),
    /// Its process has ended.
    #[error("process already finished")]
    Finished,
    /// There is one of this id.
    #[error("container {0:?} exists already")]
    Exists(String),
    /// That is for another time of its life.
    #[error("container or process {id:?} {state}")]
    Phase {
        /// Its id.
        id: String,
        /// What it is, or was.
        state: &'static str,
    },
    /// Its init does not become the program.
    #[error("cannot start container {id:?}: {source}")]
    Start {
        /// Its id.
        id: String,
        /// The reason.
        source: io::Error,
    },
    /// It can't be given a terminal.
    #[error("cannot use the container's terminal: {0}")]
    Console(#[source] io::Error),
    /// A signal can't be sent.
    #[error("cannot signal the container's processes: {0}")]
    Signal(#[source] io::Error),
    /// Its processes can't be listed.
    #[error("cannot list the container's processes: {0}")]
    Processes(#[source] io::Error),
    /// Its metrics can't be encoded.
    #[error("cannot encode the container's metrics: {0}")]
    Metrics(#[source] protobuf::Error),
    /// The work on it ended by a fault of ours.
    #[error("the shim failed: {0}")]
    Lost(#[source] JoinError),
    /// A helper could not do its work.
    #[error(transparent)]
    Helper(#[from] Failure),
    /// Its output can't be copied.
    #[error("cannot copy the process's output: {0}")]
    Output(#[source] io::Error),
    /// A logging program can't be used.
    #[error(transparent)]
    Logger(#[from] LoggerError),
    /// It can't be frozen, or not be thawed.
    #[error("cannot {work} the container: {source}")]
    Freeze {
        /// What was to be done.
        work: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// What came with the request is not what its type says.
    #[error("cannot read {what}: {reason}")]
    Malformed {
        /// What came.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No runtime of this kind does that.
    #[error("{0} is not supported by the wasm runtime")]
    Unimplemented(&'static str),
}

/// An id that is taken while its container is created.
struct Reservation<'a> {
    pod: &'a Pod,
    id: &'a str,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.pod.lock().creating.remove(self.id);
        self.pod.settled.notify_waiters();
        self.pod.emptied.notify_one();
    }
}

impl Pod {
    /// A pod without containers.
    pub(crate) fn new(reaper: Arc<Reaper>, publisher: Publisher, namespace: String) -> Self {
        Self {
            containers: Mutex::default(),
            helper: Helper::new(Arc::clone(&reaper)),
            reaper,
            publisher,
            namespace,
            settled: Notify::new(),
            emptied: Notify::new(),
            stop: Notify::new(),
        }
    }

    /// Whether it has no container.
    pub(crate) fn is_idle(&self) -> bool {
        let containers = self.lock();
        containers.ready.is_empty() && containers.creating.is_empty()
    }

    /// Ends it if it has no container. containerd asks after each one.
    pub(crate) fn stop_if_idle(&self) {
        if self.is_idle() {
            self.stop.notify_one();
        }
    }

    /// Returns once it has had no container for a while. Wakes only when one goes.
    pub(crate) async fn abandoned(&self) {
        loop {
            while self.is_idle() {
                let before = self.lock().begun;
                sleep(UNTIL_ABANDONED).await;
                if self.is_idle() && self.lock().begun == before {
                    return;
                }
            }
            self.emptied.notified().await;
        }
    }

    /// Returns once it has ended.
    pub(crate) async fn stopped(&self) {
        self.stop.notified().await;
    }

    /// Does `work` with a container.
    ///
    /// # Errors
    /// There is none of this id, or as `work` says.
    pub(crate) fn with<T>(
        &self,
        id: &str,
        work: impl FnOnce(&mut Container) -> Result<T, TaskError>,
    ) -> Result<T, TaskError> {
        let mut containers = self.lock();
        let container = containers.ready.get_mut(id);
        work(container.ok_or_else(|| TaskError::NoContainer(id.to_owned()))?)
    }

    /// Does `work` with the process `exec_id` of a container, or with its init
    /// if that is empty.
    ///
    /// # Errors
    /// There is none of this id, or as `work` says.
    pub(crate) fn with_process<T>(
        &self,
        id: &str,
        exec_id: &str,
        work: impl FnOnce(&mut Process) -> Result<T, TaskError>,
    ) -> Result<T, TaskError> {
        self.with(id, |container| {
            let process = container.process(exec_id);
            work(process.ok_or_else(|| TaskError::NoProcess(exec_id.to_owned()))?)
        })
    }

    /// Creates a container; `rootfs` is only for the event. Gives its init's
    /// process id. Whoever asks may give up at any time: then it is undone.
    ///
    /// # Errors
    /// [`TaskError`]; nothing is left of it.
    pub(crate) async fn create(
        self: &Arc<Self>,
        request: CreateRequest,
        rootfs: Vec<Mount>,
    ) -> Result<u32, TaskError> {
        let (asking, abandoned) = oneshot::channel::<()>();
        let pod = Arc::clone(self);
        // A task of its own, which goes on when this future is dropped.
        let task = tokio::spawn(async move { pod.create_unless(abandoned, request, rootfs).await });
        let created = task.await.unwrap_or_else(|error| Err(TaskError::Lost(error)));
        drop(asking);
        created
    }

    async fn create_unless(
        self: &Arc<Self>,
        abandoned: oneshot::Receiver<()>,
        request: CreateRequest,
        rootfs: Vec<Mount>,
    ) -> Result<u32, TaskError> {
        let (id, streams) = (request.id.clone(), request.streams.clone());
        let bundle = Bundle::new(&request.bundle);
        let reservation = self.reserve(&id)?;
        let logger = Logger::start(&streams, &bundle, &id, &self.namespace, &self.reaper).await?;
        let mut request = request;
        request.streams = logger.streams(&streams);
        let opened = request.streams.clone();
        let listener = listen_for_terminal(&request.streams, &bundle, CONSOLE)?;
        // Its init may end before we know its process id.
        let expectation = self.reaper.expect();
        let created = self.create_by_helper(request, abandoned).await?;
        let ended = self.reaper.watch(created.pid);
        drop(expectation);

        let size = created.console_size;
        let mut container = Container::new(id.clone(), bundle, streams, created);
        if let Some(listener) = listener {
            // Should that fail, its init waits, and ends when it is deleted.
            attach_terminal(&mut container.init, listener, &opened, size);
        }
        drop(logger);
        let pid = container.init.task_pid();
        self.publish_create(&container, rootfs);
        // Before its id is free.
        self.lock().ready.insert(id.clone(), container);
        drop(reservation);
        self.watch_memory(&id);
        let pod = Arc::clone(self);
        tokio::spawn(async move {
            if let Ok(exit) = ended.await {
                pod.exited(&id, exit);
            }
        });
        Ok(pid)
    }

    /// Starts a created container's program. Gives its process id.
    ///
    /// # Errors
    /// [`TaskError`].
    pub(crate) async fn start(&self, id: &str) -> Result<u32, TaskError> {
        let started = self.with(id, |container| {
            if container.init.phase != Phase::Created {
                let id = id.to_owned();
                return Err(TaskError::Phase { id, state: "was started already" });
            }
            if container.has_start_hooks {
                container.init.phase = Phase::Starting(None);
                return Ok(None);
            }
            let notified = container.notify_start();
            notified.map_err(|source| TaskError::Start { id: id.to_owned(), source })?;
            container.init.phase = Phase::Running;
            // Queued before anyone else can see its end.
            self.publish_start(container);
            Ok(Some(container.init.task_pid()))
        })?;
        let pid = match started {
            Some(pid) => pid,
            None => self.start_by_helper(id).await?,
        };
        tokio::spawn(async {
            sleep(UNTIL_QUIET).await;
            wharf_sys::release_program();
        });
        Ok(pid)
    }

    /// Waits until a process has ended.
    ///
    /// # Errors
    /// There is none of this id, or it was deleted meanwhile.
    pub(crate) async fn wait(&self, id: &str, exec_id: &str) -> Result<Exit, TaskError> {
        let mut ended = self.with_process(id, exec_id, |process| Ok(process.watch_exit()))?;
        wait_for(id, &mut ended).await
    }

    /// Removes all that is left of a container that does not run. Gives its
    /// process id and how it ended.
    ///
    /// # Errors
    /// [`TaskError`]; it can be tried again.
    pub(crate) async fn delete(&self, id: &str) -> Result<(u32, Exit), TaskError> {
        self.settle(id).await;
        let (mut ended, bundle) = self.with(id, |container| {
            match container.init.phase {
                Phase::Stopped(_) => {}
                Phase::Created => send_signal(container.init.pid, libc::SIGKILL)?,
                Phase::Running | Phase::Starting(_) | Phase::Paused => {
                    return Err(TaskError::Phase { id: id.to_owned(), state: "is running" });
                }
            }
            Ok((container.init.watch_exit(), container.bundle.path().to_owned()))
        })?;
        let exit = wait_for(id, &mut ended).await?;
        self.delete_by_helper(id, bundle).await?;
        let removed = self.lock().ready.remove(id);
        self.emptied.notify_one();
        let container = removed.ok_or_else(|| TaskError::NoContainer(id.to_owned()))?;
        let pid = container.init.task_pid();
        self.publisher.publish(&TaskDelete {
            container_id: id.to_owned(),
            id: id.to_owned(),
            pid,
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..TaskDelete::default()
        });
        Ok((pid, exit))
    }

    fn lock(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while a container of this id is being created: containerd deletes
    /// what it gave up to create.
    async fn settle(&self, id: &str) {
        loop {
            let mut settled = pin!(self.settled.notified());
            // From here on, nothing is missed.
            settled.as_mut().enable();
            if !self.lock().creating.contains(id) {
                return;
            }
            settled.await;
        }
    }

    fn reserve<'a>(&'a self, id: &'a str) -> Result<Reservation<'a>, TaskError> {
        let mut containers = self.lock();
        if containers.ready.contains_key(id) || !containers.creating.insert(id.to_owned()) {
            return Err(TaskError::Exists(id.to_owned()));
        }
        containers.begun += 1;
        Ok(Reservation { pod: self, id })
    }

    async fn create_by_helper(
        &self,
        request: CreateRequest,
        abandoned: oneshot::Receiver<()>,
    ) -> Result<Created, Failure> {
        let (id, bundle) = (request.id.clone(), request.bundle.clone());
        let abandoned = async { drop(abandoned.await) };
        let created = self.helper.create(Request::Create(Box::new(request)), abandoned).await;
        if created.as_ref().is_err_and(|failure| failure.kind == FailureKind::HelperDied)
            && let Err(error) = self.delete_by_helper(&id, bundle).await
        {
            tracing::error!(id, %error, "cannot clean up after a helper that died");
        }
        created
    }

    async fn delete_by_helper(&self, id: &str, bundle: PathBuf) -> Result<(), Failure> {
        let request = Request::Delete { id: id.to_owned(), bundle };
        self.helper.run("delete", request).await
    }

    /// Starts a container whose spec has start hooks.
    async fn start_by_helper(&self, id: &str) -> Result<u32, TaskError> {
        let bundle = self.with(id, |container| Ok(container.bundle.path().to_owned()))?;
        let request = Request::Start { id: id.to_owned(), bundle };
        let started = self.helper.run("start", request).await;
        self.with(id, |container| {
            let Phase::Starting(ended) = container.init.phase else {
                return Ok(container.init.task_pid());
            };
            container.init.phase = Phase::Running;
            if started.is_ok() {
                self.publish_start(container);
            }
            if let Some(exit) = ended {
                self.init_ended(container, exit);
            }
            started?;
            Ok(container.init.task_pid())
        })
    }

    /// Notes the end of a container's init; at once, or after its start.
    fn exited(&self, id: &str, exit: Exit) {
        let mut containers = self.lock();
        let Some(container) = containers.ready.get_mut(id) else {
            return;
        };
        if let Phase::Starting(ended) = &mut container.init.phase {
            *ended = Some(exit);
            return;
        }
        self.init_ended(container, exit);
    }

    fn init_ended(&self, container: &mut Container, exit: Exit) {
        self.publish_oom(container);
        container.hold_exit(exit);
        self.stop_if_last(container);
    }

    /// Tells of the container's end once the last of its processes has ended.
    fn stop_if_last(&self, container: &mut Container) {
        let Some(exit) = container.take_exit() else {
            return;
        };
        container.init.stop(exit);
        self.publish_exit(container, "", container.init.task_pid(), exit);
    }

    /// Tells of the end of a process; `exec_id` is empty for the init.
    fn publish_exit(&self, container: &Container, exec_id: &str, pid: u32, exit: Exit) {
        let id = if exec_id.is_empty() { container.id.as_str() } else { exec_id };
        self.publisher.publish(&TaskExit {
            container_id: container.id.clone(),
            id: id.to_owned(),
            pid,
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..TaskExit::default()
        });
    }

    fn publish_create(&self, container: &Container, rootfs: Vec<Mount>) {
        self.publisher.publish(&TaskCreate {
            container_id: container.id.clone(),
            bundle: container.bundle.path().display().to_string(),
            rootfs,
            io: MessageField::some(TaskIO {
                stdin: container.init.streams.stdin.clone(),
                stdout: container.init.streams.stdout.clone(),
                stderr: container.init.streams.stderr.clone(),
                terminal: container.init.streams.terminal,
                ..TaskIO::default()
            }),
            pid: container.init.task_pid(),
            ..TaskCreate::default()
        });
    }

    fn publish_start(&self, container: &Container) {
        self.publisher.publish(&TaskStart {
            container_id: container.id.clone(),
            pid: container.init.task_pid(),
            ..TaskStart::default()
        });
    }
}

/// Listens for the terminal that a process of these streams will make.
fn listen_for_terminal(
    streams: &Streams,
    bundle: &Bundle,
    name: &str,
) -> Result<Option<ConsoleListener>, TaskError> {
    let listener = streams.terminal.then(|| ConsoleListener::bind(bundle, name));
    listener.transpose().map_err(TaskError::Console)
}

/// Gives `process` the terminal that it has made; `streams` are where that is
/// copied from and to, and `size` what it begins with.
fn attach_terminal(
    process: &mut Process,
    listener: ConsoleListener,
    streams: &Streams,
    size: Option<(u16, u16)>,
) {
    let attached =
        listener.receive().and_then(|master| Console::attach(master, streams)).and_then(|console| {
            size.map_or(Ok(()), |(width, height)| console.resize(width, height))?;
            Ok(console)
        });
    match attached {
        Ok(console) => process.set_console(console),
        Err(error) => tracing::error!(pid = process.pid, %error, "cannot attach the process's terminal"),
    }
}

async fn wait_for(id: &str, ended: &mut watch::Receiver<Option<Exit>>) -> Result<Exit, TaskError> {
    let exit = ended.wait_for(Option::is_some).await.map(|exit| *exit).ok().flatten();
    exit.ok_or_else(|| TaskError::NoContainer(id.to_owned()))
}

fn send_signal(pid: i32, signal: i32) -> Result<(), TaskError> {
    match sys::send_signal(pid, signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(TaskError::Finished),
        sent => sent.map_err(TaskError::Signal),
    }
}
