//! A registry: the CNCF distribution, plain HTTP on loopback.

use std::io::ErrorKind;
use std::time::Duration;

use tempfile::TempDir;

use crate::http;
use crate::network::Network;
use crate::process::{Daemon, wait_for};

/// The address of every [`Registry`]: it lives in a namespace, so the port is free.
pub const ADDRESS: &str = "127.0.0.1:5000";

/// A registry that runs until it is dropped.
#[derive(Debug)]
pub struct Registry {
    // Fields are dropped in order: first the daemon, then what it writes to.
    daemon: Daemon,
    folder: TempDir,
}

impl Registry {
    /// Starts an empty registry.
    ///
    /// # Panics
    /// If it doesn't answer in time.
    #[track_caller]
    #[must_use]
    pub fn start(network: &impl Network) -> Self {
        let folder =
            tempfile::Builder::new().prefix("wharf-registry-").tempdir().expect("a folder can be made");
        let settings = folder.path().join("config.yml");
        let storage = folder.path().join("storage");
        fs_err::write(
            &settings,
            format!(
                "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {ADDRESS}\n",
                storage.display()
            ),
        )
        .expect("the configuration can be written");
        let mut command = network.command("docker-registry".as_ref());
        let mut daemon = Daemon::start(
            "docker-registry",
            folder.path(),
            command.arg("serve").arg(&settings).env("OTEL_TRACES_EXPORTER", "none"),
        );
        daemon.wait_until("it listened", |daemon| daemon.log().contains("listening on").then_some(()));
        assert_eq!(http::get_when_up(network, &format!("http://{ADDRESS}/v2/")).status, 200);
        Self { daemon, folder }
    }

    /// Whether a repository has a blob, whole: what the registry itself goes by.
    #[must_use]
    pub fn has(&self, repository: &str, digest: &str) -> bool {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let storage = self.folder.path().join("storage/docker/registry/v2/repositories");
        storage.join(repository).join("_layers/sha256").join(hex).join("link").exists()
    }

    /// Takes away everything that was pushed: this registry keeps none of it in memory.
    ///
    /// # Panics
    /// If that fails.
    pub fn empty(&self) {
        let storage = self.folder.path().join("storage/docker");
        // It may still be writing what a broken connection left it.
        let remove = || match std::fs::remove_dir_all(&storage) {
            Err(error) if error.kind() != ErrorKind::NotFound => None,
            _ => (!storage.exists()).then_some(()),
        };
        wait_for(Duration::from_secs(10), remove).expect("the storage can be removed");
    }

    /// How many requests it has answered.
    #[must_use]
    pub fn requests(&self) -> usize {
        // One line each in the access log, which is of Apache's format.
        self.log().lines().filter(|line| line.contains(" HTTP/1.1\" ")).count()
    }

    /// What it was asked, and how it answered.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}
