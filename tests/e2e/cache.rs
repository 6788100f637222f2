//! The node's cache of precompiled components: compiled once, checked, bounded
//! and shared.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use wharf_tests::engine::{Containerd, Generation};
use wharf_tests::http::{get, try_get};
use wharf_tests::process::{Daemon, Outcome, run, wait_for};
use wharf_tests::project::Project;
use wharf_tests::registry::{ADDRESS, Registry};
use wharf_tests::testbed;
use wharf_tests::wharf::Wharf;

const RUNTIME: &str = "io.containerd.wasm.v1";
const URL: &str = "http://127.0.0.1:8080";

macro_rules! on {
    ($module:ident, $generation:expr) => {
        mod $module {
            use super::Generation;

            #[test]
            fn containers_that_are_created_at_once_share_one_compilation_and_its_pages() {
                super::shares_compilation_and_pages($generation);
            }

            #[test]
            fn an_image_that_was_warmed_is_not_compiled_again() {
                super::warms($generation);
            }

            #[test]
            fn code_that_was_tampered_with_is_made_anew() {
                super::finds_tampering($generation);
            }

            #[test]
            fn the_longest_unused_leaves_and_its_container_goes_on() {
                super::evicts($generation);
            }

            #[test]
            fn a_slow_compilation_is_told_in_the_containers_log() {
                super::tells_progress($generation);
            }

            #[test]
            fn a_compilation_outlives_the_shim_that_asked_for_it() {
                super::outlives_its_shim($generation);
            }

            #[test]
            fn a_compiler_beyond_its_limits_is_ended_and_that_is_said() {
                super::bounds_the_compiler($generation);
            }
        }
    };
}

on!(v1_7, Generation::Trixie);
on!(v2_1, Generation::Forky);

/// A containerd whose shims have a cache of their own and a compiler that counts.
struct Node {
    containerd: Containerd,
    _registry: Registry,
    folder: TempDir,
    settings: &'static [(&'static str, &'static str)],
}

impl Node {
    fn start(generation: Generation, settings: &'static [(&'static str, &'static str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("wharf-cache-").tempdir().expect("a folder can be made");
        let compiler = folder.path().join("wharf");
        let cache = folder.path().join("cache");
        let mut environment =
            vec![("WHARF_CACHE_DIR", cache.as_os_str()), ("WHARF_BINARY", compiler.as_os_str())];
        environment.extend(settings.iter().map(|(name, value)| (*name, value.as_ref())));
        let containerd = Containerd::start_with(generation, &environment);
        let registry = Registry::start(containerd.network());
        let node = Self { containerd, _registry: registry, folder, settings };
        node.write_compiler("");
        node
    }

    /// Has the compiler do `first`, then what it is for.
    fn write_compiler(&self, first: &str) {
        let real = testbed::prefix().join("bin/wharf");
        let runs = self.folder.path().join("runs");
        let counted = format!("[ \"$2\" = --engine-id ] || {{ echo run >> {}; {first}; }}", runs.display());
        let script =
            format!("#!/bin/sh\n{}\nexec {} \"$@\"\n", counted.replace("; ; }", "; }"), real.display());
        let path = self.folder.path().join("wharf");
        fs_err::write(&path, script).expect("the script can be written");
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("it can be made a program");
    }

    /// How many components were compiled.
    fn runs(&self) -> usize {
        fs_err::read_to_string(self.folder.path().join("runs")).unwrap_or_default().lines().count()
    }

    /// Builds, pushes and pulls the example, whose worker is given `note` to be
    /// another component.
    fn pull_hello(&self, tag: &str, note: u8) -> String {
        let reference = format!("{ADDRESS}/hello:{tag}");
        let project = Project::hello();
        let worker = project.path().join("api/hello.wasm");
        let mut component = fs_err::read(&worker).expect("the worker can be read");
        // A custom section with a name of one letter.
        component.extend([0, 2, 1, note]);
        fs_err::write(&worker, component).expect("the worker can be written");
        let wharf = Wharf::new();
        let _ = wharf.build(project.path(), &reference);
        wharf.run_in(self.containerd.network(), &["push", &reference]).succeeded();
        self.containerd.ctr(&["images", "pull", "--plain-http", &reference]).succeeded();
        reference
    }

