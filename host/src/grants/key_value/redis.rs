//! A key-value store on a Redis server.
//!
//! Keys are those of the server's database, behind the URL's prefix if it has
//! one: other programs see what guests set. Each call is one command, or one
//! script, which the server runs whole or not at all; scripts, where a plain
//! command would let the server send more than the host wants to hold, or
//! change what it then calls an error.
//!
//! How the server is reached: see `link`.

mod link;

use std::collections::BTreeMap;
use std::sync::Arc;

use redis::{Cmd, Value, cmd};
use tokio::sync::{Semaphore, SemaphorePermit};
use wharf_app::RedisUrl;

use self::link::{Link, Repeat};
use super::{Change, Changed, Error, FAILED, MAX_BATCH, MAX_KEY, MAX_STATE, MAX_VALUE, Network, PAGE};
use crate::grants::egress::TlsError;

/// Calls at a time, of one process: each may hold a value of [`MAX_VALUE`].
const CALLS: usize = 16;

/// What a call of many values counts as.
const BATCH_CALLS: u32 = 4;

/// Pages without a key of the store that one call looks through: a database
/// may have many keys with other prefixes.
const EMPTY_PAGES: usize = 100;

/// The values of KEYS, or -1 if they are of more than ARGV[1] bytes.
const READ: &str = "
    local left = tonumber(ARGV[1])
    for _, key in ipairs(KEYS) do
        local length = redis.pcall('STRLEN', key)
        if type(length) == 'table' then return length end
        left = left - length
        if left < 0 then return -1 end
    end
    local values = {}
    for i, key in ipairs(KEYS) do values[i] = redis.call('GET', key) end
    return values";

/// Adds ARGV[1] to the number at KEYS[1], and nothing to one below 0, which is
/// no number of this interface. The sum is text: numbers of scripts are floats.
const INCREMENT: &str = "
    local value = redis.pcall('GET', KEYS[1])
    if type(value) == 'table' then return value end
    if value and string.sub(value, 1, 1) == '-' then return redis.error_reply('ERR not an integer') end
    local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
    if type(sum) == 'table' then return sum end
    return redis.call('GET', KEYS[1])";

/// Changes KEYS, unless one has another value than its change is from, and says whether
/// it did. Of each there are four ARGV: whether a value is expected ("any", "none",
/// "value"), which, whether it gets one ("none", "value"), and which.
const CHANGE: &str = "
    for i, key in ipairs(KEYS) do
        local expected = ARGV[4 * i - 3]
        if expected ~= 'any' then
            local value = redis.pcall('GET', key)
            if type(value) == 'table' then return value end
            if expected == 'none' and value then return 0 end
            if expected == 'value' and value ~= ARGV[4 * i - 2] then return 0 end
        end
    end
    for i, key in ipairs(KEYS) do
        if ARGV[4 * i - 1] == 'none' then redis.call('DEL', key) else redis.call('SET', key, ARGV[4 * i]) end
    end
    return 1";

/// One store.
pub(super) struct Redis {
    link: Link,
    prefix: String,
    calls: Semaphore,
}

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The log has been told.
    #[error("{FAILED}")]
    Server,
    #[error("the key-value store can't be reached; the host's log says why")]
    Unreachable,
    #[error("the key has a value of another type, which another program has set")]
    Type,
    #[error("the value is not a decimal number from 0 to {}", i64::MAX)]
    NotANumber,
    #[error("the sum is more than {}", i64::MAX)]
    Overflow,
    #[error("value of more than {MAX_VALUE} bytes, which another program has set")]
    TooLarge,
    #[error("values of more than {MAX_BATCH} bytes in one call: ask for fewer keys")]
    TooMuch,
    #[error("the store has more than {MAX_STATE} bytes, which a program of the wws protocol would get all")]
    TooLargeState,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Other(failure.to_string())
    }
}

impl Redis {
    /// The store at `url`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`TlsError`]: it is reached by TLS, and the file of certificate
    /// authorities can't be read.
    pub(super) fn new(url: RedisUrl, network: &Network<'_>) -> Result<Self, TlsError> {
        let prefix = url.prefix().to_owned();
        Ok(Self { link: Link::new(url, network)?, prefix, calls: Semaphore::new(CALLS) })
    }

