//! Where wharf keeps things: the image store, caches, toolchains.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use wharf_app::Workshop;
use wharf_host::CodeCache;
use wharf_images::Layout;

use crate::components::Registries;
use crate::ruby::Ruby;

/// The folders of this user, by the XDG base directory specification.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    store: PathBuf,
    cache: PathBuf,
    runtimes: PathBuf,
    trust: Trust,
    /// Locks on what this process uses until it ends.
    kept: Arc<Mutex<Vec<fs_err::File>>>,
}

/// Which projects may do all that their user can, while they are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Those on this machine.
    Local,
    /// All, as the user asked for.
    All,
    /// None: the project is from elsewhere.
    None,
}

/// The file in the cache that its users lock, and alone who removes from it.
const CACHE_LOCK: &str = ".lock";

impl Places {
    /// `WHARF_STORE` and `WHARF_CACHE` where set, else `wharf/` in the user's
    /// data and cache folders.
    pub(crate) fn from_env() -> Result<Self> {
        let data = || base("XDG_DATA_HOME", ".local/share");
        let store = match folder("WHARF_STORE") {
            Some(store) => store,
            None => data()?.join("store"),
        };
        let cache = match folder("WHARF_CACHE") {
            Some(cache) => cache,
            None => base("XDG_CACHE_HOME", ".cache")?,
        };
        let runtimes = match folder("WHARF_RUNTIMES") {
            Some(runtimes) => runtimes,
            None => data()?.join("runtimes"),
        };
        Ok(Self::new(store, cache, runtimes))
    }

    pub(crate) fn new(store: PathBuf, cache: PathBuf, runtimes: PathBuf) -> Self {
        Self { store, cache, runtimes, trust: Trust::Local, kept: Arc::default() }
    }

    /// The same, where projects from elsewhere are trusted too if `all`.
    pub(crate) fn trusting(self, all: bool) -> Self {
        Self { trust: if all { Trust::All } else { self.trust }, ..self }
    }

    /// Whether projects from elsewhere are trusted.
    pub(crate) fn trusts_all(&self) -> bool {
        self.trust == Trust::All
    }

    /// The same, for a project from elsewhere.
    pub(crate) fn distrusting(&self) -> Self {
        let trust = match self.trust {
            Trust::All => Trust::All,
            Trust::Local | Trust::None => Trust::None,
        };
        Self { trust, ..self.clone() }
    }

    /// The local store of images, made when first asked for.
    pub(crate) fn store(&self) -> Result<Layout> {
        Ok(Layout::create(&self.store)?)
    }

    /// Where builds find tools and keep components.
    pub(crate) fn workshop(&self) -> Workshop {
        let registry = Arc::new(Registries);
        let is_trusted = self.trust != Trust::None;
        let workshop = Workshop::new(self.cache.clone(), self.runtimes.clone());
        Workshop { registry, ruby: Arc::new(Ruby), is_trusted, ..workshop }
    }

    /// Machine code of components.
    pub(crate) fn code(&self) -> CodeCache {
        CodeCache::new(self.code_folder())
    }

    fn code_folder(&self) -> PathBuf {
        self.cache.join("code")
    }

    /// What is known of layers by what they were made of.
    pub(crate) fn layers(&self) -> PathBuf {
        self.cache.join("layers")
    }

    /// The folders of the cache that wharf makes; whatever else lies there is
    /// somebody else's. What they hold can all be made again.
    pub(crate) fn caches(&self) -> [PathBuf; 5] {
        let workshop = self.workshop();
        [workshop.components(), workshop.encodings(), self.code_folder(), self.layers(), self.unpacked()]
    }

    /// Keeps `wharf prune` from the caches for as long as the result lives.
    /// None where the folder can't be written: there nothing is removed either.
    pub(crate) fn use_caches(&self) -> Option<fs_err::File> {
        let lock = self.cache_lock().ok()?;
        lock.file().lock_shared().ok()?;
        Some(lock)
    }

    /// Waits until nobody uses the caches, and keeps it so.
    ///
    /// # Errors
    /// The folder can't be written.
    pub(crate) fn lock_caches(&self) -> io::Result<fs_err::File> {
        let lock = self.cache_lock()?;
        lock.file().lock()?;
        Ok(lock)
    }

    fn cache_lock(&self) -> io::Result<fs_err::File> {
        fs_err::create_dir_all(&self.cache)?;
        fs_err::OpenOptions::new().create(true).append(true).open(self.cache.join(CACHE_LOCK))
    }

    /// Keeps `wharf prune` from a folder of the caches until this process ends.
    pub(crate) fn keep(&self, folder: &Path) {
        let Ok(file) = fs_err::File::open(folder) else { return };
        if file.file().lock_shared().is_ok() {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        }
    }

    /// Apps unpacked from images, by the digest of the manifest.
    pub(crate) fn unpacked(&self) -> PathBuf {
        self.cache.join("unpacked")
    }
}

fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn base(variable: &str, below_home: &str) -> Result<PathBuf> {
    // The specification has relative paths ignored.
    let base = match folder(variable).filter(|path| path.is_absolute()) {
        Some(base) => base,
        None => env::home_dir()
            .filter(|home| !home.as_os_str().is_empty())
            .with_context(|| format!("no home folder: set HOME or {variable}"))?
            .join(below_home),
    };
    Ok(base.join("wharf"))
}
