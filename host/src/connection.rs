//! One connection: TLS or not, HTTP/1.1 or HTTP/2, and the clocks that end it.
//!
//! hyper's own timer takes an allocation and a place in the timer wheel for each
//! request. Here a connection has one clock ([`Activity`], [`watch`]) that
//! requests don't touch: they note what happens, and when the clock wakes, a few
//! times a minute, it looks at the notes and at when it must look again.

mod activity;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tracing::debug;

pub(crate) use activity::{Activity, WaitingStream};
use activity::{Ending, Verdict};

use crate::listen::{Prefixed, Raw, Stream};
use crate::metrics::{Count, Counters};
use crate::proxies::Secure;
use crate::tls::Tls;

/// What a client sends first that speaks HTTP/2 (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Time for an idle connection of HTTP/2 to take its leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// Bytes that are waiting to be sent on one stream of HTTP/2 at most.
const SEND_BUFFER: usize = 256 << 10;

/// What a client may take of the server's time and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Time for the TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Time for the head of a request, from its first byte on (of a
    /// connection's first one, from the connection on). Default 30 s.
    pub header_timeout: Duration,
    /// Time between two requests. Default 75 s.
    pub idle_timeout: Duration,
    /// Time that a client may take no byte of what waits for it. Default 60 s.
    pub send_timeout: Duration,
    /// Head of a request, in bytes; past it 431. Default 64 KiB.
    pub header_size: usize,
    /// Requests at once on a connection of HTTP/2; further ones are refused
    /// (RFC 9113, 5.1.2). Default 128.
    pub streams: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(60),
            header_size: 64 << 10,
            streams: 128,
        }
    }
}

/// How connections of a process are served.
#[derive(Clone)]
pub(crate) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    limits: ConnectionLimits,
    counters: Counters,
}

/// How far the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Serving,
    /// Requests in flight are answered.
    Draining,
    /// There is no more time for these.
    CutOff,
}

/// Tells connections that the server stops.
pub(crate) type Stopping = watch::Receiver<Stage>;

impl Protocols {
    pub(crate) fn new(limits: ConnectionLimits, counters: Counters) -> Self {
        let mut http1 = http1::Builder::new();
        // The timer gives the `Date` its clock; the timeout is `watch`'s affair.
        http1.timer(TokioTimer::new()).header_read_timeout(None).max_header_size(limits.header_size);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(u32::try_from(limits.header_size).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER)
            // Finds out about clients that vanished while a worker computes.
            .keep_alive_interval(limits.header_timeout);
        Self { http1, http2, limits, counters }
    }

