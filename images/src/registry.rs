//! Registries: pushing images from a layout, and pulling them into one.
//!
//! The distribution specification, driven by us over `reqwest`: what to send in
//! which order, several blobs at a time, streamed from and to disk, verified on
//! the way, tried again where that helps and continued where it broke off.
//! `oci-client` gives the words for a registry's errors; its requests are not
//! used, since they cannot wait as a registry asks, resume or mount with a way
//! back (ARCHITECTURE.md, "Decisions that differ"). Memory stays below a few MiB
//! whatever a blob's size.

mod authority;
mod credentials;
mod error;
mod progress;
mod pull;
mod push;
mod referrers;
mod transport;
mod upload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use reqwest::Url;

pub use credentials::{Credential, CredentialsError, Kept};
pub use error::{RegistryError, RequestError};
pub use progress::{Progress, Transfer};

use crate::layout::{LARGEST_DOCUMENT, Layout};
use crate::{Descriptor, Digest, MediaType, Reference, Target};
use authority::Authority;
use error::Tried;
use transport::{Request, Transport};

/// Longest answer of a token service, in bytes.
const LONGEST_TOKEN: usize = 1 << 20;
const ASK: Tried = Tried::image("ask for an image in");
/// What an image may be, as a registry is asked.
const DOCUMENTS: [MediaType; 4] =
    [MediaType::Index, MediaType::Manifest, MediaType::DockerIndex, MediaType::DockerManifest];

/// How to speak to registries.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Plain HTTP, for registries without TLS. Registries on this machine's
    /// loopback addresses get it in any case, as from Docker, unless
    /// `ca_certificates` are given.
    pub insecure: bool,
    /// Files of certificates (PEM) to trust beside the system's.
    pub ca_certificates: Vec<PathBuf>,
    /// Longest wait for a connection. Default 10 s.
    pub connect_timeout: Duration,
    /// Longest silence of a registry, also in the middle of a body. Default 60 s.
    pub read_timeout: Duration,
    /// Blobs on the way at once. Default 4.
    pub concurrency: usize,
    /// How often a request is sent again after 408, 429, 500, 502, 503 or 504,
    /// and after a connection was lost. Default 5.
    pub retries: u32,
    /// The pause before the first of them, doubled each time and shortened by up
    /// to a half at random; a longer `Retry-After` counts. Default 500 ms.
    pub backoff: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            insecure: false,
            ca_certificates: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            concurrency: 4,
            retries: 5,
            backoff: Duration::from_millis(500),
        }
    }
}

/// A client of any registry, with the credentials that Docker has for it.
#[derive(Debug, Clone, Default)]
pub struct Client {
    options: ClientOptions,
}

/// What someone wants of a repository, as token services call it.
#[derive(Clone, Copy)]
enum Access {
    Pull,
    Push,
}

impl Client {
    /// A client that connects when it is used.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self { options }
    }

    /// Sends an image: blobs that the registry lacks, then manifests, then the
    /// index under its name, then what refers to it. If the name means this
    /// image already, one request tells. Returns the descriptor of what the
    /// name now means.
    ///
    /// # Errors
    ///
    /// The image is not in the layout or damaged, or the registry cannot be
    /// reached or refuses it. The name in the registry is unchanged then.
    pub async fn push(
        &self,
        layout: &Layout,
        reference: &Reference,
        progress: Arc<dyn Progress>,
    ) -> Result<Descriptor, RegistryError> {
        // Before any connection: most mistakes are in the name.
        let image = layout.resolve(reference)?;
        let session = self.connect(reference, Access::Push).await?;
        push::push(&session, layout, image, progress).await
    }

    /// Fetches an image with all its platforms and gives it its name in
    /// `layout`. Blobs that the layout has are not fetched.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached, has no such image, or sends something
    /// else than the digests say. The name in the layout is unchanged then.
    pub async fn pull(
        &self,
        layout: &Layout,
        reference: &Reference,
        progress: Arc<dyn Progress>,
    ) -> Result<Descriptor, RegistryError> {
        let session = self.connect(reference, Access::Pull).await?;
        pull::pull(&session, layout, progress).await
    }

    /// What a name means in its registry.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached or has no such image.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let session = self.connect(reference, Access::Pull).await?;
        Ok(pull::fetch(&session, reference.target(), None).await?.0)
    }

    /// Checks a credential with a registry (HOST, without a repository) and keeps
    /// it where Docker does.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached or refuses the credential, or it cannot be
    /// kept.
    pub async fn log_in(&self, registry: &str, user: &str, password: &str) -> Result<Kept, RegistryError> {
        let reference = registry_alone(registry)?;
        let authority = Authority::new(Some(Credential::password(user, password)), Vec::new());
        let transport = Transport::new(&reference, &self.options, authority)?;
        transport.authority().log_in(&transport).await.map_err(|error| match error {
            RegistryError::Unauthorized { registry, source, .. }
            | RegistryError::Denied { registry, source, .. } => {
                RegistryError::LoginRefused { registry, source }
            }
            other => other,
        })?;
        let (key, user, password) = (reference.registry().to_owned(), user.to_owned(), password.to_owned());
        with_credentials(registry, move || credentials::store(&key, &user, &password)).await
    }

    /// Forgets what [`log_in`](Self::log_in) or Docker keeps for a registry.
    /// Whether there was something.
    ///
    /// # Errors
    ///
    /// Docker's configuration cannot be read or written, or its helper fails.
    pub async fn log_out(&self, registry: &str) -> Result<bool, RegistryError> {
        let key = registry_alone(registry)?.registry().to_owned();
        with_credentials(registry, move || credentials::erase(&key)).await
    }

    /// Opens a session with a reference's registry; nothing is sent yet.
    async fn connect(&self, reference: &Reference, access: Access) -> Result<Session, RegistryError> {
        let (registry, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let scope = format!("repository:{repository}:{actions}");
        let key = registry.clone();
        let credential = with_credentials(&registry, move || credentials::find(&key, &repository)).await?;
        Ok(Session {
            transport: Transport::new(reference, &self.options, Authority::new(credential, vec![scope]))?,
            reference: reference.clone(),
            wants_chunks: AtomicBool::new(false),
        })
    }
}