    pub(super) async fn get(self: Arc<Self>, key: String) -> Result<Option<Vec<u8>>, Error> {
        let _turn = self.turn(1).await?;
        let mut values = self.read(&[key], MAX_VALUE).await?.ok_or(Failure::TooLarge)?;
        Ok(values.pop().flatten())
    }

    pub(super) async fn exists(self: Arc<Self>, key: String) -> Result<bool, Error> {
        let _turn = self.turn(1).await?;
        let mut command = cmd("EXISTS");
        command.arg(self.key(&key));
        match self.link.call(&command, Repeat::Allowed).await? {
            Value::Int(count) => Ok(count > 0),
            _ => Err(self.unexpected().into()),
        }
    }

    /// The values of `keys`, all as they were at one moment.
    pub(super) async fn get_many(
        self: Arc<Self>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let _turn = self.turn(BATCH_CALLS).await?;
        let values = self.read(&keys, MAX_BATCH).await?.ok_or(Failure::TooMuch)?;
        Ok(keys.into_iter().zip(values).map(|(key, value)| Some((key, value?))).collect())
    }

    /// A page of the keys after `cursor`, which is the server's own, and the
    /// cursor of the next page if there is one. A key that exists during a whole
    /// listing is listed, perhaps more than once (SCAN's guarantees).
    pub(super) async fn keys(self: Arc<Self>, mut cursor: u64) -> Result<(Vec<String>, Option<u64>), Error> {
        let _turn = self.turn(1).await?;
        for _ in 0..EMPTY_PAGES {
            let mut command = cmd("SCAN");
            command.arg(cursor);
            if !self.prefix.is_empty() {
                command.arg("MATCH").arg(pattern(&self.prefix));
            }
            command.arg("COUNT").arg(PAGE);
            let page = self.link.call(&command, Repeat::Allowed).await?;
            let (keys, next) = self.page(page).ok_or_else(|| self.unexpected())?;
            cursor = next;
            if !keys.is_empty() || cursor == 0 {
                return Ok((keys, Some(cursor).filter(|cursor| *cursor != 0)));
            }
        }
        Ok((Vec::new(), Some(cursor)))
    }

