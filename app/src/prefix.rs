//! A path in front of all URLs of an app.

use std::fmt;
use std::str::FromStr;

use crate::routes::is_harmless;

/// A path in front of all URLs of an app: `/app`, `/teams/wiki`. What is not below it is
/// not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

/// A prefix that can't be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not a plain path.
    #[error(
        "malformed prefix {0:?}: expected a path such as /app, of letters, digits, `.`, `_`, `-` and `~`"
    )]
    Malformed(String),
    /// A single-page app.
    #[error("a prefix cannot be given to a single-page app ([site] spa = true of wharf.toml)")]
    SinglePage,
}

impl PrefixError {
    /// What the user can do about it, if that isn't plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::SinglePage => Some(
                "its page knows the address that it lies at: build it for that one, into a folder of public/"
                    .into(),
            ),
            Self::Malformed(_) => None,
        }
    }
}

impl Prefix {
    /// The address of what is at `path` otherwise; a URL with a host is none of the
    /// app's paths and stays.
    pub(crate) fn before(&self, path: &str) -> String {
        match path {
            "/" => self.0.clone(),
            path if path.starts_with('/') => format!("{}{path}", self.0),
            other => other.to_owned(),
        }
    }

    /// The same of a file, whose path has no slash in front.
    pub(crate) fn before_file(&self, path: &str) -> String {
        format!("{}/{path}", &self.0[1..])
    }
}

/// With or without slashes at its ends, as Wasm Workers Server takes it.
impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = format!("/{}", text.trim_matches('/'));
        // Those that need no encoding (RFC 3986, 2.3).
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~');
        let mut segments = path[1..].split('/');
        if is_harmless(&path) && segments.all(|name| !name.is_empty() && name.chars().all(is_plain)) {
            Ok(Self(path))
        } else {
            Err(PrefixError::Malformed(text.to_owned()))
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_one_slash_in_front() {
        for text in ["app", "/app", "/app/", "app/"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), "/app");
        }
        let prefix: Prefix = "v1/app".parse().unwrap();
        assert_eq!(prefix.before("/"), "/v1/app");
        assert_eq!(prefix.before("/[id]"), "/v1/app/[id]");
        assert_eq!(prefix.before("https://a.example/x"), "https://a.example/x");
        assert_eq!(prefix.before_file("a/b.css"), "v1/app/a/b.css");
    }

    #[test]
    fn what_is_no_plain_path_is_refused() {
        for text in ["", "/", "a//b", "a/../b", ".", "[id]", "a b", "a?b", "a%20b", "a\\b", "ä"] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::Malformed(text.into())), "{text}");
        }
    }
}