/// A registry as a reference, for what is about the registry alone. As from
/// Docker, it may be given as a URL.
fn registry_alone(registry: &str) -> Result<Reference, RegistryError> {
    let host = registry.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    let invalid = || RegistryError::InvalidAddress { registry: registry.into() };
    let reference: Reference = format!("{host}/any/any").parse().map_err(|_| invalid())?;
    // Otherwise it has no dot and no port, and would be a repository of Docker Hub.
    if reference.repository() == "any/any" { Ok(reference) } else { Err(invalid()) }
}

/// A helper is a process to wait for.
async fn with_credentials<T: Send + 'static>(
    registry: &str,
    work: impl FnOnce() -> Result<T, CredentialsError> + Send + 'static,
) -> Result<T, RegistryError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(CredentialsError::Other(error.to_string())))
        .map_err(|source| RegistryError::Credentials { registry: registry.into(), source })
}

/// A registry and one repository of it.
struct Session {
    transport: Transport,
    reference: Reference,
    /// Whether the registry refused a whole blob in one request.
    wants_chunks: AtomicBool,
}

impl Session {
    fn concurrency(&self) -> usize {
        self.transport.options().concurrency.max(1)
    }

    fn wants_chunks(&self) -> bool {
        self.wants_chunks.load(Ordering::Relaxed)
    }

    fn remember_chunks(&self) {
        self.wants_chunks.store(true, Ordering::Relaxed);
    }

    fn manifest_url(&self, target: &Target) -> Url {
        match target {
            Target::Tag(tag) => self.transport.url(&format!("manifests/{tag}")),
            Target::Digest(digest) => self.transport.url(&format!("manifests/{digest}")),
        }
    }

    /// A request for a document that may be any kind of image.
    fn document(&self, method: Method, target: &Target) -> Request {
        let accepted: Vec<&str> = DOCUMENTS.iter().map(MediaType::as_str).collect();
        Request::new(method, self.manifest_url(target)).accept(&accepted)
    }

    /// What a name means, as far as the registry says without sending it.
    async fn digest_of(&self, target: &Target) -> Result<Option<Digest>, RegistryError> {
        let answer = self.transport.send(self.document(Method::HEAD, target), ASK).await?;
        match answer.status() {
            status if status.is_success() => {
                let digest = answer.headers().get("docker-content-digest");
                Ok(digest.and_then(|digest| digest.to_str().ok()?.parse().ok()))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.transport.refused(ASK, answer).await),
        }
    }

    /// Reads a document, of at most 4 MiB; none if there is no such.
    async fn read_document(
        &self,
        target: &Target,
        tried: Tried,
    ) -> Result<Option<bytes::Bytes>, RegistryError> {
        let most = usize::try_from(LARGEST_DOCUMENT).unwrap_or(usize::MAX);
        match self.transport.fetch(self.document(Method::GET, target), tried, most).await? {
            Ok((_, content)) => Ok(Some(content)),
            Err(answer) if answer.status() == StatusCode::NOT_FOUND => Ok(None),
            Err(answer) => Err(self.transport.refused(tried, answer).await),
        }
    }
}
