//! Where a key-value store is: a folder, or a Redis server by its URL.
//!
//! `redis[s]://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE][?prefix=PREFIX]`, where
//! user, password and prefix are percent-encoded. A password is for the host's
//! environment alone, and no error and no form for people has it in it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{HostName, Value};

/// The port where none is given (IANA has it for Redis).
const PORT: u16 = 6379;

/// Longest prefix of keys, in bytes.
const LONGEST_PREFIX: usize = 256;

/// Where a key-value store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorePlace {
    /// A folder of the host.
    Folder(PathBuf),
    /// A Redis server.
    Redis(RedisUrl),
}

/// A Redis server, a database of it, and who asks.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RedisUrl {
    tls: bool,
    credentials: Option<Credentials>,
    host: HostName,
    port: u16,
    database: u32,
    prefix: String,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Credentials {
    user: Option<String>,
    password: String,
}

/// Why a place is refused. It has nothing of the URL but its scheme.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorePlaceError {
    /// Neither a path nor the URL of a Redis server.
    #[error("unknown kind of store {scheme:?}: expected the path of a folder, or redis:// or rediss://")]
    Scheme {
        /// What is in front of `://`.
        scheme: String,
    },
    /// Not the URL of a Redis server.
    #[error("malformed URL of a Redis server: expected {expected}")]
    Url {
        /// What was expected in the URL.
        expected: &'static str,
    },
    /// A user or a password that would be in the image.
    #[error("expected the URL of a Redis server without user and password, which would be in the image")]
    Credentials,
}

impl StorePlaceError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Scheme { .. } => None,
            Self::Url { .. } => Some(
                "redis://:PASSWORD@HOST:PORT/DATABASE, rediss:// for TLS; bytes other than letters and digits in the password as %XX"
                    .into(),
            ),
            Self::Credentials => Some(
                "say { from = \"REDIS_URL\" } in place of the URL, and set that variable where the host starts"
                    .into(),
            ),
        }
    }
}

/// Checks the places that are part of the app.
///
/// # Errors
/// The name of the store whose place is refused, and why.
pub(crate) fn check_fixed(stores: &BTreeMap<String, Value>) -> Result<(), (String, StorePlaceError)> {
    stores.iter().try_for_each(|(name, value)| match value {
        Value::Fixed(text) => StorePlace::fixed(text).map_err(|error| (name.clone(), error)),
        Value::Host(_) => Ok(()),
    })
}

/// The stores of `wharf.json`, which may be anybody's.
pub(super) fn checked<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Value>, D::Error> {
    let stores = BTreeMap::deserialize(deserializer)?;
    check_fixed(&stores)
        .map_err(|(name, error)| D::Error::custom(format!("key-value store {name:?}: {error}")))?;
    Ok(stores)
}

impl StorePlace {
    /// Checks a place that is part of the app.
    fn fixed(text: &str) -> Result<(), StorePlaceError> {
        // First: a password with a slash in it makes the URL malformed, too.
        let place = text.parse();
        match &place {
            Ok(Self::Redis(RedisUrl { credentials: Some(_), .. })) => Err(StorePlaceError::Credentials),
            Err(StorePlaceError::Url { .. }) if text.contains('@') => Err(StorePlaceError::Credentials),
            _ => place.map(drop),
        }
    }
}

impl FromStr for StorePlace {
    type Err = StorePlaceError;

    fn from_str(text: &str) -> Result<Self, StorePlaceError> {
        let scheme = text.split_once(':').map(|(scheme, _)| scheme).filter(|scheme| is_scheme(scheme));
        let Some(scheme) = scheme else {
            // A quote or a space before the URL: as a folder's name, a password would be
            // in errors and on the disk.
            return match text.contains("://") && !text.starts_with(['/', '.']) {
                true => Err(StorePlaceError::Url { expected: "redis:// or rediss:// and nothing before it" }),
                false => Ok(Self::Folder(text.into())),
            };
        };
        let rest = &text[scheme.len() + 1..];
        let tls = if scheme.eq_ignore_ascii_case("redis") {
            false
        } else if scheme.eq_ignore_ascii_case("rediss") {
            true
        } else if rest.starts_with("//") {
            return Err(StorePlaceError::Scheme { scheme: scheme.to_owned() });
        } else {
            return Ok(Self::Folder(text.into()));
        };
        let url = rest.strip_prefix("//").ok_or("// after the scheme");
        let url = url.and_then(|rest| RedisUrl::parse(tls, rest));
        url.map(Self::Redis).map_err(|expected| StorePlaceError::Url { expected })
    }
}

/// Whether `text` can be a scheme (RFC 3986, 3.1); a path has slashes.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

