//! Where entries, visits and files are kept: the key-value store `default`, which
//! wharf.toml grants. `entries` and `visits` are counters, `entry/1` and `file/NAME` the rest.

use wstd::http::Error;
use wstd::http::error::Context as _;

use crate::entry::{Draft, Entry};
use crate::store::bindings::wasi::keyvalue::{atomics, batch, store};

mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "imports" });
}

/// Keys of one call: the host takes 10,000 at most.
const PAGE: usize = 1000;

/// An open store.
pub struct Store(store::Bucket);

impl Store {
    pub fn open() -> Result<Self, Error> {
        Ok(Self(store::open("default").context("cannot open the key-value store")?))
    }

    /// Adds an entry. No two get the same number: the store counts in one step.
    pub fn add(&self, draft: Draft) -> Result<Entry, Error> {
        let id = atomics::increment(&self.0, "entries", 1)?;
        let entry = Entry { id, draft };
        self.0.set(&format!("entry/{id}"), &serde_json::to_vec(&entry)?)?;
        Ok(entry)
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let keys: Vec<String> = (1..=self.count("entries")?).map(|id| format!("entry/{id}")).collect();
        let mut entries = Vec::with_capacity(keys.len());
        for keys in keys.chunks(PAGE) {
            // One that is being added has its number before it is there.
            for (_, value) in batch::get_many(&self.0, keys)?.into_iter().flatten() {
                entries.push(serde_json::from_slice(&value)?);
            }
        }
        Ok(entries)
    }

    pub fn entry(&self, id: u64) -> Result<Option<Entry>, Error> {
        let value = self.0.get(&format!("entry/{id}"))?;
        Ok(value.map(|value| serde_json::from_slice(&value)).transpose()?)
    }

    pub fn visits(&self) -> Result<u64, Error> {
        self.count("visits")
    }

    /// Counts a visit; the number of visits with it.
    pub fn visit(&self) -> Result<u64, Error> {
        Ok(atomics::increment(&self.0, "visits", 1)?)
    }

    pub fn file(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0.get(&format!("file/{name}"))?)
    }

    pub fn put_file(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        Ok(self.0.set(&format!("file/{name}"), content)?)
    }

    /// A counter, which the store keeps in decimal digits.
    fn count(&self, key: &str) -> Result<u64, Error> {
        let digits = self.0.get(key)?.unwrap_or_else(|| b"0".to_vec());
        Ok(std::str::from_utf8(&digits)?.parse()?)
    }
}
