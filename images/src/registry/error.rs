//! What can go wrong with a registry.

use oci_client::errors::{OciDistributionError as Protocol, OciErrorCode};

use super::CredentialsError;
use crate::layout::LayoutError;
use crate::{Digest, Reference};

/// A push or pull that failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The image in the layout is not as expected, or the layout cannot be written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The machine has no certificates of authorities, as an image without a base.
    #[error("cannot set up TLS")]
    NoTls {
        /// Why not.
        source: Box<Protocol>,
    },
    /// Nothing answers at the registry's address.
    #[error("cannot reach registry {registry}")]
    Unreachable {
        /// The registry.
        registry: String,
        /// Why not.
        source: Box<Protocol>,
    },
    /// The registry answered and then fell silent.
    #[error("cannot {operation} registry {registry}: it did not answer in time")]
    TimedOut {
        /// What was tried.
        operation: &'static str,
        /// The registry.
        registry: String,
        /// Which request.
        source: Box<Protocol>,
    },
    /// The registry has no such tag, digest or repository.
    #[error("no such image {reference} in registry {registry}")]
    NoSuchImage {
        /// The image.
        reference: String,
        /// The registry.
        registry: String,
    },
    /// 401: the registry wants credentials, or other ones.
    #[error("registry {registry} wants a login for {repository}")]
    Unauthorized {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// Its answer.
        source: Box<Protocol>,
    },
    /// 403: the credentials do not suffice.
    #[error("registry {registry} denies access to {repository}")]
    Denied {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// Its answer.
        source: Box<Protocol>,
    },
    /// Credentials are configured and cannot be had.
    #[error("cannot get credentials for registry {registry}")]
    Credentials {
        /// The registry.
        registry: String,
        /// Why not.
        source: CredentialsError,
    },
    /// The registry's token fits no HTTP header.
    #[error("cannot log in to registry {registry}: found a malformed token")]
    InvalidToken {
        /// The registry.
        registry: String,
    },
    /// The registry's content is not what its digest says.
    #[error("cannot pull {noun} {digest}: found content with digest {found}")]
    DigestDiffers {
        /// What it is.
        noun: &'static str,
        /// The digest that was asked for.
        digest: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// The registry's content is longer or shorter than it should be.
    #[error("cannot pull {noun} {digest}: expected {expected} bytes, found {found}")]
    SizeDiffers {
        /// What it is.
        noun: &'static str,
        /// Its digest.
        digest: Digest,
        /// The size in its descriptor.
        expected: u64,
        /// Bytes that came, if no more than one chunk past it.
        found: u64,
    },
    /// A manifest or index is larger than any real one.
    #[error("cannot pull {noun} {reference}: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// What it is.
        noun: &'static str,
        /// Its name.
        reference: String,
        /// The most that is read.
        limit: u64,
        /// Its size.
        found: u64,
    },
    /// What came is no manifest and no index.
    #[error("cannot pull {reference}: expected an index or a manifest")]
    InvalidDocument {
        /// The image.
        reference: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The image is of a kind that wharf does not know.
    #[error("cannot pull {reference}: expected an index of manifests or a manifest, found {found}")]
    NotAnImage {
        /// The image.
        reference: String,
        /// Its media type.
        found: String,
    },
    /// Anything else that the registry or the network says.
    #[error("cannot {operation} registry {registry}")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// The registry.
        registry: String,
        /// Its answer.
        source: Box<Protocol>,
    },
    /// A part of the push or pull ended early.
    #[error("cannot {operation} registry {registry}: interrupted")]
    Interrupted {
        /// What was tried.
        operation: &'static str,
        /// The registry.
        registry: String,
    },
}

impl RegistryError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Layout(error) => error.hint(),
            Self::NoTls { .. } => {
                Some("install ca-certificates, or name a file of them in SSL_CERT_FILE".into())
            }
            Self::Unreachable { registry, .. } => {
                Some(format!("check that a registry runs at {registry}; if it has no TLS, use --insecure"))
            }
            Self::TimedOut { .. } => Some("try again; what was sent already is not sent again".into()),
            Self::NoSuchImage { .. } => Some("check the repository and the tag".into()),
            Self::Unauthorized { registry, .. } | Self::Denied { registry, .. } => {
                Some(format!("log in with: docker login {registry}"))
            }
            Self::Credentials { registry, source: CredentialsError::IdentityToken } => {
                Some(format!("log in with a password or access token: docker login {registry}"))
            }
            Self::Credentials { registry, .. } => {
                Some(format!("check Docker's configuration with: docker login {registry}"))
            }
            _ => None,
        }
    }

    /// Sorts what `oci-client` says by what the user can do about it.
    pub(super) fn from_protocol(operation: &'static str, reference: &Reference, error: Protocol) -> Self {
        let registry = reference.registry().to_owned();
        let repository = reference.repository().to_owned();
        let kind = Kind::of(&error);
        let source = Box::new(error);
        match kind {
            Kind::Unreachable => Self::Unreachable { registry, source },
            Kind::TimedOut => Self::TimedOut { operation, registry, source },
            Kind::NotFound => Self::NoSuchImage { reference: reference.familiar(), registry },
            Kind::Unauthorized => Self::Unauthorized { registry, repository, source },
            Kind::Denied => Self::Denied { registry, repository, source },
            Kind::Other => Self::Failed { operation, registry, source },
        }
    }
}

enum Kind {
    Unreachable,
    TimedOut,
    NotFound,
    Unauthorized,
    Denied,
    Other,
}

impl Kind {
    fn of(error: &Protocol) -> Self {
        match error {
            Protocol::RequestError(error) => match error.status() {
                Some(status) => Self::of_status(status.as_u16()),
                None if error.is_connect() => Self::Unreachable,
                None if error.is_timeout() => Self::TimedOut,
                None => Self::Other,
            },
            Protocol::ServerError { code, .. } => Self::of_status(*code),
            Protocol::UnauthorizedError { .. } | Protocol::AuthenticationFailure(_) => Self::Unauthorized,
            Protocol::ImageManifestNotFoundError(_) => Self::NotFound,
            Protocol::RegistryError { envelope, .. } => envelope
                .errors
                .iter()
                .find_map(|error| match error.code {
                    OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound => {
                        Some(Self::NotFound)
                    }
                    OciErrorCode::Unauthorized => Some(Self::Unauthorized),
                    OciErrorCode::Denied => Some(Self::Denied),
                    _ => None,
                })
                .unwrap_or(Self::Other),
            _ => Self::Other,
        }
    }

    fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Denied,
            404 => Self::NotFound,
            _ => Self::Other,
        }
    }
}
