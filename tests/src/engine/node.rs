//! containerd as a kubelet has it: with its CRI service, CNI, and runtimes by name.

mod pods;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::Generation;
use super::containerd::Containerd;
use crate::cri::Client;
use crate::cri::messages::{
    Empty, ImageSpec, ListPodSandboxResponse, PodSandboxId, PullImageRequest, PullImageResponse,
};
use crate::fixture::{PAUSE, save_pause};
use crate::network::{Namespace, Network as _};
use crate::process::{run, wait_for};
use crate::testbed;
use crate::wharf::text;

pub use pods::{Container, Executed, Pod, Terminal};

/// Which runtime a pod is run by: what a `RuntimeClass` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// containerd's own shim and this machine's runc: what others do.
    Runc,
    /// Our shim.
    Wasm,
}

impl Handler {
    /// Its name in containerd's configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Wasm => "wasm",
        }
    }
}

/// A containerd with the CRI, which runs until it is dropped, and then takes its
/// pods with it.
#[derive(Debug)]
pub struct Node {
    client: Client,
    containerd: Containerd,
}

impl Node {
    /// Starts a containerd that has the image of [`PAUSE`] and nothing else, and
    /// runs pods of no named handler by `default`.
    ///
    /// # Panics
    /// If it doesn't answer in time.
    #[track_caller]
    #[must_use]
    pub fn start(generation: Generation, default: Handler) -> Self {
        Self::start_where(generation, default, None)
    }

    /// The same with what `setup` does, as [`Containerd::start_where`] has it.
    ///
    /// # Panics
    /// If it doesn't become ready in time.
    #[track_caller]
    #[must_use]
    pub fn start_where(generation: Generation, default: Handler, setup: Option<&str>) -> Self {
        let containerd = Containerd::configured(generation, &[], setup, |root| {
            let network = format!("{root}/cni");
            fs_err::create_dir(&network).expect("a folder can be made");
            fs_err::write(format!("{network}/pods.conflist"), conflist(root)).expect("a file can be written");
            settings(generation, root, default)
        });
        let client = Client::new(containerd.socket());
        let node = Self { client, containerd };
        let archive = node.containerd.folder().join("pause.tar");
        save_pause(&archive);
        node.ctr(&["images", "import", text(&archive)]);
        node.wait_until_ready();
        node
    }

    /// The namespace that it lives in, from where pods are reached by their addresses.
    #[must_use]
    pub fn network(&self) -> &Namespace {
        self.containerd.network()
    }

