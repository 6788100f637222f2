//! The node's cache of precompiled components.
//!
//! An entry is `ENGINE/SHA256.cwasm`, by the engine that compiled it and the
//! component that it was made from, with its length in `SHA256.size`, written
//! last. Only root writes here. Nothing of an image is ever loaded as
//! precompiled code: a component is copied out, its hash checked on the way,
//! and compiled by the node's own `wharf`, in a process of its own.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use wharf_app::{Component, Sha256};

use crate::node::{self, NodeError};
use crate::rootfs::Rootfs;
use crate::sys;

/// Environment variable of the shim with the cache's folder.
const FOLDER: &str = "WHARF_CACHE_DIR";

/// The cache's folder if that is not set.
const DEFAULT_FOLDER: &str = "/var/cache/wharf/aot";

/// Bytes of the compiler's messages that an error quotes.
const MAX_MESSAGE: usize = 4096;

/// Why a component can't be had precompiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AotError {
    /// The node has no compiler.
    #[error(transparent)]
    Node(#[from] NodeError),
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
    /// The engine's own folder.
    folder: PathBuf,
}

impl Cache {
    /// The node's cache for the engine of the node's compiler.
    ///
    /// # Errors
    /// [`AotError`].
    pub(crate) fn open() -> Result<Self, AotError> {
        let given = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty());
        let folder = given.map_or_else(|| DEFAULT_FOLDER.into(), PathBuf::from);
        Self::open_at(&folder, node::find_compiler()?)
    }

    fn open_at(folder: &Path, compiler: PathBuf) -> Result<Self, AotError> {
        make_folder(folder)?;
        let engine = engine_id(folder, &compiler)?;
        let folder = folder.join(engine);
        make_folder(&folder)?;
        Ok(Self { compiler, folder })
    }

    /// The precompiled code of `component`, which is compiled first if nobody
    /// has done so. However many containers ask at once, one compiles and the
    /// others wait for it.
    ///
    /// # Errors
    /// [`AotError`].
    pub(crate) fn get(&self, component: &Component, app: &Rootfs) -> Result<OwnedFd, AotError> {
        let entry = Entry::new(&self.folder, &component.sha256);
        if let Some(file) = entry.open() {
            return Ok(file);
        }
        let lock = entry.lock().map_err(AotError::Cache)?;
        if let Some(file) = entry.open() {
            return Ok(file);
        }
        let made = copy_component(component, app, &entry.source)
            .and_then(|()| self.compile(component, &entry, &lock))
            .and_then(|()| entry.publish().map_err(AotError::Cache));
        // By now they are renamed, or of no use.
        let _ = std::fs::remove_file(&entry.source);
        let _ = std::fs::remove_file(&entry.output);
        made?;
        let lost = || AotError::Cache(io::Error::other("a new entry can't be opened"));
        entry.open().ok_or_else(lost)
    }

    fn compile(&self, component: &Component, entry: &Entry, lock: &File) -> Result<(), AotError> {
        let lock = lock.try_clone().map_err(AotError::Cache)?;
        let mut command = Command::new(&self.compiler);
        command.arg("compile").arg(&entry.source).arg("-o").arg(&entry.output);
        // The compiler holds the lock too: should we be killed, the next one
        // waits for it to end.
        command.stdin(OwnedFd::from(lock));
        run(command, &self.compiler, || format!("compile component {:?}", component.file))?;
        Ok(())
    }
}

/// The files of one entry.
struct Entry {
    lock: PathBuf,
    /// The component as copied out of the image.
    source: PathBuf,
    /// What the compiler writes.
    output: PathBuf,
    code: PathBuf,
    size: PathBuf,
}

impl Entry {
    fn new(folder: &Path, component: &Sha256) -> Self {
        let file = |ending: &str| folder.join(format!("{component}.{ending}"));
        Self {
            lock: file("lock"),
            source: file("wasm.new"),
            output: file("cwasm.new"),
            code: file("cwasm"),
            size: file("size"),
        }
    }

    fn lock(&self) -> io::Result<File> {
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create(true);
        fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&self.lock)?;
        file.file().lock()?;
        Ok(file.into_parts().0)
    }

    /// The code, if the entry is complete and only root could write it.
    fn open(&self) -> Option<OwnedFd> {
        let size: u64 = std::fs::read_to_string(&self.size).ok()?.trim().parse().ok()?;
        let file = sys::open_read_only(&self.code).ok()?;
        let metadata = file.metadata().ok()?;
        let ours = metadata.is_file()
            && metadata.uid() == nix::unistd::geteuid().as_raw()
            && metadata.mode() & 0o022 == 0;
        (ours && metadata.len() == size).then(|| file.into())
    }

    /// Makes what the compiler wrote the entry.
    fn publish(&self) -> io::Result<()> {
        let output = fs_err::File::open(&self.output)?;
        let size = output.metadata()?.len();
        if size == 0 {
            return Err(io::Error::other("the compiler wrote nothing"));
        }
        // Readable by the user of the container, who reopens it by descriptor: the
        // folder, which is not, keeps everybody else out.
        fs_err::set_permissions(&self.output, Permissions::from_mode(0o644))?;
        output.sync_all()?;
        // An entry without its size is none.
        match fs_err::remove_file(&self.size) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs_err::rename(&self.output, &self.code)?;
        let temporary = self.size.with_extension("size.new");
        let mut file = fs_err::File::create(&temporary)?;
        writeln!(file, "{size}")?;
        file.sync_all()?;
        fs_err::rename(temporary, &self.size)?;
        if let Some(folder) = self.size.parent() {
            fs_err::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// Copies the component out of the image, if it is what the manifest says.
fn copy_component(component: &Component, app: &Rootfs, to: &Path) -> Result<(), AotError> {
    let read_error = |source| AotError::Read { file: component.file.clone(), source };
    let source = app.read(&format!("/app/{}", component.file)).map_err(read_error)?;
    let mut options = File::options();
    let copy = options.write(true).create(true).truncate(true).mode(0o600);
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
    copy: File,
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
    let engines = folder.join("engines");
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
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    line.unwrap_or_default().to_owned()
}

/// Whether the text can name a folder of the cache.
fn is_engine_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=128).contains(&text.len())
        && text != "engines"
        && !text.starts_with('.')
        && text.bytes().all(allowed)
}

/// Runs the compiler and gives what it printed.
fn run(mut command: Command, compiler: &Path, work: impl FnOnce() -> String) -> Result<Vec<u8>, AotError> {
    // Nothing of containerd's environment is its business.
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
    let output = command.output().map_err(|source| AotError::Run { path: compiler.to_owned(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = &output.stderr[..output.stderr.len().min(MAX_MESSAGE)];
    let said = String::from_utf8_lossy(said).trim().to_owned();
    let message = if said.is_empty() { output.status.to_string() } else { said };
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
