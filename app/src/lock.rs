//! `wharf.lock`: which tools, packages and components a project is built with,
//! so that another machine builds the same.
//!
//! Written by wharf, kept with the sources. An entry holds until someone asks
//! for another one.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::language::Language;
use crate::python::LockedPackages;

/// The name of the file within a project's folder.
pub const LOCK_FILE: &str = "wharf.lock";

/// The form that this version writes and reads.
const VERSION: u32 = 1;

const HEAD: &str = "# Written by wharf: what this project is built with. Keep it with the sources.\n";

/// What a project is built with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// Releases of the tools, by language.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    runtimes: BTreeMap<String, String>,
    /// What Python workers import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    python: Option<LockedPackages>,
    /// Digests of components in registries, by reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    components: BTreeMap<String, String>,
}

/// Why the file is refused.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file can't be read; the cause names it.
    #[error("cannot read what the project is built with")]
    Read(#[source] io::Error),
    /// The file can't be written; the cause names it.
    #[error("cannot write what the project is built with")]
    Write(#[source] io::Error),
    /// The file is not of this form; the cause shows the line.
    #[error("cannot parse {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, and what was expected there.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It was written by a newer version.
    #[error("{} has version {found}: expected {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version of the file.
        found: u32,
    },
}

impl LockError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Parse { .. } => {
                Some(format!("restore {LOCK_FILE}, or remove it: the next build writes it anew"))
            }
            Self::Version { .. } => {
                Some("build with the version of wharf that wrote it, or a later one".into())
            }
            Self::Read(_) | Self::Write(_) => None,
        }
    }
}

impl Default for Lock {
    fn default() -> Self {
        Self { version: VERSION, runtimes: BTreeMap::new(), python: None, components: BTreeMap::new() }
    }
}

impl Lock {
    /// Reads the file of the project in `dir`; without one, nothing is fixed.
    ///
    /// # Errors
    /// [`LockError`]: it can't be read or parsed.
    pub fn read(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(LOCK_FILE);
        let text = match fs_err::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(LockError::Read(error)),
        };
        let lock: Self = toml::from_str(&text)
            .map_err(|source| LockError::Parse { path: path.clone(), source: Box::new(source) })?;
        match lock.version {
            VERSION => Ok(lock),
            found => Err(LockError::Version { path, found }),
        }
    }

    /// Writes the file of the project in `dir`, whole or not at all; not if it
    /// says the same already, nor an empty one.
    ///
    /// # Errors
    /// [`LockError`]: it can't be written.
    pub fn write(&self, dir: &Path) -> Result<(), LockError> {
        if Self::read(dir).is_ok_and(|known| known == *self) {
            return Ok(());
        }
        let text = toml::to_string(self).map_err(|error| LockError::Write(io::Error::other(error)))?;
        let write = || {
            let mut file = tempfile::Builder::new()
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .tempfile_in(dir)?;
            file.write_all(HEAD.as_bytes())?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(dir.join(LOCK_FILE))?;
            Ok(())
        };
        write().map_err(LockError::Write)
    }

    /// The release of the tools of `language`, if the project fixes one.
    #[must_use]
    pub fn release(&self, language: Language) -> Option<&str> {
        self.runtimes.get(language.name()).map(String::as_str)
    }

    /// Fixes the release of the tools of `language`.
    pub fn fix_release(&mut self, language: Language, release: &str) {
        self.runtimes.insert(language.name().to_owned(), release.to_owned());
    }

    /// The packages of Python workers.
    pub(crate) const fn python(&self) -> Option<&LockedPackages> {
        self.python.as_ref()
    }

    /// The packages that Python workers import, if there are any: name and version, and
    /// the hash of what was installed.
    pub fn python_packages(&self) -> impl Iterator<Item = (&str, &str, Option<Sha256>)> {
        self.python.iter().flat_map(LockedPackages::list)
    }

    /// Fixes the packages of Python workers; none if there are none.
    pub(crate) fn fix_python(&mut self, packages: Option<LockedPackages>) {
        self.python = packages;
    }

    /// The digest that `reference` had when it was first used.
    #[must_use]
    pub fn component(&self, reference: &str) -> Option<&str> {
        self.components.get(reference).map(String::as_str)
    }

    /// Fixes what `reference` means.
    pub fn fix_component(&mut self, reference: &str, digest: &str) {
        self.components.insert(reference.to_owned(), digest.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fixed_is_read_again_and_nothing_is_written_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut lock = Lock::read(dir.path()).unwrap();
        lock.write(dir.path()).unwrap();
        assert!(!dir.path().join(LOCK_FILE).exists());
        lock.fix_release(Language::Go, "1.26.6");
        lock.fix_component("registry.example/x:1", "sha256:0");
        lock.write(dir.path()).unwrap();
        let read = Lock::read(dir.path()).unwrap();
        assert_eq!(read, lock);
        assert_eq!(read.release(Language::Go), Some("1.26.6"));
        assert_eq!(read.release(Language::Python), None);
        assert_eq!(read.component("registry.example/x:1"), Some("sha256:0"));
    }

    #[test]
    fn what_has_no_meaning_is_refused_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["version = 2", "versions = 1", "version = 1\n[runtime]\n", "<<<<<<< HEAD"] {
            fs_err::write(dir.path().join(LOCK_FILE), text).unwrap();
            assert!(Lock::read(dir.path()).unwrap_err().hint().is_some(), "{text}");
        }
    }
}
