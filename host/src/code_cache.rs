//! Machine code that this machine made before.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use wharf_app::Sha256;

use crate::code::CodeDir;
use crate::engine::{CompileError, Compiler, CompilerTarget};

/// A folder of machine code, one below it for each configuration of the
/// compiler. It is the user's own: see [`CodeDir::new`].
#[derive(Clone, Debug)]
pub struct CodeCache(PathBuf);

/// Why code can't be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum CodeCacheError {
    /// It can't be made.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// It can't be kept; the cause names the file.
    #[error("cannot keep machine code")]
    Write(#[source] std::io::Error),
}

impl CodeCacheError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Compile(error) => error.hint(),
            Self::Write(_) => None,
        }
    }
}

impl CodeCache {
    /// The cache in `dir`, made when first needed.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// A compiler for `target` that keeps the code of each function beside what it makes,
    /// and compiles none twice.
    ///
    /// # Errors
    /// [`CodeCacheError::Compile`]: this build can't compile for it.
    pub fn compiler(&self, target: CompilerTarget) -> Result<Compiler, CodeCacheError> {
        let plain = Compiler::new(target)?;
        Ok(Compiler::keeping(target, &self.0.join(plain.id()))?)
    }

    /// The folder with what `compiler` makes.
    #[must_use]
    pub fn code_dir(&self, compiler: &Compiler) -> CodeDir {
        CodeDir::new(self.0.join(compiler.id()))
    }

    /// Whether the component `sha256` has code already.
    #[must_use]
    pub fn contains(&self, compiler: &Compiler, sha256: &Sha256) -> bool {
        self.code_dir(compiler).path(sha256).is_file()
    }

    /// The file with the code of the component in `wasm`, whose hash is
    /// `sha256`; compiled now if it isn't there.
    ///
    /// # Errors
    /// [`CodeCacheError`]: it can't be compiled, or not be kept.
    pub fn ensure(
        &self,
        compiler: &Compiler,
        sha256: &Sha256,
        wasm: &Path,
    ) -> Result<PathBuf, CodeCacheError> {
        let path = self.code_dir(compiler).path(sha256);
        if !path.is_file() {
            write_code(&path, &compiler.compile(wasm)?).map_err(CodeCacheError::Write)?;
        }
        Ok(path)
    }
}

/// Writes `code` to `path`, whole or not at all: a reader maps it.
///
/// # Errors
/// The folder can't be made, or the file not be written.
pub fn write_code(path: &Path, code: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(code)?;
    // Readable by the user that a container runs as.
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
