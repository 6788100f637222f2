//! `wharf node`: the shim on a node of Kubernetes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::node::{Distribution, Node, Outcome, Place, Programs, Restart, Root, Source, Wish, enter};
use crate::output;
use crate::transfer::runtime;

/// Install the shim on a node of Kubernetes, or remove it.
///
/// containerd's configuration gets the runtime "wasm": by a file that it imports
/// where that does, else by an edit that keeps all else. containerd is restarted
/// if something changed, and asked whether it has the runtime; if not, all is put
/// back. deploy/node-installer does this on all nodes of a label.
#[derive(Debug, Args)]
#[command(after_help = "Example: sudo wharf node install --dry-run")]
pub(crate) struct NodeCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Install the shim, and tell containerd of it.
    Install(Options),
    /// Take back what `install` has done.
    Uninstall(Options),
    /// Wait until stopped: what a DaemonSet's pod does after `install`.
    Stay,
}

#[derive(Debug, Args)]
struct Options {
    /// Who brings containerd [default: whose socket is there].
    #[arg(long, value_enum)]
    distribution: Option<Distribution>,
    /// containerd's configuration [default: the distribution's].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// containerd's socket [default: the distribution's].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Copy wharf to this folder of the node, or remove it from there [default: with
    /// --enter or --root /opt/wharf; else it stays where it is installed].
    #[arg(long, value_name = "FOLDER")]
    prefix: Option<PathBuf>,
    /// Work among the files of this process, as in a pod with hostPID: --enter 1.
    #[arg(long, value_name = "PID")]
    enter: Option<u32>,
    /// The folder that is the node's `/`.
    #[arg(long, value_name = "FOLDER", conflicts_with = "enter")]
    root: Option<PathBuf>,
    /// What restarts containerd, by the shell [default: systemctl restart SERVICE].
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
    /// How long containerd may take to answer after a restart.
    #[arg(long, value_name = "TIME", default_value = "90s", value_parser = time)]
    timeout: Duration,
    /// Print the files as they would be, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Try again what has failed before, or remove the shim while pods use it.
    #[arg(long)]
    force: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "expected a time such as 90s or 2m".into())
}

pub(crate) fn run(args: &NodeCommand) -> Result<ExitCode> {
    match &args.action {
        Action::Install(options) => make(options, Wish::Installed),
        Action::Uninstall(options) => make(options, Wish::Removed),
        Action::Stay => stay(),
    }
}

fn make(options: &Options, wish: Wish) -> Result<ExitCode> {
    let elsewhere = options.enter.is_some() || options.root.is_some();
    let prefix = options.prefix.clone().or_else(|| elsewhere.then(|| "/opt/wharf".into()));
    // Before anything is entered: these are files of ours.
    let programs = match (prefix, wish) {
        (Some(prefix), Wish::Installed) => Programs::copied(prefix, Source::open()?),
        (Some(prefix), Wish::Removed) => Programs::to_be_removed(prefix),
        (None, _) => Programs::in_place()?,
    };
    let work = || node(options, programs, wish);
    match options.enter {
        Some(pid) => enter(pid, work),
        None => work(),
    }
}

fn node(options: &Options, programs: Programs, wish: Wish) -> Result<ExitCode> {
    let root = Root::new(options.root.clone().unwrap_or_else(|| "/".into()));
    // Both say it all, whoever brings containerd.
    let asked = options.distribution.or_else(|| {
        (options.config.is_some() && options.socket.is_some()).then_some(Distribution::Containerd)
    });
    let mut place = Place::find(&root, asked)?;
    place.config = options.config.clone().unwrap_or(place.config);
    place.socket = options.socket.clone().unwrap_or(place.socket);
    let (config, distribution) = (place.config.display().to_string(), place.distribution);
    let restart = options.restart_command.clone().map_or(Restart::Systemd, Restart::Command);
    let node = Node { root, place, programs, restart, patience: options.timeout, force: options.force };
    if options.dry_run {
        for change in node.changes(wish)? {
            match change.after() {
                Some(text) => output::line(format!("==> {}\n{}", change.path().display(), text.trim_end()))?,
                None => output::line(format!("==> {} is removed", change.path().display()))?,
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let what = match node.make(wish)? {
        Outcome::Unchanged => "nothing to change",
        Outcome::Programs => "programs updated, containerd needs no restart",
        Outcome::Restarted if wish == Wish::Installed => "containerd restarted, it has the runtime \"wasm\"",
        Outcome::Restarted => "containerd restarted, without the runtime \"wasm\"",
    };
    output::line(format!("{distribution:?} ({config}): {what}"))?;
    Ok(ExitCode::SUCCESS)
}

fn stay() -> Result<ExitCode> {
    use tokio::signal::unix::{SignalKind, signal};
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        Ok(ExitCode::SUCCESS)
    })
}
