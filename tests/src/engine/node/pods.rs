//! Pods of a node, and their containers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Handler, Node};
use crate::cri::Status;
use crate::cri::messages::{
    AttachRequest, ContainerConfig, ContainerFilter, ContainerId, ContainerMetadata, ContainerStateValue,
    ContainerStats, ContainerStatsResponse, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse,
    CreateContainerRequest, Empty, ExecRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxPodSandboxStats, ListContainersRequest, ListContainersResponse, NamespaceOption, PodSandboxConfig,
    PodSandboxId, PodSandboxMetadata, PodSandboxStatsResponse, PodSandboxStatusResponse, PortForwardRequest,
    RunPodSandboxRequest, StopContainerRequest, StreamResponse, UpdateContainerResourcesRequest,
};
use crate::cri::stream::Stream;
use crate::process::wait_for;

/// A pod that was started.
#[derive(Debug)]
pub struct Pod {
    id: String,
    config: PodSandboxConfig,
}

/// A container of a pod.
#[derive(Debug)]
pub struct Container {
    id: String,
    log: PathBuf,
}

/// How a program ended that was run beside a container's own, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The exit code.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Pods.
impl Node {
    /// Runs a pod: its namespaces and pause, with no container yet.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    #[must_use]
    pub fn run_pod(&self, name: &str, handler: Handler) -> Pod {
        self.run_pod_with(name, handler, LinuxPodSandboxConfig::default())
    }

    /// Runs a pod with namespaces or settings of the kernel that are not the usual ones.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    #[must_use]
    pub fn run_pod_with(&self, name: &str, handler: Handler, linux: LinuxPodSandboxConfig) -> Pod {
        self.try_run_pod(name, handler, linux).unwrap_or_else(|status| panic!("pod {name}: {status:?}"))
    }

    /// Runs a pod.
    ///
    /// # Errors
    /// It can't be made.
    ///
    /// # Panics
    /// If there is no room for its logs.
    pub fn try_run_pod(
        &self,
        name: &str,
        handler: Handler,
        linux: LinuxPodSandboxConfig,
    ) -> Result<Pod, Status> {
        let logs = self.folder().join("logs").join(name);
        fs_err::create_dir_all(&logs).expect("a folder can be made");
        // Of this node alone, so that what is left in it is known to be ours.
        let cgroup_parent = Path::new("/").join(self.containerd.namespace()).display().to_string();
        let on_node = linux
            .security_context
            .as_ref()
            .and_then(|context| context.namespace_options.as_ref())
            .map(|of| of.network);
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: name.to_owned(),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            // Refused where the pod has the node's network, and with it its name.
            hostname: if on_node == Some(NODE) { String::new() } else { name.to_owned() },
            log_directory: logs.display().to_string(),
            linux: Some(LinuxPodSandboxConfig { cgroup_parent, ..linux }),
            ..PodSandboxConfig::default()
        };
        let request =
            RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.name().to_owned() };
        let pod: PodSandboxId = self.client.call("RuntimeService/RunPodSandbox", &request)?;
        Ok(Pod { id: pod.pod_sandbox_id, config })
    }

    /// A pod's address.
    ///
    /// # Panics
    /// If it has none.
    #[track_caller]
    #[must_use]
    pub fn address(&self, pod: &Pod) -> String {
        let response: PodSandboxStatusResponse =
            self.client.must("RuntimeService/PodSandboxStatus", &pod.as_request());
        let network = response.status.and_then(|status| status.network);
        network.map(|network| network.ip).filter(|ip| !ip.is_empty()).expect("the pod has an address")
    }

    /// What a pod takes.
    ///
    /// # Panics
    /// If nobody knows.
    #[track_caller]
    #[must_use]
    pub fn pod_stats(&self, pod: &Pod) -> LinuxPodSandboxStats {
        let response: PodSandboxStatsResponse =
            self.client.must("RuntimeService/PodSandboxStats", &pod.as_request());
        response.stats.and_then(|stats| stats.linux).expect("a pod has stats")
    }

    /// A connection to a port of a pod's own loopback interface.
    #[track_caller]
    #[must_use]
    pub fn forward(&self, pod: &Pod, port: u16) -> Stream {
        let request = PortForwardRequest { pod_sandbox_id: pod.id.clone(), port: vec![i32::from(port)] };
        let response: StreamResponse = self.client.must("RuntimeService/PortForward", &request);
        Stream::open(self.network(), &response.url)
    }

    /// Stops and removes a pod with all that is in it.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn remove_pod(&self, pod: &Pod) {
        self.client.must::<Empty>("RuntimeService/StopPodSandbox", &pod.as_request());
        self.client.must::<Empty>("RuntimeService/RemovePodSandbox", &pod.as_request());
    }
}