    /// Runs an app in the foreground.
    fn run_app(&self, reference: &str, name: &str) -> Daemon {
        self.containerd.start_ctr(name, &["run", "--rm", "--runtime", RUNTIME, "--net-host", reference, name])
    }

    /// Runs an app until it has answered.
    fn answers(&self, reference: &str, name: &str) -> Daemon {
        let mut app = self.run_app(reference, name);
        let network = self.containerd.network();
        assert_eq!(app.wait_until("it answered", |_| try_get(network, URL)).status, 200);
        assert_eq!(get(network, &format!("{URL}/api/hello?name=cache")).json()["name"], "cache");
        app
    }

    fn end(&self, name: &str, app: &mut Daemon) {
        self.containerd.ctr(&["task", "kill", "--signal", "SIGTERM", name]).succeeded();
        assert_eq!(app.ended().0, Some(0), "{}", app.log());
    }

    fn cache(&self, arguments: &[&str]) -> Outcome {
        let shim = testbed::prefix().join("bin/containerd-shim-wasm-v1");
        let mut command = self.containerd.beside(&shim);
        command
            .arg("cache")
            .args(arguments)
            .envs(self.settings.iter().copied())
            .env("WHARF_CACHE_DIR", self.folder.path().join("cache"))
            .env("WHARF_BINARY", self.folder.path().join("wharf"));
        run(&mut command)
    }

    fn entries(&self) -> Vec<serde_json::Value> {
        let list = self.cache(&["list", "--json"]).output();
        let list: serde_json::Value = serde_json::from_str(&list).expect("the list is JSON");
        list["entries"].as_array().expect("the list has entries").clone()
    }

    /// The files with this ending in the cache.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let engines = fs_err::read_dir(self.folder.path().join("cache")).expect("the cache can be read");
        let folders =
            engines.map(|folder| folder.expect("it can be read").path()).filter(|path| path.is_dir());
        let files = folders.flat_map(|folder| fs_err::read_dir(folder).expect("it can be read"));
        let files = files.map(|file| file.expect("it can be read").path());
        files.filter(|file| file.extension().is_some_and(|found| found == ending)).collect()
    }
}

fn shares_compilation_and_pages(generation: Generation) {
    let node = Node::start(generation, &[]);
    let reference = node.pull_hello("1", b'a');
    node.write_compiler("sleep 1");
    let names = ["one", "two", "three", "four"];
    let url = |at: usize| format!("http://127.0.0.1:{}/api/hello?name=x", 8080 + at);
    let run = |(at, name): (usize, &&str)| {
        let address = format!("WHARF_ADDR=127.0.0.1:{}", 8080 + at);
        let run = ["run", "--rm", "--runtime", RUNTIME, "--net-host", "--env", &address, &reference, name];
        node.containerd.start_ctr(name, &run)
    };
    let mut apps: Vec<Daemon> = names.iter().enumerate().map(run).collect();
    let network = node.containerd.network();
    for (at, app) in apps.iter_mut().enumerate() {
        assert_eq!(app.wait_until("it answered", |_| try_get(network, &url(at))).status, 200);
    }
    assert_eq!(node.runs(), 1, "expected one compilation");
    assert_eq!(node.entries().len(), 1);

    let [code] = &node.files("cwasm")[..] else { panic!("expected one file of code") };
    let code = fs_err::metadata(code).expect("the code is there").ino();
    let mapped = names.map(|name| mapped(node.containerd.init_of(name), code));
    assert!(mapped.iter().all(|mapped| mapped.rss > 0), "expected code to be mapped");
    let rss: u64 = mapped.iter().map(|mapped| mapped.rss).sum();
    let pss: u64 = mapped.iter().map(|mapped| mapped.pss).sum();
    let most = mapped.iter().map(|mapped| mapped.rss).max().unwrap_or_default();
    assert!(pss <= most * 3 / 2, "expected pages to be counted once: {rss} kB mapped, {pss} kB counted");
    for (name, app) in names.iter().zip(&mut apps) {
        node.end(name, app);
    }
}

