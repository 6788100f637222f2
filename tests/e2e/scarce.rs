//! What a node may lack: space, memory, controllers, privileges, a folder to write
//! to. Containers then run all the same, or the error says what is missing; and of
//! one that could not be made nothing is left.

use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;
use wharf_tests::engine::{Container, Containerd, Generation, Handler, Node as PodNode};
use wharf_tests::fixture::push_hello;
use wharf_tests::http::get_when_up;
use wharf_tests::process::{Outcome, run, wait_for};
use wharf_tests::registry::Registry;

const URL: &str = "http://127.0.0.1:8080/api/hello";
const RUNTIME: [&str; 2] = ["--runtime", "io.containerd.wasm.v1"];

struct Node {
    containerd: Containerd,
    app: String,
    cache: TempDir,
    _registry: Registry,
}

impl Node {
    /// A containerd for which `setup` was done, and the image of an app.
    fn start(setup: &str) -> Self {
        let cache = tempfile::tempdir().expect("a folder can be made");
        let environment = [("WHARF_CACHE_DIR", cache.path().as_os_str())];
        let setup =
            format!("{setup}\nmount -t tmpfs -o mode=700,size=${{CACHE:-100M}} tmpfs \"$WHARF_CACHE_DIR\"");
        let containerd = Containerd::start_where(Generation::Forky, &environment, &setup);
        let registry = Registry::start(containerd.network());
        let app = push_hello(containerd.network());
        containerd.ctr(&["images", "pull", "--plain-http", &app]).succeeded();
        Self { containerd, app, cache, _registry: registry }
    }

    fn run(&self, options: &[&str]) -> Outcome {
        let run = [&["run", "--detach", "--net-host"], &RUNTIME[..], options, &[&self.app, "app"]].concat();
        self.containerd.ctr(&run)
    }

    #[track_caller]
    fn answers(&self) {
        assert_eq!(get_when_up(self.containerd.network(), URL).status, 200);
    }

    /// Removes the container, if there is one.
    fn remove(&self) {
        let _ = self.containerd.ctr(&["tasks", "delete", "--force", "app"]);
        let _ = self.containerd.ctr(&["containers", "delete", "app"]);
    }

    #[track_caller]
    fn nothing_is_left(&self, said: &str) {
        let clear = || self.containerd.traces().is_empty().then_some(());
        let left = || self.containerd.traces();
        // A shim that containerd could not note ends by itself after 30 s.
        assert!(wait_for(Duration::from_secs(45), clear).is_some(), "{said}: left {:#?}", left());
    }

    /// An app can't be run, for a reason with these words, and leaves nothing.
    #[track_caller]
    fn refuses(&self, options: &[&str], words: &[&str]) {
        let refused = self.run(options);
        assert_ne!(refused.code, 0, "{}", refused.report());
        for word in words {
            assert!(refused.stderr.contains(word), "expected {word:?}: {}", refused.report());
        }
        let _ = self.containerd.ctr(&["containers", "delete", "app"]);
        self.nothing_is_left(&refused.stderr);
    }
}

#[test]
fn a_full_disk_is_named_wherever_the_space_ends() {
    let node = Node::start("mkdir -p $FOLDER/state\nmount -t tmpfs -o size=1M tmpfs $FOLDER/state");
    let filler = node.containerd.within("state/filler");
    let (mut ran, mut refused) = (0, 0);
    for free in (0..=96).step_by(8) {
        let _ = fs_err::remove_file(&filler);
        let space = nix::sys::statvfs::statvfs(filler.parent().expect("a folder")).expect("its space");
        let bytes = (space.blocks_available() * space.fragment_size()).saturating_sub(free << 10);
        fs_err::write(&filler, vec![1; usize::try_from(bytes).expect("a size")]).expect("it fits");
        let outcome = node.run(&[]);
        if outcome.code == 0 {
            node.answers();
            ran += 1;
        } else {
            let report = outcome.report();
            assert!(report.to_lowercase().contains("no space left on device"), "{free} KiB free: {report}");
            refused += 1;
        }
        node.remove();
        node.nothing_is_left(&format!("{free} KiB free"));
    }
    assert!(ran > 0 && refused > 0, "{ran} ran, {refused} were refused");
}

