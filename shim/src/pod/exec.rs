//! Processes that are run in a container beside its init.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use containerd_shim_protos::events::task::{TaskExecAdded, TaskExecStarted};

use super::{Pod, TaskError, attach_terminal, listen_for_terminal};
use crate::helper::{ExecRequest, Request, Started};
use crate::logger::Logger;
use crate::process::{Exec, Phase, Process};
use crate::reaper::Exit;
use crate::relay::Relay;
use crate::stdio::Streams;

impl Pod {
    /// Adds a process to a container, to be started later. `spec` is the
    /// runtime spec's `process`, as JSON.
    ///
    /// # Errors
    /// [`TaskError`].
    pub(crate) fn add_exec(
        &self,
        id: &str,
        exec_id: &str,
        spec: String,
        streams: Streams,
    ) -> Result<(), TaskError> {
        self.with(id, |container| {
            if exec_id.is_empty() || container.execs.contains_key(exec_id) {
                return Err(TaskError::Exists(exec_id.to_owned()));
            }
            let exec = Exec { process: Process::new(streams), spec, relay: Relay::default() };
            container.execs.insert(exec_id.to_owned(), exec);
            self.publisher.publish(&TaskExecAdded {
                container_id: id.to_owned(),
                exec_id: exec_id.to_owned(),
                ..TaskExecAdded::default()
            });
            Ok(())
        })
    }

    /// Starts an added process. Gives its process id.
    ///
    /// # Errors
    /// [`TaskError`]; it counts as ended then.
    pub(crate) async fn start_exec(self: &Arc<Self>, id: &str, exec_id: &str) -> Result<u32, TaskError> {
        let (bundle, spec, streams) = self.with(id, |container| {
            let state = match container.init.phase {
                Phase::Running | Phase::Starting(_) | Phase::Created => None,
                Phase::Paused => Some("is paused"),
                Phase::Stopped(_) => Some("is not running"),
            };
            if let Some(state) = state {
                return Err(TaskError::Phase { id: id.to_owned(), state });
            }
            let exec = container.execs.get_mut(exec_id);
            let exec = exec.ok_or_else(|| TaskError::NoProcess(exec_id.to_owned()))?;
            if exec.process.phase != Phase::Created {
                let id = exec_id.to_owned();
                return Err(TaskError::Phase { id, state: "was started already" });
            }
            exec.process.phase = Phase::Starting(None);
            let spec = std::mem::take(&mut exec.spec);
            Ok((container.bundle.clone(), spec, exec.process.streams.clone()))
        })?;
        let run = async {
            let logger = Logger::start(&streams, &bundle, id, &self.namespace, &self.reaper).await?;
            let streams = logger.streams(&streams);
            let mut relay = Relay::start(&streams, &bundle).map_err(TaskError::Output)?;
            let console = unique_console();
            let listener = listen_for_terminal(&streams, &bundle, &console)?;
            let request = ExecRequest {
                bundle: bundle.path().to_owned(),
                process: spec,
                console: listener.is_some().then_some(console),
                streams: relay.streams(&streams),
            };
            // It may end before we know its process id.
            let expectation = self.reaper.expect();
            let started = self.helper.exec(Request::Exec(Box::new(request))).await?;
            let ended = self.reaper.watch(started.pid);
            drop(expectation);
            relay.begin();
            Ok((started, ended, listener, streams, relay))
        };
        match run.await {
            Ok((Started { pid, console_size }, ended, listener, streams, relay)) => {
                self.with(id, |container| {
                    let exec = container.execs.get_mut(exec_id);
                    let exec = exec.ok_or_else(|| TaskError::NoProcess(exec_id.to_owned()))?;
                    exec.relay = relay;
                    exec.process.begin(pid);
                    if let Some(listener) = listener {
                        attach_terminal(&mut exec.process, listener, &streams, console_size);
                    }
                    exec.process.phase = Phase::Running;
                    // Queued before anyone else can see its end.
                    self.publisher.publish(&TaskExecStarted {
                        container_id: id.to_owned(),
                        exec_id: exec_id.to_owned(),
                        pid: pid.cast_unsigned(),
                        ..TaskExecStarted::default()
                    });
                    Ok(())
                })?;
                let pod = Arc::clone(self);
                let (id, exec_id) = (id.to_owned(), exec_id.to_owned());
                tokio::spawn(async move {
                    if let Ok(exit) = ended.await {
                        pod.exec_ended(&id, &exec_id, exit);
                    }
                });
                Ok(pid.cast_unsigned())
            }
            Err(error) => {
                // As runc's shim: who waits for it learns that it is over.
                let exit = Exit::failed_start();
                let _ = self.with_process(id, exec_id, |process| {
                    process.stop(exit);
                    Ok(())
                });
                Err(error)
            }
        }
    }

    /// Forgets a process that does not run. Gives its process id and how it
    /// ended.
    ///
    /// # Errors
    /// [`TaskError`].
    pub(crate) async fn delete_exec(&self, id: &str, exec_id: &str) -> Result<(u32, Exit), TaskError> {
        let (pid, exit, relay) = self.with(id, |container| {
            let exec = container.execs.get(exec_id);
            let exec = exec.ok_or_else(|| TaskError::NoProcess(exec_id.to_owned()))?;
            let exit = match exec.process.phase {
                Phase::Stopped(exit) => exit,
                Phase::Created => Exit::failed_start(),
                Phase::Running | Phase::Starting(_) | Phase::Paused => {
                    return Err(TaskError::Phase { id: exec_id.to_owned(), state: "is running" });
                }
            };
            let pid = exec.process.task_pid();
            let relay = container.execs.remove(exec_id).map(|exec| exec.relay);
            Ok((pid, exit, relay))
        })?;
        if let Some(relay) = relay {
            relay.finish().await;
        }
        Ok((pid, exit))
    }

    fn exec_ended(&self, id: &str, exec_id: &str, exit: Exit) {
        // A container that is gone by now took its processes with it.
        let _ = self.with(id, |container| {
            if let Some(process) = container.process(exec_id) {
                process.stop(exit);
                let pid = process.task_pid();
                self.publish_oom(container);
                self.publish_exit(container, exec_id, pid, exit);
            }
            self.stop_if_last(container);
            Ok(())
        });
    }
}

/// A name of a socket in the bundle that no other process uses.
fn unique_console() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("console-{}.sock", NEXT.fetch_add(1, Ordering::Relaxed))
}
