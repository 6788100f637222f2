//! Whatever is killed at whatever moment, nothing of a pod stays once it is
//! removed, and what containerd says of its containers is true.
//!
//! A round makes a pod of two containers and kills one of: the shim, a helper,
//! an init (pause, the host or the sidecar), at any moment; containerd once the
//! pod runs, for while it makes one it leaves things behind by itself, with
//! runc's shim too. `make faults` has more rounds.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wharf_tests::chance::Chance;
use wharf_tests::cri::messages::LinuxPodSandboxConfig;
use wharf_tests::engine::{Container, Containerd, Generation, Handler, Node};
use wharf_tests::fixture::{push_busybox, push_hello};
use wharf_tests::http::get_when_up;
use wharf_tests::process::wait_for;
use wharf_tests::registry::Registry;

/// How many rounds each test has, if not a few.
const ROUNDS: &str = "WHARF_FAULT_ROUNDS";

#[test]
fn containerd_1_7_and_our_shim_survive_kills() {
    survives_kills(Generation::Trixie);
}

#[test]
fn containerd_2_1_and_our_shim_survive_kills() {
    survives_kills(Generation::Forky);
}

/// By a compiler that does not come to an end.
#[test]
fn a_create_that_is_given_up_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let compiler = folder.path().join("wharf");
    let script = "#!/bin/sh\n[ \"$2\" = --engine-id ] && echo slow && exit 0\nexec sleep 20\n";
    fs_err::write(&compiler, script).expect("a script can be written");
    let executable = PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(&compiler, executable).expect("it can be made executable");
    let cache = folder.path().join("cache");
    let environment = [("WHARF_BINARY", compiler.as_os_str()), ("WHARF_CACHE_DIR", cache.as_os_str())];
    let containerd = Containerd::start_with(Generation::Forky, &environment);
    let _registry = Registry::start(containerd.network());
    let app = push_hello(containerd.network());
    containerd.ctr(&["images", "pull", "--plain-http", &app]).succeeded();
    for _ in 0..2 {
        let run = ["--timeout", "2s", "run", "--detach", "--runtime", "io.containerd.wasm.v1", &app, "app"];
        let given_up = containerd.ctr(&run);
        assert!(given_up.code != 0 && given_up.took < Duration::from_secs(15), "{}", given_up.report());
        let alone = || children_of(&containerd.shims(), |_| true).is_empty() && containerd.shims().is_empty();
        let gone = wait_for(Duration::from_secs(15), || alone().then_some(()));
        assert!(gone.is_some(), "shims {:?} were left", containerd.shims());
        assert_eq!(containerd.ctr(&["tasks", "list", "--quiet"]).output(), "");
        let _ = containerd.ctr(&["containers", "delete", "app"]);
    }
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Shim,
    Helper,
    Init,
    Containerd,
}

const VICTIMS: [Victim; 4] = [Victim::Shim, Victim::Helper, Victim::Init, Victim::Containerd];

