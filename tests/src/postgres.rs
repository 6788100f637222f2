//! PostgreSQL: Debian's, with a cluster of its own on loopback.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use tempfile::TempDir;

use crate::process::{Daemon, run, send};

/// The role that clients log in as, by [`PASSWORD`] and SCRAM-SHA-256.
pub const USER: &str = "worker";

/// The password of [`USER`]: it is no word of a URL or of a shell.
pub const PASSWORD: &str = "p&ss \"wörd'";

/// The database, which [`USER`] owns.
pub const DATABASE: &str = "app";

/// Who runs the server where we are root, as which it refuses to run.
const OWNER: &str = "postgres";

/// Where Debian has a folder for each version.
const INSTALLED: &str = "/usr/lib/postgresql";

/// What the server logs of a client by TCP, before it asks who that is.
const BY_TCP: &str = "connection received: host=127.0.0.1";

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Postgres {
    // Fields are dropped in order: first the daemon, then what it writes to.
    daemon: Daemon,
    folder: TempDir,
    programs: PathBuf,
    port: u16,
}

impl Postgres {
    /// Starts a server whose [`DATABASE`] is empty.
    ///
    /// # Panics
    /// If it isn't installed, or isn't ready in time.
    #[track_caller]
    #[must_use]
    pub fn start() -> Self {
        let programs = programs();
        let folder =
            tempfile::Builder::new().prefix("wharf-postgres-").tempdir().expect("a folder can be made");
        if let Some(owner) = owner() {
            chown(folder.path(), Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
                .expect("the folder can be given away");
        }
        let data = folder.path().join("data");
        let unprivileged = |program: &str| unprivileged(&programs.join(program), folder.path());
        // Who can enter the folder is trusted at the socket in it.
        run(unprivileged("initdb")
            .arg("--pgdata")
            .arg(&data)
            .args(["--username", OWNER, "--auth-local", "trust", "--auth-host", "scram-sha-256"])
            .args(["--encoding", "UTF8", "--no-locale", "--no-sync"]))
        .succeeded();
        let port = free_port();
        let mut command = unprivileged("postgres");
        command.arg("-D").arg(&data).arg("-k").arg(folder.path()).args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "log_connections=on",
            "fsync=off",
            "password_encryption=scram-sha-256",
        ] {
            command.args(["-c", setting]);
        }
        let mut daemon = Daemon::start("postgres", folder.path(), &mut command);
        daemon.wait_until("it was ready", |daemon| {
            daemon.log().contains("ready to accept connections").then_some(())
        });
        let server = Self { daemon, folder, programs, port };
        let password = PASSWORD.replace('\'', "''");
        let _ = server.query(OWNER, &format!("create role {USER} login password '{password}'"));
        let _ = server.query(OWNER, &format!("create database {DATABASE} owner {USER}"));
        server
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a statement in [`DATABASE`] gives, as psql prints it: a row a line, its
    /// columns between bars. It goes by the socket, so it is none of [`Self::connections`].
    ///
    /// # Panics
    /// If the server refuses it.
    #[track_caller]
    pub fn sql(&self, statement: &str) -> String {
        self.query(DATABASE, statement)
    }

    /// How many connections by TCP have reached it, whether it let them in or not.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.daemon.log().matches(BY_TCP).count()
    }

    #[track_caller]
    fn query(&self, database: &str, statement: &str) -> String {
        run(Command::new(self.programs.join("psql"))
            .arg("--host")
            .arg(self.folder.path())
            .args(["--port", &self.port.to_string(), "--username", OWNER, "--dbname", database])
            // No settings of the user who runs the tests.
            .args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet"])
            .args(["--set", "ON_ERROR_STOP=1", "--command", statement]))
        .output()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A fast shutdown (PostgreSQL, "Shutting Down the Server"). What a daemon is
        // ended by, SIGTERM, waits for the clients to leave.
        if !self.daemon.has_ended() {
            send(self.daemon.id(), Signal::SIGINT);
        }
    }
}

/// The programs of the newest version.
#[track_caller]
fn programs() -> PathBuf {
    let version = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let versions =
        std::fs::read_dir(INSTALLED).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let newest = versions.filter(|folder| folder.join("bin/postgres").exists()).max_by_key(version);
    newest
        .unwrap_or_else(|| {
            panic!("cannot find PostgreSQL in {INSTALLED}: run tests/testbed/packages.sh tests")
        })
        .join("bin")
}

/// Who is to run the server; none: whoever runs the tests.
#[track_caller]
fn owner() -> Option<User> {
    geteuid().is_root().then(|| {
        let user = User::from_name(OWNER).expect("users can be looked up");
        user.unwrap_or_else(|| panic!("no user {OWNER}: run tests/testbed/packages.sh tests"))
    })
}

/// A command that is not root's, in a folder that whoever runs it can enter.
fn unprivileged(program: &Path, folder: &Path) -> Command {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", OWNER, "--regid", OWNER, "--init-groups", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir(folder);
    command
}

/// A port that nobody listens at. Somebody may before we do: it takes the one of
/// thirty thousand, between here and the server's start.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}
