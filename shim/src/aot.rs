//! The node's cache of precompiled components.
//!
//! An entry is `ENGINE/SHA256.cwasm`, by the engine that compiled it and the
//! component that it was made from, with a [`record`] of its digest. Only root
//! writes here. Nothing of an image is ever loaded as precompiled code: a
//! component is copied out, its hash checked on the way, and compiled by the
//! node's own `wharf`, in a process of its own and within limits
//! ([`compilation`]). What is not used any more leaves ([`sweep`]).

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err::os::unix::fs::OpenOptionsExt;
use wharf_app::{Component, Sha256};

use self::compilation::Order;
use self::entry::{Entry, Lock};
use self::progress::{Doing, Watch};
use self::settings::Settings;
use crate::node::{self, NodeError};

pub(crate) use self::progress::Progress;

pub(crate) mod compilation;
mod entry;
mod progress;
mod record;
mod settings;
pub(crate) mod sweep;

/// The folder with what compilers called their engines.
const ENGINES: &str = "engines";

/// Why a component can't be had precompiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AotError {
    /// The node has no compiler.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A variable of the environment is not what it should be.
    #[error("{name} is {value:?}: expected {expected}")]
    Setting {
        /// The variable.
        name: &'static str,
        /// What it is.
        value: String,
        /// What it should be, with an example.
        expected: &'static str,
    },
    /// The cache can't be used; the cause names the file.
    #[error("cannot use the cache of precompiled components")]
    Cache(#[source] io::Error),
    /// Someone else could have put something into the cache.
    #[error("cannot trust {path} of the cache: {reason}")]
    Untrusted {
        /// A folder of the cache.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The image lacks a component that its manifest lists.
    #[error("cannot read component {file:?} of the image")]
    Read {
        /// Its path below the app's folder.
        file: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The image has another component than its manifest says.
    #[error("component {file:?} has digest {found}: expected {expected}")]
    Digest {
        /// Its path below the app's folder.
        file: String,
        /// In the manifest.
        expected: Sha256,
        /// Of the file.
        found: Sha256,
    },
    /// The compiler can't be run.
    #[error("cannot run {path}")]
    Run {
        /// The compiler.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The compiler failed.
    #[error("cannot {work}: {message}")]
    Compile {
        /// What it was to do.
        work: String,
        /// What it said.
        message: String,
    },
}

/// The cache, for one engine.
#[derive(Debug)]
pub(crate) struct Cache {
    compiler: PathBuf,
    engine: String,
    settings: Settings,
}

impl Cache {
    /// The node's cache for the engine of the node's compiler.
    ///
    /// # Errors
    /// [`AotError`].
    pub(crate) fn open() -> Result<Self, AotError> {
        Self::open_with(Settings::from_env()?, node::find_compiler()?)
    }

    fn open_with(settings: Settings, compiler: PathBuf) -> Result<Self, AotError> {
        make_folder(&settings.folder)?;
        let engine = engine_id(&settings.folder, &compiler)?;
        make_folder(&settings.folder.join(&engine))?;
        Ok(Self { compiler, engine, settings })
    }

    /// Its folder, with that of the engine and of others.
    pub(crate) fn folder(&self) -> &Path {
        &self.settings.folder
    }

    /// The engine's name.
    pub(crate) fn engine(&self) -> &str {
        &self.engine
    }

    /// Bytes that all entries together may have.
    pub(crate) fn size(&self) -> u64 {
        self.settings.size()
    }

    /// Whether it has `component`, and it is what was compiled.
    ///
    /// # Errors
    /// [`AotError::Cache`].
    pub(crate) fn contains(&self, component: &Component) -> Result<bool, AotError> {
        let entry = self.entry(component);
        let checked = || entry.check(&entry.lock(|| ())?);
        Ok(entry.open().is_some() || checked().map_err(AotError::Cache)?.is_some())
    }

    /// The precompiled code of `component`, which `source` opens. It is compiled
    /// first if nobody has done so. However many containers ask at once, one
    /// compiles and the others wait for it.
    ///
    /// # Errors
    /// [`AotError`].
    pub(crate) fn get<R: Read>(
        &self,
        component: &Component,
        source: impl FnOnce() -> io::Result<R>,
        progress: &mut Progress,
    ) -> Result<OwnedFd, AotError> {
        let entry = self.entry(component);
        if let Some(code) = entry.open() {
            return Ok(code.into());
        }
        let mut watch = progress.of(component);
        let lock = entry.lock(|| watch.tick(Doing::Waiting)).map_err(AotError::Cache)?;
        if let Some(code) = entry.check(&lock).map_err(AotError::Cache)? {
            watch.done();
            return Ok(code.into());
        }
        self.compile(component, source, &entry, lock, &mut watch)?;
        watch.done();
        let lost = || AotError::Cache(io::Error::other("a new entry can't be opened"));
        entry.open().map(Into::into).ok_or_else(lost)
    }

    fn compile<R: Read>(
        &self,
        component: &Component,
        source: impl FnOnce() -> io::Result<R>,
        entry: &Entry,
        lock: Lock,
        watch: &mut Watch<'_>,
    ) -> Result<(), AotError> {
        entry.begin(&lock).map_err(AotError::Cache)?;
        if let Err(error) = copy_component(component, source, &entry.source()) {
            let _ = entry.end(&lock);
            return Err(error);
        }
        let order = Order {
            root: self.settings.folder.clone(),
            engine: self.engine.clone(),
            component: component.sha256,
            file: component.file.clone(),
            compiler: self.compiler.clone(),
            limits: self.settings.limits.clone(),
            size: self.size(),
        };
        compilation::compile(&order, lock, watch)
    }

    fn entry(&self, component: &Component) -> Entry {
        Entry::new(&self.settings.folder, &self.engine, component.sha256)
    }
}

/// This program, to do `work` as `order` says.
#[cfg(not(test))]
fn program(work: &str, order: &str) -> Command {
    use std::os::unix::process::CommandExt;

    let mut command = Command::new(crate::helper::own_program());
    command.arg0(crate::arguments::PROGRAM).args([crate::helper::ACTION, work, order]);
    command
}

#[cfg(test)]
use tests::program;

/// Copies the component out of the image, if it is what the manifest says.
fn copy_component<R: Read>(
    component: &Component,
    source: impl FnOnce() -> io::Result<R>,
    to: &Path,
) -> Result<(), AotError> {
    let read_error = |source| AotError::Read { file: component.file.clone(), source };
    let source = source().map_err(read_error)?;
    let mut options = fs_err::OpenOptions::new();
    let copy = options.write(true).create_new(true).mode(0o600);
    let copy = copy.open(to).map_err(AotError::Cache)?;
    // One byte more than announced is enough to make the digest differ.
    let mut tee = Tee { source: source.take(component.size.saturating_add(1)), copy, failed: None };
    let read = Sha256::of_reader(&mut tee);
    if let Some(error) = tee.failed {
        return Err(AotError::Cache(error));
    }
    let (found, _) = read.map_err(read_error)?;
    if found == component.sha256 {
        Ok(())
    } else {
        Err(AotError::Digest { file: component.file.clone(), expected: component.sha256, found })
    }
}

/// A reader that writes all that it reads to a file.
struct Tee<R> {
    source: R,
    copy: fs_err::File,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        if let Err(error) = self.copy.write_all(&buffer[..read]) {
            self.failed = Some(error);
            return Err(io::Error::other("the copy can't be written"));
        }
        Ok(read)
    }
}

/// What the compiler calls its engine. Asked once for each compiler file, so
/// that a usual start does not run it.
fn engine_id(folder: &Path, compiler: &Path) -> Result<String, AotError> {
    let run_error = |source| AotError::Run { path: compiler.to_owned(), source };
    let metadata = std::fs::metadata(compiler).map_err(run_error)?;
    let [device, inode, size] = [metadata.dev(), metadata.ino(), metadata.len()];
    let [seconds, nanoseconds] = [metadata.mtime(), metadata.mtime_nsec()];
    let engines = folder.join(ENGINES);
    // The same disk may wake up in a machine with another CPU.
    let cpu = Sha256::of(cpu_features().as_bytes()).to_string();
    let memo = engines.join(format!("{device}-{inode}-{size}-{seconds}.{nanoseconds}-{}", &cpu[..16]));
    if let Ok(engine) = std::fs::read_to_string(&memo)
        && is_engine_id(&engine)
    {
        return Ok(engine);
    }
    let mut command = Command::new(compiler);
    command.args(["compile", "--engine-id"]).stdin(Stdio::null());
    let work = || "ask the compiler for its engine".to_owned();
    let answer = run(command, compiler, work)?;
    let engine = String::from_utf8_lossy(&answer).trim().to_owned();
    if !is_engine_id(&engine) {
        let message = format!("it answered {engine:?}");
        return Err(AotError::Compile { work: work(), message });
    }
    make_folder(&engines)?;
    let write = |engine: &str| {
        let temporary = engines.join(format!("{}.new", std::process::id()));
        fs_err::write(&temporary, engine)?;
        fs_err::rename(temporary, &memo)
    };
    write(&engine).map_err(AotError::Cache)?;
    Ok(engine)
}

/// What the kernel says that the first CPU can do.
fn cpu_features() -> String {
    // The kernel asks each CPU that it tells of: a large machine has hundreds.
    let mut first = Vec::new();
    let read = File::open("/proc/cpuinfo").and_then(|file| file.take(4096).read_to_end(&mut first));
    let text = String::from_utf8_lossy(if read.is_ok() { &first } else { &[] });
    let line = text.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    line.unwrap_or_default().to_owned()
}

/// Whether the text can name a folder of the cache.
fn is_engine_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=128).contains(&text.len()) && text != ENGINES && !text.starts_with('.') && text.bytes().all(allowed)
}

/// Runs the compiler and gives what it printed.
fn run(mut command: Command, compiler: &Path, work: impl FnOnce() -> String) -> Result<Vec<u8>, AotError> {
    // Nothing of containerd's environment is its business.
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
    let output = command.output().map_err(|source| AotError::Run { path: compiler.to_owned(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let message = compilation::quote(&output.stderr, output.status);
    Err(AotError::Compile { work: work(), message })
}

/// Makes a folder of the cache, or checks that only we can write to the one
/// that is there.
fn make_folder(path: &Path) -> Result<(), AotError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    let metadata = made.and_then(|()| std::fs::symlink_metadata(path));
    let metadata = metadata.map_err(|error| {
        AotError::Cache(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    })?;
    let reason = if !metadata.is_dir() {
        "it is not a folder"
    } else if metadata.uid() != nix::unistd::geteuid().as_raw() {
        "it has another owner"
    } else if metadata.mode() & 0o022 != 0 {
        "others may write to it"
    } else {
        return Ok(());
    };
    let path = path.to_owned();
    Err(AotError::Untrusted { path, reason })
}

#[cfg(test)]
mod tests;
