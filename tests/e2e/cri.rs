//! Pods as a kubelet has them, by the CRI of containerd 1.7 and 2.1: once by runc's
//! shim, which shows what is expected, and once by ours.

mod alike;

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use wharf_tests::cri::Status;
use wharf_tests::cri::messages::{ContainerConfig, LinuxContainerConfig, LinuxContainerResources};
use wharf_tests::cri::stream::Stream;
use wharf_tests::engine::{Container, Executed, Generation, Handler, Node, Pod, Terminal};
use wharf_tests::fixture::{push_busybox, push_hello};
use wharf_tests::http::{get, get_when_up};
use wharf_tests::process::wait_for;
use wharf_tests::registry::Registry;

macro_rules! on {
    ($module:ident, $generation:expr, $handler:expr) => {
        mod $module {
            use super::{Generation, Handler};

            #[test]
            fn a_pod_serves_an_app_beside_a_sidecar_and_leaves_nothing() {
                super::serves_beside_a_sidecar($generation, $handler);
            }

            #[test]
            fn a_command_in_a_container_has_pipes_or_a_terminal_and_an_exit_code() {
                super::executes($generation, $handler);
            }

            #[test]
            fn a_container_is_attached_to_again_and_again() {
                super::attaches($generation, $handler);
            }

            #[test]
            fn a_container_is_held_to_its_limits_which_may_change() {
                super::limits($generation, $handler);
            }

            #[test]
            fn pods_go_on_while_containerd_is_killed() {
                super::survives_containerd($generation, $handler);
            }
        }
    };
}

on!(v1_7_runc, Generation::Trixie, Handler::Runc);
on!(v1_7_wasm, Generation::Trixie, Handler::Wasm);
on!(v2_1_runc, Generation::Forky, Handler::Runc);
on!(v2_1_wasm, Generation::Forky, Handler::Wasm);

/// A node, and the images of a registry beside it.
struct Bed {
    // Dropped in order: the registry is in the node's namespace.
    _registry: Registry,
    node: Node,
    handler: Handler,
    app: String,
    busybox: String,
}

impl Bed {
    fn make(generation: Generation, handler: Handler) -> Self {
        let node = Node::start(generation, Handler::Runc);
        let registry = Registry::start(node.network());
        let (app, busybox) = (push_hello(node.network()), push_busybox(node.network()));
        node.pull(&app);
        node.pull(&busybox);
        Self { _registry: registry, node, handler, app, busybox }
    }

    #[track_caller]
    fn pod(&self) -> Pod {
        self.node.run_pod("pod", self.handler)
    }

    #[track_caller]
    fn app(&self, pod: &Pod, attempt: u32) -> Container {
        self.start(pod, Container::of(&self.app, "app", &[]), attempt)
    }

    /// A container of busybox that runs a script.
    #[track_caller]
    fn script(&self, pod: &Pod, name: &str, script: &str) -> Container {
        self.start(pod, Container::of(&self.busybox, name, &["/bin/sh", "-c", script]), 0)
    }

    #[track_caller]
    fn start(&self, pod: &Pod, mut config: ContainerConfig, attempt: u32) -> Container {
        config.metadata.as_mut().expect("it has a name").attempt = attempt;
        self.node.start_container(pod, &config)
    }

    /// Removes a pod, and looks for what it left.
    #[track_caller]
    fn remove(&self, pod: &Pod, sockets: &[std::path::PathBuf]) {
        self.node.remove_pod(pod);
        let gone = wait_for(Duration::from_secs(10), || self.node.traces().is_empty().then_some(()));
        assert!(gone.is_some(), "the pod left {:#?}", self.node.traces());
        let left: Vec<_> = sockets.iter().filter(|socket| socket.exists()).collect();
        assert!(left.is_empty(), "the pod left {left:?}");
    }
}

/// Lives until it is told to end, and then does at once.
const PATIENT: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

