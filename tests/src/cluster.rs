//! Kubernetes of one node: its control plane, a kubelet and a kube-proxy on a
//! [`Node`], all in the node's network namespace.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::{Generation, Handler, Node, cgroup_hierarchies};
use crate::network::{Namespace, Network as _};
use crate::process::{Daemon, Outcome, run, wait_for};
use crate::testbed;
use crate::wharf::text;

/// The node's name.
pub const NODE: &str = "node";

/// The node's own address, on an interface that leads nowhere.
const ADDRESS: &str = "10.99.0.1";

/// Where kubectl asks.
const SERVER: &str = "https://127.0.0.1:6443";

/// Who may do everything.
const TOKEN: &str = "wharf";

/// A cluster that runs until it is dropped, and then takes its pods with it.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in order: first those that would start what ends.
    kubelet: Option<Daemon>,
    proxy: Option<Daemon>,
    control: Vec<Daemon>,
    node: Node,
    cgroups: Vec<PathBuf>,
    // What a kubelet changes of the whole machine is put back last.
    _kernel: Kernel,
}

impl Cluster {
    /// Starts a cluster with no pods, and waits until its node is ready.
    ///
    /// # Panics
    /// If that takes too long.
    #[track_caller]
    #[must_use]
    pub fn start(generation: Generation) -> Self {
        let kernel = Kernel::save();
        // The runtime of a pod without a RuntimeClass is runc, as on most nodes.
        let node = Node::start(generation, Handler::Runc);
        let network = node.network();
        let ip = |arguments: &str| {
            run(network.command("ip".as_ref()).args(arguments.split(' '))).succeeded();
        };
        ip("link add node0 type bridge");
        ip(&format!("address add {ADDRESS}/24 dev node0"));
        ip("link set node0 up");
        // A service's address is reached only where there is a route to it.
        ip("route add default via 10.99.0.254 dev node0");
        let cgroups = make_cgroups(node.folder());
        let mut cluster =
            Self { kubelet: None, proxy: None, control: Vec::new(), node, cgroups, _kernel: kernel };
        cluster.start_control();
        cluster.start_kubelet();
        cluster.start_proxy();
        cluster.wait_for("the node is ready", &["get", "node", NODE, "--output", READY], "True");
        cluster
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The node, to restart it.
    #[must_use]
    pub fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// The namespace from which services are reached by their addresses.
    #[must_use]
    pub fn network(&self) -> &Namespace {
        self.node.network()
    }

    /// What there is of pods, as [`Node::traces`] and in the kubelet's own cgroups,
    /// but not what is the kubelet's.
    #[must_use]
    pub fn traces(&self) -> Vec<String> {
        let mut traces = self.node.traces();
        traces.retain(|trace| !trace.contains("/var/lib/kubelet/"));
        for cgroup in &self.cgroups {
            for class in ["kubepods", "kubepods/burstable", "kubepods/besteffort"] {
                let below = std::fs::read_dir(cgroup.join(class)).into_iter().flatten().flatten();
                let pods = below.filter(|entry| entry.file_name().to_string_lossy().starts_with("pod"));
                traces.extend(pods.map(|entry| format!("cgroup {}", entry.path().display())));
            }
        }
        traces
    }

    /// Runs `kubectl ARGUMENTS` to its end.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Outcome {
        run(self.command("kubectl").args(arguments))
    }

    /// Runs a shell script that uses `kubectl`.
    #[track_caller]
    pub fn shell(&self, script: &str) -> Outcome {
        let mut command = self.network().command("/bin/sh".as_ref());
        let path = std::env::join_paths(
            [testbed::kubernetes("")]
                .into_iter()
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        );
        command.args(["-c", script]).env("PATH", path.expect("no folder holds a colon"));
        run(command.env("KUBECONFIG", self.file("kubeconfig")))
    }