    /// Sets all of `entries`, or none.
    pub(super) async fn set(self: Arc<Self>, entries: Vec<(String, Vec<u8>)>) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        let _turn = self.turn(if entries.len() == 1 { 1 } else { BATCH_CALLS }).await?;
        let mut command = cmd("MSET");
        for (key, value) in entries {
            command.arg(self.key(&key)).arg(value);
        }
        match self.link.call(&command, Repeat::Allowed).await? {
            Value::Okay => Ok(()),
            _ => Err(self.unexpected().into()),
        }
    }

    /// Deletes all of `keys`, or none; what does not exist is deleted already.
    pub(super) async fn delete(self: Arc<Self>, keys: Vec<String>) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let _turn = self.turn(1).await?;
        let mut command = cmd("DEL");
        for key in &keys {
            command.arg(self.key(key));
        }
        match self.link.call(&command, Repeat::Allowed).await? {
            Value::Int(_) => Ok(()),
            _ => Err(self.unexpected().into()),
        }
    }

    /// Adds `delta` to a number that is written in decimal; one that does not
    /// exist is 0. The server's numbers end at `i64::MAX`.
    pub(super) async fn increment(self: Arc<Self>, key: String, delta: u64) -> Result<u64, Error> {
        let delta = i64::try_from(delta).map_err(|_| Failure::Overflow)?;
        let _turn = self.turn(1).await?;
        let mut command = script(INCREMENT, 1);
        command.arg(self.key(&key)).arg(delta);
        // Who was not answered can't know whether it was counted.
        match self.link.call(&command, Repeat::Denied).await? {
            Value::BulkString(digits) => {
                let number = str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok());
                Ok(number.ok_or_else(|| self.unexpected())?)
            }
            _ => Err(self.unexpected().into()),
        }
    }

    /// All entries; not as they were at one moment, but each as it was at some.
    pub(super) async fn entries(self: Arc<Self>) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let mut entries = BTreeMap::new();
        let (mut cursor, mut left) = (0, MAX_STATE);
        loop {
            let (keys, next) = Arc::clone(&self).keys(cursor).await?;
            for (key, value) in Arc::clone(&self).get_many(keys).await?.into_iter().flatten() {
                left = left.checked_sub(key.len() + value.len()).ok_or(Failure::TooLargeState)?;
                entries.insert(key, value);
            }
            match next {
                Some(next) => cursor = next,
                None => return Ok(entries.into_iter().collect()),
            }
        }
    }

    /// Makes all of `changes`, or none: where something has another value than one of
    /// them is from.
    pub(super) async fn change(self: Arc<Self>, changes: Vec<Change>) -> Result<Changed, Error> {
        if changes.is_empty() {
            return Ok(Changed::Yes);
        }
        let _turn = self.turn(BATCH_CALLS).await?;
        let mut command = script(CHANGE, changes.len());
        for Change { key, .. } in &changes {
            command.arg(self.key(key));
        }
        for Change { from, to, .. } in changes {
            let from = from.map_or((&b"any"[..], None), |from| (word(from.as_ref()), from));
            command.arg(from.0).arg(from.1.unwrap_or_default());
            command.arg(word(to.as_ref())).arg(to.unwrap_or_default());
        }
        // Who was not answered can't know whether it was changed.
        match self.link.call(&command, Repeat::Denied).await? {
            Value::Int(0) => Ok(Changed::No),
            Value::Int(1) => Ok(Changed::Yes),
            _ => Err(self.unexpected().into()),
        }
    }

    /// The values of `keys`; `None`: they are of more than `limit` bytes.
    async fn read(&self, keys: &[String], limit: usize) -> Result<Option<Vec<Option<Vec<u8>>>>, Failure> {
        let mut command = script(READ, keys.len());
        for key in keys {
            command.arg(self.key(key));
        }
        command.arg(limit);
        let values = match self.link.call(&command, Repeat::Allowed).await? {
            Value::Int(-1) => return Ok(None),
            Value::Array(values) if values.len() == keys.len() => values,
            _ => return Err(self.unexpected()),
        };
        let values = values.into_iter().map(|value| match value {
            Value::BulkString(value) => Ok(Some(value)),
            Value::Nil => Ok(None),
            _ => Err(self.unexpected()),
        });
        values.collect::<Result<_, _>>().map(Some)
    }

    /// The keys of SCAN's answer that are the store's and that a guest can
    /// name, and the next cursor.
    fn page(&self, answer: Value) -> Option<(Vec<String>, u64)> {
        let Value::Array(answer) = answer else { return None };
        let [Value::BulkString(cursor), Value::Array(keys)] = <[Value; 2]>::try_from(answer).ok()? else {
            return None;
        };
        let cursor = str::from_utf8(&cursor).ok()?.parse().ok()?;
        let keys = keys.into_iter().filter_map(|key| {
            let Value::BulkString(key) = key else { return None };
            let key = String::from_utf8(key).ok()?;
            let key = key.strip_prefix(&self.prefix)?;
            (1..=MAX_KEY).contains(&key.len()).then(|| key.to_owned())
        });
        Some((keys.collect(), cursor))
    }

    fn key(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// Waits until a call may go on that counts as `calls`.
    async fn turn(&self, calls: u32) -> Result<SemaphorePermit<'_>, Error> {
        // It is never closed.
        self.calls.acquire_many(calls).await.map_err(|error| Error::Other(error.to_string()))
    }

    /// For an answer that no Redis server gives.
    fn unexpected(&self) -> Failure {
        self.link.tell("expected another answer of a Redis server");
        Failure::Server
    }
}

fn script(text: &str, keys: usize) -> Cmd {
    let mut command = cmd("EVAL");
    command.arg(text).arg(keys);
    command
}

/// What [`CHANGE`] calls a value that there is, or not.
fn word(value: Option<&Vec<u8>>) -> &'static [u8] {
    if value.is_some() { b"value" } else { b"none" }
}

/// A pattern of SCAN that each key behind `prefix` fits.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests;