/// What a process and its children have mapped of a file, in kB.
struct Mapped {
    rss: u64,
    pss: u64,
}

/// The file is known by its inode: it is the root of a mount of its own, so its
/// name is `/`.
fn mapped(process: u32, inode: u64) -> Mapped {
    let mut total = Mapped { rss: 0, pss: 0 };
    let children =
        fs_err::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        let child = mapped(child, inode);
        total.rss += child.rss;
        total.pss += child.pss;
    }
    let maps = fs_err::read_to_string(format!("/proc/{process}/smaps")).unwrap_or_default();
    let (inode, mut is_code) = (inode.to_string(), false);
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        match (fields.next(), fields.next()) {
            (Some("Rss:"), Some(value)) if is_code => total.rss += value.parse().unwrap_or(0),
            (Some("Pss:"), Some(value)) if is_code => total.pss += value.parse().unwrap_or(0),
            (Some(first), _) if !first.ends_with(':') => {
                // RANGE ACCESS OFFSET DEVICE INODE PATH
                is_code = fields.nth(2) == Some(inode.as_str());
            }
            _ => {}
        }
    }
    total
}

fn warms(generation: Generation) {
    let node = Node::start(generation, &[]);
    let reference = node.pull_hello("1", b'a');
    assert_eq!(node.cache(&["warm", &reference]).output(), "compiled  workers/api/hello.wasm");
    assert_eq!(node.cache(&["warm", &reference]).output(), "present   workers/api/hello.wasm");
    assert_eq!(node.runs(), 1);
    let mut app = node.answers(&reference, "app");
    assert_eq!(node.runs(), 1, "expected nothing to be compiled");
    node.end("app", &mut app);

    let table = node.cache(&["list"]).output();
    assert!(table.contains("current") && table.contains("workers/api/hello.wasm"), "{table}");
    let missing = node.cache(&["warm", "no/such:1"]).exited(1).stderr;
    assert!(missing.contains("cannot find image \"no/such:1\""), "{missing}");
    let address = node.cache(&["warm", &reference, "--address", "/no/such"]).exited(1).stderr;
    assert!(address.contains("cannot connect to containerd at /no/such"), "{address}");

    let pruned = node.cache(&["prune"]).output();
    assert!(pruned.starts_with("removed 0 entries"), "{pruned}");
    let pruned = node.cache(&["prune", "--all"]).output();
    assert!(pruned.starts_with("removed 1 entries"), "{pruned}");
    assert_eq!(node.entries().len(), 0);
}

fn finds_tampering(generation: Generation) {
    let node = Node::start(generation, &[]);
    let reference = node.pull_hello("1", b'a');
    node.cache(&["warm", &reference]).succeeded();
    let [code] = &node.files("cwasm")[..] else { panic!("expected one file of code") };
    let good = fs_err::read(code).expect("the code can be read");
    let mut evil = good.clone();
    let middle = evil.len() / 2;
    evil[middle] ^= 1;
    write_in_place(code, &evil);
    let mut app = node.answers(&reference, "app");
    node.end("app", &mut app);
    assert_eq!(node.runs(), 2, "expected it to be compiled anew");
    assert_ne!(fs_err::read(code).expect("the code can be read"), evil);
}

/// Writes into the file and has it look as old as it was.
fn write_in_place(path: &Path, content: &[u8]) {
    let modified = fs_err::metadata(path).and_then(|metadata| metadata.modified()).expect("it has a time");
    let file = fs_err::OpenOptions::new().write(true).open(path).expect("it can be opened").into_parts().0;
    std::io::Write::write_all(&mut &file, content).expect("it can be written");
    file.set_modified(modified).expect("its time can be set");
}

