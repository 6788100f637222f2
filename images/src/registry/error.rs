//! What can go wrong with a registry.

use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use oci_client::errors::{OciEnvelope, OciErrorCode};

use super::CredentialsError;
use crate::layout::{LayoutError, is_plain};
use crate::{Digest, Reference};

/// What was being done, as it stands in messages: "cannot … registry".
#[derive(Debug, Clone, Copy)]
pub(super) struct Tried {
    operation: &'static str,
    /// What 404 means.
    missing: Missing,
}

#[derive(Debug, Clone, Copy)]
enum Missing {
    Image,
    Repository,
    Other,
}

impl Tried {
    pub(super) const fn new(operation: &'static str) -> Self {
        Self { operation, missing: Missing::Other }
    }

    /// 404 means that there is no such image.
    pub(super) const fn image(operation: &'static str) -> Self {
        Self { operation, missing: Missing::Image }
    }

    /// 404 means that there is no such repository.
    pub(super) const fn repository(operation: &'static str) -> Self {
        Self { operation, missing: Missing::Repository }
    }
}

/// A request that failed, or was answered with an error.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The registry's answer is an error (distribution-spec, "Error Codes").
    #[error("it answered {status}{}", describe(.codes, .message))]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The codes in the answer.
        codes: Vec<String>,
        /// What it says about them.
        message: String,
        /// The pause that it asks for.
        pause: Option<Duration>,
    },
    /// The connection failed. Without the URL, which may hold a signature.
    #[error(transparent)]
    Network(reqwest::Error),
    /// Nothing came for a long time.
    #[error("nothing came for {} s", .limit.as_secs_f32())]
    Silent {
        /// How long that is.
        limit: Duration,
    },
    /// An answer is larger than anything real.
    #[error("expected an answer of at most {most} bytes, found {found}")]
    TooLarge {
        /// The most that is read.
        most: u64,
        /// Bytes announced, or read so far.
        found: u64,
    },
    /// An answer lacks the `Location` that must be in it, or has no URL there.
    #[error("expected an answer with the header Location, found none that is a URL")]
    NoLocation,
    /// A redirect leads on and on.
    #[error("expected an answer, found one redirect after another")]
    RedirectLoop,
    /// A redirect or a token service would be asked without TLS.
    #[error("expected HTTPS as for the registry, found a way on to {host} without it")]
    LeavesTls {
        /// Where to.
        host: String,
    },
    /// The token service is no URL.
    #[error("expected the URL of a token service, found {realm:?}")]
    InvalidRealm {
        /// What is there.
        realm: String,
    },
    /// The token service's answer holds no token.
    #[error("found a malformed token")]
    InvalidToken,
    /// An identity token, and nobody to exchange it.
    #[error("expected a token service, as there is an identity token, found a registry without one")]
    NoTokenService,
    /// Credentials are needed and there are none.
    #[error("it wants credentials, and none are configured for it")]
    NoCredential,
    /// The token service does not take what is configured.
    #[error("its token service refused the credentials")]
    CredentialRefused {
        /// Its answer.
        source: Box<RequestError>,
    },
    /// The machine has no certificates of authorities, as an image without a base.
    #[error("found no certificates of authorities")]
    NoTls(#[source] reqwest::Error),
    /// A file with certificates that is none.
    #[error("cannot use {path:?} as certificates of authorities")]
    CaCertificates {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<reqwest::Error> for RequestError {
    fn from(error: reqwest::Error) -> Self {
        Self::Network(error.without_url())
    }
}

impl RequestError {
    pub(super) fn refused(status: StatusCode, pause: Option<Duration>, text: &[u8]) -> Self {
        let envelope: Option<OciEnvelope> = serde_json::from_slice(text).ok();
        let (codes, messages): (Vec<String>, Vec<String>) = match envelope {
            Some(envelope) => {
                envelope.errors.into_iter().map(|error| (code(&error.code), error.message)).unzip()
            }
            // Not JSON: of a proxy in between. Its page says little; its first line may.
            None => {
                let text = String::from_utf8_lossy(text);
                let line = text.lines().next().unwrap_or_default().trim();
                let is_page = line.starts_with('<');
                (Vec::new(), if is_page { Vec::new() } else { vec![line.chars().take(200).collect()] })
            }
        };
        let messages: Vec<String> = messages.into_iter().filter(|message| !message.is_empty()).collect();
        let codes = codes.iter().map(|code| plain(code)).collect();
        Self::Refused { status, codes, message: plain(&messages.join("; ")), pause }
    }

    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The pause that the registry asks for.
    pub(super) fn pause(&self) -> Option<Duration> {
        match self {
            Self::Refused { pause, .. } => *pause,
            _ => None,
        }
    }

    fn has_codes(&self) -> bool {
        matches!(self, Self::Refused { codes, .. } if !codes.is_empty())
    }

    pub(super) fn has_code(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { codes, .. } if codes.iter().any(|code| code == wanted))
    }

    /// Whether the same request may succeed a little later.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Network(_) | Self::Silent { .. }) && !self.is_of_tls()
    }

    /// Whether TLS failed, as for a certificate that nobody trusts.
    fn is_of_tls(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            if error.is::<rustls::Error>()
                || inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
            {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// Anyone's words without what a terminal would take as orders.
fn plain(text: &str) -> String {
    text.chars().map(|character| if is_plain(character) { character } else { ' ' }).collect()
}

/// As in the specification: `MANIFEST_UNKNOWN`.
fn code(code: &OciErrorCode) -> String {
    match serde_json::to_value(code) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

fn describe(codes: &[String], message: &str) -> String {
    let codes = codes.join(", ");
    match (codes.is_empty(), message.is_empty()) {
        (true, true) => String::new(),
        (true, false) => format!(": {message}"),
        (false, true) => format!(": {codes}"),
        (false, false) => format!(": {codes} ({message})"),
    }
}

/// A push or pull that failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The image in the layout is not as expected, or the layout cannot be written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// TLS cannot begin, for want of certificates of authorities.
    #[error("cannot set up TLS")]
    NoTls {
        /// Why not.
        source: Box<RequestError>,
    },
    /// The registry's name makes no URL.
    #[error("cannot reach registry {registry}: expected HOST[:PORT]")]
    InvalidAddress {
        /// The registry.
        registry: String,
    },
    /// The registry wants fewer requests.
    #[error("cannot {operation} registry {registry}: it wants fewer requests")]
    RateLimited {
        /// What was tried.
        operation: &'static str,
        /// The registry.
        registry: String,
        /// How long to wait, if it says so.
        pause: Option<Duration>,
        /// Its answer.
        source: Box<RequestError>,
    },
    /// The registry makes no repository for a push.
    #[error("cannot push to {repository}: registry {registry} has no such repository")]
    NoSuchRepository {
        /// The repository.
        repository: String,
        /// The registry.
        registry: String,
        /// Its answer.
        source: Box<RequestError>,
    },
    /// Nothing answers at the registry's address.
    #[error("cannot reach registry {registry}")]
    Unreachable {
        /// The registry.
        registry: String,
        /// Why not.
        source: Box<RequestError>,
    },
    /// The registry answered and then fell silent.
    #[error("cannot {operation} registry {registry}: it did not answer in time")]
    TimedOut {
        /// What was tried.
        operation: &'static str,
        /// The registry.
        registry: String,
        /// Which request.
        source: Box<RequestError>,
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
        source: Box<RequestError>,
    },
    /// A login with these credentials failed.
    #[error("registry {registry} refuses the user or the password")]
    LoginRefused {
        /// The registry.
        registry: String,
        /// Its answer.
        source: Box<RequestError>,
    },
    /// 403: the credentials do not suffice.
    #[error("registry {registry} denies access to {repository}")]
    Denied {
        /// The registry.
        registry: String,
        /// The repository.
        repository: String,
        /// Its answer.
        source: Box<RequestError>,
    },
    /// Credentials are configured and cannot be had.
    #[error("cannot get credentials for registry {registry}")]
    Credentials {
        /// The registry.
        registry: String,
        /// Why not.
        source: CredentialsError,
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
        source: Box<RequestError>,
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
            Self::NoTls { source } if matches!(**source, RequestError::CaCertificates { .. }) => {
                Some("name a file with certificates in PEM form".into())
            }
            Self::NoTls { .. } => {
                Some("install ca-certificates, or name a file of them with --ca-cert".into())
            }
            Self::RateLimited { pause: Some(pause), .. } => Some(format!(
                "try again in {} s, or log in: many registries allow more then",
                pause.as_secs()
            )),
            Self::RateLimited { .. } => {
                Some("try again later, or log in: many registries allow more then".into())
            }
            Self::NoSuchRepository { .. } => {
                Some("create it first: some registries make none by a push".into())
            }
            Self::Unreachable { source, .. } if source.is_of_tls() => {
                Some("trust the authority of its certificate with --ca-cert FILE".into())
            }
            Self::Unreachable { registry, .. } => {
                Some(format!("check that a registry runs at {registry}; if it has no TLS, use --insecure"))
            }
            Self::TimedOut { .. } => {
                Some("try again; layers that went through whole are not sent again".into())
            }
            Self::NoSuchImage { .. } => Some("check the repository and the tag".into()),
            Self::Unauthorized { registry, .. } | Self::Denied { registry, .. } => {
                Some(format!("log in with: wharf login {registry}"))
            }
            Self::LoginRefused { .. } => {
                Some("many registries want an access token in place of the password".into())
            }
            Self::Credentials { registry, .. } => {
                Some(format!("check Docker's configuration, or log in anew with: wharf login {registry}"))
            }
            _ => None,
        }
    }

    /// Whether the way to the registry is at fault, and not what came.
    pub(super) fn is_of_the_network(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::RateLimited { .. } => true,
            Self::Failed { source, .. } => {
                source.is_passing() || source.status().is_some_and(|status| status.is_server_error())
            }
            _ => false,
        }
    }

    /// Sorts failures by what the user can do about them.
    pub(super) fn from_request(tried: Tried, reference: &Reference, error: RequestError) -> Self {
        let operation = tried.operation;
        let registry = reference.registry().to_owned();
        let repository = reference.repository().to_owned();
        let pause = error.pause();
        let is_missing = ["MANIFEST_UNKNOWN", "NOT_FOUND"].iter().any(|code| error.has_code(code))
            || error.status() == Some(StatusCode::NOT_FOUND);
        let source = Box::new(error);
        match (&*source, source.status().map(|status| status.as_u16())) {
            (RequestError::NoTls(_) | RequestError::CaCertificates { .. }, _) => Self::NoTls { source },
            (RequestError::Network(error), _) if error.is_connect() => Self::Unreachable { registry, source },
            (RequestError::Network(error), _) if error.is_timeout() => {
                Self::TimedOut { operation, registry, source }
            }
            (RequestError::Silent { .. }, _) => Self::TimedOut { operation, registry, source },
            (&RequestError::TooLarge { most, found }, _) if matches!(tried.missing, Missing::Image) => {
                Self::TooLarge { noun: "manifest", reference: reference.familiar(), limit: most, found }
            }
            (RequestError::NoCredential | RequestError::CredentialRefused { .. }, _) | (_, Some(401)) => {
                Self::Unauthorized { registry, repository, source }
            }
            (_, Some(403)) => Self::Denied { registry, repository, source },
            (_, Some(429)) => Self::RateLimited { operation, registry, pause, source },
            _ => match tried.missing {
                Missing::Image if is_missing || source.has_code("NAME_UNKNOWN") => {
                    Self::NoSuchImage { reference: reference.familiar(), registry }
                }
                Missing::Repository
                    if source.has_code("NAME_UNKNOWN") || (is_missing && !source.has_codes()) =>
                {
                    Self::NoSuchRepository { repository, registry, source }
                }
                _ => Self::Failed { operation, registry, source },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        RequestError::refused(StatusCode::FORBIDDEN, None, text.as_bytes()).to_string()
    }

    #[test]
    fn an_answer_is_told_in_its_own_words() {
        let json = r#"{"errors":[{"code":"DENIED","message":"no such right"},{"code":"ODD"}]}"#;
        assert_eq!(said(json), "it answered 403 Forbidden: DENIED, ODD (no such right)");
        assert_eq!(said(r#"{"errors":[{"code":"DENIED"}]}"#), "it answered 403 Forbidden: DENIED");
        assert_eq!(said("go away\nnow"), "it answered 403 Forbidden: go away");
        assert_eq!(said("<html><body>"), "it answered 403 Forbidden");
        assert_eq!(said(""), "it answered 403 Forbidden");
    }
}
