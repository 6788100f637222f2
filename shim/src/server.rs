//! The server: one process a pod, with one thread once it has started.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use containerd_shim_protos::shim_async::{Task, create_task};
use containerd_shim_protos::ttrpc::asynchronous::transport::Listener;
use containerd_shim_protos::ttrpc::asynchronous::{Server, Service};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::arguments::Arguments;
use crate::bootstrap::EVENTS_ADDRESS;
use crate::events::Publisher;
use crate::helper::Containerd;
use crate::pod::Pod;
use crate::reaper::Reaper;
use crate::service::TaskService;
use crate::{cgroup, log, sys};

/// Time for the last answers to reach containerd.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves the task API on the socket at standard input until containerd shuts
/// the last task's shim down.
///
/// # Errors
/// There is no socket, or no runtime.
pub(crate) fn serve(arguments: &Arguments) -> Result<()> {
    log::to_containerd(arguments.debug);
    cgroup::expect_joins();
    // Or the bundle could not be unmounted, were it a mount.
    std::env::set_current_dir("/").context("cannot leave the bundle")?;
    sys::become_subreaper().context("cannot become a subreaper")?;
    let listener = sys::take_stdin().context("expected a socket at standard input")?;
    let listener = UnixListener::from(listener);
    let address = std::env::var(EVENTS_ADDRESS).context("there is no address for events")?;

    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start")?;
    let outcome = runtime.block_on(run(arguments, listener, &address));
    if outcome.is_err() {
        tracing::error!(?outcome, "the shim's server failed");
        let _ = std::fs::remove_file(&arguments.socket);
    }
    outcome
}

async fn run(arguments: &Arguments, listener: UnixListener, events: &str) -> Result<()> {
    let reaper = Arc::new(Reaper::default());
    let mut child_ended = signal(SignalKind::child())?;
    let collector = Arc::clone(&reaper);
    tokio::spawn(async move {
        while child_ended.recv().await.is_some() {
            collector.reap();
        }
    });
    let publisher = Publisher::start(events, &arguments.namespace);
    let pod = Arc::new(Pod::new(reaper, publisher.clone(), arguments.namespace.clone()));

    let containerd =
        Containerd { address: arguments.address.clone(), namespace: arguments.namespace.clone() };
    let listener = Listener::try_from(listener).context("cannot listen")?;
    let mut server = Server::new().add_listener(listener).register_service(services(&pod, &containerd));
    server.start().await?;

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            () = pod.stopped() => break,
            () = pod.abandoned() => {
                tracing::warn!("the shim ends: containerd gave it no container");
                break;
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // A machine that goes down ends containers by their own managers;
        // without us nobody could.
        if pod.is_idle() {
            break;
        }
        tracing::error!("a signal to end the shim is ignored while it has containers");
    }
    // From here on a pod of the same name makes a server of its own; later this
    // would be its socket.
    let _ = std::fs::remove_file(&arguments.socket);
    publisher.flush().await;
    let _ = timeout(PATIENCE, server.shutdown()).await;
    Ok(())
}

/// The task service under the names of both versions, which have the same
/// messages: containerd 1 knows only v2.
fn services(pod: &Arc<Pod>, containerd: &Containerd) -> HashMap<String, Service> {
    let task: Arc<dyn Task + Send + Sync> = Arc::new(TaskService::new(Arc::clone(pod), containerd.clone()));
    let mut services = create_task(Arc::clone(&task));
    let second = create_task(task).into_iter();
    services.extend(second.map(|(name, service)| (name.replace(".v3.", ".v2."), service)));
    services
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_versions_of_the_task_service_are_served() {
        let publisher = Publisher::start("/no/such/socket", "test");
        let pod = Arc::new(Pod::new(Arc::new(Reaper::default()), publisher, "test".to_owned()));
        let services = services(&pod, &Containerd::default());
        let mut names: Vec<_> = services.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["containerd.task.v2.Task", "containerd.task.v3.Task"]);
        let counts: Vec<_> = services.values().map(|service| service.methods.len()).collect();
        assert_eq!(counts[0], counts[1]);
    }
}
