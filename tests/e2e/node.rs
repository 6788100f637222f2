//! `wharf node` on nodes with a real containerd that serves CRI: one that is
//! restarted by a command, as a service would be.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use wharf_tests::engine::Generation;
use wharf_tests::network::{Namespace, Network};
use wharf_tests::process::{Outcome, run, wait_for};
use wharf_tests::testbed;
use wharf_tests::wharf::text;

/// Starts containerd, after the one before has ended. While there is a file
/// `broken`, one whose configuration has our runtime does not start.
const RESTART: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo restarted >>restarts
if [ -f pid ]; then
    kill "$(cat pid)" 2>/dev/null
    while kill -0 "$(cat pid)" 2>/dev/null; do sleep 0.05; done
fi
[ ! -f before ] || . ./before
if [ -f broken ] && grep -rqs wasm.v1 etc; then exit 1; fi
setsid CONTAINERD --config etc/containerd/config.toml >>log 2>&1 </dev/null &
echo $! >pid
for _ in $(seq 400); do
    CTR --address "$PWD/sock" version >/dev/null 2>&1 && exit 0
    kill -0 "$(cat pid)" 2>/dev/null || exit 1
    sleep 0.05
done
exit 1
"#;

/// A node whose containerd has a folder and a namespace of its own.
struct Node {
    folder: TempDir,
    network: Namespace,
    generation: Generation,
}

impl Node {
    /// With `config` after what the node needs, of which it says the version.
    fn start(generation: Generation, version: u32, config: &str) -> Self {
        Self::start_with(generation, version, config, &[])
    }

    /// The same, with further files beside the configuration.
    fn start_with(generation: Generation, version: u32, config: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("wharf-node-").tempdir().expect("a folder can be made");
        let node = Self { folder, network: Namespace::create(), generation };
        let root = text(node.path());
        let head = format!(
            "# the node's own\nversion = {version}\nroot = \"{root}/root\"\nstate = \"{root}/state\"\n"
        );
        let tail = format!("\n[grpc]\n  address = \"{root}/sock\"\n[debug]\n  level = \"info\"\n");
        node.write("etc/containerd/config.toml", &format!("{head}{config}{tail}"));
        for (name, content) in files {
            node.write(&format!("etc/containerd/{name}"), content);
        }
        let script = RESTART
            .replace("CONTAINERD", text(&generation.program("usr/bin/containerd")))
            .replace("CTR", text(&generation.program("usr/bin/ctr")));
        node.write("restart", &script);
        assert_eq!(run(&mut node.restart()).code, 0, "{}", node.log());
        node
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let file = self.file(path);
        fs_err::create_dir_all(file.parent().expect("it lies in a folder")).expect("a folder can be made");
        fs_err::write(file, content).expect("a file can be written");
    }

    fn read(&self, path: &str) -> String {
        fs_err::read_to_string(self.file(path)).unwrap_or_default()
    }

    fn log(&self) -> String {
        self.read("log")
    }

    fn restart(&self) -> Command {
        let mut command = self.network.command("sh".as_ref());
        command.arg(self.file("restart")).env("PATH", self.generation.path());
        command
    }

    fn restarts(&self) -> usize {
        self.read("restarts").lines().count()
    }

    /// `wharf node ACTION` for this node.
    fn node(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.network.command(testbed::prefix().join("bin/wharf").as_os_str());
        let config = self.file("etc/containerd/config.toml");
        let restart =
            format!("PATH='{}' sh {}", self.generation.path().display(), self.file("restart").display());
        command.arg("node").args(arguments);
        command.args(["--config", text(&config), "--socket", text(&self.file("sock"))]);
        command.args(["--prefix", text(&self.file("opt")), "--restart-command", &restart]);
        run(&mut command)
    }

