//! What a worker may do beyond computing: values, folders, outbound HTTP,
//! key-value stores and configuration, granted one by one.
//!
//! It is the form of grants in `wharf.toml` and `wharf.json`, checked as far as
//! that needs no machine. It deliberately opens and resolves nothing: the host
//! does, once, when it starts.

mod outbound;
pub(crate) mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Component as PathPart, Path, PathBuf};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use outbound::{HostName, Outbound, OutboundError, OutboundRequest, OutboundScheme};
pub use store::{RedisUrl, StorePlace, StorePlaceError};

/// What one worker is granted. By default nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Folders of the host that the worker sees.
    #[serde(skip_serializing_if = "Mounts::is_empty")]
    pub mounts: Mounts,
    /// Where the worker may send HTTP requests, and connect to by TCP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outbound: Vec<Outbound>,
    /// Key-value stores (`wasi:keyvalue`) by the name that the worker opens:
    /// a folder, or the URL of a Redis server. Those that are part of the app
    /// are such a [`StorePlace`], and have no password.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "store::checked")]
    pub kv: BTreeMap<String, Value>,
    /// Configuration (`wasi:config`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, Value>,
}

impl Grants {
    /// Whether nothing is granted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty() && self.outbound.is_empty() && self.kv.is_empty() && self.config.is_empty()
    }
}

/// A setting: a text that is part of the app, or one that the host takes from
/// its own environment when it starts. Of the second the app has but the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// The text itself: `"info"`.
    Fixed(String),
    /// A variable of the host's environment: `{ from = "DATABASE_URL" }`.
    Host(HostVariable),
}

/// A variable of the host's environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostVariable {
    /// Its name.
    pub from: String,
    /// Whether the host starts without it; the worker then does not have the
    /// setting. Default: no, a missing variable is an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// What stands for it where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

impl Value {
    /// The value, where `variable` looks the host's environment up. `Ok(None)`:
    /// an optional variable is not set.
    ///
    /// # Errors
    /// The name of a variable that is not set, and not optional.
    pub fn resolve(
        &self,
        variable: impl FnOnce(&str) -> Option<String>,
    ) -> Result<Option<String>, MissingVariable> {
        match self {
            Self::Fixed(text) => Ok(Some(text.clone())),
            Self::Host(HostVariable { from, optional, default }) => {
                match variable(from).or_else(|| default.clone()) {
                    None if !optional => Err(MissingVariable(from.clone())),
                    value => Ok(value),
                }
            }
        }
    }
}

/// A variable that a worker needs is not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {0} is not set")]
pub struct MissingVariable(pub String);

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Fixed(text.to_owned())
    }
}

/// As people read it: the text, or `$NAME`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(text) => f.write_str(text),
            Self::Host(variable) => write!(f, "${}", variable.from),
        }
    }
}

/// By hand: of an untagged enum serde says only that nothing matched.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or { from = \"VARIABLE\" }")
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value::from(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
                let variable = HostVariable::deserialize(MapAccessDeserializer::new(map))?;
                if variable.from.is_empty() || variable.from.contains(['=', '\0']) {
                    let message = format!("{:?} is no name of an environment variable", variable.from);
                    return Err(A::Error::custom(message));
                }
                Ok(Value::Host(variable))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

/// A folder that a worker sees: one of the host, or one of the project that goes into
/// images with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The host's folder: in a container a path of the container, most often a
    /// volume's. A relative path is one from the host's working directory,
    /// which in images is `/`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub host: PathBuf,
    /// In place of it, a folder of the project, in images below `/app/files`. It is
    /// never written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<PathBuf>,
    /// Where the worker sees it: an absolute path.
    pub guest: String,
    /// Whether the worker may write. Default: no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub write: bool,
}

/// The folders that a worker sees, each at a place of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Mount>")]
pub struct Mounts(Vec<Mount>);

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl Mount {
    /// Where the folder is, if those of the app lie in `files`.
    #[must_use]
    pub fn folder(&self, files: &Path) -> PathBuf {
        match &self.app {
            Some(path) => files.join(path),
            None => self.host.clone(),
        }
    }
}

/// Why mounts are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// The host's folder has no name.
    #[error("mount of {guest:?}: expected the path of a folder as \"host\", found nothing")]
    Host {
        /// Where the worker would see it.
        guest: String,
    },
    /// The project's folder is none, or there are two folders, or it would be written to.
    #[error(
        "mount of {guest:?}: expected as \"app\" a folder below the project, without \"host\" and without write = true"
    )]
    App {
        /// Where the worker would see it.
        guest: String,
    },
    /// Not a place where a worker could see it.
    #[error("malformed mount at {guest:?}: expected an absolute path without \".\", \"..\" and \"//\"")]
    Guest {
        /// The place.
        guest: String,
    },
    /// Two at one place.
    #[error("two mounts at {guest:?}: expected one")]
    Twice {
        /// The place.
        guest: String,
    },
}