/// Containers.
impl Node {
    /// Starts a container.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    #[must_use]
    pub fn start_container(&self, pod: &Pod, config: &ContainerConfig) -> Container {
        self.try_start_container(pod, config).unwrap_or_else(|status| panic!("{config:?}: {status:?}"))
    }

    /// Starts a container.
    ///
    /// # Errors
    /// It can't be made, or not be started.
    pub fn try_start_container(&self, pod: &Pod, config: &ContainerConfig) -> Result<Container, Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config.clone()),
            sandbox_config: Some(pod.config.clone()),
        };
        let created: ContainerId = self.client.call("RuntimeService/CreateContainer", &request)?;
        self.client.call::<Empty>("RuntimeService/StartContainer", &created)?;
        let log = Path::new(&pod.config.log_directory).join(&config.log_path);
        Ok(Container { id: created.container_id, log })
    }

    /// How a container is.
    ///
    /// # Panics
    /// If nobody knows.
    #[track_caller]
    #[must_use]
    pub fn status(&self, container: &Container) -> ContainerStatus {
        let response: ContainerStatusResponse =
            self.client.must("RuntimeService/ContainerStatus", &container.as_request());
        response.status.expect("a container has a status")
    }

    /// The pids of the inits of all containers that run, of whatever pod.
    #[must_use]
    pub fn inits(&self) -> Vec<u32> {
        let running = ListContainersRequest {
            filter: Some(ContainerFilter { state: Some(ContainerStateValue { state: RUNNING }) }),
        };
        let list: ListContainersResponse =
            self.client.call("RuntimeService/ListContainers", &running).unwrap_or_default();
        let of =
            list.containers.into_iter().map(|container| Container { id: container.id, log: PathBuf::new() });
        of.map(|container| self.init_of(&container)).collect()
    }

    /// The pid of a container's init, on the node.
    ///
    /// # Panics
    /// If it has none.
    #[track_caller]
    #[must_use]
    pub fn init_of(&self, container: &Container) -> u32 {
        let request = ContainerStatusRequest { container_id: container.id.clone(), verbose: true };
        let response: ContainerStatusResponse = self.client.must("RuntimeService/ContainerStatus", &request);
        let info: serde_json::Value =
            serde_json::from_str(&response.info["info"]).expect("the details are JSON");
        let pid = info["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.filter(|pid| *pid != 0).unwrap_or_else(|| panic!("expected a pid: {info}"))
    }

    /// Waits until a container has ended: how.
    ///
    /// # Panics
    /// If it doesn't in time.
    #[track_caller]
    #[must_use]
    pub fn ended(&self, container: &Container) -> ContainerStatus {
        let exited = || Some(self.status(container)).filter(|status| status.state == EXITED);
        wait_for(Duration::from_secs(30), exited).unwrap_or_else(|| {
            panic!("the container does not end: {:?}\n{}", self.status(container), container.log())
        })
    }

    /// Stops a container, by SIGKILL after `timeout` seconds.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn stop(&self, container: &Container, timeout: i64) {
        let request = StopContainerRequest { container_id: container.id.clone(), timeout };
        self.client.must::<Empty>("RuntimeService/StopContainer", &request);
    }

    /// Removes a container.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn remove(&self, container: &Container) {
        self.client.must::<Empty>("RuntimeService/RemoveContainer", &container.as_request());
    }

    /// Runs a command in a container to its end.
    ///
    /// # Errors
    /// It can't be run, or takes longer than `timeout` seconds.
    pub fn try_exec(
        &self,
        container: &Container,
        command: &[&str],
        timeout: i64,
    ) -> Result<Executed, Status> {
        let request = ExecSyncRequest { container_id: container.id.clone(), cmd: owned(command), timeout };
        let response: ExecSyncResponse = self.client.call("RuntimeService/ExecSync", &request)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Executed {
            code: response.exit_code,
            stdout: text(response.stdout),
            stderr: text(response.stderr),
        })
    }

    /// Runs a command in a container to its end.
    ///
    /// # Panics
    /// If it can't be run.
    #[track_caller]
    #[must_use]
    pub fn exec(&self, container: &Container, command: &[&str]) -> Executed {
        self.try_exec(container, command, 30)
            .unwrap_or_else(|status| panic!("{command:?}: {status:?}\n{}", container.log()))
    }

    /// Runs a command in a container that is talked to.
    #[track_caller]
    #[must_use]
    pub fn talk(&self, container: &Container, command: &[&str], terminal: Terminal) -> Stream {
        let tty = terminal == Terminal::Yes;
        let request = ExecRequest {
            container_id: container.id.clone(),
            cmd: owned(command),
            tty,
            stdin: true,
            stdout: true,
            // A terminal has one output.
            stderr: !tty,
        };
        let response: StreamResponse = self.client.must("RuntimeService/Exec", &request);
        Stream::open(self.network(), &response.url)
    }

    /// Talks to a container's own program.
    #[track_caller]
    #[must_use]
    pub fn attach(&self, container: &Container, terminal: Terminal) -> Stream {
        let tty = terminal == Terminal::Yes;
        let request = AttachRequest {
            container_id: container.id.clone(),
            stdin: true,
            tty,
            stdout: true,
            stderr: !tty,
        };
        let response: StreamResponse = self.client.must("RuntimeService/Attach", &request);
        Stream::open(self.network(), &response.url)
    }

    /// What a container takes.
    ///
    /// # Panics
    /// If nobody knows.
    #[track_caller]
    #[must_use]
    pub fn stats(&self, container: &Container) -> ContainerStats {
        let response: ContainerStatsResponse =
            self.client.must("RuntimeService/ContainerStats", &container.as_request());
        response.stats.expect("a container has stats")
    }

    /// Changes a container's limits while it runs.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn update(&self, container: &Container, limits: LinuxContainerResources) {
        let request =
            UpdateContainerResourcesRequest { container_id: container.id.clone(), linux: Some(limits) };
        self.client.must::<Empty>("RuntimeService/UpdateContainerResources", &request);
    }

    /// Has a container's log be opened anew, as after it was rotated.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn reopen_log(&self, container: &Container) {
        self.client.must::<Empty>("RuntimeService/ReopenContainerLog", &container.as_request());
    }
}

