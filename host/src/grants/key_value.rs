//! `wasi:keyvalue`: stores by name, each in a folder or on a Redis server.
//!
//! Calls of the interface become calls of a [`Store`]. What a worker was not
//! granted it can't open. It deliberately keeps nothing in memory: a value that
//! was set is on the disk, or with the server, when `set` returns.

mod folder;
mod redis;
mod sqlite;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};

use wharf_app::{RedisUrl, StorePlace, StorePlaceError};

use self::bindings::wasi::keyvalue::{atomics, batch, store};
use self::redis::Redis;
use self::sqlite::Sqlite;
use super::egress::TlsError;
use super::resolver::Resolver;
use super::{Grants, GrantsView};

pub(super) use self::folder::Folder;

/// Longest key, in bytes.
const MAX_KEY: usize = 1024;

/// Longest value, in bytes.
const MAX_VALUE: usize = 25 << 20;

/// Bytes of values that one `get-many` returns at most, as the host holds them.
const MAX_BATCH: usize = 64 << 20;

/// Keys that one call names at most.
const MAX_KEYS: usize = 10_000;

/// Keys that one `list-keys` returns, about: a Redis server counts roughly.
const PAGE: usize = 1000;

/// What a guest is told of failures that are none of its business.
const FAILED: &str = "the key-value store failed; the host's log says why";

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": super::Bucket },
        trappable_error_type: { "wasi:keyvalue/store.error" => super::Error },
    });
}

/// A store that a guest opened.
// The bindings re-export it.
#[allow(unreachable_pub)]
pub struct Bucket(Store);

/// Why a call fails.
// The bindings re-export it.
#[allow(unreachable_pub)]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No store of that name is granted.
    #[error("no such store")]
    NoSuchStore,
    /// No store is granted at all.
    #[error("access denied")]
    AccessDenied,
    /// Anything else, in words for the guest.
    #[error("{0}")]
    Other(String),
}

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
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Place(error) => error.hint(),
            Self::Tls(_) => Some(super::CERTIFICATES_HINT.into()),
            Self::Folder(_) | Self::Open { .. } => Some(
                "the folder must be on a volume that the user whom the host runs as (in images 65532) can write to, and not on a network file system"
                    .into(),
            ),
        }
    }
}

/// A store, open; clones are the same one.
#[derive(Clone)]
enum Store {
    Embedded(Arc<Sqlite>),
    Server(Arc<Redis>),
}

/// The stores of an app: workers that name the same folder, or the same URL,
/// share one.
#[derive(Default)]
pub(super) struct Stores {
    /// Those that were found, open or not.
    folders: Vec<Folder>,
    embedded: HashMap<PathBuf, Arc<Sqlite>>,
    servers: HashMap<RedisUrl, Arc<Redis>>,
}

/// Where a store is, found on this machine.
pub(super) enum Place {
    Folder(Folder),
    Server(RedisUrl),
}

/// What connections to servers are made with.
pub(super) struct Network<'a> {
    pub(super) resolver: &'a Arc<Resolver>,
    /// Trusted besides those that are part of the program.
    pub(super) certificates: Option<&'a Path>,
}

/// The stores of one worker, by the names that it opens them by.
#[derive(Default)]
pub(super) struct KeyValue(Vec<(String, Store)>);

impl Stores {
    /// Finds the places of stores, which are pairs of name and place. Folders
    /// are made, and nothing in them is touched.
    ///
    /// # Errors
    /// The name of the store whose place is none, and why.
    pub(super) fn find(
        &mut self,
        places: Vec<(String, String)>,
    ) -> Result<Vec<(String, Place)>, (String, StoreError)> {
        let found = places.into_iter().map(|(name, place)| match self.find_one(&place) {
            Ok(place) => Ok((name, place)),
            Err(error) => Err((name, error)),
        });
        found.collect()
    }

