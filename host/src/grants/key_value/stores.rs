//! The stores of an app's workers: found and opened when the app is loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wharf_app::{RedisUrl, StorePlace, StorePlaceError};

use super::redis::Redis;
use super::sqlite::Sqlite;
use super::{Bucket, Change, Changed, Error, Folder};
use crate::grants::egress::TlsError;
use crate::grants::resolver::Resolver;

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither a folder nor the URL of a server.
    #[error("cannot tell where it is")]
    Place(#[source] StorePlaceError),
    /// The server is spoken to by TLS, and there are no certificate authorities.
    #[error("cannot connect to it by TLS")]
    Tls(#[source] TlsError),
    /// The folder can't be made; the cause names it.
    #[error("cannot make its folder")]
    Folder(#[source] std::io::Error),
    /// The database in the folder can't be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    pub(in crate::grants) fn hint(&self) -> Option<String> {
        match self {
            Self::Place(error) => error.hint(),
            Self::Tls(_) => Some(crate::grants::CERTIFICATES_HINT.into()),
            Self::Folder(_) | Self::Open { .. } => Some(
                "the folder must be on a volume that the user whom the host runs as (in images 65532) can write to, and not on a network file system"
                    .into(),
            ),
        }
    }
}

/// A store, open; clones are the same one.
#[derive(Clone)]
pub(super) enum Store {
    Embedded(Arc<Sqlite>),
    Server(Arc<Redis>),
}

/// The stores of an app: workers that name the same folder, or the same URL,
/// share one.
#[derive(Default)]
pub(in crate::grants) struct Stores {
    /// Those that were found, open or not.
    folders: Vec<Folder>,
    embedded: HashMap<PathBuf, Arc<Sqlite>>,
    servers: HashMap<RedisUrl, Arc<Redis>>,
}

/// Where a store is, found on this machine.
pub(in crate::grants) enum Place {
    Folder(Folder),
    Server(RedisUrl),
}

/// What connections to servers are made with.
pub(in crate::grants) struct Network<'a> {
    pub(in crate::grants) resolver: &'a Arc<Resolver>,
    /// Trusted besides those that are part of the program.
    pub(in crate::grants) certificates: Option<&'a Path>,
}

/// The stores of one worker, by the names that it opens them by.
#[derive(Default)]
pub(in crate::grants) struct KeyValue(pub(super) Vec<(String, Store)>);

impl Stores {
    /// Finds the places of stores, which are pairs of name and place. Folders
    /// are made, and nothing in them is touched.
    ///
    /// # Errors
    /// The name of the store whose place is none, and why.
    pub(in crate::grants) fn find(
        &mut self,
        places: Vec<(String, String)>,
    ) -> Result<Vec<(String, Place)>, (String, StoreError)> {
        let found = places.into_iter().map(|(name, place)| match self.find_one(&place) {
            Ok(place) => Ok((name, place)),
            Err(error) => Err((name, error)),
        });
        found.collect()
    }

    pub(super) fn find_one(&mut self, place: &str) -> Result<Place, StoreError> {
        match place.parse().map_err(StoreError::Place)? {
            StorePlace::Redis(url) => Ok(Place::Server(url)),
            StorePlace::Folder(path) => {
                let folder = Folder::make(&path).map_err(StoreError::Folder)?;
                self.folders.push(folder.clone());
                Ok(Place::Folder(folder))
            }
        }
    }

    /// The folders of all stores that were found.
    pub(in crate::grants) fn folders(&self) -> &[Folder] {
        &self.folders
    }

    /// Opens the stores at `places`. A server is not spoken to before a guest
    /// calls: the app starts without it, too.
    ///
    /// # Errors
    /// The name of the store that can't be opened, and why.
    pub(in crate::grants) fn open(
        &mut self,
        places: Vec<(String, Place)>,
        network: &Network<'_>,
    ) -> Result<KeyValue, (String, StoreError)> {
        let mut stores = Vec::with_capacity(places.len());
        for (name, place) in places {
            let store = match place {
                Place::Folder(folder) => self.embedded(folder.path()).map(Store::Embedded),
                Place::Server(url) => self.server(url, network).map(Store::Server),
            };
            match store {
                Ok(store) => stores.push((name, store)),
                Err(error) => return Err((name, error)),
            }
        }
        Ok(KeyValue(stores))
    }

    pub(super) fn embedded(&mut self, folder: &Path) -> Result<Arc<Sqlite>, StoreError> {
        if let Some(open) = self.embedded.get(folder) {
            return Ok(Arc::clone(open));
        }
        let store = Arc::new(Sqlite::open(folder)?);
        self.embedded.insert(folder.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    fn server(&mut self, url: RedisUrl, network: &Network<'_>) -> Result<Arc<Redis>, StoreError> {
        if let Some(open) = self.servers.get(&url) {
            return Ok(Arc::clone(open));
        }
        let store = Arc::new(Redis::new(url.clone(), network).map_err(StoreError::Tls)?);
        self.servers.insert(url, Arc::clone(&store));
        Ok(store)
    }
}

impl KeyValue {
    /// The store that a guest means. The empty name is the `default` store, as
    /// it is wasmtime's.
    pub(super) fn open(&self, name: &str) -> Result<Bucket, Error> {
        if self.0.is_empty() {
            return Err(Error::AccessDenied);
        }
        let name = if name.is_empty() { "default" } else { name };
        let store = self.0.iter().find(|(granted, _)| granted == name).ok_or(Error::NoSuchStore)?;
        Ok(Bucket(store.1.clone()))
    }
}

/// The calls, whose keys and values have been checked.
impl Store {
    pub(super) async fn get(self, key: String) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Embedded(store) => store.get(key).await,
            Self::Server(store) => store.get(key).await,
        }
    }

    pub(super) async fn exists(self, key: String) -> Result<bool, Error> {
        match self {
            Self::Embedded(store) => store.exists(key).await,
            Self::Server(store) => store.exists(key).await,
        }
    }

    pub(super) async fn get_many(self, keys: Vec<String>) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        match self {
            Self::Embedded(store) => store.get_many(keys).await,
            Self::Server(store) => store.get_many(keys).await,
        }
    }

    pub(super) async fn keys(self, cursor: u64) -> Result<(Vec<String>, Option<u64>), Error> {
        match self {
            Self::Embedded(store) => store.keys(cursor).await,
            Self::Server(store) => store.keys(cursor).await,
        }
    }

    pub(super) async fn set(self, entries: Vec<(String, Vec<u8>)>) -> Result<(), Error> {
        match self {
            Self::Embedded(store) => store.set(entries).await,
            Self::Server(store) => store.set(entries).await,
        }
    }

    pub(super) async fn delete(self, keys: Vec<String>) -> Result<(), Error> {
        match self {
            Self::Embedded(store) => store.delete(keys).await,
            Self::Server(store) => store.delete(keys).await,
        }
    }

    pub(super) async fn entries(self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        match self {
            Self::Embedded(store) => store.entries().await,
            Self::Server(store) => store.entries().await,
        }
    }

    pub(super) async fn change(self, changes: Vec<Change>) -> Result<Changed, Error> {
        match self {
            Self::Embedded(store) => store.change(changes).await,
            Self::Server(store) => store.change(changes).await,
        }
    }

    pub(super) async fn increment(self, key: String, delta: u64) -> Result<u64, Error> {
        match self {
            Self::Embedded(store) => store.increment(key, delta).await,
            Self::Server(store) => store.increment(key, delta).await,
        }
    }
}
