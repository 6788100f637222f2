//! Where commands and connections take place: this machine, or a network
//! namespace of the test's own, so that ports are free and this machine's
//! firewall and routes stay as they are.

use std::ffi::OsStr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns};

use crate::process::run;

/// A place that has a loopback interface.
pub trait Network {
    /// A command that will run there.
    fn command(&self, program: &OsStr) -> Command;
}

/// This machine's own network.
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Network for Host {
    fn command(&self, program: &OsStr) -> Command {
        Command::new(program)
    }
}

/// A network namespace that ends with the value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with loopback up and nothing else.
    ///
    /// # Panics
    /// If that is not allowed: root is needed.
    #[track_caller]
    #[must_use]
    pub fn create() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            nix::unistd::geteuid().is_root(),
            "the engines' tests need root: they make namespaces and mounts"
        );
        let name = format!("wharf-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name])).succeeded();
        let namespace = Self { name };
        run(Command::new("ip").args(["-n", &namespace.name, "link", "set", "lo", "up"])).succeeded();
        namespace
    }

    /// Runs `work` on a thread of this process that is in the namespace: its
    /// connections are made there, at once, with no process started.
    ///
    /// # Panics
    /// If the namespace can't be entered, or `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let door = self.door();
        let inside = || {
            door.pass();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).expect("the work ends")
    }

    /// Starts a thread of this process in the namespace.
    ///
    /// # Panics
    /// If the namespace can't be entered.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let door = self.door();
        thread::spawn(move || {
            door.pass();
            work()
        })
    }

    /// The way in for a thread that outlives a call of [`Self::enter`].
    pub(crate) fn door(&self) -> Door {
        let path = format!("/run/netns/{}", self.name);
        Door(fs_err::File::open(path).expect("the namespace is there"))
    }
}

/// A way into a [`Namespace`].
#[derive(Debug)]
pub(crate) struct Door(fs_err::File);

impl Door {
    /// Puts the calling thread into the namespace, for good.
    pub(crate) fn pass(self) {
        setns(self.0, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
    }
}

impl Network for Namespace {
    /// By nsenter, not `ip netns exec`, which would give every command a mount
    /// namespace of its own.
    fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}
