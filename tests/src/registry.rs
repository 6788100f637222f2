//! A registry: the CNCF distribution, plain HTTP on loopback.

use std::process::Command;

use tempfile::TempDir;

use crate::http;
use crate::network::Network;
use crate::process::{Daemon, run};

/// The address of every [`Registry`]: it lives in a namespace, so the port is free.
pub const ADDRESS: &str = "127.0.0.1:5000";

/// A registry that runs until it is dropped.
#[derive(Debug)]
pub struct Registry {
    // Fields are dropped in order: first the daemon, then what it writes to.
    daemon: Daemon,
    _folder: TempDir,
}

impl Registry {
    /// Starts an empty registry.
    ///
    /// # Panics
    /// If it doesn't answer in time.
    #[track_caller]
    #[must_use]
    pub fn start(network: &impl Network) -> Self {
        let registry = Self::start_with(network, "");
        assert_eq!(http::get_when_up(network, &format!("http://{ADDRESS}/v2/")).status, 200);
        registry
    }

    /// Starts an empty registry that speaks TLS, by a certificate for localhost
    /// of an authority of its own, and wants the user `me` with the password
    /// `secret`. Also gives the authority's certificate.
    ///
    /// # Panics
    /// If it doesn't start in time.
    #[track_caller]
    #[must_use]
    pub fn start_guarded(network: &impl Network) -> (Self, TempDir) {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let openssl = |arguments: &[&str]| {
            let shared = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
            run(Command::new("openssl").args(["req", "-x509"]).args(shared).args(arguments)).succeeded();
        };
        let (ca, ca_key) = (path("ca.pem"), path("ca.key"));
        openssl(&["-subj", "/CN=wharf test", "-keyout", &ca_key, "-out", &ca]);
        let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
        openssl(
            &[
                ["-subj", "/CN=localhost", "-addext", names, "-addext", "basicConstraints=CA:FALSE"]
                    .as_slice(),
                &["-CA", &ca, "-CAkey", &ca_key, "-keyout", &path("key.pem"), "-out", &path("cert.pem")],
            ]
            .concat(),
        );
        // By bcrypt.
        let users = "me:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";
        fs_err::write(folder.path().join("users"), users).expect("the users can be written");
        let settings = format!(
            "  tls:\n    certificate: {}\n    key: {}\nauth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            path("cert.pem"),
            path("key.pem"),
            path("users")
        );
        (Self::start_with(network, &settings), folder)
    }

    /// Starts a registry; `settings` is YAML that goes on within `http`.
    fn start_with(network: &impl Network, settings: &str) -> Self {
        let folder =
            tempfile::Builder::new().prefix("wharf-registry-").tempdir().expect("a folder can be made");
        let config = folder.path().join("config.yml");
        let storage = folder.path().join("storage");
        fs_err::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {ADDRESS}\n{settings}",
                storage.display()
            ),
        )
        .expect("the configuration can be written");
        let mut command = network.command("docker-registry".as_ref());
        let mut daemon = Daemon::start(
            "docker-registry",
            folder.path(),
            command.arg("serve").arg(&config).env("OTEL_TRACES_EXPORTER", "none"),
        );
        daemon.wait_until("it listened", |daemon| daemon.log().contains("listening on").then_some(()));
        Self { daemon, _folder: folder }
    }

    /// What it was asked, and how it answered.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}
