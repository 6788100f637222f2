//! An app as a container has it: its image, unpacked by umoci, and the image's own
//! `wharf-host` serving it. No engine is in between.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::http::get_when_up;
use crate::network::Network;
use crate::process::{Daemon, run};
use crate::wharf::{Wharf, text};

/// An image's root file system, which ends with the value.
#[derive(Debug)]
pub struct Unpacked {
    folder: TempDir,
}

impl Unpacked {
    /// Builds the project for this machine's linux and unpacks the image.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    #[must_use]
    pub fn build(project: &Path) -> Self {
        let wharf = Wharf::new();
        let folder = tempfile::Builder::new().prefix("wharf-unpacked-").tempdir();
        let folder = folder.expect("a folder can be made");
        let layout = folder.path().join("layout");
        let build = ["build", text(project), "--single-platform", "-t", "localhost/app:1", "-o"];
        wharf.run(&[&build[..], &[text(&layout)]].concat()).succeeded();
        let bundle = folder.path().join("bundle");
        let image = format!("{}:localhost/app:1", text(&layout));
        run(Command::new("umoci").args(["unpack", "--image", &image, text(&bundle)])).succeeded();
        // The files are what is wanted, the disk's space is not.
        fs_err::remove_dir_all(&layout).expect("the layout can be removed");
        Self { folder }
    }

    /// The app's folder, `/app` in the image.
    #[must_use]
    pub fn app(&self) -> PathBuf {
        self.rootfs().join("app")
    }

    /// A folder for logs that ends with the value.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// The component of the worker whose source is `source` below the project.
    ///
    /// # Panics
    /// If there is no such worker.
    #[track_caller]
    #[must_use]
    pub fn component(&self, source: &str) -> PathBuf {
        let manifest = fs_err::read(self.app().join("wharf.json")).expect("the image has a manifest");
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("wharf.json is JSON");
        let workers = manifest["workers"].as_array().expect("the manifest lists workers");
        let worker = workers.iter().find(|worker| worker["source"] == source);
        let worker = worker.unwrap_or_else(|| panic!("expected a worker {source}: {manifest}"));
        let index = worker["component"].as_u64().expect("a worker has a component");
        let file = &manifest["components"][usize::try_from(index).expect("the index is small")]["file"];
        self.app().join(file.as_str().expect("a component has a file"))
    }

    /// The image's `wharf-host`, not yet run, to serve the app on `address`.
    #[must_use]
    pub fn command(&self, network: &impl Network, address: SocketAddr) -> Command {
        let mut command = network.command(self.rootfs().join("wharf-host").as_os_str());
        command
            .env("WHARF_APP", self.app().join("wharf.json"))
            .env("WHARF_ADDR", address.to_string())
            .current_dir(self.folder.path());
        command
    }

    /// Serves the app on `address` until the value is dropped; it answers `path`.
    ///
    /// # Panics
    /// If it does not come up.
    #[track_caller]
    #[must_use]
    pub fn serve(&self, network: &impl Network, address: SocketAddr, path: &str) -> Daemon {
        let name = format!("wharf-host-{}", address.port());
        let daemon = Daemon::start(&name, self.scratch(), &mut self.command(network, address));
        let first = get_when_up(network, &format!("http://{address}{path}"));
        assert_eq!(first.status, 200, "{path}\n{}", daemon.log());
        daemon
    }

    fn rootfs(&self) -> PathBuf {
        self.folder.path().join("bundle/rootfs")
    }
}
