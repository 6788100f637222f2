//! Rust's own tools: which rustc there is, and whether it builds for WASI 0.2.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// What workers in Rust are built for.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// A Rust that builds workers.
pub(crate) struct Rust {
    /// `1.95.0`.
    pub(crate) version: String,
    /// The folder with the target's standard library.
    pub(crate) library: PathBuf,
}

/// The Rust on `PATH`, if it has the target.
pub(crate) fn find() -> Option<Rust> {
    let ask = |arguments: &[&str]| {
        let output = Command::new("rustc").args(arguments).stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let library = PathBuf::from(ask(&["--print", "target-libdir", "--target", TARGET])?);
    let version = ask(&["--version"])?.split_whitespace().nth(1)?.to_owned();
    library.is_dir().then_some(Rust { version, library })
}

/// Has rustup add the target.
///
/// # Errors
/// There is no rustup, or it fails.
pub(crate) fn install() -> Result<Rust> {
    if let Some(found) = find() {
        return Ok(found);
    }
    let rustup = Command::new("rustup").args(["target", "add", TARGET]).stdin(Stdio::null()).output();
    let rustup = rustup.context("cannot run rustup, which adds targets to Rust; is it installed?")?;
    if !rustup.status.success() {
        let words = String::from_utf8_lossy(&rustup.stderr);
        bail!("rustup cannot add the target {TARGET}\n{}", words.trim());
    }
    find().with_context(|| format!("rustup has added the target {TARGET}, and rustc does not find it"))
}