fn serves_beside_a_sidecar(generation: Generation, handler: Handler) {
    let bed = Bed::make(generation, handler);
    let node = &bed.node;
    assert_eq!(node.traces(), [""; 0]);
    let pod = bed.pod();
    let app = bed.app(&pod, 0);
    let sidecar = bed.script(&pod, "sidecar", &format!("echo out; echo err >&2; {PATIENT}"));
    let sockets = node.sockets();

    // From the node, from within the pod, and through the kubelet's port-forward.
    let url = format!("http://{}:8080", node.address(&pod));
    assert_eq!(get_when_up(node.network(), &url).status, 200);
    assert_eq!(get(node.network(), &format!("{url}/api/hello?name=pod")).json()["name"], "pod");
    let script = "wget -q -O - http://127.0.0.1:8080/api/hello?name=sidecar";
    let asked = node.exec(&sidecar, &["/bin/sh", "-c", script]);
    assert!(asked.code == 0 && asked.stdout.contains("sidecar"), "{asked:?}");
    let mut forwarded = node.forward(&pod, 8080);
    forwarded.send(0, b"GET /api/hello?name=forwarded HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
    forwarded.wait_for(0, "forwarded");
    drop(forwarded);

    // All of a pod is one host.
    assert_eq!(node.exec(&sidecar, &["/bin/hostname"]).stdout, "pod\n");

    let lines = || Some(sidecar.log()).filter(|log| log.lines().count() == 2);
    let log = wait_for(Duration::from_secs(10), lines).unwrap_or_else(|| sidecar.log());
    assert!(log.contains("stdout F out\n") && log.contains("stderr F err\n"), "{log:?}");
    // What a log's rotation does: the next line is in a file that is made anew.
    fs_err::rename(sidecar.log_file(), sidecar.log_file().with_extension("1")).expect("the log is there");
    node.reopen_log(&sidecar);
    assert_eq!(node.exec(&sidecar, &["/bin/sh", "-c", "echo rotated >/proc/1/fd/1"]).code, 0);
    let rotated = || (sidecar.log() == "stdout F rotated\n").then_some(());
    assert!(wait_for(Duration::from_secs(10), rotated).is_some(), "{:?}", sidecar.log());

    // What an autoscaler goes by.
    for container in [&app, &sidecar] {
        let stats = node.stats(container);
        let cpu = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).map_or(0, |time| time.value);
        let memory = stats.memory.and_then(|memory| memory.working_set_bytes).map_or(0, |size| size.value);
        assert!(cpu > 1_000_000, "{cpu} ns of CPU");
        assert!((64 << 10..1 << 30).contains(&memory), "{memory} bytes of memory");
    }
    let stats = node.pod_stats(&pod);
    assert_eq!(stats.containers.len(), 2, "{stats:?}");
    assert!(stats.cpu.is_some() && stats.memory.is_some(), "{stats:?}");

    // Each may end and be started anew while the other goes on.
    let init = node.init_of(&app);
    node.stop(&sidecar, 10);
    assert_eq!(node.ended(&sidecar).exit_code, 0);
    node.remove(&sidecar);
    let config = Container::of(&bed.busybox, "sidecar", &["/bin/sh", "-c", PATIENT]);
    let sidecar = bed.start(&pod, config, 1);
    assert_eq!(node.exec(&sidecar, &["/bin/echo", "again"]).stdout, "again\n");
    assert_eq!(node.init_of(&app), init);
    let other = node.init_of(&sidecar);
    node.stop(&app, 10);
    assert_eq!(node.ended(&app).exit_code, 0, "{}", app.log());
    node.remove(&app);
    let app = bed.app(&pod, 1);
    assert_eq!(get_when_up(node.network(), &url).status, 200);
    assert_eq!(node.init_of(&sidecar), other);

    let inits = [node.init_of(&app), node.init_of(&sidecar)];
    bed.remove(&pod, &sockets);
    for init in inits {
        assert!(!Path::new(&format!("/proc/{init}")).exists(), "process {init} was left");
    }
}

