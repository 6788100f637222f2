//! gRPC over HTTP/2, as much of it as a client needs that sends one message
//! and gets one or several:
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Time for containerd to do one step: it reads from its own disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that containerd may send ahead: two of the pieces that it cuts a blob
/// into.
const WINDOW: u32 = 2 << 20;

/// Longest message. containerd's own limit is 16 MiB.
const MAX_MESSAGE: usize = 16 << 20;

/// The status `NOT_FOUND`.
const NOT_FOUND: u32 = 5;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrpcError {
    /// The connection broke.
    #[error("the connection failed")]
    Connection(#[from] h2::Error),
    /// Nothing came.
    #[error("no answer in {} s", PATIENCE.as_secs())]
    Timeout,
    /// What came is not gRPC.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
    /// The server's own reason.
    #[error("{message} (status {code})")]
    Status {
        /// Of <https://grpc.io/docs/guides/status-codes/>.
        code: u32,
        /// For people.
        message: String,
    },
    /// A message is not what its type says.
    #[error("malformed message")]
    Message(#[from] containerd_shim_protos::protobuf::Error),
}

impl GrpcError {
    /// Whether there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { code: NOT_FOUND, .. })
    }
}

/// A connection. The runtime must be running for it to do anything.
pub(super) struct Channel {
    requests: SendRequest<Bytes>,
    namespace: HeaderValue,
}

impl Channel {
    /// Connects to the socket at `address`, for things of one of containerd's
    /// namespaces.
    ///
    /// # Errors
    /// Nobody listens there, or it is not HTTP/2.
    pub(super) async fn connect(address: &Path, namespace: &str) -> io::Result<Self> {
        let namespace = HeaderValue::from_str(namespace).map_err(io::Error::other)?;
        let socket = UnixStream::connect(address).await?;
        let mut builder = Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
        let handshake = timeout(PATIENCE, builder.handshake(socket)).await;
        let (requests, connection) = handshake?.map_err(io::Error::other)?;
        // Its end is seen by the calls.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { requests, namespace })
    }

    /// Calls `method`, `/package.Service/Method`.
    ///
    /// # Errors
    /// [`GrpcError`].
    pub(super) async fn call(&self, method: &'static str, message: &[u8]) -> Result<Messages, GrpcError> {
        let request = Request::post(http::Uri::from_static("http://localhost/"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("containerd-namespace", self.namespace.clone());
        let mut request = request.body(()).map_err(|_| GrpcError::Malformed("request"))?;
        let target = http::Uri::builder().scheme("http").authority("localhost").path_and_query(method);
        *request.uri_mut() = target.build().map_err(|_| GrpcError::Malformed("method"))?;

        let mut framed = BytesMut::with_capacity(PREFIX + message.len());
        framed.extend_from_slice(&[0]);
        let length = u32::try_from(message.len()).map_err(|_| GrpcError::Malformed("long request"))?;
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(message);

        let response = async {
            let mut requests = self.requests.clone().ready().await?;
            let (response, mut body) = requests.send_request(request, false)?;
            body.send_data(framed.freeze(), true)?;
            response.await
        };
        let response = timeout(PATIENCE, response).await.map_err(|_| GrpcError::Timeout)??;
        if response.status() != StatusCode::OK {
            return Err(GrpcError::Malformed("the HTTP status is not 200"));
        }
        // A call that fails at once has its status here and no trailers.
        if response.headers().contains_key(STATUS) {
            check_status(response.headers())?;
        }
        Ok(Messages { body: response.into_body(), buffer: BytesMut::new(), ended: false })
    }
}

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The header with the status.
const STATUS: &str = "grpc-status";

/// The messages of an answer.
pub(super) struct Messages {
    body: RecvStream,
    buffer: BytesMut,
    /// The status, which comes once, was good.
    ended: bool,
}

impl Messages {
    /// The next message; none after the last.
    ///
    /// # Errors
    /// [`GrpcError`]: among others, the call failed midway.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, GrpcError> {
        loop {
            if let Some(message) = self.take_message()? {
                return Ok(Some(message));
            }
            if self.ended {
                return Ok(None);
            }
            let data = timeout(PATIENCE, self.body.data()).await.map_err(|_| GrpcError::Timeout)?;
            match data {
                Some(Ok(data)) => {
                    self.body.flow_control().release_capacity(data.len())?;
                    self.buffer.extend_from_slice(&data);
                }
                // How a server says that it wants no more of a request.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {}
                Some(Err(error)) => return Err(error.into()),
                None => {
                    self.end().await?;
                    self.ended = true;
                }
            }
        }
    }

    /// A message that has come whole.
    fn take_message(&mut self) -> Result<Option<Bytes>, GrpcError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(GrpcError::Malformed("a compressed message that was not asked for"));
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_MESSAGE {
            return Err(GrpcError::Malformed("a message of more than 16 MiB"));
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    async fn end(&mut self) -> Result<(), GrpcError> {
        let trailers = timeout(PATIENCE, self.body.trailers()).await.map_err(|_| GrpcError::Timeout)??;
        check_status(&trailers.unwrap_or_default())?;
        if self.buffer.is_empty() { Ok(()) } else { Err(GrpcError::Malformed("it ends within a message")) }
    }
}

fn check_status(headers: &HeaderMap) -> Result<(), GrpcError> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    match text(STATUS).and_then(|code| code.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => {
            let message = text("grpc-message").unwrap_or("no reason given").to_owned();
            Err(GrpcError::Status { code, message })
        }
        None => Err(GrpcError::Malformed("it ends without a status")),
    }
}