    /// Applies a manifest.
    ///
    /// # Panics
    /// If Kubernetes refuses it.
    #[track_caller]
    pub fn apply(&self, manifest: &Value) {
        let file = self.file("manifest.json");
        fs_err::write(&file, manifest.to_string()).expect("the manifest can be written");
        self.kubectl(&["apply", "--filename", text(&file)]).succeeded();
    }

    /// Waits until `kubectl ARGUMENTS` prints `expected`.
    ///
    /// # Panics
    /// With what it prints instead, and what has happened, if it never does.
    #[track_caller]
    pub fn wait_for(&self, what: &str, arguments: &[&str], expected: &str) {
        let mut last = String::new();
        let found = wait_for(Duration::from_secs(180), || {
            std::thread::sleep(Duration::from_millis(200));
            let outcome = self.kubectl(arguments);
            last = format!("{}{}", outcome.stdout.trim(), outcome.stderr.trim());
            (last == expected).then_some(())
        });
        if found.is_none() {
            let state = self.kubectl(&["describe", "pods"]).stdout;
            let events = self.kubectl(&["get", "events", "--sort-by", ".lastTimestamp"]).stdout;
            panic!("{what}: expected {expected:?}, found {last:?}\n{state}\n{events}");
        }
    }

    fn start_control(&mut self) {
        let key = self.file("accounts.key");
        run(Command::new("openssl").args(["genrsa", "-out", text(&key), "2048"])).succeeded();
        fs_err::write(self.file("tokens.csv"), format!("{TOKEN},{TOKEN},{TOKEN},system:masters\n"))
            .expect("the tokens can be written");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{ "name": "it", "cluster": { "server": SERVER, "insecure-skip-tls-verify": true } }],
            "users": [{ "name": "it", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
        });
        fs_err::write(self.file("kubeconfig"), kubeconfig.to_string()).expect("a file can be written");

        let etcd = format!("--data-dir={} --unsafe-no-fsync", self.file("etcd").display());
        self.start_part("etcd", &etcd);
        let key = key.display();
        let server = format!(
            "--etcd-servers=http://127.0.0.1:2379 --service-cluster-ip-range=10.96.0.0/16 \
             --advertise-address={ADDRESS} --cert-dir={} --token-auth-file={} \
             --authorization-mode=AlwaysAllow --disable-admission-plugins=ServiceAccount --allow-privileged \
             --kubelet-preferred-address-types=InternalIP \
             --service-account-issuer={SERVER} --service-account-key-file={key} \
             --service-account-signing-key-file={key}",
            self.file("certificates").display(),
            self.file("tokens.csv").display(),
        );
        self.start_part("kube-apiserver", &server);
        self.wait_for("the server is ready", &["get", "--raw", "/readyz"], "ok");
        let client = format!("--kubeconfig={} --leader-elect=false", self.file("kubeconfig").display());
        self.start_part("kube-controller-manager", &client);
        self.start_part("kube-scheduler", &client);
    }

    fn start_part(&mut self, name: &str, arguments: &str) {
        let daemon = self.daemon(name, arguments);
        self.control.push(daemon);
    }

    fn start_kubelet(&mut self) {
        let folder = self.node.folder();
        let resolver = self.file("resolv.conf");
        fs_err::write(&resolver, "nameserver 127.0.0.1\n").expect("a file can be written");
        let settings = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
            "authorization": { "mode": "AlwaysAllow" },
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup_root(folder),
            "containerRuntimeEndpoint": format!("unix://{}", self.node.socket().display()),
            "evictionHard": { "memory.available": "10Mi" },
            "failSwapOn": false,
            "podLogsDir": self.file("logs"),
            "resolvConf": resolver,
            "imageGCHighThresholdPercent": 100,
            "syncFrequency": "10s",
        });
        let file = self.file("kubelet.json");
        fs_err::write(&file, settings.to_string()).expect("a file can be written");
        let arguments = format!(
            "--config={} --kubeconfig={} --root-dir={} --hostname-override={NODE} --node-ip={ADDRESS} \
             --cert-dir={}",
            file.display(),
            self.file("kubeconfig").display(),
            self.file("kubelet").display(),
            self.file("certificates").display(),
        );
        // Some of its files are where they are, whatever its root is: in a mount
        // namespace of its own they are not this machine's. So pods can have no
        // volume that a kubelet mounts.
        let script = "mount -t tmpfs none /var/lib && mount -t tmpfs none /var/log && exec \"$@\"";
        let mut command = self.network().command("unshare".as_ref());
        command.args(["--mount", "--propagation", "slave", "/bin/sh", "-c", script, "kubelet"]);
        command.arg(testbed::kubernetes("kubelet")).args(arguments.split(' '));
        self.kubelet = Some(Daemon::start("kubelet", folder, &mut command));
    }

    fn start_proxy(&mut self) {
        // 0: the machine's limits of connections stay as they are.
        let arguments = format!(
            "--kubeconfig={} --hostname-override={NODE} --proxy-mode=iptables --cluster-cidr=10.88.0.0/16 \
             --conntrack-max-per-core=0 --conntrack-min=0 --conntrack-tcp-timeout-established=0 \
             --conntrack-tcp-timeout-close-wait=0 --iptables-min-sync-period=100ms",
            self.file("kubeconfig").display(),
        );
        self.proxy = Some(self.daemon("kube-proxy", &arguments));
    }

    fn daemon(&self, name: &str, arguments: &str) -> Daemon {
        let mut command = self.command(name);
        Daemon::start(name, self.node.folder(), command.args(arguments.split(' ')))
    }

    fn command(&self, name: &str) -> Command {
        let mut command = self.network().command(testbed::kubernetes(name).as_os_str());
        command.env("KUBECONFIG", self.file("kubeconfig"));
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        self.node.folder().join(name)
    }
}