fn survives_kills(generation: Generation) {
    let rounds = std::env::var(ROUNDS).map_or(8, |rounds| rounds.parse().expect("a number of rounds"));
    let mut node = Node::start(generation, Handler::Wasm);
    let _registry = Registry::start(node.network());
    let (app, busybox) = (push_hello(node.network()), push_busybox(node.network()));
    node.pull(&app);
    node.pull(&busybox);
    // Compiled beforehand, so that rounds are alike.
    let pod = node.run_pod("first", Handler::Wasm);
    let _ = node.start_container(&pod, &Container::of(&app, "app", &[]));
    node.remove_pod(&pod);

    let mut chance = Chance::new();
    let mut sockets = BTreeSet::new();
    for round in 0..rounds {
        let victim = VICTIMS[usize::try_from(round).expect("few rounds") % VICTIMS.len()];
        // A helper is there only while a container is made.
        let latest = if matches!(victim, Victim::Helper) { 100 } else { 600 };
        let delay = Duration::from_millis(chance.number(0..latest));
        let pick = chance.number(..);
        thread::scope(|scope| {
            let (node, app, busybox) = (&node, &app, &busybox);
            let made = scope.spawn(move || make_pod(node, &format!("pod-{round}"), app, busybox));
            if matches!(victim, Victim::Containerd) {
                made.join().expect("it does not panic");
            }
            thread::sleep(delay);
            strike(node, victim, pick);
        });
        sockets.extend(node.sockets());
        if matches!(victim, Victim::Containerd) {
            node.restart_when(Signal::SIGKILL, || ());
        }
        let said = format!("round {round}: {victim:?} killed after {delay:?}");
        is_true(&node, &said);
        clears_up(&node, &sockets, &said);
    }
    // And it goes on.
    let pod = node.run_pod("last", Handler::Wasm);
    let _ = node.start_container(&pod, &Container::of(&app, "app", &[]));
    assert_eq!(get_when_up(node.network(), &format!("http://{}:8080", node.address(&pod))).status, 200);
    node.remove_pod(&pod);
    clears_up(&node, &sockets, "at the end");
}

/// As far as that goes: what is killed meanwhile may make any of it fail.
fn make_pod(node: &Node, name: &str, app: &str, busybox: &str) {
    let Ok(pod) = node.try_run_pod(name, Handler::Wasm, LinuxPodSandboxConfig::default()) else { return };
    let _ = node.try_start_container(&pod, &Container::of(app, "app", &[]));
    let script = ["/bin/sh", "-c", "while :; do sleep 0.1; done"];
    let _ = node.try_start_container(&pod, &Container::of(busybox, "sidecar", &script));
}

/// Kills one process of this kind, as soon as there is one.
fn strike(node: &Node, victim: Victim, pick: u64) {
    let candidates = || match victim {
        Victim::Containerd => node.daemon().into_iter().collect(),
        Victim::Shim => node.shims(),
        Victim::Helper => children_of(&node.shims(), |line| line.contains("\0helper\0")),
        Victim::Init => children_of(&node.shims(), |line| !line.contains("\0helper\0")),
    };
    let found = wait_for(Duration::from_secs(2), || Some(candidates()).filter(|found| !found.is_empty()));
    let found = found.unwrap_or_else(|| panic!("there is no {victim:?} to kill"));
    let index = usize::try_from(pick % found.len() as u64).expect("few processes");
    let pid = Pid::from_raw(i32::try_from(found[index]).expect("a process id"));
    // It may have ended by itself.
    let _ = kill(pid, Signal::SIGKILL);
}

fn children_of(parents: &[u32], wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_them = pids.filter(|pid| parent_of(*pid).is_some_and(|parent| parents.contains(&parent)));
    let line = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    of_them.filter(|pid| wanted(&line(pid))).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with('Z'))
}

/// What containerd says runs, runs.
#[track_caller]
fn is_true(node: &Node, said: &str) {
    let lies = || {
        let inits = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| node.inits()));
        inits.is_ok_and(|inits| !inits.into_iter().any(is_zombie)).then_some(())
    };
    assert!(wait_for(Duration::from_secs(20), lies).is_some(), "{said}: containerd's containers do not run");
}

/// Nothing stays.
#[track_caller]
fn clears_up(node: &Node, sockets: &BTreeSet<PathBuf>, said: &str) {
    let left = || {
        let mut left = node.traces();
        left.extend(fifos(&node.folder().join("state")));
        left.extend(sockets.iter().filter(|path| path.exists()).map(|path| format!("{}", path.display())));
        left
    };
    let clear = || {
        node.remove_all();
        left().is_empty().then_some(())
    };
    assert!(wait_for(Duration::from_secs(40), clear).is_some(), "{said}: left {:#?}", left());
}

fn fifos(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(fifos(&entry.path())),
            Ok(kind) if kind.is_fifo() => found.push(format!("fifo {}", entry.path().display())),
            _ => {}
        }
    }
    found
}