impl Mounts {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The folders, in the order of the settings.
    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }
}

impl TryFrom<Vec<Mount>> for Mounts {
    type Error = MountError;

    fn try_from(mounts: Vec<Mount>) -> Result<Self, MountError> {
        let mut places = BTreeSet::new();
        for Mount { host, app, guest, write } in &mounts {
            let guest = guest.as_str();
            let names = guest.strip_prefix('/').map(|rest| rest.split('/'));
            let plain = names.is_some_and(|mut names| {
                guest == "/" || names.all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0'))
            });
            if !plain {
                return Err(MountError::Guest { guest: guest.to_owned() });
            }
            if let Some(app) = app {
                let is_below = app.components().all(|part| matches!(part, PathPart::Normal(_)));
                if *write || !is_empty(host) || is_empty(app) || !is_below {
                    return Err(MountError::App { guest: guest.to_owned() });
                }
            } else if is_empty(host) {
                return Err(MountError::Host { guest: guest.to_owned() });
            }
            if !places.insert(guest) {
                return Err(MountError::Twice { guest: guest.to_owned() });
            }
        }
        Ok(Self(mounts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(toml: &str) -> Result<Grants, String> {
        toml::from_str(toml).map_err(|error| error.to_string())
    }

    #[test]
    fn grants_survive_the_round_trip_through_the_manifest() {
        let grants = parse(
            r#"
            mounts = [{ host = "/data", guest = "/data", write = true }, { host = "x", guest = "/" }]
            outbound = ["https://api.example.com", "GET,HEAD http://10.0.0.5:8080"]
            kv = { default = "/data/kv", shared = { from = "KV_URL" } }
            config = { level = "info", key = { from = "API_KEY", optional = true } }
            "#,
        )
        .unwrap();
        let json = serde_json::to_string(&grants).unwrap();
        assert!(json.contains(r#""key":{"from":"API_KEY","optional":true},"level":"info""#), "{json}");
        assert_eq!(serde_json::from_str::<Grants>(&json).unwrap(), grants);
        assert_eq!(serde_json::to_string(&Grants::default()).unwrap(), "{}");
    }

    #[test]
    fn a_malformed_value_is_named() {
        for (toml, expected) in [
            ("config = { a = 1 }", "expected a string, or { from = \"VARIABLE\" }"),
            ("config = { a = { form = \"A\" } }", "unknown field `form`"),
            ("config = { a = {} }", "missing field `from`"),
            ("config = { a = { from = \"A=B\" } }", "\"A=B\" is no name of an environment variable"),
            ("config = { a = { from = \"\" } }", "\"\" is no name"),
        ] {
            let error = parse(toml).unwrap_err();
            assert!(error.contains(expected), "{toml}: {error}");
        }
    }

    #[test]
    fn a_value_comes_from_the_host_by_name() {
        let host = |name: &str| (name == "SET").then(|| "secret".to_owned());
        let variable =
            |from: &str, optional| Value::Host(HostVariable { from: from.into(), optional, default: None });
        let with_default =
            Value::Host(HostVariable { from: "UNSET".into(), optional: false, default: Some("1".into()) });
        assert_eq!(with_default.resolve(host), Ok(Some("1".into())));
        assert_eq!(variable("SET", false).resolve(host), Ok(Some("secret".into())));
        assert_eq!(variable("UNSET", true).resolve(host), Ok(None));
        assert_eq!(variable("UNSET", false).resolve(host), Err(MissingVariable("UNSET".into())));
        assert_eq!(Value::from("SET").resolve(host), Ok(Some("SET".into())));
    }

    #[test]
    fn a_mount_at_no_place_or_at_the_same_place_is_refused() {
        for guest in ["", "data", "/data/", "/a//b", "/a/../b", "/./a", "//"] {
            let error = parse(&format!("mounts = [{{ host = '/d', guest = '{guest}' }}]")).unwrap_err();
            assert!(error.contains("malformed mount"), "{guest:?}: {error}");
        }
        let twice = "mounts = [{ host = '/a', guest = '/d' }, { host = '/b', guest = '/d' }]";
        assert!(parse(twice).unwrap_err().contains("two mounts at \"/d\""));
        assert!(parse("mounts = [{ host = '', guest = '/d' }]").unwrap_err().contains("found nothing"));
        assert!(parse("mounts = [{ host = '/d', guest = '/d', writable = true }]").is_err());
        assert!(parse("mounts = [{ app = 'data/a', guest = '/d' }]").is_ok());
        for app in
            ["app = '../a'", "app = '/a'", "app = ''", "app = 'a', host = '/b'", "app = 'a', write = true"]
        {
            let error = parse(&format!("mounts = [{{ {app}, guest = '/d' }}]")).unwrap_err();
            assert!(error.contains("a folder below the project"), "{app}: {error}");
        }
    }
}
