//! What an image runs on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Operating system and CPU in Go's words (image-spec, image-index.md, "platform").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, `wasm`.
    pub architecture: String,
    /// `linux`, `wasi`.
    pub os: String,
    /// The CPU's variant, as `v8`; none for all that wharf builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// `linux/amd64`.
    #[must_use]
    pub fn linux_amd64() -> Self {
        Self::new("linux", "amd64")
    }

    /// `linux/arm64`.
    #[must_use]
    pub fn linux_arm64() -> Self {
        Self::new("linux", "arm64")
    }

    /// `wasi/wasm`.
    #[must_use]
    pub fn wasi_wasm() -> Self {
        Self::new("wasi", "wasm")
    }

    fn new(os: &str, architecture: &str) -> Self {
        Self { architecture: architecture.into(), os: os.into(), variant: None }
    }

    /// Whether an image for `other` is what `self` asks for: a variant counts
    /// only if `self` names one.
    #[must_use]
    pub fn accepts(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

/// For people: control characters in an index that someone else wrote are escaped.
impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os.escape_debug(), self.architecture.escape_debug())?;
        self.variant.iter().try_for_each(|variant| write!(formatter, "/{}", variant.escape_debug()))
    }
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {found:?}: expected OS/ARCHITECTURE, for example linux/amd64")]
pub struct InvalidPlatform {
    found: String,
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(word) {
            return Err(InvalidPlatform { found: text.into() });
        }
        match parts.as_slice() {
            [os, architecture] => Ok(Self::new(os, architecture)),
            [os, architecture, variant] => {
                Ok(Self { variant: Some((*variant).into()), ..Self::new(os, architecture) })
            }
            _ => Err(InvalidPlatform { found: text.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_prints_as_it_was_read() {
        for text in ["linux/amd64", "wasi/wasm", "linux/arm64/v8"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in ["", "linux", "linux/", "Linux/amd64", "linux/arm64/v8/x"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_variant_counts_only_when_asked_for() {
        let v8 = "linux/arm64/v8".parse().unwrap();
        assert!(Platform::linux_arm64().accepts(&v8));
        assert!(!v8.accepts(&Platform::linux_arm64()));
    }
}
