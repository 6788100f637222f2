//! Our programs on a node: copied from where this one is installed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use wharf_app::Sha256;

use super::{Root, files};

/// What a node gets, below the prefix, and where that is beside this program.
const FILES: [(&str, &str); 3] = [
    ("bin/wharf", "wharf"),
    ("bin/containerd-shim-wasm-v1", "containerd-shim-wasm-v1"),
    ("libexec/wharf/wharf-host", "../libexec/wharf/wharf-host"),
];

/// Both are found by containerd if the folder is on its PATH.
const LINK: (&str, &str) = ("bin/containerd-shim-containerd-wasm", "containerd-shim-wasm-v1");

/// The files as they are here, opened before the node's are entered.
pub(crate) struct Source(Vec<(&'static str, File)>);

impl Source {
    /// Those that were installed with this program.
    ///
    /// # Errors
    /// One is missing.
    pub(crate) fn open() -> Result<Self> {
        let program = std::env::current_exe()?.canonicalize()?;
        let folder = program.parent().unwrap_or(Path::new("/"));
        let opened = FILES.iter().map(|(target, beside)| {
            let path = folder.join(beside);
            let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((*target, file))
        });
        Ok(Self(opened.collect::<Result<_>>()?))
    }
}

/// Our programs, below a prefix of the node.
pub(crate) struct Programs {
    prefix: PathBuf,
    care: Care,
}

/// Whose they are.
enum Care {
    /// Copied there from here.
    Copied(Source),
    /// Copied there once.
    Removed,
    /// Installed by somebody else, as a package.
    None,
}

impl Programs {
    /// Those that are to be below `prefix`.
    pub(crate) fn copied(prefix: PathBuf, source: Source) -> Self {
        Self { prefix, care: Care::Copied(source) }
    }

    /// Those that are to go from there.
    pub(crate) fn to_be_removed(prefix: PathBuf) -> Self {
        Self { prefix, care: Care::Removed }
    }

    /// Those that this one was installed with, where they are.
    ///
    /// # Errors
    /// There is no shim beside this program.
    pub(crate) fn in_place() -> Result<Self> {
        let program = std::env::current_exe()?.canonicalize()?;
        let prefix = program.parent().and_then(Path::parent).unwrap_or(Path::new("/")).to_owned();
        let programs = Self { prefix, care: Care::None };
        if !programs.shim().is_file() {
            bail!("cannot find {}: expected the shim beside wharf", programs.shim().display());
        }
        Ok(programs)
    }

    /// What containerd starts.
    pub(super) fn shim(&self) -> PathBuf {
        self.prefix.join("bin/containerd-shim-wasm-v1")
    }

    /// Copies what differs; whether anything did.
    pub(super) fn install(&self, root: &Root) -> Result<bool> {
        let Care::Copied(Source(files)) = &self.care else { return Ok(false) };
        let mut changed = false;
        for (target, source) in files {
            let target = root.at(&self.prefix.join(target));
            if is_same(source, &target)? {
                continue;
            }
            files::put(&target, 0o755, |file| {
                let mut source = source.try_clone()?;
                io::Seek::rewind(&mut source)?;
                io::copy(&mut source, file)?;
                Ok(())
            })?;
            changed = true;
        }
        let link = root.at(&self.prefix.join(LINK.0));
        if fs_err::read_link(&link).is_ok_and(|target| target == Path::new(LINK.1)) {
            return Ok(changed);
        }
        files::remove(&link)?;
        fs_err::os::unix::fs::symlink(LINK.1, link)?;
        Ok(true)
    }

    /// Removes them, and folders that are empty then.
    pub(super) fn remove(&self, root: &Root) -> Result<()> {
        if matches!(self.care, Care::None) {
            return Ok(());
        }
        for file in FILES.iter().map(|(target, _)| *target).chain([LINK.0]) {
            files::remove(&root.at(&self.prefix.join(file)))?;
        }
        for folder in ["libexec/wharf", "libexec", "bin", ""] {
            // One that holds something else stays.
            let _ = std::fs::remove_dir(root.at(&self.prefix.join(folder)));
        }
        Ok(())
    }

    /// Shims that serve containers, and would be lost.
    pub(super) fn shims_running(&self, root: &Root) -> usize {
        if matches!(self.care, Care::None) {
            return 0;
        }
        let shim = root.at(&self.shim()).display().to_string();
        let processes = std::fs::read_dir(root.at(Path::new("/proc"))).into_iter().flatten().flatten();
        let programs = processes.filter_map(|entry| std::fs::read_link(entry.path().join("exe")).ok());
        // After an update, "(deleted)" follows.
        programs.filter(|program| program.to_string_lossy().starts_with(&shim)).count()
    }
}

fn is_same(source: &File, target: &Path) -> Result<bool> {
    let size = source.metadata()?.len();
    if size == 0 {
        bail!("cannot install {}: the file to copy is empty", target.display());
    }
    let Ok(target) = File::open(target) else { return Ok(false) };
    if target.metadata()?.len() != size {
        return Ok(false);
    }
    let mut source = source.try_clone()?;
    io::Seek::rewind(&mut source)?;
    Ok(Sha256::of_reader(source)? == Sha256::of_reader(target)?)
}
