//! The embedded key-value store: a SQLite database in a folder.
//!
//! SQLite because several processes of one host, and several containers of one
//! node, use a store at the same time: of the embedded databases it is the one
//! whose locks are made for that (redb and fjall lock a store for one process
//! alone; LMDB's reader table is by process id, which containers don't share).
//! It writes ahead (WAL), so that readers don't wait for a writer, and syncs
//! each commit: what a guest set survives a power cut.
//!
//! Calls block, on tokio's threads for that, and a guest that is stopped leaves
//! no half of a call behind: each is one transaction.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tracing::error;

use super::{Change, Changed, Error, FAILED, MAX_BATCH, MAX_STATE, PAGE, StoreError};

/// The database within a store's folder.
const FILE: &str = "kv.sqlite";

/// Calls at a time, of one process. SQLite's own limit is one writer of all
/// processes.
const CONNECTIONS: usize = 4;

/// Time that a writer waits for writers of other processes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two attempts where SQLite itself does not wait.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// Marks a database as one of these: "whkv" (PRAGMA application_id).
const APPLICATION: i32 = 0x7768_6b76;

/// The form of the tables that this version writes and reads.
const VERSION: i32 = 1;

/// The `id` orders keys for `list-keys`: it grows, it is never used twice, and
/// a key keeps it as long as it exists, so that a key that exists during a whole
/// listing is listed exactly once, whatever comes and goes meanwhile.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS entries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL
    ) STRICT;
";

const SET: &str = "INSERT INTO entries (key, value) VALUES (?1, ?2)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value";

/// One store, open.
pub(super) struct Sqlite {
    path: PathBuf,
    /// Connections that nobody uses right now.
    idle: Mutex<Vec<Connection>>,
    slots: Arc<Semaphore>,
    /// Orders the writers of this process, so that they don't sleep in
    /// SQLite's own waiting, which knows no order.
    writer: Arc<Semaphore>,
}

