//! The static `wharf-host` binaries that go into linux images.

use std::env;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};
use wharf_app::Sha256;
use wharf_host::Architecture;

/// No `wharf-host` for an architecture.
#[derive(Debug, thiserror::Error)]
#[error("no wharf-host for linux/{architecture}: looked in {places}")]
pub(crate) struct NoNativeHost {
    architecture: Architecture,
    places: String,
}

impl NoNativeHost {
    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn hint(&self) -> Option<String> {
        let architecture = self.architecture;
        let arches = if architecture.is_this_machine() { "" } else { " ARCHES=\"amd64 arm64\"" };
        Some(format!(
            "install wharf with `make install{arches}`, or give the binary: --host-binary {architecture}=PATH"
        ))
    }
}

/// A `wharf-host` that goes into an image.
pub(crate) struct Native {
    pub(crate) path: PathBuf,
    pub(crate) sha256: Sha256,
}

impl Native {
    /// # Errors
    /// The file can't be read.
    pub(crate) fn read(path: PathBuf) -> Result<Self> {
        let file = fs_err::File::open(&path)?;
        let (sha256, _) =
            Sha256::of_reader(file).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { path, sha256 })
    }
}

/// `ARCH=PATH` of the command line.
#[derive(Clone, Debug)]
pub(crate) struct HostBinary {
    architecture: Architecture,
    path: PathBuf,
}

impl FromStr for HostBinary {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (architecture, path) =
            text.split_once('=').ok_or_else(|| format!("found {text:?}: expected ARCH=PATH"))?;
        let path = PathBuf::from(path);
        if !path.is_file() {
            return Err(format!("no such file: {}", path.display()));
        }
        Ok(Self { architecture: architecture.parse()?, path })
    }
}

/// The binary for `architecture`: the one that was given, or else the one
/// that was installed with this program.
pub(crate) fn host_binary(architecture: Architecture, given: &[HostBinary]) -> Result<PathBuf, NoNativeHost> {
    if let Some(binary) = given.iter().find(|binary| binary.architecture == architecture) {
        return Ok(binary.path.clone());
    }
    let mut candidates = Vec::new();
    let program = env::current_exe().and_then(|program| program.canonicalize());
    if let Some(folder) = program.as_deref().ok().and_then(Path::parent) {
        for folder in [folder.join("../libexec/wharf"), folder.to_owned()] {
            candidates.push(folder.join(format!("wharf-host-linux-{architecture}")));
            if architecture.is_this_machine() {
                candidates.push(folder.join("wharf-host"));
            }
        }
    }
    if let Some(found) = candidates.iter().find(|candidate| candidate.is_file()) {
        return Ok(found.clone());
    }
    let places: Vec<String> = candidates.iter().map(|candidate| candidate.display().to_string()).collect();
    Err(NoNativeHost { architecture, places: places.join(", ") })
}
