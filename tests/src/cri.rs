//! A client of the CRI, the interface by which a kubelet has containers run: its
//! calls over gRPC, and its streams (exec, attach, port-forward) over WebSockets.

pub mod messages;
pub mod stream;

use std::path::PathBuf;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::percent_decode_str;
use prost::Message;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// How long one call may take: more than any timeout that a test names in it.
const DEADLINE: Duration = Duration::from_secs(120);

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// gRPC's code, for example 4 for an exceeded deadline.
    pub code: u32,
    /// In the server's words.
    pub message: String,
}

impl Status {
    /// `DEADLINE_EXCEEDED`.
    pub const DEADLINE: u32 = 4;
    /// `NOT_FOUND`.
    pub const NOT_FOUND: u32 = 5;

    /// Of no answer at all, `UNAVAILABLE`.
    fn unavailable(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self { code: 14, message }
    }
}

/// A client of one socket. Each call is a connection of its own, so that a server
/// that was started anew is the same to it.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client of the server at `socket`, which need not be there yet.
    ///
    /// # Panics
    /// If no runtime can be made.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { socket, runtime: runtime.expect("a runtime can be made") }
    }

    /// Calls a method, for example `RuntimeService/RunPodSandbox`.
    ///
    /// # Errors
    /// The server refuses, or there is none.
    pub fn call<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A, Status> {
        let mut framed = BytesMut::new();
        // gRPC over HTTP/2, "Length-Prefixed-Message": not compressed, and its length.
        framed.put_u8(0);
        framed.put_u32(u32::try_from(request.encoded_len()).expect("a request is short"));
        request.encode(&mut framed).expect("a buffer grows");
        let answer = self.runtime.block_on(async {
            let exchange = self.exchange(method, framed.freeze());
            tokio::time::timeout(DEADLINE, exchange)
                .await
                .unwrap_or_else(|late| Err(Status::unavailable(&late)))
        })?;
        let message = answer.get(5..).unwrap_or_default();
        A::decode(message).map_err(|error| Status::unavailable(&error))
    }

    /// Calls a method that must succeed.
    ///
    /// # Panics
    /// If it is refused.
    #[track_caller]
    pub fn must<A: Message + Default>(&self, method: &str, request: &impl Message) -> A {
        self.call(method, request)
            .unwrap_or_else(|status| panic!("{method}: {} (code {})", status.message, status.code))
    }

    async fn exchange(&self, method: &str, body: Bytes) -> Result<Bytes, Status> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| Status::unavailable(&error))?;
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| Status::unavailable(&error))?;
        // It ends with the sender, and what goes wrong shows in the call.
        tokio::spawn(connection);
        let request = Request::post(format!("http://localhost/runtime.v1.{method}"))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(Full::new(body))
            .expect("a method is a path");
        let response = sender.send_request(request).await.map_err(|error| Status::unavailable(&error))?;
        // "Trailers-Only": a call that is refused at once has no body.
        let early = status(response.headers());
        let body = response.into_body().collect().await.map_err(|error| Status::unavailable(&error))?;
        match early.or_else(|| body.trailers().and_then(status)) {
            Some(status) if status.code != 0 => Err(status),
            Some(_) => Ok(body.to_bytes()),
            None => Err(Status { code: 14, message: "the answer has no status".to_owned() }),
        }
    }
}

fn status(headers: &HeaderMap) -> Option<Status> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let message = headers.get("grpc-message").map(|message| String::from_utf8_lossy(message.as_bytes()));
    let message = percent_decode_str(&message.unwrap_or_default()).decode_utf8_lossy().into_owned();
    Some(Status { code, message })
}
