//! What Docker does to running containers, it can do through the shim: each
//! with a native program, as runc would run it, and with an app where that
//! has another answer.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use wharf_tests::engine::{Docker, Generation, Store};
use wharf_tests::fixture::{push_busybox, push_hello};
use wharf_tests::http::get;
use wharf_tests::process::{Outcome, run, wait_for};
use wharf_tests::registry::Registry;

const RUNTIME: &str = "--runtime=io.containerd.wasm";
const URL: &str = "http://127.0.0.1:8080";

macro_rules! on {
    ($module:ident, $generation:expr, $store:expr) => {
        mod $module {
            use super::{Engine, Generation, Store};

            #[test]
            fn a_container_behaves_as_runcs() {
                let engine = Engine::start($generation, $store);
                engine.runs_further_processes();
                engine.attaches_terminals();
                engine.freezes_and_thaws();
                engine.sends_signals();
                engine.sets_new_limits();
                engine.tells_of_memory_that_ran_out();
                engine.restarts_and_checks_health();
                engine.isolates();
                engine.tells_events_in_order();
            }

            #[test]
            fn an_app_behaves_as_a_container() {
                Engine::start($generation, $store).serves_an_app();
            }
        }
    };
}

on!(v26, Generation::Trixie, Store::Classic);
on!(v28, Generation::Forky, Store::Containerd);

struct Engine {
    docker: Docker,
    _registry: Registry,
    busybox: String,
}

/// Prints a process's only seccomp filter, ptrace(2), `PTRACE_SECCOMP_GET_FILTER`.
const READ_FILTER: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
pid, SEIZE, INTERRUPT, GET_FILTER = int(sys.argv[1]), 0x4206, 0x4207, 0x420c
def ptrace(request, address, data):
    result = libc.ptrace(request, pid, address, data)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")
    return result
ptrace(SEIZE, None, None)
ptrace(INTERRUPT, None, None)
os.waitpid(pid, 0x40000000)
program = ctypes.create_string_buffer(8 * ptrace(GET_FILTER, 0, None))
ptrace(GET_FILTER, 0, program)
try:
    ptrace(GET_FILTER, 1, None)
    sys.exit("there are two filters")
except OSError:
    print(program.raw.hex())
"#;

impl Engine {
    fn start(generation: Generation, store: Store) -> Self {
        let docker = Docker::start(generation, store);
        let registry = Registry::start(docker.network());
        let busybox = push_busybox(docker.network());
        Self { docker, _registry: registry, busybox }
    }

    fn docker(&self, arguments: &[&str]) -> Outcome {
        self.docker.docker(arguments)
    }

    /// Starts a container that sleeps, or does what `script` says.
    fn detached(&self, name: &str, options: &[&str], script: &str) {
        let run = ["run", "--detach", "--name", name, RUNTIME];
        let command = [&self.busybox, "/bin/sh", "-c", script];
        self.docker(&[&run, options, &command].concat()).succeeded();
    }

    fn inspect(&self, name: &str, format: &str) -> String {
        self.docker(&["inspect", "--format", format, name]).output()
    }

    fn remove(&self, name: &str) {
        self.docker(&["rm", "--force", name]).succeeded();
    }

    /// libcontainer makes the filter of a process that may gain privileges, we
    /// that of one that may not: the same, instruction by instruction.
    fn has_the_filter_that_libcontainer_makes(&self) {
        self.detached("narrow", &["--security-opt", "no-new-privileges"], "exec sleep 1000");
        let filter = |name: &str| {
            let init = self.inspect(name, "{{.State.Pid}}");
            run(Command::new("python3").args(["-c", READ_FILTER, &init])).output()
        };
        let (theirs, ours) = (filter("box"), filter("narrow"));
        assert!(theirs.len() > 1000, "expected Docker's own profile: {theirs}");
        assert_eq!(ours, theirs);
        self.remove("narrow");
    }

