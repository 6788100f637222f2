//! What is done to a container that runs: signals, freezing, new limits, and
//! the watch over its memory.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::events::task::{TaskOOM, TaskPaused, TaskResumed};
use tokio::time::sleep;

use super::{Pod, TaskError, send_signal};
use crate::container::Container;
use crate::helper::{Request, UpdateRequest};
use crate::process::Phase;

/// Time for the kernel to count what it ended after it told of it.
const UNTIL_COUNTED: Duration = Duration::from_millis(100);

impl Pod {
    /// Sends a signal to a process of a container, its init if `exec_id` is
    /// empty.
    ///
    /// # Errors
    /// [`TaskError`].
    pub(crate) fn signal(&self, id: &str, exec_id: &str, signal: i32) -> Result<(), TaskError> {
        self.with(id, |container| {
            let process = container.process(exec_id);
            let process = process.ok_or_else(|| TaskError::NoProcess(exec_id.to_owned()))?;
            match process.phase {
                Phase::Stopped(_) => return Err(TaskError::Finished),
                _ if process.pid == 0 => {
                    let id = exec_id.to_owned();
                    return Err(TaskError::Phase { id, state: "is not running" });
                }
                _ => send_signal(process.pid, signal)?,
            }
            thaw_to_end(container, signal)
        })
    }

    /// Sends a signal to all processes of a container.
    ///
    /// # Errors
    /// [`TaskError`].
    pub(crate) fn signal_all(&self, id: &str, signal: i32) -> Result<(), TaskError> {
        self.with(id, |container| {
            container.cgroup.signal(signal).map_err(TaskError::Signal)?;
            thaw_to_end(container, signal)
        })
    }

    /// Freezes all processes of a container.
    ///
    /// # Errors
    /// [`TaskError`]; they run then.
    pub(crate) async fn pause(&self, id: &str) -> Result<(), TaskError> {
        let failed = |source| TaskError::Freeze { work: "pause", source };
        let cgroup = self.with(id, |container| match container.init.phase {
            Phase::Running => Ok(container.cgroup.clone()),
            _ => Err(TaskError::Phase { id: id.to_owned(), state: "is not running" }),
        })?;
        if let Err(error) = cgroup.freeze().await {
            // One that is half frozen is of no use to anybody.
            let _ = cgroup.thaw();
            return Err(failed(error));
        }
        self.with(id, |container| {
            if container.init.phase == Phase::Running {
                container.init.phase = Phase::Paused;
                self.publisher.publish(&TaskPaused { container_id: id.to_owned(), ..TaskPaused::default() });
            }
            Ok(())
        })
    }

    /// Lets a frozen container run on.
    ///
    /// # Errors
    /// [`TaskError`].
    pub(crate) fn resume(&self, id: &str) -> Result<(), TaskError> {
        self.with(id, |container| {
            if container.init.phase != Phase::Paused {
                return Err(TaskError::Phase { id: id.to_owned(), state: "is not paused" });
            }
            let thawed = container.cgroup.thaw();
            thawed.map_err(|source| TaskError::Freeze { work: "resume", source })?;
            container.init.phase = Phase::Running;
            self.publisher.publish(&TaskResumed { container_id: id.to_owned(), ..TaskResumed::default() });
            Ok(())
        })
    }

    /// Sets new limits; `resources` is the runtime spec's `resources`, as JSON.
    ///
    /// # Errors
    /// [`TaskError`].
    pub(crate) async fn update(&self, id: &str, resources: String) -> Result<(), TaskError> {
        let bundle = self.with(id, |container| Ok(container.bundle.path().to_owned()))?;
        let request = UpdateRequest { id: id.to_owned(), bundle, resources };
        Ok(self.helper.run("update", Request::Update(Box::new(request))).await?)
    }

    /// Tells from now on when the kernel ends processes of the container for
    /// want of memory.
    pub(super) fn watch_memory(self: &Arc<Self>, id: &str) {
        let watch = self.with(id, |container| Ok(container.oom.watch()));
        let watch = match watch {
            Ok(Ok(Some(watch))) => watch,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                // The counter is looked at when a process ends, too.
                tracing::warn!(id, %error, "cannot watch the container's memory");
                return;
            }
        };
        let (pod, id) = (Arc::clone(self), id.to_owned());
        tokio::spawn(async move {
            while watch.wait().await.is_ok() {
                sleep(UNTIL_COUNTED).await;
                let told = pod.with(&id, |container| {
                    pod.publish_oom(container);
                    Ok(!matches!(container.init.phase, Phase::Stopped(_)))
                });
                if !told.unwrap_or(false) {
                    return;
                }
            }
        });
    }

    /// Tells of what the kernel has ended since this was called last.
    pub(super) fn publish_oom(&self, container: &mut Container) {
        if container.oom.has_grown() {
            let container_id = container.id.clone();
            self.publisher.publish(&TaskOOM { container_id, ..TaskOOM::default() });
        }
    }
}

/// A frozen process of cgroup v1 ends only when it runs again.
fn thaw_to_end(container: &mut Container, signal: i32) -> Result<(), TaskError> {
    if signal == libc::SIGKILL && container.init.phase == Phase::Paused {
        let thawed = container.cgroup.thaw();
        thawed.map_err(|source| TaskError::Freeze { work: "resume", source })?;
        container.init.phase = Phase::Running;
    }
    Ok(())
}