impl Sqlite {
    /// Opens the store in `folder`, and makes it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Open`]: it can't be written to, or is another's.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open {
            path: path.clone(),
            source,
        };
        let mut connection = connect(&path).map_err(|error| failed(error.into()))?;
        prepare(&mut connection).map_err(failed)?;
        Ok(Self {
            path,
            idle: Mutex::new(vec![connection]),
            slots: Arc::new(Semaphore::new(CONNECTIONS)),
            writer: Arc::new(Semaphore::new(1)),
        })
    }

    pub(super) async fn get(self: Arc<Self>, key: String) -> Result<Option<Vec<u8>>, Error> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached("SELECT value FROM entries WHERE key = ?1")?;
            Ok(select.query_row([key], |row| row.get(0)).optional()?)
        })
        .await
    }

    pub(super) async fn exists(self: Arc<Self>, key: String) -> Result<bool, Error> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached("SELECT 1 FROM entries WHERE key = ?1")?;
            Ok(select.exists([key])?)
        })
        .await
    }

    /// The values of `keys`, all as they were at one moment.
    pub(super) async fn get_many(
        self: Arc<Self>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        self.read(move |connection| {
            let transaction = connection.transaction()?;
            let mut select = transaction.prepare_cached("SELECT value FROM entries WHERE key = ?1")?;
            let mut left = MAX_BATCH;
            let entries = keys.into_iter().map(|key| {
                let value: Option<Vec<u8>> = select.query_row([&key], |row| row.get(0)).optional()?;
                let length = value.as_ref().map_or(0, Vec::len);
                left = left.checked_sub(length).ok_or(Failure::TooMuch)?;
                Ok(value.map(|value| (key, value)))
            });
            entries.collect()
        })
        .await
    }

    /// A page of the keys after `cursor`, and the cursor of the next page if
    /// there is one.
    pub(super) async fn keys(self: Arc<Self>, cursor: u64) -> Result<(Vec<String>, Option<u64>), Error> {
        let Ok(cursor) = i64::try_from(cursor) else {
            return Ok((Vec::new(), None));
        };
        self.read(move |connection| {
            let mut select = connection
                .prepare_cached("SELECT id, key FROM entries WHERE id > ?1 ORDER BY id LIMIT ?2")?;
            // One more than a page, to see whether there is another.
            let limit = i64::try_from(PAGE + 1).unwrap_or(i64::MAX);
            let rows = select.query_map([cursor, limit], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let mut rows: Vec<(i64, String)> = rows.collect::<Result<_, _>>()?;
            let more = rows.len() > PAGE;
            rows.truncate(PAGE);
            let last = rows.last().and_then(|(id, _)| u64::try_from(*id).ok());
            Ok((rows.into_iter().map(|(_, key)| key).collect(), last.filter(|_| more)))
        })
        .await
    }

    /// Sets all of `entries`, or none.
    pub(super) async fn set(self: Arc<Self>, entries: Vec<(String, Vec<u8>)>) -> Result<(), Error> {
        self.write(move |transaction| {
            let mut insert = transaction.prepare_cached(SET)?;
            for (key, value) in entries {
                insert.execute(params![key, value])?;
            }
            Ok(())
        })
        .await
    }

    /// Deletes all of `keys`, or none; what does not exist is deleted already.
    pub(super) async fn delete(self: Arc<Self>, keys: Vec<String>) -> Result<(), Error> {
        self.write(move |transaction| {
            let mut delete = transaction.prepare_cached("DELETE FROM entries WHERE key = ?1")?;
            for key in keys {
                delete.execute([key])?;
            }
            Ok(())
        })
        .await
    }

    /// Adds `delta` to a number that is written in decimal, as in Redis and in
    /// wasmtime's own store; one that does not exist is 0.
    pub(super) async fn increment(self: Arc<Self>, key: String, delta: u64) -> Result<u64, Error> {
        self.write(move |transaction| {
            let mut select = transaction.prepare_cached("SELECT value FROM entries WHERE key = ?1")?;
            let value: Option<Vec<u8>> = select.query_row([&key], |row| row.get(0)).optional()?;
            let number = match value {
                None => 0,
                Some(digits) => {
                    let digits = str::from_utf8(&digits).ok();
                    digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or(Failure::NotANumber)?
                }
            };
            let sum = number.checked_add(delta).ok_or(Failure::Overflow)?;
            transaction.prepare_cached(SET)?.execute(params![key, sum.to_string().into_bytes()])?;
            Ok(sum)
        })
        .await
    }

    /// All entries, as they were at one moment.
    pub(super) async fn entries(self: Arc<Self>) -> Result<Vec<(String, Vec<u8>)>, Error> {
        self.read(move |connection| {
            let mut select = connection.prepare_cached("SELECT key, value FROM entries")?;
            let mut left = MAX_STATE;
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let entries = rows.map(|row| {
                let (key, value): (String, Vec<u8>) = row?;
                left = left.checked_sub(key.len() + value.len()).ok_or(Failure::TooLargeState)?;
                Ok((key, value))
            });
            entries.collect()
        })
        .await
    }

    /// Makes all of `changes`, or none: where something has another value than one of
    /// them is from.
    pub(super) async fn change(self: Arc<Self>, changes: Vec<Change>) -> Result<Changed, Error> {
        self.write(move |transaction| {
            let mut select = transaction.prepare_cached("SELECT value FROM entries WHERE key = ?1")?;
            for Change { key, from, .. } in &changes {
                let Some(from) = from else { continue };
                let value: Option<Vec<u8>> = select.query_row([key], |row| row.get(0)).optional()?;
                if value != *from {
                    return Ok(Changed::No);
                }
            }
            let mut insert = transaction.prepare_cached(SET)?;
            let mut delete = transaction.prepare_cached("DELETE FROM entries WHERE key = ?1")?;
            for Change { key, to, .. } in changes {
                match to {
                    Some(value) => insert.execute(params![key, value])?,
                    None => delete.execute([key])?,
                };
            }
            Ok(Changed::Yes)
        })
        .await
    }

    async fn write<T: Send + 'static>(
        self: Arc<Self>,
        call: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = acquire(&self.writer).await?;
        self.read(move |connection| {
            // Held until the work is done, even if the guest is gone by then.
            let _turn = turn;
            // The lock from the start: a transaction that reads first and then
            // can't write would fail rather than wait.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = call(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
        .await
    }

    async fn read<T: Send + 'static>(
        self: Arc<Self>,
        call: impl FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self);
        let slot = acquire(&self.slots).await?;
        let result = spawn_blocking(move || {
            let _slot = slot;
            let mut connection = self.connection()?;
            let result = call(&mut connection);
            self.idle().push(connection);
            result
        })
        .await;
        match result {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(Failure::Database(cause))) => {
                error!(store = %store.path.display(), error = %cause, "key-value store failed");
                // Paths and the like are none of the guest's business.
                Err(Error::Other(FAILED.into()))
            }
            Ok(Err(failure)) => Err(Error::Other(failure.to_string())),
            Err(_) => Err(Error::Other("the key-value store was stopped".into())),
        }
    }

    pub(super) fn connection(&self) -> Result<Connection, Failure> {
        let idle = self.idle().pop();
        Ok(idle.map_or_else(|| connect(&self.path), Ok)?)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A connection is whole or not in there.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("database error")]
    Database(#[from] rusqlite::Error),
    #[error("the value is not a decimal number from 0 to {}", u64::MAX)]
    NotANumber,
    #[error("the sum is more than {}", u64::MAX)]
    Overflow,
    #[error("values of more than {MAX_BATCH} bytes in one call: ask for fewer keys")]
    TooMuch,
    #[error("the store has more than {MAX_STATE} bytes, which a program of the wws protocol would get all")]
    TooLargeState,
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    // They are never closed.
    Arc::clone(semaphore).acquire_owned().await.map_err(|error| Error::Other(error.to_string()))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // The folder's path has no links (`Folder`): one that is there now is
    // somebody's doing, and would lead into another store.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    // The file is only as good as who could write to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // In KiB when negative: small values are what stores are for.
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(connection)
}

/// Makes the tables of a new database, and refuses one of another's.
fn prepare(connection: &mut Connection) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // It stays with the file. Before the transaction: it can't change in one.
    let mode = write_ahead(connection)?;
    if mode != "wal" {
        return Err(
            format!("expected a file system that can be written ahead on, found mode {mode:?}").into()
        );
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version) {
        (APPLICATION, VERSION) => {}
        (APPLICATION, newer) => {
            return Err(format!("expected version {VERSION} of the store, found {newer}").into());
        }
        _ if tables > 0 => return Err("expected a key-value store, found another database".into()),
        _ => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Asks for the journal that is written ahead; answers the mode that it got.
///
/// The file's lock goes from shared to exclusive for this, and SQLite does not
/// wait on that way, whatever the busy time-out: of two that open a new store
/// at the same moment each could wait for the other. So the loser tries again.
fn write_ahead(connection: &Connection) -> rusqlite::Result<String> {
    let start = Instant::now();
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && start.elapsed() < BUSY_TIMEOUT =>
            {
                std::thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
}