#[test]
fn a_full_cache_is_named_and_nothing_half_written_stays_in_it() {
    let node = Node::start("CACHE=64k");
    let cache = node.cache.path().to_str().expect("a path of UTF-8").to_owned();
    node.refuses(&[], &["No space left on device", &cache]);
    let daemon = node.containerd.pid().expect("it runs");
    let inside = format!("/proc/{daemon}/root{cache}");
    // Beside the compiler's name for its engine, which is small.
    let find = [&inside, "-type", "f", "-not", "-path", "*/engines/*"];
    assert_eq!(run(Command::new("find").args(find)).output(), "");
    let mounts = format!("--mount=/proc/{daemon}/ns/mnt");
    run(Command::new("nsenter").args([&mounts, "mount", "-o", "remount,size=100M", &cache])).succeeded();
    node.run(&[]).succeeded();
    node.answers();
    node.remove();
}

#[test]
fn a_read_only_run_is_named() {
    let node = Node::start("mount --bind -o ro /run /run");
    node.refuses(&[], &["/run/containerd/s", "Read-only file system"]);
}

#[test]
fn without_a_controller_its_limit_is_refused_and_containers_run_without() {
    let node = Node::start("umount /sys/fs/cgroup/memory");
    node.refuses(&["--memory-limit", "100000000"], &["memory"]);
    node.run(&[]).succeeded();
    node.answers();
    node.remove();
    node.nothing_is_left("without a limit");
}

#[test]
fn an_app_without_memory_ends_as_one_that_was_killed() {
    let node = Node::start("");
    // In the foreground, for its exit code.
    let run = ["run", "--rm", "--net-host", "--memory-limit", "400000"];
    let ended = node.containerd.ctr(&[&run, &RUNTIME[..], &[&node.app, "app"]].concat());
    assert_eq!(ended.code, 137, "{}", ended.report());
    node.nothing_is_left("it was killed");
}

/// A pod's pause container asks to be spared by the kernel's search for memory, and so
/// does the shim, which takes a privilege.
#[test]
fn without_the_privilege_to_be_spared_pods_run() {
    let drop = "set -- setpriv --bounding-set -sys_resource \"$@\"";
    let node = PodNode::start_where(Generation::Forky, Handler::Wasm, Some(drop));
    let _registry = Registry::start(node.network());
    let app = push_hello(node.network());
    node.pull(&app);
    let pod = node.run_pod("pod", Handler::Wasm);
    let _ = node.start_container(&pod, &Container::of(&app, "app", &[]));
    let url = format!("http://{}:8080", node.address(&pod));
    assert_eq!(get_when_up(node.network(), &url).status, 200);
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.shims()[0])).unwrap();
    assert!(status.contains("CapEff:\t000001fffeffffff"), "expected no CAP_SYS_RESOURCE: {status}");
    node.remove_pod(&pod);
    let clear = || node.traces().is_empty().then_some(());
    assert!(wait_for(Duration::from_secs(15), clear).is_some(), "left {:#?}", node.traces());
}

#[test]
fn a_socket_that_a_killed_shim_left_is_no_hindrance() {
    let node = Node::start("");
    node.run(&[]).succeeded();
    node.answers();
    let [socket] = &node.containerd.sockets()[..] else { panic!("{:?}", node.containerd.sockets()) };
    for shim in node.containerd.shims() {
        let pid = Pid::from_raw(i32::try_from(shim).expect("a process id"));
        nix::sys::signal::kill(pid, Signal::SIGKILL).expect("it runs");
    }
    node.remove();
    node.nothing_is_left("the shim was killed");
    let _ = fs_err::remove_file(socket);
    drop(UnixListener::bind(socket).expect("a socket can be left"));
    node.run(&[]).succeeded();
    node.answers();
    node.remove();
    node.nothing_is_left("after the stale socket");
    assert!(!socket.exists(), "it is removed with the container");
}
