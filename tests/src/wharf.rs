//! The `wharf` command under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::network::{Host, Network};
use crate::process::{Daemon, Outcome, run};
use crate::testbed;

/// `wharf` with an image store, a cache and a Docker configuration of its own.
#[derive(Debug)]
pub struct Wharf {
    folder: TempDir,
    data: PathBuf,
}

impl Default for Wharf {
    fn default() -> Self {
        Self::new()
    }
}

impl Wharf {
    /// With an empty store and an empty cache: what it builds, it builds anew.
    ///
    /// # Panics
    /// If the folder can't be made.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("wharf-store-").tempdir().expect("a folder can be made");
        let data = folder.path().to_owned();
        Self { folder, data }
    }

    /// With the store and the cache that lie in `data`, which others may use too.
    #[must_use]
    pub fn with_data(data: PathBuf) -> Self {
        Self { data, ..Self::new() }
    }

    /// The store, an OCI layout.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// A folder that ends with this value.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// `wharf ARGUMENTS`, not yet run.
    #[must_use]
    pub fn command(&self, network: &impl Network, arguments: &[&str]) -> Command {
        let mut command = network.command(testbed::prefix().join("bin/wharf").as_os_str());
        self.configure(command.args(arguments));
        command
    }

    /// Has `command`, and any `wharf` that it runs, use this store and cache.
    pub fn configure(&self, command: &mut Command) {
        command
            .env("WHARF_STORE", self.store())
            .env("WHARF_CACHE", self.data.join("cache"))
            .env("WHARF_RUNTIMES", testbed::folder().join("runtimes"))
            .env("DOCKER_CONFIG", self.folder.path().join("docker"))
            .env("NO_COLOR", "1")
            .current_dir(self.folder.path());
    }

    /// Runs `wharf ARGUMENTS` to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.command(&Host, arguments))
    }

    /// Runs `wharf ARGUMENTS` in a namespace.
    #[track_caller]
    pub fn run_in(&self, network: &impl Network, arguments: &[&str]) -> Outcome {
        run(&mut self.command(network, arguments))
    }

    /// Builds a project into the store: the index digest.
    ///
    /// # Panics
    /// If that fails, or the last line of stdout is no digest.
    #[track_caller]
    #[must_use]
    pub fn build(&self, project: &Path, reference: &str) -> String {
        let output = self.run(&["build", text(project), "-t", reference]).output();
        let digest = output.lines().last().unwrap_or_default().trim().to_owned();
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        assert!(
            hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "expected the index digest last on stdout:\n{output}"
        );
        digest
    }

    /// The digest of an image in the store.
    ///
    /// # Panics
    /// If there is no such image.
    #[track_caller]
    #[must_use]
    pub fn digest(&self, reference: &str) -> String {
        let images = self.run(&["images", "--json"]).output();
        let parsed: serde_json::Value =
            serde_json::from_str(&images).expect("`wharf images --json` prints JSON");
        let found =
            parsed.as_array().and_then(|images| images.iter().find(|image| image["name"] == reference));
        let digest = found.and_then(|image| image["digest"].as_str());
        digest.unwrap_or_else(|| panic!("expected {reference} in the store: {images}")).to_owned()
    }

    /// `wharf serve TARGET` on a free port.
    ///
    /// # Panics
    /// If it doesn't print its URL.
    #[track_caller]
    #[must_use]
    pub fn serve(&self, target: &str) -> Server {
        self.serve_with(target, &[])
    }

    /// [`Self::serve`] with further arguments.
    ///
    /// # Panics
    /// If it does not say where it serves.
    #[track_caller]
    #[must_use]
    pub fn serve_with(&self, target: &str, arguments: &[&str]) -> Server {
        self.serve_by(target, arguments, |_| {})
    }

    /// [`Self::serve_with`] by a command that `change` has changed.
    ///
    /// # Panics
    /// If it does not say where it serves.
    #[track_caller]
    #[must_use]
    pub fn serve_by(&self, target: &str, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Server {
        let arguments = [&["serve", target, "--addr", "127.0.0.1:0"], arguments].concat();
        let mut command = self.command(&Host, &arguments);
        change(&mut command);
        let mut daemon = Daemon::start("wharf-serve", self.folder.path(), &mut command);
        let url = daemon.wait_until("it printed its URL", |daemon| {
            let log = daemon.log();
            let (_, rest) = log.split_once("http://127.0.0.1:")?;
            // A whole line, or the port may be cut.
            let (port, _) = rest.split_once('\n')?;
            Some(format!("http://127.0.0.1:{}", port.trim_end().trim_end_matches('/')))
        });
        Server { daemon, url }
    }
}

/// A `wharf serve` that ends with the value.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub daemon: Daemon,
    /// Where it listens, for example `http://127.0.0.1:41234`.
    pub url: String,
}

impl Server {
    /// The URL of `path`.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

/// A path as an argument.
///
/// # Panics
/// If it is not UTF-8, as the paths of the tests all are.
#[must_use]
pub fn text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}
