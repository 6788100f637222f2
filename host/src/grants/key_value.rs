//! `wasi:keyvalue`: stores by name, each in a folder or on a Redis server.
//!
//! Calls of the interface become calls of a [`Store`]. What a worker was not
//! granted it can't open. It deliberately keeps nothing in memory: a value that
//! was set is on the disk, or with the server, when `set` returns.

mod folder;
mod redis;
mod sqlite;
mod stores;

use std::collections::BTreeMap;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};

use self::bindings::wasi::keyvalue::{atomics, batch, store};
use self::stores::Store;
use super::{Grants, GrantsView};

pub(super) use self::folder::Folder;
pub(crate) use self::stores::StoreError;
pub(super) use self::stores::{KeyValue, Network, Stores};

/// Longest key, in bytes.
const MAX_KEY: usize = 1024;

/// Longest value, in bytes.
const MAX_VALUE: usize = 25 << 20;

/// Bytes of values that one `get-many` returns at most, as the host holds them.
const MAX_BATCH: usize = 64 << 20;

/// Bytes of a store, keys and values, that is told as a whole at most, to a program of the
/// protocol of Wasm Workers Server: each request holds all of it.
const MAX_STATE: usize = 8 << 20;

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

/// One entry of a store, as somebody wants it.
#[derive(Debug)]
struct Change {
    key: String,
    /// What it must be for that; `None`: anything.
    from: Option<Option<Vec<u8>>>,
    to: Option<Vec<u8>>,
}

/// Whether entries were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Yes,
    /// Another was faster.
    No,
}

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

impl KeyValue {
    /// What the `default` store holds as text; `None`: the worker has no such store.
    /// Other values, which are another program's, are not told.
    pub(super) async fn state(&self) -> Result<Option<BTreeMap<String, String>>, Error> {
        let Ok(Bucket(store)) = self.open("") else { return Ok(None) };
        let texts = store.entries().await?.into_iter();
        let texts = texts.filter_map(|(key, value)| Some((key, String::from_utf8(value).ok()?)));
        Ok(Some(texts.collect()))
    }

    /// Changes in the `default` store what is different in `new` than it was in `old`;
    /// all or, where another has changed some of it since and `checked` asks for that,
    /// nothing.
    pub(super) async fn change(
        &self,
        old: BTreeMap<String, String>,
        mut new: BTreeMap<String, String>,
        checked: bool,
    ) -> Result<Changed, Error> {
        let Bucket(store) = self.open("")?;
        let mut changes = Vec::new();
        let bytes = |text: String| text.into_bytes();
        for (key, value) in old {
            let to = new.remove(&key);
            if to.as_ref() != Some(&value) {
                changes.push(Change { key, from: checked.then(|| Some(bytes(value))), to: to.map(bytes) });
            }
        }
        let added = new.into_iter();
        changes.extend(added.map(|(key, value)| Change {
            key,
            from: checked.then_some(None),
            to: Some(bytes(value)),
        }));
        if changes.is_empty() {
            return Ok(Changed::Yes);
        }
        check_count(changes.len())?;
        for Change { key, to, .. } in &changes {
            check_key(key)?;
            check_value(to.as_ref().map_or(0, Vec::len))?;
        }
        store.change(changes).await
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
        check_value(value.len())
    })
}

fn check_value(length: usize) -> Result<(), Error> {
    match length {
        0..=MAX_VALUE => Ok(()),
        length => Err(Error::Other(format!("value of {length} bytes: expected at most {MAX_VALUE}"))),
    }
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