    /// The runtimes that containerd says it has, by its own dump.
    fn dump(&self) -> String {
        let mut command = Command::new(self.generation.program("usr/bin/containerd"));
        command.arg("--config").arg(self.file("etc/containerd/config.toml")).args(["config", "dump"]);
        run(&mut command).output()
    }

    /// Installs, twice, and uninstalls again: the dump with the shim installed.
    fn there_and_back(&self) -> String {
        let (before, dump) = (self.read("etc/containerd/config.toml"), self.dump());
        let restarts = self.restarts();
        let said = self.node(&["install"]).output();
        assert!(said.contains("containerd restarted, it has the runtime \"wasm\""), "{said}");
        assert_eq!(self.restarts(), restarts + 1, "{}", self.log());
        let shim = self.file("opt/bin/containerd-shim-wasm-v1");
        let version = run(Command::new(&shim).arg("-v")).output();
        assert!(version.starts_with("containerd-shim-wasm-v1 "), "{version}");
        assert!(self.file("opt/libexec/wharf/wharf-host").is_file());
        let installed = self.dump();
        assert!(
            installed.contains("io.containerd.wasm.v1") && installed.contains(text(&shim)),
            "{installed}"
        );

        let said = self.node(&["install"]).output();
        assert!(said.contains("nothing to change"), "{said}");
        fs_err::write(&shim, "an older one").expect("a file can be written");
        let said = self.node(&["install"]).output();
        assert!(said.contains("programs updated"), "{said}");
        assert_eq!(self.restarts(), restarts + 1, "no further restart");

        let said = self.node(&["uninstall"]).output();
        assert!(said.contains("without the runtime"), "{said}");
        assert_eq!(self.read("etc/containerd/config.toml"), before);
        assert_eq!(self.dump(), dump);
        assert!(!self.file("opt").exists(), "our programs are gone");
        assert!(self.node(&["uninstall"]).output().contains("nothing to change"));
        assert_eq!(self.restarts(), restarts + 2);
        installed
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Ok(pid) = self.read("pid").trim().parse::<u32>() {
            let _ = run(Command::new("kill").arg(pid.to_string()));
            let gone = || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(());
            let _ = wait_for(Duration::from_secs(10), gone);
        }
    }
}

const V2: &str = "\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"example.test/pause:1\" # ours\n\
    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n    SystemdCgroup = true\n";

#[test]
fn containerd_1_7_keeps_its_own_settings_beside_our_runtime() {
    let installed = Node::start(Generation::Trixie, 2, V2).there_and_back();
    for kept in ["example.test/pause:1", "SystemdCgroup = true", "io.containerd.runc.v2"] {
        assert!(installed.contains(kept), "expected {kept} in\n{installed}");
    }
}

#[test]
fn containerd_1_7_without_settings_imports_our_file_and_keeps_runc() {
    let installed = Node::start(Generation::Trixie, 2, "").there_and_back();
    assert!(installed.contains("io.containerd.runc.v2") && installed.contains("wharf.toml"), "{installed}");
}

#[test]
fn containerd_2_1_imports_our_file() {
    let own = "\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = 'example.test/pause:1'\n";
    let installed = Node::start(Generation::Forky, 3, own).there_and_back();
    assert!(
        installed.contains("example.test/pause:1") && installed.contains("runtimes.runc]"),
        "{installed}"
    );
    assert!(installed.contains("wharf.toml"), "{installed}");
}

#[test]
fn containerd_2_1_with_a_file_of_version_2_is_edited_as_1_7() {
    let installed = Node::start(Generation::Forky, 2, V2).there_and_back();
    assert!(
        installed.contains("example.test/pause:1") && installed.contains("SystemdCgroup = true"),
        "{installed}"
    );
}

