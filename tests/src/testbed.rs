//! Where things lie: the testbed's folder, the repository, the binaries under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run;

/// The folder that `tests/testbed/*.sh` fill.
#[must_use]
pub fn folder() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("WHARF_TESTBED").unwrap_or_else(|| {
        variable("XDG_CACHE_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".cache")))
            .expect("HOME is set")
            .join("wharf-testbed")
    })
}

/// A part of the testbed.
///
/// # Panics
/// If it was not fetched; the message names the script that does.
#[must_use]
pub fn part(name: &str, script: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.exists(), "cannot find {}: run tests/testbed/{script}", path.display());
    path
}

/// A Go program that judges images: `crane` or `oci-schema`.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn oci_tool(name: &str) -> PathBuf {
    part(&format!("oci-tools/{name}"), "oci-tools.sh")
}

/// What pods need: the folder `usr/lib/cni` of plugins, or the program `pause`.
///
/// # Panics
/// If it was not fetched.
#[must_use]
pub fn cri(name: &str) -> PathBuf {
    part(&format!("cri/{name}"), "cri.sh")
}

/// A part of Kubernetes, for example `kubelet`.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn kubernetes(name: &str) -> PathBuf {
    part(&format!("kubernetes/{name}"), "kubernetes.sh")
}

/// Lets `command` use the Rust toolchain for WebAssembly (tests/testbed/wasm-toolchain.sh):
/// its folder of programs, which comes first on the command's `PATH`.
///
/// # Panics
/// If there is none.
pub fn with_wasm_toolchain(command: &mut Command) -> PathBuf {
    let script = repository().join("tests/testbed/wasm-toolchain.sh");
    let toolchain = run(of_no_cargo(&mut Command::new(script))).output();
    let programs = Path::new(toolchain.trim()).join("bin");
    let path = std::env::var("PATH").unwrap_or_default();
    of_no_cargo(command).env("PATH", format!("{}:{path}", programs.display()));
    programs
}

/// Without what cargo sets for its tests: the library path alone makes any rustc that of
/// the test's own toolchain.
fn of_no_cargo(command: &mut Command) -> &mut Command {
    for variable in [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ] {
        command.env_remove(variable);
    }
    command
}

/// The root of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository")
}

/// The installation under test: `bin/wharf`, `bin/containerd-shim-wasm-v1`,
/// `libexec/wharf/wharf-host`.
///
/// # Panics
/// If `WHARF_BIN_DIR` is not such a folder.
#[must_use]
pub fn prefix() -> PathBuf {
    let hint = "`make install PREFIX=FOLDER`, then WHARF_BIN_DIR=FOLDER";
    let folder = std::env::var_os("WHARF_BIN_DIR")
        .map_or_else(|| panic!("WHARF_BIN_DIR is not set: {hint}"), PathBuf::from);
    let folder =
        folder.canonicalize().unwrap_or_else(|error| panic!("WHARF_BIN_DIR {}: {error}", folder.display()));
    for file in [
        "bin/wharf",
        "bin/containerd-shim-wasm-v1",
        "bin/containerd-shim-containerd-wasm",
        "libexec/wharf/wharf-host",
    ] {
        assert!(folder.join(file).is_file(), "cannot find {}: {hint}", folder.join(file).display());
    }
    folder
}