    fn find_one(&mut self, place: &str) -> Result<Place, StoreError> {
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
    pub(super) fn folders(&self) -> &[Folder] {
        &self.folders
    }

    /// Opens the stores at `places`. A server is not spoken to before a guest
    /// calls: the app starts without it, too.
    ///
    /// # Errors
    /// The name of the store that can't be opened, and why.
    pub(super) fn open(
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

    fn embedded(&mut self, folder: &Path) -> Result<Arc<Sqlite>, StoreError> {
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
    fn open(&self, name: &str) -> Result<Bucket, Error> {
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
    async fn get(self, key: String) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Embedded(store) => store.get(key).await,
            Self::Server(store) => store.get(key).await,
        }
    }

    async fn exists(self, key: String) -> Result<bool, Error> {
        match self {
            Self::Embedded(store) => store.exists(key).await,
            Self::Server(store) => store.exists(key).await,
        }
    }

    async fn get_many(self, keys: Vec<String>) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        match self {
            Self::Embedded(store) => store.get_many(keys).await,
            Self::Server(store) => store.get_many(keys).await,
        }
    }

    async fn keys(self, cursor: u64) -> Result<(Vec<String>, Option<u64>), Error> {
        match self {
            Self::Embedded(store) => store.keys(cursor).await,
            Self::Server(store) => store.keys(cursor).await,
        }
    }

    async fn set(self, entries: Vec<(String, Vec<u8>)>) -> Result<(), Error> {
        match self {
            Self::Embedded(store) => store.set(entries).await,
            Self::Server(store) => store.set(entries).await,
        }
    }

    async fn delete(self, keys: Vec<String>) -> Result<(), Error> {
        match self {
            Self::Embedded(store) => store.delete(keys).await,
            Self::Server(store) => store.delete(keys).await,
        }
    }

    async fn increment(self, key: String, delta: u64) -> Result<u64, Error> {
        match self {
            Self::Embedded(store) => store.increment(key, delta).await,
            Self::Server(store) => store.increment(key, delta).await,
        }
    }
}

pub(super) fn add_to_linker<T: GrantsView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    fn view<T: GrantsView>(state: &mut T) -> View<'_> {
        let (granted, table) = state.granted();
        View { grants: &granted.grants, table }
    }
    store::add_to_linker::<T, Interface>(linker, view)?;
    atomics::add_to_linker::<T, Interface>(linker, view)?;
    batch::add_to_linker::<T, Interface>(linker, view)
}

struct Interface;

impl HasData for Interface {
    type Data<'a> = View<'a>;
}

/// One call's view of what the worker has.
struct View<'a> {
    grants: &'a Grants,
    table: &'a mut ResourceTable,
}

impl View<'_> {
    fn store(&self, bucket: &Resource<Bucket>) -> Result<Store, Error> {
        Ok(self.table.get(bucket)?.0.clone())
    }
}

impl store::Host for View<'_> {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>, Error> {
        let bucket = self.grants.key_value.open(&identifier)?;
        Ok(self.table.push(bucket)?)
    }

    fn convert_error(&mut self, error: Error) -> wasmtime::Result<store::Error> {
        Ok(match error {
            Error::NoSuchStore => store::Error::NoSuchStore,
            Error::AccessDenied => store::Error::AccessDenied,
            Error::Other(text) => store::Error::Other(text),
        })
    }
}

impl store::HostBucket for View<'_> {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>, Error> {
        check_key(&key)?;
        self.store(&bucket)?.get(key).await
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<(), Error> {
        let entries = vec![(key, value)];
        check_entries(&entries)?;
        self.store(&bucket)?.set(entries).await
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<(), Error> {
        check_key(&key)?;
        self.store(&bucket)?.delete(vec![key]).await
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool, Error> {
        check_key(&key)?;
        self.store(&bucket)?.exists(key).await
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<u64>,
    ) -> Result<store::KeyResponse, Error> {
        let (keys, cursor) = self.store(&bucket)?.keys(cursor.unwrap_or(0)).await?;
        Ok(store::KeyResponse { keys, cursor })
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for View<'_> {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Result<u64, Error> {
        check_key(&key)?;
        self.store(&bucket)?.increment(key, delta).await
    }
}

impl batch::Host for View<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        check_keys(&keys)?;
        self.store(&bucket)?.get_many(keys).await
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        entries: Vec<(String, Vec<u8>)>,
    ) -> Result<(), Error> {
        check_entries(&entries)?;
        self.store(&bucket)?.set(entries).await
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<(), Error> {
        check_keys(&keys)?;
        self.store(&bucket)?.delete(keys).await
    }
}

fn check_key(key: &str) -> Result<(), Error> {
    match key.len() {
        1..=MAX_KEY => Ok(()),
        length => Err(Error::Other(format!("key of {length} bytes: expected 1 to {MAX_KEY}"))),
    }
}

fn check_keys(keys: &[String]) -> Result<(), Error> {
    check_count(keys.len())?;
    keys.iter().try_for_each(|key| check_key(key))
}

fn check_entries(entries: &[(String, Vec<u8>)]) -> Result<(), Error> {
    check_count(entries.len())?;
    entries.iter().try_for_each(|(key, value)| {
        check_key(key)?;
        match value.len() {
            0..=MAX_VALUE => Ok(()),
            length => Err(Error::Other(format!("value of {length} bytes: expected at most {MAX_VALUE}"))),
        }
    })
}

fn check_count(count: usize) -> Result<(), Error> {
    match count {
        0..=MAX_KEYS => Ok(()),
        _ => Err(Error::Other(format!("{count} keys in one call: expected at most {MAX_KEYS}"))),
    }
}

impl From<ResourceTableError> for Error {
    fn from(error: ResourceTableError) -> Self {
        Self::Other(error.to_string())
    }
}

#[cfg(test)]
mod tests;
