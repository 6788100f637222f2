//! The Debian package, made of the installation under test.

use std::path::Path;
use std::process::Command;

use wharf_tests::process::run;
use wharf_tests::testbed;
use wharf_tests::wharf::text;

#[test]
fn the_package_installs_runs_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let script = testbed::repository().join("deploy/debian/build.sh");
    let built = run(Command::new(script).arg(testbed::prefix()).arg(folder.path())).output();
    let package = Path::new(built.lines().last().unwrap_or_default());
    assert!(package.is_file(), "expected the package's path: {built}");

    // dpkg with a root and a database of its own.
    let root = folder.path().join("root");
    for part in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs_err::create_dir_all(root.join(part)).expect("a folder can be made");
    }
    fs_err::write(root.join("var/lib/dpkg/status"), "").expect("a file can be written");
    let dpkg = |arguments: &[&str]| {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", root.display())).arg("--force-script-chrootless");
        run(command.args(arguments)).output()
    };
    let said = dpkg(&["--install", text(package)]);
    assert!(said.contains("containerd-shim-wasm-v1 doctor"), "{said}");
    for program in ["wharf", "containerd-shim-containerd-wasm"] {
        let version = run(Command::new(root.join("usr/bin").join(program)).arg("--version")).output();
        assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    }
    for file in [
        "usr/libexec/wharf/wharf-host",
        "usr/share/wharf/containerd/config-v2.toml",
        "usr/share/wharf/containerd/config-v3.toml",
        "usr/share/wharf/docker/daemon.json",
        "usr/share/doc/wharf/copyright",
        "usr/share/doc/wharf/changelog.gz",
    ] {
        assert!(root.join(file).is_file(), "expected {file} in the package");
    }
    fs_err::create_dir_all(root.join("var/cache/wharf/aot")).expect("a folder can be made");
    let _ = dpkg(&["--purge", "wharf"]);
    for left in ["usr/bin/wharf", "usr/share/wharf", "usr/libexec/wharf", "var/cache/wharf"] {
        assert!(!root.join(left).exists(), "{left} was left");
    }
}