#[test]
fn what_does_not_come_up_is_put_back_and_not_tried_again() {
    for (generation, version) in [(Generation::Trixie, 2), (Generation::Forky, 3)] {
        let node = Node::start(generation, version, "");
        let before = node.read("etc/containerd/config.toml");
        node.write("broken", "");
        let refused = node.node(&["install"]).exited(1).refusal();
        assert!(refused.contains("its configuration is as it was before"), "{refused}");
        assert_eq!(node.read("etc/containerd/config.toml"), before);
        assert!(!node.file("etc/containerd/conf.d/wharf.toml").exists());
        let restarts = node.restarts();
        assert_eq!(restarts, 3, "started, tried, put back");
        assert!(node.node(&["uninstall"]).output().contains("nothing to change"), "containerd answers");
        let refused = node.node(&["install"]).exited(1).refusal();
        assert!(
            refused.contains("has failed on this node before") && refused.contains("--force"),
            "{refused}"
        );
        assert_eq!(node.restarts(), restarts, "not tried again");
        fs_err::remove_file(node.file("broken")).expect("the file is there");
        assert!(node.node(&["install", "--force"]).output().contains("containerd restarted"));
    }
}

#[test]
fn an_import_that_nobody_sees_is_found_out_by_asking_containerd() {
    // Of a file that is imported by one that is imported: 1.7 takes the section of the last.
    let files = [("a.toml", "version = 2\nimports = [\"b.toml\"]\n"), ("b.toml", V2.trim_start())];
    let node = Node::start_with(Generation::Trixie, 2, "imports = [\"a.toml\"]\n", &files);
    let before = node.read("etc/containerd/config.toml");
    let refused = node.node(&["install", "--timeout", "3s"]).exited(1).refusal();
    assert!(refused.contains("its runtimes are still those before the change"), "{refused}");
    assert!(refused.contains("its configuration is as it was before"), "{refused}");
    assert_eq!(node.read("etc/containerd/config.toml"), before);
    assert_eq!(node.restarts(), 3, "started, tried, put back");
}

#[test]
fn the_files_of_a_process_that_is_entered_are_the_ones_that_change() {
    let node = Node::start(Generation::Forky, 3, "");
    fs_err::create_dir(node.file("opt")).expect("a folder can be made");
    // As of the node's first process, beside a container's own.
    let mut other = Command::new("unshare");
    other.args(["--mount", "sh", "-c", "mount -t tmpfs none \"$1\" && exec sleep 1000", "sh"]);
    let mut other = other.arg(node.file("opt")).spawn().expect("unshare runs");
    let opt = PathBuf::from(format!("/proc/{}/root{}", other.id(), text(&node.file("opt"))));
    let is_mounted = || {
        let mounts = fs_err::read_to_string(format!("/proc/{}/mountinfo", other.id())).ok()?;
        mounts.contains(text(&node.file("opt"))).then_some(())
    };
    wait_for(Duration::from_secs(10), is_mounted).expect("it is mounted");
    let outcome = node.node(&["install", "--enter", &other.id().to_string()]);
    let entered = opt.join("bin/containerd-shim-wasm-v1").is_file();
    let _ = other.kill();
    let _ = other.wait();
    assert!(outcome.output().contains("containerd restarted"));
    assert!(entered, "copied where the other process sees it");
    assert!(!node.file("opt/bin").exists(), "and nowhere else");
}

#[test]
fn a_dry_run_prints_files_and_changes_none() {
    let node = Node::start(Generation::Forky, 3, "");
    let printed = node.node(&["install", "--dry-run"]).output();
    assert!(printed.contains("==> ") && printed.contains("conf.d/wharf.toml"), "{printed}");
    assert_eq!(node.restarts(), 1);
    assert!(!node.file("opt").exists() && !node.file("etc/containerd/conf.d").exists());
}

#[test]
fn a_containerd_that_does_not_serve_kubernetes_is_refused() {
    let node = Node::start(Generation::Trixie, 2, "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n");
    let refused = node.node(&["install"]).exited(1).refusal();
    assert!(
        refused.contains("does not serve Kubernetes") && refused.contains("disabled_plugins"),
        "{refused}"
    );
    assert_eq!(node.restarts(), 1);
}