    /// Serves one connection until it ends. `respond` answers a request; the
    /// connection's [`Activity`] must be told when a request begins and ends.
    pub(crate) async fn serve<R, F, B>(
        &self,
        raw: Raw,
        tls: Option<&Tls>,
        activity: Arc<Activity>,
        stopping: Stopping,
        respond: impl FnOnce(Secure) -> R,
    ) where
        R: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (stream, secure) = match tls {
            None => (Stream::Plain(raw), Secure::Plain),
            Some(tls) => match self.shake_hands(tls, raw, stopping.clone()).await {
                Ok(Ok(stream)) => (Stream::Tls(Box::new(stream)), Secure::Tls),
                Ok(Err(error)) => {
                    self.counters.add(Count::HandshakeFailed);
                    debug!(%error, "TLS handshake failed");
                    return;
                }
                Err(_) => {
                    self.counters.add(Count::HandshakeTimeout);
                    debug!("TLS handshake timed out");
                    return;
                }
            },
        };
        let Some((stream, is_http2)) = self.recognise(stream, &activity, stopping.clone()).await else {
            return;
        };
        let io = TokioIo::new(Watched { stream, activity: Arc::clone(&activity) });
        let respond = respond(secure);
        let service = service_fn(move |request| {
            let response = respond(request);
            async { Ok::<_, Infallible>(response.await) }
        });
        if is_http2 {
            activity.speaks_http2();
            self.drive(self.http2.serve_connection(io, service), &activity, stopping).await;
        } else {
            self.drive(self.http1.serve_connection(io, service), &activity, stopping).await;
        }
    }

    /// The handshake of TLS, unless the server stops: who has not asked anything
    /// yet has nothing to lose.
    async fn shake_hands(
        &self,
        tls: &Tls,
        raw: Raw,
        mut stopping: Stopping,
    ) -> Result<io::Result<TlsStream<Raw>>, Elapsed> {
        tokio::select! {
            biased;
            shaken = timeout(self.limits.handshake_timeout, tls.acceptor().accept(raw)) => shaken,
            () = reached(&mut stopping, Stage::Draining) => Ok(Err(io::ErrorKind::Interrupted.into())),
        }
    }

    /// Whether HTTP/2 is spoken: by ALPN (RFC 7301), or by its preface.
    /// Nothing, if the client goes, or is silent for too long.
    async fn recognise(
        &self,
        mut stream: Stream,
        activity: &Activity,
        mut stopping: Stopping,
    ) -> Option<(Prefixed<Stream>, bool)> {
        if let Stream::Tls(tls) = &stream
            && let Some(protocol) = tls.get_ref().1.alpn_protocol()
        {
            let is_http2 = protocol == b"h2";
            return Some((Prefixed::new(stream, &[]), is_http2));
        }
        let mut buffer = [0; PREFACE.len()];
        let mut filled = 0;
        let read = async {
            while filled < buffer.len() && PREFACE.starts_with(&buffer[..filled]) {
                match stream.read(&mut buffer[filled..]).await {
                    Ok(read) if read > 0 => filled += read,
                    _ => return false,
                }
            }
            true
        };
        let is_there = tokio::select! {
            biased;
            is_there = read => is_there,
            () = self.expired(activity) => false,
            // Who has not asked anything yet has nothing to lose.
            () = reached(&mut stopping, Stage::Draining) => false,
        };
        let is_http2 = buffer[..filled] == PREFACE[..];
        is_there.then(|| (Prefixed::new(stream, &buffer[..filled]), is_http2))
    }

    async fn expired(&self, activity: &Activity) {
        self.count(watch(activity, &self.limits).await);
    }

    fn count(&self, ending: Ending) {
        let (count, reason) = match ending {
            Ending::Header => (Count::HeaderTimeout, "a request's head took too long"),
            Ending::Idle => (Count::IdleTimeout, "nothing was asked"),
            Ending::Send => (Count::SendTimeout, "the client took nothing"),
        };
        self.counters.add(count);
        debug!(reason, "connection closed");
    }

    async fn drive<C>(&self, connection: C, activity: &Activity, mut stopping: Stopping)
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let mut connection = std::pin::pin!(connection);
        let mut is_stopping = false;
        let ended = loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => break ended,
                ending = watch(activity, &self.limits) => {
                    self.count(ending);
                    if ending == Ending::Idle {
                        // HTTP/2 says goodbye; HTTP/1.1 just ends.
                        connection.as_mut().graceful_shutdown();
                        let _ = timeout(GOODBYE, connection.as_mut()).await;
                    }
                    return;
                }
                () = reached(&mut stopping, if is_stopping { Stage::CutOff } else { Stage::Draining }) => {
                    if is_stopping {
                        debug!("connection cut off: the server ends");
                        return;
                    }
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        if let Err(error) = ended {
            if error.is_parse_too_large() {
                self.counters.add(Count::HeaderSize);
            }
            debug!(%error, "connection ended early");
        }
    }
}

/// Waits until the server is that far, or gone.
async fn reached(stopping: &mut Stopping, stage: Stage) {
    drop(stopping.wait_for(|reached| *reached >= stage).await);
}

/// Waits until the connection must end.
async fn watch(activity: &Activity, limits: &ConnectionLimits) -> Ending {
    loop {
        match activity.verdict(Instant::now(), limits) {
            Verdict::Ends(ending) => return ending,
            Verdict::LooksAgainAt(instant) => sleep_until(instant).await,
        }
    }
}

/// A stream that notes what happens on it.
struct Watched {
    stream: Prefixed<Stream>,
    activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.activity.was_read(buffer.filled().len() > before);
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream.stream).poll_write(cx, bytes);
        self.activity.was_written(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream.stream).poll_write_vectored(cx, slices);
        self.activity.was_written(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream.stream).poll_flush(cx);
        self.activity.was_flushed(flushed.is_ready());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream.stream).poll_shutdown(cx)
    }
}
