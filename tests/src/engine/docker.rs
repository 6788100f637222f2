//! dockerd on its own containerd, and `docker`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::{Containerd, Generation, unmount_below};
use crate::http::{self, Response};
use crate::network::{Namespace, Network};
use crate::process::{Daemon, Outcome, on_terminal, run, run_with_input, wait_for};

/// Where Docker keeps images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// In containerd, with indexes and all platforms.
    Containerd,
    /// In Docker's own store: one platform an image.
    Classic,
}

/// A dockerd that runs until it is dropped.
#[derive(Debug)]
pub struct Docker {
    daemon: Option<Daemon>,
    containerd: Containerd,
}

impl Docker {
    /// Starts a Docker with no images.
    ///
    /// # Panics
    /// If it doesn't answer in time.
    #[track_caller]
    #[must_use]
    pub fn start(generation: Generation, store: Store) -> Self {
        let containerd = Containerd::start(generation);
        let folder = containerd.folder();
        let settings = json!({
            "data-root": folder.join("docker"),
            "exec-root": folder.join("exec"),
            "pidfile": folder.join("docker.pid"),
            "hosts": [format!("unix://{}", folder.join("docker.sock").display())],
            "containerd": containerd.socket(),
            "features": { "containerd-snapshotter": store == Store::Containerd },
            "log-level": "info",
        });
        let file = folder.join("docker.json");
        fs_err::write(&file, settings.to_string()).expect("the configuration can be written");
        // The command's own configuration: nobody's credentials, and where buildx lies.
        let plugins = generation.program("usr/libexec/docker/cli-plugins");
        fs_err::create_dir(folder.join("docker-config")).expect("a folder can be made");
        fs_err::write(
            folder.join("docker-config/config.json"),
            json!({ "cliPluginsExtraDirs": [plugins] }).to_string(),
        )
        .expect("the configuration can be written");
        let mut command = containerd.network().command(generation.program("usr/sbin/dockerd").as_os_str());
        command.arg("--config-file").arg(&file).env("PATH", generation.path());
        let mut daemon = Daemon::start("dockerd", folder, &mut command);
        let mut docker = Self { daemon: None, containerd };
        daemon.wait_until("it answered", |_| (docker.docker(&["version"]).code == 0).then_some(()));
        docker.daemon = Some(daemon);
        docker
    }

    /// The namespace that it lives in, where published ports are reached.
    #[must_use]
    pub fn network(&self) -> &Namespace {
        self.containerd.network()
    }

    /// Runs `docker ARGUMENTS` to its end.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.command(arguments))
    }

    /// Runs `docker ARGUMENTS` to its end with `input` at its standard input.
    #[track_caller]
    pub fn docker_with_input(&self, arguments: &[&str], input: &str) -> Outcome {
        run_with_input(&mut self.command(arguments), input)
    }

    /// Runs `docker ARGUMENTS` to its end on a terminal, where `input` is typed.
    #[track_caller]
    pub fn docker_on_terminal(&self, arguments: &[&str], input: &str) -> Outcome {
        run_with_input(&mut on_terminal(&self.command(arguments)), input)
    }

    /// What a container answers at `url`, once it does.
    ///
    /// # Panics
    /// With the container's log, if it ends or takes too long.
    #[track_caller]
    #[must_use]
    pub fn answer_of(&self, container: &str, url: &str) -> Response {
        let runs =
            || self.docker(&["inspect", "--format", "{{.State.Running}}", container]).output() == "true";
        let ask = || http::try_get(self.network(), url).map(Some).or_else(|| (!runs()).then_some(None));
        wait_for(Duration::from_secs(60), ask).flatten().unwrap_or_else(|| {
            let log = self.docker(&["logs", container]);
            let state = self.docker(&["inspect", "--format", "{{json .State}}", container]).output();
            panic!("{container} does not answer: {state}\n{}{}", log.stdout, log.stderr)
        })
    }

    /// Stops a container: how long that took, and the exit code it then has.
    ///
    /// # Panics
    /// If Docker refuses.
    #[track_caller]
    #[must_use]
    pub fn stop(&self, container: &str) -> (Duration, String) {
        let stopped = self.docker(&["stop", container]);
        let took = stopped.took;
        stopped.succeeded();
        (took, self.docker(&["inspect", "--format", "{{.State.ExitCode}}", container]).output())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let folder = self.containerd.folder();
        let program: PathBuf = self.containerd.generation().program("usr/bin/docker");
        let mut command = self.network().command(program.as_os_str());
        command
            .arg("--host")
            .arg(format!("unix://{}", folder.join("docker.sock").display()))
            .args(arguments)
            .env("DOCKER_CONFIG", folder.join("docker-config"));
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        for container in self.docker(&["ps", "--all", "--quiet"]).stdout.lines() {
            let _ = self.docker(&["rm", "--force", container]);
        }
        self.daemon = None;
        unmount_below(self.containerd.folder());
    }
}
