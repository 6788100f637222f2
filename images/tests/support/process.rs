//! Pushes and pulls in processes of their own, for what a process has only one
//! of: its environment, where Docker's credentials and proxies are named.

use std::path::PathBuf;

use wharf_images::{Client, ClientOptions, Layout, Reference};

use super::{HANGS, options, silent, words};

/// The test, in each file that uses [`Process`], which calls [`act`].
pub const ACTOR: &str = "acts_as_the_environment_says";

/// A process that is to push or pull.
pub struct Process {
    docker: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Process {
    /// A process whose Docker configuration is `config`.
    pub fn new(config: &serde_json::Value) -> Self {
        let docker = tempfile::tempdir().unwrap();
        std::fs::write(docker.path().join("config.json"), config.to_string()).unwrap();
        Self { docker, variables: Vec::new() }
    }

    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    pub async fn push(self, layout: &Layout, reference: &Reference) -> (bool, String) {
        self.run("push", layout, reference).await
    }

    pub async fn pull(self, layout: &Layout, reference: &Reference) -> (bool, String) {
        self.run("pull", layout, reference).await
    }

    /// Whether it went well, and all that was printed.
    async fn run(self, action: &str, layout: &Layout, reference: &Reference) -> (bool, String) {
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", ACTOR, "--nocapture"])
            .env("DOCKER_CONFIG", self.docker.path())
            .env("ACT", action)
            .env("ACT_LAYOUT", layout.root())
            .env("ACT_REFERENCE", reference.to_string())
            .envs(self.variables)
            .kill_on_drop(true);
        let output = tokio::time::timeout(HANGS, command.output()).await.expect("it hangs").unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }
}

/// What such a process does; nothing in any other.
pub async fn act() {
    let Ok(action) = std::env::var("ACT") else { return };
    let layout = Layout::open(PathBuf::from(std::env::var_os("ACT_LAYOUT").unwrap())).unwrap();
    let reference: Reference = std::env::var("ACT_REFERENCE").unwrap().parse().unwrap();
    let client = Client::new(ClientOptions { insecure: true, ..options() });
    let done = match action.as_str() {
        "push" => client.push(&layout, &reference, silent()).await,
        _ => client.pull(&layout, &reference, silent()).await,
    };
    if let Err(error) = done {
        panic!("{}", words(&error));
    }
}
