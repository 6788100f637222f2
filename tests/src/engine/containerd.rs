//! containerd, and `ctr`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Generation, unmount_below};
use crate::network::{Namespace, Network};
use crate::process::{Daemon, Outcome, having, run, send, wait_for};

/// A containerd that runs until it is dropped, and then takes its containers,
/// shims and mounts with it.
#[derive(Debug)]
pub struct Containerd {
    daemon: Option<Daemon>,
    folder: TempDir,
    generation: Generation,
    network: Namespace,
    /// Of its own, beside that of the tests.
    environment: Vec<(OsString, OsString)>,
    /// What a shell does to the daemon's mounts, or to itself, before it is the daemon.
    setup: Option<String>,
    /// How often it was started.
    starts: u32,
}

impl Containerd {
    /// Starts a containerd with nothing in it.
    ///
    /// # Panics
    /// If it doesn't answer in time.
    #[track_caller]
    #[must_use]
    pub fn start(generation: Generation) -> Self {
        Self::start_with(generation, &[])
    }

    /// The same with more variables in its environment, which shims inherit.
    ///
    /// # Panics
    /// If it doesn't answer in time.
    #[track_caller]
    #[must_use]
    pub fn start_with(generation: Generation, environment: &[(&str, &OsStr)]) -> Self {
        Self::configured(generation, environment, None, plain)
    }

    /// The same in a mount namespace of its own, where `setup`, shell commands that find
    /// the daemon's folder as `$FOLDER`, has run: shims inherit what it does.
    ///
    /// # Panics
    /// If it doesn't answer in time.
    #[track_caller]
    #[must_use]
    pub fn start_where(generation: Generation, environment: &[(&str, &OsStr)], setup: &str) -> Self {
        Self::configured(generation, environment, Some(setup), plain)
    }

    /// The same with the configuration that `settings` makes for a folder: all that it
    /// names must lie there, and its socket be `containerd.sock`.
    #[track_caller]
    pub(super) fn configured(
        generation: Generation,
        environment: &[(&str, &OsStr)],
        setup: Option<&str>,
        settings: impl FnOnce(&str) -> String,
    ) -> Self {
        let network = Namespace::create();
        // Short: a socket's path has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("wharf-").tempdir().expect("a folder can be made");
        let settings = settings(folder.path().to_str().expect("the folder's path is UTF-8"));
        fs_err::write(folder.path().join("config.toml"), settings).expect("the configuration can be written");
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let setup = setup.map(str::to_owned);
        let mut containerd =
            Self { daemon: None, folder, generation, network, environment, setup, starts: 0 };
        containerd.launch();
        containerd
    }

