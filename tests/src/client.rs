//! HTTP/1.1 in this process, where curl is too slow: many requests, on
//! connections that are kept, with what they receive counted.
//!
//! A request that fails is a value, not a panic: who makes millions of them wants
//! to count them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// What may go wrong with a request.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A connection that is kept, for one request after the other.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    received: Arc<AtomicU64>,
    local: SocketAddr,
    host: String,
    /// The last answer was the last one (`Connection: close`).
    over: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn open(address: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let received = Arc::new(AtomicU64::new(0));
        let counted = Counted { stream, received: Arc::clone(&received) };
        let (sender, connection) = handshake(TokioIo::new(counted)).await?;
        // It ends with the sender, and what goes wrong shows in the request.
        tokio::spawn(connection);
        Ok(Self { sender, received, local, host: address.to_string(), over: false })
    }

    /// Requests `target`, a path with its query, and reads the whole answer.
    ///
    /// # Errors
    /// No answer, or not a whole one, or not in time.
    pub async fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Result<Response<Bytes>, Error> {
        self.request(Method::GET, target, headers, Bytes::new()).await
    }

    /// Sends `body` to `target`, and reads the whole answer.
    ///
    /// # Errors
    /// No answer, or not a whole one, or not in time.
    pub async fn post(&mut self, target: &str, body: Bytes) -> Result<Response<Bytes>, Error> {
        self.request(Method::POST, target, &[], body).await
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// No answer, or not a whole one, or not in time; a malformed target or header.
    pub async fn request(
        &mut self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Bytes>, Error> {
        let mut request = Request::builder().method(method).uri(target).header(HOST, &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let answer = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        let answer: Result<Response<Bytes>, Error> =
            timeout(DEADLINE, answer).await.map_err(|_| format!("no answer within {DEADLINE:?}"))?;
        let answer = answer?;
        self.over = answer.headers().get(CONNECTION).is_some_and(|value| value == "close");
        Ok(answer)
    }

    /// Whether the server has said that this connection takes no more requests.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// Bytes that came by this connection so far, heads and bodies.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The port at this end.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.local.port()
    }
}

/// A stream that counts what it receives.
struct Counted {
    stream: TcpStream,
    received: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.received.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