/// Of a node: whether it is ready.
const READY: &str = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nobody starts a pod anew, and the node takes them down.
        self.kubelet = None;
        self.proxy = None;
        for daemon in self.control.drain(..).rev() {
            drop(daemon);
        }
        self.node.remove_all();
        for cgroup in &self.cgroups {
            remove_tree(cgroup);
        }
    }
}

/// A cgroup of this cluster's own in every tree, below which its kubelet makes all
/// others: those of the machine's other containers are not its business.
fn make_cgroups(folder: &Path) -> Vec<PathBuf> {
    let mut made = Vec::new();
    for tree in cgroup_hierarchies() {
        let cgroup = tree.join(cgroup_root(folder).trim_start_matches('/'));
        fs_err::create_dir(&cgroup).expect("a cgroup can be made");
        // A set of the first version has no processors until it is told.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let (Ok(value), true) = (std::fs::read(tree.join(file)), cgroup.join(file).exists()) {
                fs_err::write(cgroup.join(file), value).expect("a cgroup can have what its parent has");
            }
        }
        made.push(cgroup);
    }
    made
}

fn cgroup_root(folder: &Path) -> String {
    format!("/{}-kubelet", folder.file_name().expect("the folder has a name").display())
}

/// Removes a cgroup and those below it, none of which has a process.
fn remove_tree(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_tree(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(cgroup);
}

/// The settings of the kernel that a kubelet changes, as they were.
#[derive(Debug)]
struct Kernel(Vec<(PathBuf, Vec<u8>)>);

impl Kernel {
    fn save() -> Self {
        let names = [
            "kernel/keys/root_maxbytes",
            "kernel/keys/root_maxkeys",
            "kernel/panic",
            "kernel/panic_on_oops",
            "vm/overcommit_memory",
            "vm/panic_on_oom",
        ];
        let files = names.into_iter().map(|name| Path::new("/proc/sys").join(name));
        Self(files.filter_map(|file| Some((file.clone(), std::fs::read(file).ok()?))).collect())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        for (file, value) in &self.0 {
            let _ = std::fs::write(file, value);
        }
    }
}