/// Whether a program has a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// Pipes.
    No,
    /// A pseudo-terminal.
    Yes,
}

/// `NamespaceMode`'s `CONTAINER` and `NODE`.
const OWN: i32 = 1;
const NODE: i32 = 2;

/// `CONTAINER_RUNNING`.
const RUNNING: i32 = 1;

/// `CONTAINER_EXITED`.
const EXITED: i32 = 2;

impl Pod {
    fn as_request(&self) -> PodSandboxId {
        PodSandboxId { pod_sandbox_id: self.id.clone() }
    }
}

impl Container {
    /// What a container of `image` is to be: named, run with `command` if there is one.
    #[must_use]
    pub fn of(image: &str, name: &str, command: &[&str]) -> ContainerConfig {
        ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: image.to_owned() }),
            command: owned(command),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                // As a kubelet says unless the pod's processes are to see each other.
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(NamespaceOption { pid: OWN, ..NamespaceOption::default() }),
                    ..LinuxContainerSecurityContext::default()
                }),
                ..LinuxContainerConfig::default()
            }),
            ..ContainerConfig::default()
        }
    }

    /// Its log, without the times.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // "TIME stdout F text"
        text.lines().filter_map(|line| line.split_once(' ')).map(|(_, rest)| format!("{rest}\n")).collect()
    }

    /// The file of its log.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    fn as_request(&self) -> ContainerId {
        ContainerId { container_id: self.id.clone() }
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
