//! Names of images: registry, repository and a tag or digest.
//!
//! Owns the grammar (distribution-spec, "Pulling manifests") and Docker's
//! short forms. Knows nothing of what a registry holds.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::digest::{Digest, InvalidDigest};

const DOCKER_HUB: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Longest name (registry and repository) that registries accept.
const LONGEST_NAME: usize = 255;
const LONGEST_TAG: usize = 128;

/// An image's full name, for example `docker.io/library/hello:1`.
///
/// Read from any form that Docker takes: `hello` is
/// `docker.io/library/hello:latest`. Of `name:tag@digest` the digest counts and
/// the tag is dropped, as Docker does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    target: Target,
}

/// What of a repository a reference means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A name that can be moved.
    Tag(String),
    /// Exactly this manifest or index.
    Digest(Digest),
}

impl Reference {
    /// The registry's host, with its port if one is given.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository, without the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag or digest.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The tag, if the reference has one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.target {
            Target::Tag(tag) => Some(tag),
            Target::Digest(_) => None,
        }
    }

    /// The digest, if the reference has one.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        match &self.target {
            Target::Tag(_) => None,
            Target::Digest(digest) => Some(*digest),
        }
    }

    /// The same repository, by digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { target: Target::Digest(digest), ..self.clone() }
    }

    /// The name as people write it: without Docker's defaults for registry and
    /// repository, always with the tag. `docker images` prints this form, and
    /// an archive's `RepoTags` hold it.
    #[must_use]
    pub fn familiar(&self) -> String {
        let name = match (self.registry.as_str(), self.repository.strip_prefix("library/")) {
            (DOCKER_HUB, Some(short)) if !short.contains('/') => short.to_owned(),
            // But `docker.io/a.b/c` alone would be a registry `a.b`.
            (DOCKER_HUB, _) if split_registry(&self.repository).1 == self.repository => {
                self.repository.clone()
            }
            _ => format!("{}/{}", self.registry, self.repository),
        };
        format!("{name}{}", self.target)
    }

    /// Whether the registry is on this machine. Docker speaks plain HTTP to
    /// such registries without being asked.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = match self.registry.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.registry,
        };
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.ends_with(".localhost")
            || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether a name in an annotation is a whole reference and not only a tag,
    /// which layouts by other tools hold.
    pub(crate) fn from_annotation(name: &str) -> Option<Self> {
        name.contains(['/', ':', '@']).then(|| name.parse().ok()).flatten()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}{}", self.registry, self.repository, self.target)
    }
}

/// With its separator: `:1` or `@sha256:…`.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(formatter, ":{tag}"),
            Self::Digest(digest) => write!(formatter, "@{digest}"),
        }
    }
}

/// A text that is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// There is nothing, or nothing before the tag.
    #[error("invalid image reference {reference:?}: expected REGISTRY/REPOSITORY:TAG, found no repository")]
    Empty {
        /// The text that was read.
        reference: String,
    },
    /// The registry is not a host with an optional port.
    #[error("invalid image reference {reference:?}: expected a registry HOST[:PORT], found {found:?}")]
    Registry {
        /// The text that was read.
        reference: String,
        /// The part that is wrong.
        found: String,
    },
    /// The repository has an upper-case letter.
    #[error("invalid image reference {reference:?}: expected a repository in lower case, found {found:?}")]
    UpperCase {
        /// The text that was read.
        reference: String,
        /// The part that is wrong.
        found: String,
    },
    /// The repository has a forbidden character, or separators at its ends.
    #[error(
        "invalid image reference {reference:?}: expected a repository of a-z, 0-9 and single \
         separators (. _ __ - /) between them, found {found:?}"
    )]
    Repository {
        /// The text that was read.
        reference: String,
        /// The part that is wrong.
        found: String,
    },
    /// The name is longer than registries accept.
    #[error(
        "invalid image reference {reference:?}: expected a name of at most {LONGEST_NAME} characters, found {found}"
    )]
    TooLong {
        /// The text that was read.
        reference: String,
        /// Its name's length.
        found: usize,
    },
    /// The tag has a forbidden character, or is too long.
    #[error(
        "invalid image reference {reference:?}: expected a tag of at most {LONGEST_TAG} letters, \
         digits, _ . or - that begins with a letter, digit or _, found {found:?}"
    )]
    Tag {
        /// The text that was read.
        reference: String,
        /// The part that is wrong.
        found: String,
    },
    /// The digest is none.
    #[error("invalid image reference {reference:?}")]
    Digest {
        /// The text that was read.
        reference: String,
        /// What is wrong with the digest.
        source: InvalidDigest,
    },
}

impl InvalidReference {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UpperCase { reference, .. } => Some(format!("write {:?}", reference.to_lowercase())),
            Self::Empty { .. } => Some("for example 127.0.0.1:5000/hello:1".into()),
            _ => None,
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let reference = || text.to_owned();
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|source| InvalidReference::Digest { reference: reference(), source })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before a slash belongs to the registry's port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(found) = tag.filter(|tag| !is_tag(tag)) {
            return Err(InvalidReference::Tag { reference: reference(), found: found.into() });
        }
        let (registry, repository) = split_registry(name);
        if repository.is_empty() {
            return Err(InvalidReference::Empty { reference: reference() });
        }
        if !is_registry(&registry) {
            return Err(InvalidReference::Registry { reference: reference(), found: registry });
        }
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidReference::UpperCase { reference: reference(), found: repository });
        }
        if !repository.split('/').all(is_component) {
            return Err(InvalidReference::Repository { reference: reference(), found: repository });
        }
        let length = registry.len() + 1 + repository.len();
        if length > LONGEST_NAME {
            return Err(InvalidReference::TooLong { reference: reference(), found: length });
        }
        let target = digest.map_or_else(|| Target::Tag(tag.unwrap_or(DEFAULT_TAG).into()), Target::Digest);
        Ok(Self { registry, repository, target })
    }
}

/// Docker's rule for whether the first component is a registry: it has a dot, a
/// colon or an upper-case letter, or is `localhost`.
fn split_registry(name: &str) -> (String, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DOCKER_HUB, name),
    };
    match registry {
        DOCKER_HUB | "index.docker.io" if !repository.is_empty() && !repository.contains('/') => {
            (DOCKER_HUB.into(), format!("library/{repository}"))
        }
        DOCKER_HUB | "index.docker.io" => (DOCKER_HUB.into(), repository.into()),
        registry => (registry.into(), repository.into()),
    }
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let word = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_host = match host.strip_prefix('[') {
        Some(rest) => {
            rest.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
        }
        None => host.split('.').all(word),
    };
    is_host && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_in_words =
        bytes.first().is_some_and(|byte| is_word(*byte)) && bytes.last().is_some_and(|byte| is_word(*byte));
    ends_in_words
        && component
            .split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit())
            .all(|separator| {
                matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
            })
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=LONGEST_TAG).contains(&tag.len())
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests;