    fn runs_further_processes(&self) {
        self.detached("box", &["--env", "A=outer", "--workdir", "/bin"], "sleep 1000");
        let exec = |arguments: &[&str]| self.docker(&[&["exec"], arguments].concat());
        let shell = |script: &str| exec(&["box", "/bin/sh", "-c", script]);
        let said = shell("echo out; echo err >&2; exit 3").exited(3);
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "err\n"));
        // The init's namespaces, environment and folder; a session of its own.
        assert!(shell("cat /proc/1/cmdline").output().starts_with("sleep\0"));
        assert_eq!(shell("echo $A; pwd; echo $HOME").output(), "outer\n/bin\n/");
        let asked = exec(
            &["--env", "A=inner", "--workdir", "/proc", "--user", "7:8", "box", "sh", "-c"]
                .iter()
                .copied()
                .chain(["echo $A; pwd; cat /proc/self/status"])
                .collect::<Vec<_>>(),
        );
        let asked = asked.output();
        assert!(asked.starts_with("inner\n/proc\n"), "{asked}");
        for line in ["Uid:\t7\t7\t7\t7", "Gid:\t8\t8\t8\t8", "CapEff:\t0000000000000000", "Seccomp:\t2"] {
            assert!(asked.contains(line), "expected {line:?}: {asked}");
        }
        self.has_the_filter_that_libcontainer_makes();
        // As the init itself, whose filter it must not escape.
        let status = |of: &str| {
            let status = shell(&format!("cat /proc/{of}/status")).output();
            let lines = status.lines().filter(|line| line.starts_with("Cap") || line.starts_with("Sec"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(status("1"), status("self"));
        assert_eq!(shell("cat /proc/1/cgroup").output(), shell("cat /proc/self/cgroup").output());
        let input = self.docker.docker_with_input(&["exec", "--interactive", "box", "cat"], "typed\n");
        assert_eq!(input.output(), "typed");
        // The codes by which scripts tell what is wrong, and the words.
        let run = ["run", "--detach", "--name", "runc", &self.busybox, "/bin/sleep", "1000"];
        self.docker(&run).succeeded();
        let missing = exec(&["box", "no-such-program"]);
        assert!(missing.report().contains("executable file not found in $PATH"), "{}", missing.report());
        for wrong in [
            &["no-such-program"][..],
            &["/no/such"],
            &["/proc/version"],
            &["/bin"],
            &["sh", "-c", "kill -9 $$"],
        ] {
            let [ours, runcs] = ["box", "runc"].map(|name| exec(&[&[name], wrong].concat()));
            assert_eq!(ours.code, runcs.code, "{}\n{}", ours.report(), runcs.report());
        }
        let [ours, runcs] = ["box", "runc"].map(|name| exec(&["--workdir", "/no/such", name, "true"]));
        assert_eq!(ours.code, runcs.code, "{}\n{}", ours.report(), runcs.report());
        self.remove("runc");
        exec(&["--detach", "box", "sleep", "999"]).succeeded();
        let processes = self.docker(&["top", "box"]).output();
        assert!(processes.contains("sleep 999"), "{processes}");
        self.remove("box");
    }

    fn attaches_terminals(&self) {
        self.detached("box", &["--tty", "--interactive"], "while read word; do echo got $word; done");
        let tty =
            self.docker(&["exec", "--tty", "box", "/bin/sh", "-c", "test -t 0 && test -t 1 && echo tty"]);
        assert_eq!(tty.output(), "tty");
        // The terminal echoes what is typed.
        let typed = self.docker.docker_on_terminal(&["attach", "box"], "word\n");
        assert!(typed.stdout.contains("word\r\n") && typed.stdout.contains("got word"), "{}", typed.report());
        // It has read the end of what was typed.
        self.docker(&["start", "box"]).succeeded();
        let shell = ["exec", "--interactive", "--tty", "box", "/bin/sh"];
        let typed = self.docker.docker_on_terminal(&shell, "echo $((6 * 7)); exit 3\n").exited(3);
        assert!(typed.stdout.contains("42"), "{}", typed.report());
        self.remove("box");

        let run = ["run", "--interactive", "--name", "box", RUNTIME, &self.busybox, "/bin/sh", "-c"];
        let script = ["while read word; do echo got $word; done"];
        let typed = self.docker.docker_with_input(&[&run[..], &script].concat(), "word\n");
        assert_eq!(typed.output(), "got word");
        assert_eq!(self.docker(&["logs", "box"]).output(), "got word");
        self.remove("box");
    }

    fn freezes_and_thaws(&self) {
        self.detached("box", &[], "while true; do echo tick; sleep 0.05; done");
        self.docker(&["pause", "box"]).succeeded();
        assert_eq!(self.inspect("box", "{{.State.Status}}"), "paused");
        let ticks = || self.docker(&["logs", "box"]).output().lines().count();
        let before = ticks();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(ticks(), before, "a frozen container writes nothing");
        self.docker(&["unpause", "box"]).succeeded();
        let went_on = wait_for(Duration::from_secs(5), || (ticks() > before).then_some(()));
        assert!(went_on.is_some(), "it does not go on");
        self.docker(&["pause", "box"]).succeeded();
        self.remove("box");
    }

    fn sends_signals(&self) {
        self.detached(
            "box",
            &[],
            "trap 'echo hup' HUP; trap 'exit 42' TERM; while true; do sleep 0.05; done",
        );
        self.docker(&["kill", "--signal", "HUP", "box"]).succeeded();
        let heard = || (self.docker(&["logs", "box"]).output() == "hup").then_some(());
        assert!(wait_for(Duration::from_secs(5), heard).is_some(), "it does not hear the signal");
        let (took, code) = self.docker.stop("box");
        assert_eq!(code, "42");
        assert!(took < Duration::from_secs(3), "took {took:?}");
        self.remove("box");
        self.detached("box", &[], "sleep 1000");
        self.docker(&["kill", "box"]).succeeded();
        assert_eq!(self.docker(&["wait", "box"]).output(), "137");
        self.remove("box");
    }

    fn sets_new_limits(&self) {
        let options = ["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"];
        self.detached("box", &options, "sleep 1000");
        let stats = || self.docker(&["stats", "--no-stream", "--format", "{{json .}}", "box"]).output();
        let stats: Value = serde_json::from_str(&stats()).expect("it is JSON");
        assert!(stats["MemUsage"].as_str().is_some_and(|text| text.ends_with("/ 64MiB")), "{stats}");
        assert_eq!(stats["PIDs"], "1", "{stats}");
        self.docker(&["update", "--memory", "32m", "--memory-swap", "32m", "--cpus", "0.25", "box"])
            .succeeded();
        let memory = |value: &str| {
            let stats: Value = serde_json::from_str(
                &self.docker(&["stats", "--no-stream", "--format", "{{json .}}", "box"]).output(),
            )
            .expect("it is JSON");
            assert!(stats["MemUsage"].as_str().is_some_and(|text| text.ends_with(value)), "{stats}");
        };
        memory("/ 32MiB");
        assert_eq!(self.limit_of("box", "cpu", "cpu.cfs_quota_us", "cpu.max"), "25000");
        self.docker(&["update", "--memory", "128m", "--memory-swap", "256m", "--pids-limit", "77", "box"])
            .succeeded();
        memory("/ 128MiB");
        assert_eq!(self.limit_of("box", "pids", "pids.max", "pids.max"), "77");
        self.remove("box");
    }

    /// The first word of a file of the container's cgroup, of version 1 or 2.
    fn limit_of(&self, name: &str, controller: &str, v1: &str, v2: &str) -> String {
        let pid = self.inspect(name, "{{.State.Pid}}");
        let groups = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
        let of = |wanted: &str| {
            groups.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                (fields.next()?.split(',').any(|name| name == wanted)).then(|| fields.next()).flatten()
            })
        };
        let file = match of(controller) {
            Some(path) => format!("/sys/fs/cgroup/{controller}{path}/{v1}"),
            None => format!("/sys/fs/cgroup{}/{v2}", of("").expect("it is in a cgroup")),
        };
        let text = fs_err::read_to_string(file).expect("it has a limit");
        text.split_whitespace().next().unwrap_or_default().to_owned()
    }

    fn tells_of_memory_that_ran_out(&self) {
        // 64 MiB of a variable: more than there is.
        let script = "a=x; while true; do a=$a$a; done";
        let run = ["run", "--name", "box", RUNTIME, "--memory", "16m", "--memory-swap", "16m"];
        self.docker(&[&run[..], &[&self.busybox, "/bin/sh", "-c", script]].concat()).exited(137);
        assert_eq!(self.inspect("box", "{{.State.OOMKilled}}"), "true");
        self.remove("box");
    }

    fn restarts_and_checks_health(&self) {
        self.detached("box", &["--restart", "on-failure:2"], "sleep 0.1; exit 5");
        let ended = || {
            (self.inspect("box", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}") == "exited 2 5")
                .then_some(())
        };
        assert!(wait_for(Duration::from_secs(30), ended).is_some(), "it is not restarted twice");
        self.remove("box");
        let options =
            ["--health-cmd", "test -e /bin/sh", "--health-interval", "200ms", "--health-retries", "1"];
        self.detached("box", &options, "sleep 1000");
        let healthy = || (self.inspect("box", "{{.State.Health.Status}}") == "healthy").then_some(());
        assert!(wait_for(Duration::from_secs(20), healthy).is_some(), "it is not healthy");
        self.remove("box");
    }

    fn isolates(&self) {
        let run = |options: &[&str], script: &str| {
            let command = [self.busybox.as_str(), "/bin/sh", "-c", script];
            self.docker(&[&["run", "--rm", RUNTIME], options, &command].concat())
        };
        run(&["--read-only"], "echo > /file").exited(1);
        assert_eq!(run(&["--hostname", "named"], "cat /proc/sys/kernel/hostname").output(), "named");
        let links = run(&["--network", "none"], "cat /proc/net/dev").output();
        assert_eq!(links.lines().count(), 3, "expected the loopback alone: {links}");
        let status = run(
            &["--user", "5", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
            "cat /proc/self/status",
        );
        let status = status.output();
        for line in ["Uid:\t5\t5", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "expected {line:?}: {status}");
        }
        let limits = run(&["--ulimit", "nofile=123:456"], "cat /proc/self/limits").output();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
        assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["123", "456"]);
        self.detached("box", &["--network", "none"], "sleep 1000");
        let joined = run(&["--network", "container:box", "--pid", "container:box"], "cat /proc/1/cmdline");
        assert!(joined.output().starts_with("sleep\0"));
        self.remove("box");
    }

    fn tells_events_in_order(&self) {
        let since = self.docker(&["info", "--format", "{{.SystemTime}}"]).output();
        self.detached("box", &[], "sleep 1000");
        self.docker(&["exec", "box", "/bin/sh", "-c", "exit 4"]).exited(4);
        self.docker(&["pause", "box"]).succeeded();
        self.docker(&["unpause", "box"]).succeeded();
        self.docker(&["kill", "box"]).succeeded();
        self.docker(&["wait", "box"]).succeeded();
        self.remove("box");
        let until = self.docker(&["info", "--format", "{{.SystemTime}}"]).output();
        let events = self.docker(&[
            "events",
            "--since",
            &since,
            "--until",
            &until,
            "--filter",
            "container=box",
            "--format",
            "{{.Action}}",
        ]);
        let events = events.output();
        let events: Vec<&str> = events.lines().filter_map(|line| line.split(':').next()).collect();
        let expected = [
            "create",
            "start",
            "exec_create",
            "exec_start",
            "exec_die",
            "pause",
            "unpause",
            "kill",
            "die",
            "destroy",
        ];
        let mut found = events.iter();
        for event in expected {
            assert!(found.any(|found| *found == event), "expected {event} in its order: {events:?}");
        }
    }

    fn serves_an_app(&self) {
        let network = self.docker.network();
        let hello = push_hello(network);
        let volume = tempfile::tempdir().expect("a folder can be made");
        let mount = format!("{}:/data", volume.path().display());
        let run = [
            "run",
            "--detach",
            "--name",
            "app",
            RUNTIME,
            "--network",
            "host",
            "--memory",
            "128m",
            "--cpus",
            "1",
            "--pids-limit",
            "64",
            "--read-only",
            "--user",
            "1234:1234",
            "--volume",
            &mount,
            &hello,
        ];
        self.docker(&run).succeeded();
        assert_eq!(self.docker.answer_of("app", &format!("{URL}/api/hello")).json()["message"], "hello");
        let pid = self.inspect("app", "{{.State.Pid}}");
        let status = fs_err::read_to_string(Path::new("/proc").join(&pid).join("status")).expect("it runs");
        for line in [
            "Uid:\t1234\t1234\t1234\t1234",
            "Groups:\t1234",
            "CapEff:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ] {
            assert!(status.contains(line), "expected {line:?}: {status}");
        }
        let routes = self.docker(&["exec", "app", "routes"]).output();
        assert!(routes.contains("/api/hello"), "{routes}");
        let health = self.docker(&["exec", "app", "health"]).output();
        assert_eq!(health, "ok");
        let dump: Value =
            serde_json::from_str(&self.docker(&["exec", "app", "dump"]).output()).expect("JSON");
        assert_eq!(dump["manifest"]["name"], "hello");
        let shell = self.docker(&["exec", "app", "sh"]);
        assert!(
            shell.code != 0 && shell.report().contains("executable file not found in $PATH"),
            "{}",
            shell.report()
        );
        self.docker(&["pause", "app"]).succeeded();
        self.docker(&["unpause", "app"]).succeeded();
        assert_eq!(get(network, URL).status, 200);
        self.docker(&["update", "--memory", "64m", "--memory-swap", "64m", "app"]).succeeded();
        self.docker(&["restart", "app"]).succeeded();
        assert_eq!(self.docker.answer_of("app", URL).status, 200);
        let (took, code) = self.docker.stop("app");
        assert_eq!(code, "0");
        assert!(took < Duration::from_secs(3), "took {took:?}");
        self.remove("app");
    }
}