fn evicts(generation: Generation) {
    let node = Node::start(generation, &[("WHARF_CACHE_SIZE", "1KiB")]);
    let first = node.pull_hello("1", b'a');
    let second = node.pull_hello("2", b'b');
    let mut app = node.answers(&first, "app");
    let used = || {
        let components = node.entries();
        components
            .iter()
            .map(|entry| entry["component"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let before = used();
    assert_eq!(before.len(), 1);
    // As if it had been started long ago.
    for record in node.files("json") {
        let file = fs_err::File::open(record).expect("the record can be opened").into_parts().0;
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).expect("its time can be set");
    }
    let other = node.cache(&["warm", &second]).output();
    assert!(other.starts_with("compiled"), "{other}");
    let after = used();
    assert_eq!(after.len(), 1, "expected the older one to leave");
    assert_ne!(after, before);
    let network = node.containerd.network();
    assert_eq!(get(network, &format!("{URL}/api/hello?name=on")).json()["name"], "on");
    node.end("app", &mut app);
    let mut app = node.answers(&first, "app");
    assert_eq!(node.runs(), 3);
    node.end("app", &mut app);
}

fn tells_progress(generation: Generation) {
    let node = Node::start(generation, &[]);
    let reference = node.pull_hello("1", b'a');
    node.write_compiler("sleep 2");
    let mut app = node.answers(&reference, "app");
    let log = app.log();
    assert!(log.contains("wharf: compiling component \"workers/api/hello.wasm\" ("), "{log}");
    assert!(log.contains(" for this node, once; 1 s so far"), "{log}");
    assert!(log.contains(" is ready after "), "{log}");
    node.end("app", &mut app);
    let mut app = node.answers(&reference, "again");
    assert!(!app.log().contains("wharf: "), "{}", app.log());
    node.end("again", &mut app);
}

fn outlives_its_shim(generation: Generation) {
    let node = Node::start(generation, &[]);
    let reference = node.pull_hello("1", b'a');
    node.write_compiler("sleep 2");
    let mut lost = node.run_app(&reference, "lost");
    wait_for(Duration::from_secs(10), || (node.runs() == 1).then_some(())).expect("it is compiled");
    for shim in node.containerd.shims() {
        let shim = nix::unistd::Pid::from_raw(shim.cast_signed());
        nix::sys::signal::kill(shim, Signal::SIGKILL).expect("the shim can be killed");
    }
    let (code, _) = lost.ended();
    assert_ne!(code, Some(0), "{}", lost.log());
    assert_eq!(node.files("cwasm").len(), 0, "it was compiled too fast to be of use here");
    let mut app = node.answers(&reference, "app");
    assert_eq!(node.runs(), 1, "expected the compilation to have gone on");
    assert!(app.log().contains("wharf: waiting until component"), "{}", app.log());
    node.end("app", &mut app);
}

fn bounds_the_compiler(generation: Generation) {
    let node = Node::start(generation, &[("WHARF_COMPILE_MEMORY", "4MiB"), ("WHARF_COMPILE_TIMEOUT", "2s")]);
    let reference = node.pull_hello("1", b'a');
    let refused = |name| {
        let run = ["run", "--detach", "--runtime", RUNTIME, &reference, name];
        node.containerd.ctr(&run).exited(1).stderr
    };
    let memory = refused("memory");
    let expected = "cannot compile component \"workers/api/hello.wasm\": the compiler needs more memory than 4.0 MiB: \
                    set WHARF_COMPILE_MEMORY to more";
    assert!(unquoted(&memory).contains(expected), "{memory}");
    node.write_compiler("exec sleep 60");
    let time = refused("time");
    let expected = "the compiler needs more time than 2s: set WHARF_COMPILE_TIMEOUT to more";
    assert!(time.contains(expected), "{time}");
    assert_eq!(node.files("cwasm").len() + node.files("lock").len() + node.files("work").len(), 0);
}

/// Without the backslashes that `ctr` puts before quotes.
fn unquoted(text: &str) -> String {
    text.replace('\\', "")
}