fn executes(generation: Generation, handler: Handler) {
    let bed = Bed::make(generation, handler);
    let node = &bed.node;
    let pod = bed.pod();
    let container = bed.script(&pod, "patient", PATIENT);
    let sockets = node.sockets();

    let script = "echo out; echo err >&2; exit 3";
    let expected = Executed { code: 3, stdout: "out\n".to_owned(), stderr: "err\n".to_owned() };
    assert_eq!(node.exec(&container, &["/bin/sh", "-c", script]), expected);
    // More than a pipe holds.
    let long = node.exec(&container, &["/bin/sh", "-c", "dd if=/dev/zero bs=1024 count=1024 2>/dev/null"]);
    assert_eq!((long.code, long.stdout.len()), (0, 1 << 20));
    // It ends with what it started still there.
    assert_eq!(node.exec(&container, &["/bin/sh", "-c", "sleep 100 >/dev/null 2>&1 & echo x"]).stdout, "x\n");
    let killed = node.exec(&container, &["/bin/sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, 137, "{killed:?}");
    let unknown = node.try_exec(&container, &["/bin/nothing"], 10).expect_err("there is no such program");
    assert!(unknown.message.contains("/bin/nothing"), "{unknown:?}");
    let late = node.try_exec(&container, &["/bin/sleep", "60"], 1).expect_err("it takes too long");
    assert!(late.code == Status::DEADLINE || late.message.contains("timeout"), "{late:?}");
    let is_running = || node.exec(&container, &["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline"]).stdout;
    let ended = || (!is_running().contains("sleep\x0060")).then_some(());
    assert!(wait_for(Duration::from_secs(10), ended).is_some(), "what took too long still runs");

    let mut pipes = node.talk(&container, &["/bin/sh"], Terminal::No);
    pipes.send(Stream::STDIN, b"tty; echo there >&2\n");
    pipes.wait_for(Stream::STDOUT, "not a tty\n");
    pipes.wait_for(Stream::STDERR, "there\n");
    pipes.send(Stream::STDIN, b"exit 4\n");
    assert_eq!(pipes.exit_code(), 4);

    let mut terminal = node.talk(&container, &["/bin/sh"], Terminal::Yes);
    terminal.send(Stream::STDIN, b"tty\n");
    terminal.wait_for(Stream::STDOUT, "/dev/pts/");
    terminal.resize(123, 45);
    // The size comes on its own.
    terminal.send(Stream::STDIN, b"until stty size | grep 123; do sleep 0.1; done\n");
    terminal.wait_for(Stream::STDOUT, "45 123\r\n");
    // A terminal's own interrupt ends what runs in it, not the shell.
    terminal.send(
        Stream::STDIN,
        b"sh -c \"trap 'echo in''terrupted; exit' INT; echo wai''ting; while :; do sleep 0.1; done\"\n",
    );
    terminal.wait_for(Stream::STDOUT, "waiting");
    terminal.send(Stream::STDIN, b"\x03");
    terminal.wait_for(Stream::STDOUT, "interrupted");
    terminal.send(Stream::STDIN, b"exit 5\n");
    assert_eq!(terminal.exit_code(), 5);

    // One that won't end is made to, once it was given its time.
    let stubborn = bed.script(&pod, "stubborn", "trap '' TERM; echo ready; while :; do sleep 0.1; done");
    let ready = || stubborn.log().contains("ready").then_some(());
    assert!(wait_for(Duration::from_secs(10), ready).is_some(), "{}", stubborn.log());
    let began = Instant::now();
    node.stop(&stubborn, 2);
    assert!((2..10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    assert_eq!(node.ended(&stubborn).exit_code, 137);

    // One whose client has gone.
    let mut left = node.talk(&container, &["/bin/cat"], Terminal::Yes);
    left.send(Stream::STDIN, b"here\n");
    left.wait_for(Stream::STDOUT, "here");
    drop(left);
    bed.remove(&pod, &sockets);
}

fn attaches(generation: Generation, handler: Handler) {
    let bed = Bed::make(generation, handler);
    let node = &bed.node;
    let pod = bed.pod();
    let script = "while read line; do echo got $line; [ $line != end ] || exit 6; done";
    let config = |name, tty| ContainerConfig {
        stdin: true,
        tty,
        ..Container::of(&bed.busybox, name, &["/bin/sh", "-c", script])
    };
    let piped = bed.start(&pod, config("piped", false), 0);
    let terminal = bed.start(&pod, config("terminal", true), 0);
    let sockets = node.sockets();
    for (container, has) in [(&piped, Terminal::No), (&terminal, Terminal::Yes)] {
        for text in ["one", "two"] {
            let mut attached = node.attach(container, has);
            attached.send(Stream::STDIN, format!("{text}\n").as_bytes());
            attached.wait_for(Stream::STDOUT, &format!("got {text}"));
        }
        let mut attached = node.attach(container, has);
        // Its last words may come too late for the stream, which ends with it, but
        // not for the log.
        attached.send(Stream::STDIN, b"end\n");
        attached.finish();
        assert_eq!(node.ended(container).exit_code, 6);
        let whole = || container.log().contains("got end").then_some(());
        assert!(wait_for(Duration::from_secs(10), whole).is_some(), "{:?}", container.log());
        for text in ["got one", "got two"] {
            assert!(container.log().contains(text), "{:?}", container.log());
        }
    }
    bed.remove(&pod, &sockets);
}

fn limits(generation: Generation, handler: Handler) {
    const MEBIBYTE: i64 = 1 << 20;
    let bed = Bed::make(generation, handler);
    let node = &bed.node;
    let pod = bed.pod();
    // As these name no namespaces, they share one of processes with pause.
    let limited = |mebibytes| {
        let resources =
            LinuxContainerResources { memory_limit_in_bytes: mebibytes * MEBIBYTE, ..Default::default() };
        Some(LinuxContainerConfig { resources: Some(resources), ..Default::default() })
    };
    // Doubles what it holds until somebody stops it.
    let greedy = "echo begins; a=0123456789; while :; do a=$a$a; done";
    let config = Container::of(&bed.busybox, "greedy", &["/bin/sh", "-c", greedy]);
    let greedy = bed.start(&pod, ContainerConfig { linux: limited(16), ..config }, 0);
    let sockets = node.sockets();
    let status = node.ended(&greedy);
    assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137), "{status:?}");

    let config = Container::of(&bed.busybox, "patient", &["/bin/sh", "-c", PATIENT]);
    let patient = bed.start(&pod, ContainerConfig { linux: limited(64), ..config }, 0);
    let limit = || memory_limit(node.init_of(&patient));
    assert_eq!(limit(), 64 * MEBIBYTE);
    let more = LinuxContainerResources { memory_limit_in_bytes: 96 * MEBIBYTE, ..Default::default() };
    node.update(&patient, more);
    assert_eq!(limit(), 96 * MEBIBYTE);
    bed.remove(&pod, &sockets);
}

/// What the kernel holds a process to, in bytes.
fn memory_limit(process: u32) -> i64 {
    let groups = fs_err::read_to_string(format!("/proc/{process}/cgroup")).expect("the process is there");
    let file = groups.lines().find_map(|line| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
        [_, "memory", path] => Some(format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")),
        // In a hybrid tree the second version has no controllers.
        ["0", "", path] => {
            Some(format!("/sys/fs/cgroup{path}/memory.max")).filter(|file| Path::new(file).exists())
        }
        _ => None,
    });
    let limit = fs_err::read_to_string(file.expect("memory is controlled")).expect("the limit can be read");
    limit.trim().parse().expect("the limit is a number")
}

fn survives_containerd(generation: Generation, handler: Handler) {
    let mut bed = Bed::make(generation, handler);
    let pod = bed.pod();
    let app = bed.app(&pod, 0);
    // It writes while nobody reads, and one ends meanwhile.
    let writer = bed.script(&pod, "writer", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done");
    let brief = bed.script(&pod, "brief", "sleep 2; exit 7");
    let url = format!("http://{}:8080", bed.node.address(&pod));
    assert_eq!(get_when_up(bed.node.network(), &url).status, 200);
    let sockets = bed.node.sockets();
    let inits = [bed.node.init_of(&app), bed.node.init_of(&writer)];
    let brief_init = bed.node.init_of(&brief);
    bed.node.restart_when(Signal::SIGKILL, || {
        let ended = || (!Path::new(&format!("/proc/{brief_init}")).exists()).then_some(());
        assert!(wait_for(Duration::from_secs(10), ended).is_some(), "a container ends without containerd");
    });
    let node = &bed.node;
    assert_eq!([node.init_of(&app), node.init_of(&writer)], inits);
    // 255: containerd starts with nobody in the container, and doesn't ask its shim.
    assert!(matches!(node.ended(&brief).exit_code, 7 | 255), "{:?}", node.status(&brief));
    assert_eq!(get(node.network(), &url).status, 200);
    assert_eq!(node.exec(&writer, &["/bin/echo", "again"]).stdout, "again\n");
    let lines = writer.log().lines().count();
    let more = || (writer.log().lines().count() > lines).then_some(());
    assert!(wait_for(Duration::from_secs(10), more).is_some(), "the log stands still\n{}", writer.log());
    let log = writer.log();
    let missing = (1..=lines).find(|line| !log.contains(&format!("line {line}\n")));
    assert!(missing.is_none(), "line {missing:?} is not in the log\n{log}");
    node.stop(&writer, 0);
    assert_eq!(node.ended(&writer).exit_code, 137);
    bed.remove(&pod, &sockets);
}
