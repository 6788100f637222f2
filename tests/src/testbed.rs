//! Where things lie: the testbed's folder, the repository, the binaries under test.

use std::path::{Path, PathBuf};

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
