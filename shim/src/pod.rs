//! The containers of one pod: their creation, start, end and deletion, and
//! the events that tell of these in order.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim_protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskIO, TaskStart};
use containerd_shim_protos::protobuf::{self, MessageField};
use containerd_shim_protos::types::mount::Mount;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::bundle::Bundle;
use crate::cleanup::timestamp;
use crate::console::{Console, ConsoleListener};
use crate::container::{Container, Phase};
use crate::events::Publisher;
use crate::helper::{CreateRequest, Created, Failure, FailureKind, Helper, Request};
use crate::reaper::{Exit, Reaper};
use crate::sys;

/// Time after a start until containerd's calls for it are over.
const UNTIL_QUIET: Duration = Duration::from_secs(2);

/// The containers of one pod and what serves them.
pub(crate) struct Pod {
    containers: Mutex<Containers>,
    reaper: Arc<Reaper>,
    helper: Helper,
    publisher: Publisher,
    stop: Notify,
}

#[derive(Default)]
struct Containers {
    ready: HashMap<String, Container>,
    /// Those that a helper is creating.
    creating: HashSet<String>,
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
    #[error("container {id:?} {state}")]
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
    /// A helper could not do its work.
    #[error(transparent)]
    Helper(#[from] Failure),
    /// We can't do that yet.
    #[error("{0} is not yet implemented by the wasm runtime")]
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
    }
}

impl Pod {
    /// A pod without containers.
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

    /// Ends it if it has no container. containerd asks after each one.
    pub(crate) fn stop_if_idle(&self) {
        if self.is_idle() {
            self.stop.notify_one();
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

    /// Creates a container; `rootfs` is only for the event. Gives its init's
    /// process id.
    ///
    /// # Errors
    /// [`TaskError`]; nothing is left of it.
    pub(crate) async fn create(
        self: &Arc<Self>,
        request: CreateRequest,
        rootfs: Vec<Mount>,
    ) -> Result<u32, TaskError> {
        let (id, streams) = (request.id.clone(), request.streams.clone());
        let bundle = Bundle::new(&request.bundle);
        let reservation = self.reserve(&id)?;
        let listener = if streams.terminal {
            Some(ConsoleListener::bind(&bundle).map_err(TaskError::Console)?)
        } else {
            None
        };
        // Its init may end before we know its process id.
        let expectation = self.reaper.expect();
        let created = self.create_by_helper(request).await?;
        let ended = self.reaper.watch(created.pid);
        drop(expectation);

        let mut container = Container::new(id.clone(), bundle, streams, created);
        if let Some(listener) = listener {
            let attached = listener.receive().and_then(|master| Console::attach(master, &container.streams));
            match attached {
                Ok(console) => container.set_console(console),
                // Its init waits, and ends when the container is deleted.
                Err(error) => tracing::error!(id, %error, "cannot attach the container's terminal"),
            }
        }
        let pid = container.task_pid();
        self.publish_create(&container, rootfs);
        // Before its id is free.
        self.lock().ready.insert(id.clone(), container);
        drop(reservation);
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
            if container.phase != Phase::Created {
                let id = id.to_owned();
                return Err(TaskError::Phase { id, state: "was started already" });
            }
            if container.has_start_hooks {
                container.phase = Phase::Starting(None);
                return Ok(None);
            }
            let notified = container.notify_start();
            notified.map_err(|source| TaskError::Start { id: id.to_owned(), source })?;
            container.phase = Phase::Running;
            // Queued before anyone else can see its end.
            self.publish_start(container);
            Ok(Some(container.task_pid()))
        })?;
        let pid = match started {
            Some(pid) => pid,
            None => self.start_by_helper(id).await?,
        };
        tokio::spawn(async {
            sleep(UNTIL_QUIET).await;
            sys::release_program();
        });
        Ok(pid)
    }

    /// Waits until a container has ended.
    ///
    /// # Errors
    /// There is none of this id, or it was deleted meanwhile.
    pub(crate) async fn wait(&self, id: &str) -> Result<Exit, TaskError> {
        let mut ended = self.with(id, |container| Ok(container.watch_exit()))?;
        wait_for(id, &mut ended).await
    }

    /// Removes all that is left of a container that does not run. Gives its
    /// process id and how it ended.
    ///
    /// # Errors
    /// [`TaskError`]; it can be tried again.
    pub(crate) async fn delete(&self, id: &str) -> Result<(u32, Exit), TaskError> {
        let (mut ended, bundle) = self.with(id, |container| {
            match container.phase {
                Phase::Stopped(_) => {}
                Phase::Created => send_signal(container.pid, libc::SIGKILL)?,
                Phase::Running | Phase::Starting(_) => {
                    return Err(TaskError::Phase { id: id.to_owned(), state: "is running" });
                }
            }
            Ok((container.watch_exit(), container.bundle.path().to_owned()))
        })?;
        let exit = wait_for(id, &mut ended).await?;
        self.delete_by_helper(id, bundle).await?;
        let removed = self.lock().ready.remove(id);
        let container = removed.ok_or_else(|| TaskError::NoContainer(id.to_owned()))?;
        let pid = container.task_pid();
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

    /// Sends a signal to a container's init.
    ///
    /// # Errors
    /// [`TaskError`].
    pub(crate) fn signal(&self, id: &str, signal: i32) -> Result<(), TaskError> {
        self.with(id, |container| match container.phase {
            Phase::Stopped(_) => Err(TaskError::Finished),
            _ => send_signal(container.pid, signal),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve<'a>(&'a self, id: &'a str) -> Result<Reservation<'a>, TaskError> {
        let mut containers = self.lock();
        if containers.ready.contains_key(id) || !containers.creating.insert(id.to_owned()) {
            return Err(TaskError::Exists(id.to_owned()));
        }
        Ok(Reservation { pod: self, id })
    }

    async fn create_by_helper(&self, request: CreateRequest) -> Result<Created, Failure> {
        let (id, bundle) = (request.id.clone(), request.bundle.clone());
        let created = self.helper.create(Request::Create(Box::new(request))).await;
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

    fn publish_create(&self, container: &Container, rootfs: Vec<Mount>) {
        self.publisher.publish(&TaskCreate {
            container_id: container.id.clone(),
            bundle: container.bundle.path().display().to_string(),
            rootfs,
            io: MessageField::some(TaskIO {
                stdin: container.streams.stdin.clone(),
                stdout: container.streams.stdout.clone(),
                stderr: container.streams.stderr.clone(),
                terminal: container.streams.terminal,
                ..TaskIO::default()
            }),
            pid: container.task_pid(),
            ..TaskCreate::default()
        });
    }

    fn publish_start(&self, container: &Container) {
        self.publisher.publish(&TaskStart {
            container_id: container.id.clone(),
            pid: container.task_pid(),
            ..TaskStart::default()
        });
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
