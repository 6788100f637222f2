//! Our own programs: the host, the compiler, and the cache that it fills.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use oci_spec::runtime::User;

use super::Finding;
use crate::{aot, node};

/// The user of images: whoever may run the host, may be it.
const USER: u32 = 65532;

const TODO: &str = "install wharf again: `make install`, or the package `wharf`";

pub(super) fn examine() -> Vec<Finding> {
    vec![host(), compiler(), cache()]
}

fn host() -> Finding {
    const CHECK: &str = "wharf-host";
    let mut user = User::default();
    user.set_uid(USER).set_gid(USER);
    match node::open_host(&user).and_then(|_| node::find_host()) {
        Ok(path) => version(CHECK, path),
        Err(error) => Finding::problem(CHECK, chain(&error), TODO),
    }
}

fn compiler() -> Finding {
    const CHECK: &str = "wharf";
    match node::find_compiler() {
        Ok(path) => version(CHECK, path),
        Err(error) => Finding::problem(CHECK, chain(&error), TODO),
    }
}

/// Whether a program runs and is of our own version: another one's machine code
/// might not load.
fn version(check: &'static str, path: PathBuf) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let path = path.canonicalize().unwrap_or(path);
    let shown = path.display();
    let mut command = Command::new(&path);
    let output = command.arg("--version").stdin(Stdio::null()).env_clear().output();
    let said = match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(output) => return Finding::problem(check, format!("{shown} fails: {}", output.status), TODO),
        Err(error) => return Finding::problem(check, format!("cannot run {shown}: {error}"), TODO),
    };
    match said.split_whitespace().next_back() {
        Some(version) if version == ours => Finding::ok(check, format!("{shown}, version {ours}")),
        _ => Finding::problem(
            check,
            format!("{shown} says {said:?}: expected version {ours}, as this shim"),
            TODO,
        ),
    }
}

fn cache() -> Finding {
    const CHECK: &str = "cache";
    match aot::Cache::open() {
        Ok(_) => Finding::ok(CHECK, "usable, and only root writes to it"),
        Err(error) => Finding::problem(
            CHECK,
            chain(&error),
            "let root own the folder (WHARF_CACHE_DIR of containerd's environment, by default \
             /var/cache/wharf/aot) and nobody else write to it",
        ),
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
