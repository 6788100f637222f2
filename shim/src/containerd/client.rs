//! The calls, each waited for: those who make them have one thread and nothing
//! else to do.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};
use tokio::runtime::{Builder, Runtime};

use super::grpc::{Channel, GrpcError, Messages};
use super::messages::{self, Container, Image};

/// Why containerd does not tell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerdError {
    /// Nobody answers.
    #[error("cannot connect to containerd at {address}")]
    Connect {
        /// The socket.
        address: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A call failed.
    #[error("cannot get {kind} {name:?} from containerd")]
    Get {
        /// What was asked for.
        kind: &'static str,
        /// Which.
        name: String,
        /// The reason.
        #[source]
        source: GrpcError,
    },
}

impl ContainerdError {
    /// Whether there is no such thing in the namespace.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Get { source, .. } if source.is_not_found())
    }
}

/// A connection to containerd, for one of its namespaces.
pub(crate) struct Client {
    // Before the runtime, which it needs until it is dropped.
    channel: Channel,
    runtime: Runtime,
}

impl Client {
    /// Connects to the socket at `address`, which may begin with `unix://`.
    ///
    /// # Errors
    /// [`ContainerdError::Connect`].
    pub(crate) fn connect(address: &str, namespace: &str) -> Result<Self, ContainerdError> {
        let address = Path::new(address.strip_prefix("unix://").unwrap_or(address));
        let connect = || {
            // No thread of its own: a helper must have one only.
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let channel = runtime.block_on(Channel::connect(address, namespace))?;
            Ok(Self { channel, runtime })
        };
        connect().map_err(|source| ContainerdError::Connect { address: address.to_owned(), source })
    }

    /// What containerd knows of the container `id`.
    ///
    /// # Errors
    /// [`ContainerdError::Get`].
    #[allow(dead_code, reason = "images of plain Wasm are found by it")]
    pub(crate) fn container(&self, id: &str) -> Result<Container, ContainerdError> {
        let response = self.get("/containerd.services.containers.v1.Containers/Get", id);
        let container = response.and_then(|response| Ok(messages::container(&response)?));
        container.map_err(|source| failed("container", id, source))
    }

    /// The image that is called `name`, in full: `docker.io/library/busybox:latest`.
    ///
    /// # Errors
    /// [`ContainerdError::Get`].
    pub(crate) fn image(&self, name: &str) -> Result<Image, ContainerdError> {
        let response = self.get("/containerd.services.images.v1.Images/Get", name);
        let image = response.and_then(|response| Ok(messages::image(&response)?));
        image.map_err(|source| failed("image", name, source))
    }

    /// The blob with this digest, from its beginning. It is not verified: that
    /// is for who knows how much of it to read.
    ///
    /// # Errors
    /// [`ContainerdError::Get`]: among others, there is no such blob.
    pub(crate) fn blob(&self, digest: &str) -> Result<Blob<'_>, ContainerdError> {
        let open = || {
            let method = "/containerd.services.content.v1.Content/Read";
            let request = messages::request(digest)?;
            let messages = self.runtime.block_on(self.channel.call(method, &request))?;
            let mut blob = Blob { client: self, messages, data: Bytes::new() };
            // Whether there is such a blob comes no sooner than its beginning.
            blob.fill()?;
            Ok(blob)
        };
        open().map_err(|source| failed("blob", digest, source))
    }

    /// Calls a method that gives one message.
    fn get(&self, method: &'static str, name: &str) -> Result<Bytes, GrpcError> {
        let request = messages::request(name)?;
        self.runtime.block_on(async {
            let mut answer = self.channel.call(method, &request).await?;
            let message = answer.next().await?.ok_or(GrpcError::Malformed("no message"))?;
            // The status comes after it.
            match answer.next().await? {
                None => Ok(message),
                Some(_) => Err(GrpcError::Malformed("more than one message")),
            }
        })
    }
}

fn failed(kind: &'static str, name: &str, source: GrpcError) -> ContainerdError {
    ContainerdError::Get { kind, name: name.to_owned(), source }
}

/// The bytes of a blob, as they come.
pub(crate) struct Blob<'a> {
    client: &'a Client,
    messages: Messages,
    data: Bytes,
}

impl Blob<'_> {
    /// Waits for more bytes; none after the last.
    fn fill(&mut self) -> Result<(), GrpcError> {
        while self.data.is_empty() {
            let Some(message) = self.client.runtime.block_on(self.messages.next())? else {
                break;
            };
            self.data = messages::data(&message)?;
        }
        Ok(())
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill().map_err(io::Error::other)?;
        let length = buffer.len().min(self.data.len());
        self.data.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
