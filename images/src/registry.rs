//! Registries: pushing images from a layout, and pulling them into one.
//!
//! `oci-client` speaks the protocol (distribution-spec); this drives it: what to
//! send in which order, several blobs at a time, streamed from and to disk,
//! verified on the way. Memory stays below a few MiB whatever a blob's size; of
//! manifests, which `oci-client` reads whole, all of an image are kept.

mod credentials;
mod error;
mod progress;
mod pull;
mod push;

use std::sync::{Arc, Once};
use std::time::Duration;

use http::HeaderValue;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client as Protocol, RegistryOperation};

pub use credentials::CredentialsError;
pub use error::RegistryError;
pub use progress::{Progress, Transfer};

use crate::layout::Layout;
use crate::{Descriptor, Reference, Target};

const USER_AGENT: &str = concat!("wharf/", env!("CARGO_PKG_VERSION"));
/// Bytes read from or written to disk at a time.
const CHUNK: usize = 256 << 10;
/// Chunks between disk and network, for each blob.
const CHUNKS_AHEAD: usize = 4;

/// How to speak to registries.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Plain HTTP, for registries without TLS. Registries on this machine's
    /// loopback addresses get it in any case, as from Docker.
    pub insecure: bool,
    /// Longest wait for a connection. Default 10 s.
    pub connect_timeout: Duration,
    /// Longest silence of a registry. Default 60 s.
    pub read_timeout: Duration,
    /// Blobs on the way at once. Default 4.
    pub concurrency: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            insecure: false,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            concurrency: 4,
        }
    }
}

/// A client of any registry, with the credentials that Docker has for it.
#[derive(Debug, Clone, Default)]
pub struct Client {
    options: ClientOptions,
}

impl Client {
    /// A client that connects when it is used.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self { options }
    }

    /// Sends an image: blobs that the registry lacks, then manifests, then the
    /// index under its name. Returns the descriptor of what the name now means.
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
        let session = self.connect(reference, RegistryOperation::Push).await?;
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
        let session = self.connect(reference, RegistryOperation::Pull).await?;
        pull::pull(&session, layout, progress).await
    }

    /// Connects to the reference's registry and logs in.
    async fn connect(
        &self,
        reference: &Reference,
        operation: RegistryOperation,
    ) -> Result<Session, RegistryError> {
        install_crypto_provider();
        let protocol = match self.options.insecure || reference.is_loopback() {
            true => ClientProtocol::Http,
            false => ClientProtocol::Https,
        };
        let config = ClientConfig {
            protocol,
            // One PUT a blob: chunks are what registries differ in most.
            use_monolithic_push: true,
            connect_timeout: Some(self.options.connect_timeout),
            read_timeout: Some(self.options.read_timeout),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        let session = Session {
            // Reads the system's certificates, even for plain HTTP.
            protocol: Protocol::try_from(config)
                .map_err(|source| RegistryError::NoTls { source: Box::new(source) })?,
            auth: credentials::find(reference).await?,
            reference: reference.clone(),
            concurrency: self.options.concurrency.max(1),
        };
        session.log_in(operation).await?;
        if operation == RegistryOperation::Push {
            // A push also asks what is there already.
            session.log_in(RegistryOperation::Pull).await?;
        }
        Ok(session)
    }
}

/// A registry, one repository of it, and permission to use it.
struct Session {
    protocol: Protocol,
    auth: RegistryAuth,
    reference: Reference,
    concurrency: usize,
}

impl Session {
    /// Gets a token, if the registry wants one. Without this first call
    /// `oci-client` would go on anonymously when the token is refused.
    async fn log_in(&self, operation: RegistryOperation) -> Result<(), RegistryError> {
        let token = self
            .protocol
            .auth(&self.target(self.reference.target()), &self.auth, operation)
            .await
            .map_err(|error| self.error("log in to", error))?;
        // `oci-client` panics on a token that fits no header.
        match token.map(|token| HeaderValue::try_from(format!("Bearer {token}"))) {
            Some(Err(_)) => Err(RegistryError::InvalidToken { registry: self.reference.registry().into() }),
            _ => Ok(()),
        }
    }

    /// The repository with another tag or digest, in `oci-client`'s words.
    fn target(&self, target: &Target) -> oci_client::Reference {
        let target = match target {
            Target::Tag(tag) => tag.clone(),
            // As a tag, too: the URL is the same, and `push_manifest_raw` panics
            // on a digest when the registry sends no Location, as ECR does.
            Target::Digest(digest) => digest.to_string(),
        };
        oci_client::Reference::with_tag(
            self.reference.registry().into(),
            self.reference.repository().into(),
            target,
        )
    }

    fn error(
        &self,
        operation: &'static str,
        error: oci_client::errors::OciDistributionError,
    ) -> RegistryError {
        RegistryError::from_protocol(operation, &self.reference, error)
    }
}

/// rustls wants one chosen for the process. ring builds with a C compiler alone
/// and links statically; if the program has chosen another one, that stays.
fn install_crypto_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}