    /// The daemon's process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::id)
    }

    /// Ends the daemon by a signal; its containers and shims stay.
    #[track_caller]
    pub(super) fn end(&mut self, signal: Signal) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.end_by(signal);
        }
    }

    /// Starts the daemon, for the first time or anew.
    #[track_caller]
    pub(super) fn launch(&mut self) {
        let program = self.generation.program("usr/bin/containerd");
        let mut command = match &self.setup {
            None => self.network.command(program.as_os_str()),
            Some(setup) => {
                let mut command = self.network.command("unshare".as_ref());
                let script = format!("{setup}\nexec \"$@\"");
                command.args(["--mount", "sh", "-e", "-c", &script, "sh"]).arg(program);
                command.env("FOLDER", self.folder.path());
                command
            }
        };
        let file = self.folder.path().join("config.toml");
        command.arg("--config").arg(file).env("PATH", self.generation.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.starts += 1;
        // A log each, or the next start would cut the last one's.
        let name =
            if self.starts == 1 { "containerd".to_owned() } else { format!("containerd-{}", self.starts) };
        let mut daemon = Daemon::start(&name, self.folder.path(), &mut command);
        daemon.wait_until("it answered", |_| (run(&mut self.command(&["version"])).code == 0).then_some(()));
        self.daemon = Some(daemon);
    }

    /// The namespace that it and its host-network containers live in.
    #[must_use]
    pub fn network(&self) -> &Namespace {
        &self.network
    }

    pub(super) fn generation(&self) -> Generation {
        self.generation
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    /// Runs `ctr ARGUMENTS` to its end.
    #[track_caller]
    pub fn ctr(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.command(arguments))
    }

    /// Starts `ctr ARGUMENTS`, which run a container in the foreground; its output is kept as `name`.
    #[track_caller]
    #[must_use]
    pub fn start_ctr(&self, name: &str, arguments: &[&str]) -> Daemon {
        Daemon::start(name, self.folder.path(), &mut self.command(arguments))
    }

    /// A command beside this containerd, which finds it, `ctr` and shims where
    /// one of a whole machine would be.
    #[must_use]
    pub fn beside(&self, program: &Path) -> Command {
        let mut command = self.network.command(program.as_os_str());
        command.env("PATH", self.generation.path()).env("CONTAINERD_ADDRESS", self.socket());
        command.env("CONTAINERD_NAMESPACE", self.namespace());
        command
    }

    /// The pid of a container's init, once it runs.
    ///
    /// # Panics
    /// If it never does.
    #[track_caller]
    #[must_use]
    pub fn init_of(&self, container: &str) -> u32 {
        let init = || {
            let tasks = self.ctr(&["task", "list"]).output();
            let task =
                tasks.lines().find(|line| line.split_whitespace().next() == Some(container))?.to_owned();
            let mut fields = task.split_whitespace().skip(1);
            let pid = fields.next()?.parse().ok()?;
            (fields.next() == Some("RUNNING")).then_some(pid)
        };
        wait_for(Duration::from_secs(20), init)
            .unwrap_or_else(|| panic!("container {container} does not run"))
    }

    /// The shims that serve it.
    #[must_use]
    pub fn shims(&self) -> Vec<u32> {
        having(&self.socket().display().to_string())
    }

    /// A path as its daemon sees it.
    ///
    /// # Panics
    /// If the daemon does not run.
    #[must_use]
    pub fn within(&self, path: &str) -> PathBuf {
        let folder = self.folder.path().display();
        format!("/proc/{}/root{folder}/{path}", self.pid().expect("the daemon runs")).into()
    }

    /// What there is of containers beside containerd itself: processes, mounts, cgroups,
    /// sockets. Of no containers there must be none.
    #[must_use]
    pub fn traces(&self) -> Vec<String> {
        let mut traces: Vec<_> = self.shims().iter().map(|shim| format!("shim {shim}")).collect();
        let state = self.folder.path().join("state");
        let daemon = self.pid().map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let mounts = std::fs::read_to_string(format!("/proc/{daemon}/mounts")).unwrap_or_default();
        let targets = mounts.lines().filter_map(|mount| mount.split(' ').nth(1));
        let below = targets.filter(|at| Path::new(at).starts_with(&state) && Path::new(at) != state);
        traces.extend(below.map(|at| format!("mount {at}")));
        for cgroup in cgroup_hierarchies().iter().map(|tree| tree.join(self.namespace())) {
            for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    traces.push(format!("cgroup {}", entry.path().display()));
                }
            }
        }
        traces.extend(self.sockets().iter().map(|socket| format!("socket {}", socket.display())));
        traces
    }

    /// The sockets that somebody listens at in its network namespace, other than its own.
    #[must_use]
    pub fn sockets(&self) -> Vec<PathBuf> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
        let sockets = self.network.enter(read);
        let listening = sockets.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Flags with __SO_ACCEPTCON, and a path.
            (fields.get(3) == Some(&"00010000")).then(|| fields.get(7).map(PathBuf::from))?
        });
        let mut found: Vec<_> = listening.filter(|path| !path.starts_with(self.folder.path())).collect();
        found.sort();
        found
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.network.command(self.generation.program("usr/bin/ctr").as_os_str());
        // A namespace of its own: a container's cgroup is named by namespace and
        // id, and must not be that of another engine's container.
        command
            .arg("--address")
            .arg(self.socket())
            .args(arguments)
            .env("CONTAINERD_NAMESPACE", self.namespace());
        command
    }

    /// A name that no other instance has.
    pub(super) fn namespace(&self) -> &OsStr {
        self.folder.path().file_name().expect("the folder has a name")
    }

    fn names(&self, arguments: &[&str]) -> Vec<String> {
        run(&mut self.command(arguments)).stdout.lines().map(str::to_owned).collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for namespace in self.names(&["namespaces", "list", "--quiet"]) {
            for container in self.names(&["--namespace", &namespace, "tasks", "list", "--quiet"]) {
                let _ = self.ctr(&["--namespace", &namespace, "tasks", "delete", "--force", &container]);
            }
        }
        self.daemon = None;
        // What is left belongs to nobody: shims are known by the socket's address.
        let address = self.socket().display().to_string();
        for shim in having(&address) {
            send(shim, Signal::SIGKILL);
        }
        let _ = wait_for(Duration::from_secs(5), || having(&address).is_empty().then_some(()));
        unmount_below(self.folder.path());
        // The shims remove the containers' cgroups, not the namespace's around them.
        for hierarchy in cgroup_hierarchies() {
            for namespace in [self.namespace(), OsStr::new("k8s.io")] {
                // Fails where somebody else's is still in it.
                let _ = std::fs::remove_dir(hierarchy.join(namespace));
            }
        }
    }
}

/// The configuration of one without Kubernetes' plugin.
fn plain(root: &str) -> String {
    // Version 2 of the file is read by containerd 1.7 and 2.1.
    format!(
        "version = 2\nroot = \"{root}/root\"\nstate = \"{root}/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{root}/containerd.sock\"\n[debug]\nlevel = \"info\"\n"
    )
}

/// The mounted cgroup trees: one in version 2, one a controller in version 1.
pub(crate) fn cgroup_hierarchies() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let is_cgroup = |kind: &str| kind == "cgroup" || kind == "cgroup2";
    let fields = mounts.lines().map(|mount| mount.split(' ').collect::<Vec<_>>());
    fields.filter(|fields| is_cgroup(fields[2])).map(|fields| PathBuf::from(fields[1])).collect()
}
