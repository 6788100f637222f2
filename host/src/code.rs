//! Where the machine code of an app's components comes from.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use wasmtime::component::Component;
use wasmtime::{Engine, Module};
use wharf_app::{Component as Description, InvalidSha256, Sha256, Wasi};

use crate::engine::Runtime;

/// Names the environment variable by which the shim hands code over:
/// `SHA256=FD` pairs with commas between them.
const FDS_VARIABLE: &str = "WHARF_AOT_FDS";

/// What an engine runs.
#[derive(Clone)]
pub(crate) enum Code {
    Component(Component),
    /// Of WASI preview 1.
    Module(Module),
}

/// A folder of machine code: `SHA256-OF-THE-COMPONENT.cwasm`.
#[derive(Clone, Debug)]
pub struct CodeDir(PathBuf);

/// The machine code that a `wharf-host` may run.
///
/// Code is trusted like the program itself: it comes from the shim, by file
/// descriptor, or from the image that the program came in. Never from both:
/// under the shim, what the image holds is ignored.
#[derive(Debug)]
pub enum HostCode {
    /// Open files that the shim passed, by the component's hash.
    Descriptors(HashMap<Sha256, RawFd>),
    /// The image's own folder.
    Image(CodeDir),
}

/// Why a component has no code.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// Nobody compiled it.
    #[error("no machine code for component {sha256}: expected it in {place}")]
    Missing {
        /// The component's hash.
        sha256: Sha256,
        /// Where it was looked for.
        place: String,
    },
    /// It was compiled by another version, or for another CPU.
    #[error("cannot load machine code {}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The variable is malformed.
    #[error("malformed {FDS_VARIABLE} {0:?}: expected SHA256=FD pairs with commas between them")]
    Variable(String),
}

impl Code {
    pub(crate) fn engine(&self) -> &Engine {
        match self {
            Self::Component(component) => component.engine(),
            Self::Module(module) => module.engine(),
        }
    }

    /// Gives back what is kept for a further instance; `false`: there was nothing.
    pub(crate) fn release_unused_memory(&self) -> bool {
        match self {
            Self::Component(component) => component.release_unused_memory(),
            Self::Module(module) => module.release_unused_memory(),
        }
    }
}

impl CodeDir {
    /// The code in the folder `dir`.
    ///
    /// Whoever can write there can run anything as this user: it must be the
    /// user's own, or part of a read-only image.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Where the code of the component `sha256` is, or would be.
    #[must_use]
    pub fn path(&self, sha256: &Sha256) -> PathBuf {
        self.0.join(format!("{sha256}.cwasm"))
    }

    pub(crate) fn load(&self, runtime: &Runtime, component: &Description) -> Result<Code, CodeError> {
        let path = self.path(&component.sha256);
        if !path.is_file() {
            return Err(CodeError::Missing { sha256: component.sha256, place: self.0.display().to_string() });
        }
        load(runtime, component.wasi, &path)
    }
}

impl HostCode {
    /// The code for an app in `app_dir`, by the environment of this process.
    ///
    /// # Errors
    /// [`CodeError::Variable`]: the shim's variable is malformed.
    pub fn from_env(app_dir: &Path) -> Result<Self, CodeError> {
        match std::env::var(FDS_VARIABLE) {
            Ok(pairs) => Self::parse_descriptors(&pairs),
            Err(_) => Ok(Self::Image(CodeDir::new(app_dir.join("aot")))),
        }
    }

    fn parse_descriptors(pairs: &str) -> Result<Self, CodeError> {
        let malformed = || CodeError::Variable(pairs.to_owned());
        let pairs = pairs.split(',').filter(|pair| !pair.is_empty());
        let descriptors = pairs.map(|pair| {
            let (sha256, descriptor) = pair.split_once('=').ok_or_else(malformed)?;
            let sha256 = sha256.parse().map_err(|_: InvalidSha256| malformed())?;
            let descriptor = descriptor.parse().ok().filter(|fd| *fd >= 3).ok_or_else(malformed)?;
            Ok((sha256, descriptor))
        });
        descriptors.collect::<Result<_, _>>().map(Self::Descriptors)
    }

    pub(crate) fn load(&self, runtime: &Runtime, component: &Description) -> Result<Code, CodeError> {
        match self {
            Self::Image(dir) => dir.load(runtime, component),
            Self::Descriptors(_) => load(runtime, component.wasi, &self.path(&component.sha256)?),
        }
    }

    /// The file with the code of the component `sha256`.
    ///
    /// By name and not by mapping it here: wasmtime then maps the initial
    /// memory from the file as well, so that all containers share its pages.
    pub(crate) fn path(&self, sha256: &Sha256) -> Result<PathBuf, CodeError> {
        match self {
            Self::Image(dir) => Ok(dir.path(sha256)),
            Self::Descriptors(descriptors) => {
                let missing = || CodeError::Missing { sha256: *sha256, place: FDS_VARIABLE.into() };
                let descriptor = descriptors.get(sha256).ok_or_else(missing)?;
                Ok(format!("/proc/self/fd/{descriptor}").into())
            }
        }
    }
}

fn load(runtime: &Runtime, wasi: Wasi, path: &Path) -> Result<Code, CodeError> {
    let failed = |error: wasmtime::Error| CodeError::Load { path: path.to_owned(), source: error.into() };
    let engine = runtime.engine(wasi).map_err(failed)?;
    // SAFETY: the file is machine code that runs with this process's rights.
    // It comes from a place that only who controls this program can write to:
    // the root-owned cache of the node (by the shim's descriptor), the image
    // of the program, or the user's own cache. Nobody changes it in place:
    // writers make a new file and rename it.
    let code = unsafe {
        match wasi {
            Wasi::V01 => Module::deserialize_file(engine, path).map(Code::Module),
            Wasi::V02 | Wasi::V03 => Component::deserialize_file(engine, path).map(Code::Component),
        }
    };
    code.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_parsed() {
        let hash = Sha256::of(b"a");
        let HostCode::Descriptors(parsed) = HostCode::parse_descriptors(&format!("{hash}=3")).unwrap() else {
            panic!("not descriptors");
        };
        assert_eq!(parsed, HashMap::from([(hash, 3)]));
        assert!(HostCode::parse_descriptors("").is_ok());
    }

    #[test]
    fn malformed_descriptors_are_refused() {
        let hash = Sha256::of(b"a");
        for text in ["x", "x=3", &format!("{hash}"), &format!("{hash}=-1"), &format!("{hash}=0")] {
            assert!(HostCode::parse_descriptors(text).is_err(), "{text:?}");
        }
    }
}