    /// The socket of the CRI.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.containerd.socket()
    }

    /// A folder that ends with the node.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.containerd.folder()
    }

    /// The shims that serve it.
    #[must_use]
    pub fn shims(&self) -> Vec<u32> {
        self.containerd.shims()
    }

    /// Pulls an image by the CRI: of an index, the one for this machine's platform.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn pull(&self, reference: &str) {
        let image = Some(ImageSpec { image: reference.to_owned() });
        self.client.must::<PullImageResponse>("ImageService/PullImage", &PullImageRequest { image });
    }

    /// Ends containerd by a signal and starts it anew once `meanwhile` is done; the
    /// pods go on.
    ///
    /// # Panics
    /// If it doesn't end, or doesn't answer in time.
    #[track_caller]
    pub fn restart_when(&mut self, signal: Signal, meanwhile: impl FnOnce()) {
        self.containerd.end(signal);
        meanwhile();
        self.containerd.launch();
        self.wait_until_ready();
    }

    /// containerd answers before its CRI service has found the pods of the last run.
    #[track_caller]
    fn wait_until_ready(&self) {
        let list = || self.client.call::<ListPodSandboxResponse>("RuntimeService/ListPodSandbox", &Empty {});
        let ready = wait_for(Duration::from_secs(30), || list().ok());
        assert!(ready.is_some(), "the CRI is not ready: {:?}", list());
    }

    /// What there is of pods beside containerd itself: processes, mounts, network
    /// namespaces and interfaces, cgroups, sockets. Of no pods there must be none.
    #[must_use]
    pub fn traces(&self) -> Vec<String> {
        let mut traces = self.containerd.traces();
        let state = self.containerd.folder().join("state");
        for entry in std::fs::read_dir(state.join("netns")).into_iter().flatten().flatten() {
            traces.push(format!("namespace {}", entry.path().display()));
        }
        let links = run(self.network().command("ip".as_ref()).args(["-oneline", "link"])).output();
        traces.extend(
            links.lines().filter(|link| link.contains("veth")).map(|link| format!("interface {link}")),
        );
        traces
    }

    /// The sockets that somebody listens at in the node's network namespace, other
    /// than containerd's own.
    #[must_use]
    pub fn sockets(&self) -> Vec<PathBuf> {
        self.containerd.sockets()
    }

    /// The daemon itself.
    #[must_use]
    pub fn daemon(&self) -> Option<u32> {
        self.containerd.pid()
    }

    /// Removes all pods, those of others too; a pod that can't be removed stays.
    pub fn remove_all(&self) {
        // In order, so that the CNI takes away what it made.
        let pods: ListPodSandboxResponse =
            self.client.call("RuntimeService/ListPodSandbox", &Empty {}).unwrap_or_default();
        for pod in pods.items {
            let pod = PodSandboxId { pod_sandbox_id: pod.id };
            let _ = self.client.call::<Empty>("RuntimeService/StopPodSandbox", &pod);
            let _ = self.client.call::<Empty>("RuntimeService/RemovePodSandbox", &pod);
        }
    }

    /// Runs `ctr ARGUMENTS` among the CRI's own images and containers.
    #[track_caller]
    fn ctr(&self, arguments: &[&str]) {
        self.containerd.ctr(&[&["--namespace", "k8s.io"], arguments].concat()).succeeded();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.remove_all();
    }
}

/// The configuration of containerd 1.7, of version 2, or of 2.1, of version 3, which
/// has what was one plugin in three.
fn settings(generation: Generation, root: &str, default: Handler) -> String {
    let streams = "stream_server_address = \"127.0.0.1\"\nstream_server_port = \"0\"\n";
    let (version, cri, own, others) = match generation {
        Generation::Trixie => {
            (2, "io.containerd.grpc.v1.cri", format!("sandbox_image = \"{PAUSE}\"\n{streams}"), String::new())
        }
        Generation::Forky => (
            3,
            "io.containerd.cri.v1.runtime",
            String::new(),
            format!(
                "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{PAUSE}\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\"]\n{streams}"
            ),
        ),
    };
    let plugins = testbed::cri("usr/lib/cni").display().to_string();
    let default = default.name();
    // A machine may not allow itself a lower oom_score_adj than it has.
    format!(
        "version = {version}\nroot = \"{root}/root\"\nstate = \"{root}/state\"\n\
         [grpc]\naddress = \"{root}/containerd.sock\"\n[debug]\nlevel = \"info\"\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\npath = \"{root}/opt\"\n\
         [plugins.\"io.containerd.nri.v1.nri\"]\nsocket_path = \"{root}/nri.sock\"\n\
         plugin_path = \"{root}/nri\"\nplugin_config_path = \"{root}/nri\"\n\
         [plugins.\"{cri}\"]\n{own}restrict_oom_score_adj = true\n\
         drain_exec_sync_io_timeout = \"10s\"\nnetns_mounts_under_state_dir = true\n\
         [plugins.\"{cri}\".cni]\nbin_dir = \"{plugins}\"\nconf_dir = \"{root}/cni\"\n\
         [plugins.\"{cri}\".containerd]\ndefault_runtime_name = \"{default}\"\n\
         [plugins.\"{cri}\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"{cri}\".containerd.runtimes.wasm]\nruntime_type = \"io.containerd.wasm.v1\"\n\
         {others}"
    )
}

/// A bridge that the node itself is on, and a subnet of its own: each node has
/// its network namespace, so all may have the same.
fn conflist(root: &str) -> String {
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": true,
            "ipam": {
                "type": "host-local",
                "dataDir": format!("{root}/addresses"),
                "ranges": [[{ "subnet": "10.88.0.0/16" }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
    .to_string()
}
