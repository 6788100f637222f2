//! A core module of WASI preview 1 made into a component of 0.2.
//!
//! The host runs components alone. Bytecode Alliance's adapter speaks preview
//! 1 to the module and 0.2 to the host; it is linked in here, once, at build
//! time. The result is the same bytes for the same module, and is kept by the
//! module's content.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wit_component::ComponentEncoder;

use super::ProgramError;
use crate::build::BuildError;
use crate::digest::Sha256;

/// Raised when the same module would become another component.
const FORM: &str = "1 wit-component 0.254";

/// The component of the command `module`, kept in the folder `cache`.
///
/// # Errors
/// `invalid` of [`ProgramError::Adapt`]: the module is not what it looks like.
/// [`BuildError::Cache`]: the component can't be kept.
pub(crate) fn adapt(
    module: &[u8],
    cache: &Path,
    invalid: impl FnOnce(ProgramError) -> BuildError,
) -> Result<PathBuf, BuildError> {
    let path = cache.join(format!("command-{}.wasm", key(module)));
    if path.is_file() {
        return Ok(path);
    }
    let component = encode(module).map_err(|error| invalid(ProgramError::Adapt(error.into())))?;
    keep(&path, &component).map_err(BuildError::Cache)?;
    Ok(path)
}

/// Names all that goes into the component.
fn key(module: &[u8]) -> Sha256 {
    let adapter = Sha256::of(WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER);
    Sha256::of(format!("{FORM}\n{adapter}\n{}\n", Sha256::of(module)).as_bytes())
}

fn encode(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    ComponentEncoder::default()
        .module(module)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)?
        .validate(true)
        .encode()
}

/// Writes it, whole or not at all.
pub(crate) fn keep(path: &Path, component: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(component)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Program, detect};

    fn module() -> Vec<u8> {
        wat::parse_str(
            "(module
                (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
                (memory (export \"memory\") 1)
                (func (export \"_start\") (call $exit (i32.const 0))))",
        )
        .unwrap()
    }

    #[test]
    fn a_module_becomes_the_same_command_each_time_and_is_kept() {
        let module = module();
        let cache = tempfile::tempdir().unwrap();
        let unwanted = |error| panic!("{error}");
        let path = adapt(&module, cache.path(), unwanted).unwrap();
        let component = fs_err::read(&path).unwrap();
        assert_eq!(detect(&component).unwrap(), Program::CommandComponent);
        assert_eq!(encode(&module).unwrap(), component);
        fs_err::write(&path, "kept").unwrap();
        assert_eq!(adapt(&module, cache.path(), unwanted).unwrap(), path);
        assert_eq!(fs_err::read(&path).unwrap(), b"kept");
    }

    #[test]
    fn a_module_that_is_not_valid_is_refused_and_nothing_is_kept() {
        let module = wat::parse_str("(module (func (export \"_start\") (i32.const 1)))").unwrap();
        let cache = tempfile::tempdir().unwrap();
        let invalid = |source| BuildError::Program { path: "x.wasm".into(), source };
        let error = adapt(&module, cache.path(), invalid).unwrap_err();
        assert!(matches!(error, BuildError::Program { source: ProgramError::Adapt(_), .. }), "{error}");
        assert_eq!(fs_err::read_dir(cache.path()).unwrap().count(), 0);
    }
}
