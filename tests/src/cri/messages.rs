//! Those messages of the CRI (`runtime.v1`, Kubernetes' cri-api) and those of
//! their fields that the tests use. What is not named here is passed over.

use std::collections::BTreeMap;

macro_rules! messages {
    ($($(#[$about:meta])* $name:ident { $(#[prost($($kind:tt)*)] $field:ident: $of:ty,)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, PartialEq, prost::Message)]
            #[allow(missing_docs, reason = "the fields are the CRI's")]
            pub struct $name { $(#[prost($($kind)*)] pub $field: $of,)* }
        )*
    };
}

messages! {
    /// Of a call that names nothing, or answers nothing.
    Empty {}

    /// What a pod is.
    PodSandboxConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<PodSandboxMetadata>,
        #[prost(string, tag = "2")] hostname: String,
        #[prost(string, tag = "3")] log_directory: String,
        #[prost(btree_map = "string, string", tag = "6")] labels: BTreeMap<String, String>,
        #[prost(message, optional, tag = "8")] linux: Option<LinuxPodSandboxConfig>,
    }
    /// A pod's name.
    PodSandboxMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] uid: String,
        #[prost(string, tag = "3")] namespace: String,
        #[prost(uint32, tag = "4")] attempt: u32,
    }
    /// A pod's cgroup and namespaces.
    LinuxPodSandboxConfig {
        #[prost(string, tag = "1")] cgroup_parent: String,
        #[prost(message, optional, tag = "2")] security_context: Option<LinuxSandboxSecurityContext>,
        #[prost(btree_map = "string, string", tag = "3")] sysctls: BTreeMap<String, String>,
    }
    /// A pod's namespaces, and whether its containers may be privileged.
    LinuxSandboxSecurityContext {
        #[prost(message, optional, tag = "1")] namespace_options: Option<NamespaceOption>,
        #[prost(bool, tag = "6")] privileged: bool,
    }
    /// Who shares which namespace: 0 the pod, 1 the container alone, 2 the node.
    NamespaceOption {
        #[prost(int32, tag = "1")] network: i32,
        #[prost(int32, tag = "2")] pid: i32,
        #[prost(int32, tag = "3")] ipc: i32,
    }
    /// `RunPodSandbox`.
    RunPodSandboxRequest {
        #[prost(message, optional, tag = "1")] config: Option<PodSandboxConfig>,
        #[prost(string, tag = "2")] runtime_handler: String,
    }
    /// A pod, where nothing else is asked or answered.
    PodSandboxId {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
    }
    /// `PodSandboxStatus`.
    PodSandboxStatusResponse {
        #[prost(message, optional, tag = "1")] status: Option<PodSandboxStatus>,
    }
    /// How a pod is: state 0 is ready.
    PodSandboxStatus {
        #[prost(int32, tag = "3")] state: i32,
        #[prost(message, optional, tag = "5")] network: Option<PodSandboxNetworkStatus>,
    }
    /// Where a pod is reached.
    PodSandboxNetworkStatus {
        #[prost(string, tag = "1")] ip: String,
    }
    /// `ListPodSandbox`.
    ListPodSandboxResponse {
        #[prost(message, repeated, tag = "1")] items: Vec<PodSandbox>,
    }
    /// One of the list.
    PodSandbox {
        #[prost(string, tag = "1")] id: String,
    }

    /// `CreateContainer`.
    CreateContainerRequest {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
        #[prost(message, optional, tag = "2")] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = "3")] sandbox_config: Option<PodSandboxConfig>,
    }
    /// What a container is.
    ContainerConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "2")] image: Option<ImageSpec>,
        #[prost(string, repeated, tag = "3")] command: Vec<String>,
        #[prost(string, repeated, tag = "4")] args: Vec<String>,
        #[prost(string, tag = "5")] working_dir: String,
        #[prost(message, repeated, tag = "6")] envs: Vec<KeyValue>,
        #[prost(message, repeated, tag = "7")] mounts: Vec<Mount>,
        #[prost(message, repeated, tag = "8")] devices: Vec<Device>,
        #[prost(string, tag = "11")] log_path: String,
        #[prost(bool, tag = "12")] stdin: bool,
        #[prost(bool, tag = "14")] tty: bool,
        #[prost(message, optional, tag = "15")] linux: Option<LinuxContainerConfig>,
    }
    /// A container's name.
    ContainerMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(uint32, tag = "2")] attempt: u32,
    }
    /// An image's reference.
    ImageSpec {
        #[prost(string, tag = "1")] image: String,
    }
    /// A variable of the environment.
    KeyValue {
        #[prost(string, tag = "1")] key: String,
        #[prost(string, tag = "2")] value: String,
    }
    /// A folder of the node: propagation is 0 none, 1 from the node, 2 both ways.
    Mount {
        #[prost(string, tag = "1")] container_path: String,
        #[prost(string, tag = "2")] host_path: String,
        #[prost(bool, tag = "3")] readonly: bool,
        #[prost(int32, tag = "5")] propagation: i32,
    }
    /// A device of the node.
    Device {
        #[prost(string, tag = "1")] container_path: String,
        #[prost(string, tag = "2")] host_path: String,
        #[prost(string, tag = "3")] permissions: String,
    }
    /// A container's limits and namespaces.
    LinuxContainerConfig {
        #[prost(message, optional, tag = "1")] resources: Option<LinuxContainerResources>,
        #[prost(message, optional, tag = "2")] security_context: Option<LinuxContainerSecurityContext>,
    }
    /// A container's limits.
    LinuxContainerResources {
        #[prost(int64, tag = "1")] cpu_period: i64,
        #[prost(int64, tag = "2")] cpu_quota: i64,
        #[prost(int64, tag = "3")] cpu_shares: i64,
        #[prost(int64, tag = "4")] memory_limit_in_bytes: i64,
    }
    /// What a container may do.
    LinuxContainerSecurityContext {
        #[prost(message, optional, tag = "1")] capabilities: Option<Capability>,
        #[prost(bool, tag = "2")] privileged: bool,
        #[prost(message, optional, tag = "3")] namespace_options: Option<NamespaceOption>,
        #[prost(message, optional, tag = "5")] run_as_user: Option<Int64Value>,
        #[prost(message, optional, tag = "12")] run_as_group: Option<Int64Value>,
        #[prost(bool, tag = "7")] readonly_rootfs: bool,
        #[prost(int64, repeated, tag = "8")] supplemental_groups: Vec<i64>,
        #[prost(bool, tag = "11")] no_new_privs: bool,
        #[prost(string, repeated, tag = "13")] masked_paths: Vec<String>,
        #[prost(string, repeated, tag = "14")] readonly_paths: Vec<String>,
        #[prost(message, optional, tag = "15")] seccomp: Option<SecurityProfile>,
    }
    /// Capabilities more or less than the usual ones.
    Capability {
        #[prost(string, repeated, tag = "1")] add_capabilities: Vec<String>,
        #[prost(string, repeated, tag = "2")] drop_capabilities: Vec<String>,
    }
    /// Whose profile: 0 the runtime's, 1 none.
    SecurityProfile {
        #[prost(int32, tag = "1")] profile_type: i32,
    }
    /// A number that may be missing.
    Int64Value {
        #[prost(int64, tag = "1")] value: i64,
    }
    /// A container, where nothing else is asked or answered.
    ContainerId {
        #[prost(string, tag = "1")] container_id: String,
    }
    /// `StopContainer`: the timeout in seconds.
    StopContainerRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(int64, tag = "2")] timeout: i64,
    }
    /// `ContainerStatus`.
    ContainerStatusResponse {
        #[prost(message, optional, tag = "1")] status: Option<ContainerStatus>,
        #[prost(btree_map = "string, string", tag = "2")] info: BTreeMap<String, String>,
    }
    /// `ContainerStatus`, with the runtime's own words if `verbose`.
    ContainerStatusRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(bool, tag = "2")] verbose: bool,
    }
    /// How a container is: state 0 created, 1 running, 2 exited, 3 unknown.
    ContainerStatus {
        #[prost(int32, tag = "3")] state: i32,
        #[prost(int64, tag = "5")] started_at: i64,
        #[prost(int64, tag = "6")] finished_at: i64,
        #[prost(int32, tag = "7")] exit_code: i32,
        #[prost(string, tag = "10")] reason: String,
        #[prost(string, tag = "11")] message: String,
    }
    /// `ListContainers`.
    ListContainersRequest {
        #[prost(message, optional, tag = "1")] filter: Option<ContainerFilter>,
    }
    /// Those in one state.
    ContainerFilter {
        #[prost(message, optional, tag = "2")] state: Option<ContainerStateValue>,
    }
    /// A state that may be missing.
    ContainerStateValue {
        #[prost(int32, tag = "1")] state: i32,
    }
    /// The list.
    ListContainersResponse {
        #[prost(message, repeated, tag = "1")] containers: Vec<ListedContainer>,
    }
    /// One of the list.
    ListedContainer {
        #[prost(string, tag = "1")] id: String,
    }
    /// `UpdateContainerResources`.
    UpdateContainerResourcesRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(message, optional, tag = "2")] linux: Option<LinuxContainerResources>,
    }

    /// `ExecSync`: the timeout in seconds, 0 for none.
    ExecSyncRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(string, repeated, tag = "2")] cmd: Vec<String>,
        #[prost(int64, tag = "3")] timeout: i64,
    }
    /// What it wrote, and how it ended.
    ExecSyncResponse {
        #[prost(bytes = "vec", tag = "1")] stdout: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] stderr: Vec<u8>,
        #[prost(int32, tag = "3")] exit_code: i32,
    }
    /// `Exec`.
    ExecRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(string, repeated, tag = "2")] cmd: Vec<String>,
        #[prost(bool, tag = "3")] tty: bool,
        #[prost(bool, tag = "4")] stdin: bool,
        #[prost(bool, tag = "5")] stdout: bool,
        #[prost(bool, tag = "6")] stderr: bool,
    }
    /// `Attach`.
    AttachRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(bool, tag = "2")] stdin: bool,
        #[prost(bool, tag = "3")] tty: bool,
        #[prost(bool, tag = "4")] stdout: bool,
        #[prost(bool, tag = "5")] stderr: bool,
    }
    /// `PortForward`.
    PortForwardRequest {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
        #[prost(int32, repeated, tag = "2")] port: Vec<i32>,
    }
    /// Where a stream is to be had.
    StreamResponse {
        #[prost(string, tag = "1")] url: String,
    }

    /// `ContainerStats`.
    ContainerStatsResponse {
        #[prost(message, optional, tag = "1")] stats: Option<ContainerStats>,
    }
    /// What a container takes.
    ContainerStats {
        #[prost(message, optional, tag = "2")] cpu: Option<CpuUsage>,
        #[prost(message, optional, tag = "3")] memory: Option<MemoryUsage>,
    }
    /// CPU time.
    CpuUsage {
        #[prost(message, optional, tag = "2")] usage_core_nano_seconds: Option<UInt64Value>,
    }
    /// Memory.
    MemoryUsage {
        #[prost(message, optional, tag = "2")] working_set_bytes: Option<UInt64Value>,
        #[prost(message, optional, tag = "4")] usage_bytes: Option<UInt64Value>,
    }
    /// A number that may be missing.
    UInt64Value {
        #[prost(uint64, tag = "1")] value: u64,
    }
    /// `PodSandboxStats`.
    PodSandboxStatsResponse {
        #[prost(message, optional, tag = "1")] stats: Option<PodSandboxStats>,
    }
    /// What a pod takes.
    PodSandboxStats {
        #[prost(message, optional, tag = "2")] linux: Option<LinuxPodSandboxStats>,
    }
    /// What a pod takes, altogether and by container.
    LinuxPodSandboxStats {
        #[prost(message, optional, tag = "1")] cpu: Option<CpuUsage>,
        #[prost(message, optional, tag = "2")] memory: Option<MemoryUsage>,
        #[prost(message, repeated, tag = "5")] containers: Vec<ContainerStats>,
    }

    /// `PullImage`.
    PullImageRequest {
        #[prost(message, optional, tag = "1")] image: Option<ImageSpec>,
    }
    /// What was pulled.
    PullImageResponse {
        #[prost(string, tag = "1")] image_ref: String,
    }
}