impl RedisUrl {
    fn parse(tls: bool, rest: &str) -> Result<Self, &'static str> {
        if rest.contains('#') {
            return Err("no \"#\", which is %23 in a password");
        }
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, server) = match authority.rsplit_once('@') {
            Some((credentials, server)) => (Some(Credentials::parse(credentials)?), server),
            None => (None, authority),
        };
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (server, None),
        };
        let host = host.parse().map_err(|_| "a host name or an address, IPv6 in brackets")?;
        let port = match port {
            None => PORT,
            Some(port) => number(port).filter(|port| *port != 0).ok_or("a port from 1 to 65535")?,
        };
        let database = match path {
            "" => 0,
            path => number(path).ok_or("the number of a database after the host, as in /0")?,
        };
        let prefix = match query {
            None => String::new(),
            Some(query) => {
                let prefix = query.strip_prefix("prefix=").filter(|prefix| !prefix.contains('&'));
                decode(prefix.ok_or("nothing but prefix=… after \"?\"")?)?
            }
        };
        if prefix.len() > LONGEST_PREFIX {
            return Err("a prefix of at most 256 bytes");
        }
        Ok(Self { tls, credentials, host, port, database, prefix })
    }

    /// Whether the connection is by TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// The server.
    #[must_use]
    pub const fn host(&self) -> &HostName {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The number of the database.
    #[must_use]
    pub const fn database(&self) -> u32 {
        self.database
    }

    /// What the server's keys begin with, and the store's don't.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The user, if not the default one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.credentials.as_ref()?.user.as_deref()
    }

    /// The password. Never to be shown.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.credentials.as_ref().map(|credentials| credentials.password.as_str())
    }
}

impl Credentials {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (user, password) = text.split_once(':').ok_or("a password after \":\" in front of \"@\"")?;
        let user = Some(decode(user)?).filter(|user| !user.is_empty());
        Ok(Self { user, password: decode(password)? })
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    // `parse` takes a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn decode(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| "UTF-8 behind the %XX of user, password and prefix")
}

/// Without user and password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        write!(f, "{scheme}://{}:{}/{}", self.host, self.port, self.database)
    }
}

/// Without user and password.
impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redis(text: &str) -> RedisUrl {
        match text.parse() {
            Ok(StorePlace::Redis(url)) => url,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_url_names_server_database_user_and_prefix() {
        let url = redis("rediss://wor%6ber:p%40ss%2Fword@Cache.Example:7000/3?prefix=shop%3A");
        assert!(url.is_tls());
        assert_eq!(url.host(), &HostName::Name("cache.example".into()));
        assert_eq!((url.port(), url.database(), url.prefix()), (7000, 3, "shop:"));
        assert_eq!((url.user(), url.password()), (Some("worker"), Some("p@ss/word")));
        let url = redis("redis://:secret@[::1]");
        assert_eq!((url.port(), url.database(), url.prefix()), (6379, 0, ""));
        assert_eq!((url.user(), url.password()), (None, Some("secret")));
        assert_eq!(redis("REDIS://cache/").to_string(), "redis://cache:6379/0");
    }

    #[test]
    fn what_is_no_url_is_a_folder() {
        for text in ["/data/kv", "data", "", "/data/a:b", "./redis://x", "C:data", "/a://b"] {
            assert_eq!(text.parse(), Ok(StorePlace::Folder(text.into())));
        }
    }

    #[test]
    fn a_password_is_in_no_error_and_in_no_form_for_people() {
        let whole = redis("redis://hunter1:hunter2@cache:1/2?prefix=p");
        assert_eq!(format!("{whole} {whole:?}"), "redis://cache:1/2 RedisUrl(redis://cache:1/2)");
        for (text, expected) in [
            ("redis:hunter2", "// after the scheme"),
            ("\"redis://:hunter2@cache\"", "nothing before it"),
            (" redis://:hunter2@cache", "nothing before it"),
            ("redis://:hunt/er2@cache", "a host name or an address"),
            ("redis://u:hunter2/@cache", "a port from 1 to 65535"),
            ("redis://cache:hunter2", "a port from 1 to 65535"),
            ("redis://cache:0", "a port from 1 to 65535"),
            ("redis://cache:+1", "a port from 1 to 65535"),
            ("redis://:hunter2#@cache", "%23"),
            ("redis://hunter2@cache", "a password after"),
            ("redis://:hunter2%ff@cache", "UTF-8"),
            ("redis://cache/hunter2", "the number of a database"),
            ("redis://cache/-1", "the number of a database"),
            ("redis://cache/0?password=hunter2", "nothing but prefix"),
            ("redis://cache?prefix=a&b=hunter2", "nothing but prefix"),
            ("redis://", "a host name or an address"),
            ("redis://:hunter2@", "a host name or an address"),
        ] {
            let error = text.parse::<StorePlace>().unwrap_err();
            let shown = format!("{error} {error:?} {:?}", error.hint());
            assert!(shown.contains(expected), "{text}: {shown}");
            assert!(!shown.contains("hunt"), "{text}: {shown}");
        }
        let long = format!("redis://cache?prefix={}", "p".repeat(LONGEST_PREFIX + 1));
        assert!(long.parse::<StorePlace>().is_err());
    }

    #[test]
    fn a_password_is_never_part_of_an_app() {
        for text in [
            "redis://:hunter2@cache",
            "redis://u@cache",
            "rediss://:hunt/er2@cache",
            "redis:u:p@h",
            " redis://:hunter2@cache",
        ] {
            assert_eq!(StorePlace::fixed(text), Err(StorePlaceError::Credentials), "{text}");
            let json = format!(r#"{{"kv":{{"sessions":{text:?}}}}}"#);
            let error = serde_json::from_str::<super::super::Grants>(&json).unwrap_err().to_string();
            assert!(error.starts_with("key-value store \"sessions\": expected the URL"), "{error}");
            assert!(!error.contains("hunt"), "{error}");
        }
        for text in ["redis://cache", "/data/a@b"] {
            assert_eq!(StorePlace::fixed(text), Ok(()), "{text}");
        }
        let error = StorePlace::fixed("mysql://:x@h").unwrap_err().to_string();
        assert!(error.contains("unknown kind of store \"mysql\""), "{error}");
    }
}
