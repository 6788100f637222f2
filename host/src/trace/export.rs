//! Spans on their way to a collector: a queue with an end, and one task that
//! sends what is in it. No request waits for it; what does not fit is dropped
//! and counted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hickory_resolver::{ResolverBuilder, TokioResolver};
use http::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tracing::{debug, warn};

use super::settings::{Protocol, TraceSettings};
use super::{RequestId, Sampler, TraceContext, otlp};
use crate::metrics::{Count, Counters};
use crate::tls::{self, TlsError};

/// Times that a batch is sent, as long as the collector asks for it.
const TRIES: u32 = 4;

/// Longest pause between two tries, whatever the collector asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Bytes of a collector's answer that are read.
const LARGEST_ANSWER: usize = 64 << 10;

/// A request, as a collector is told of it.
pub(crate) struct Span {
    pub(crate) context: TraceContext,
    /// `tracestate`, as it came.
    pub(crate) state: Option<String>,
    pub(crate) method: Method,
    /// The pattern of the worker's route.
    pub(crate) route: Option<String>,
    pub(crate) path: String,
    pub(crate) scheme: &'static str,
    /// Of HTTP: `1.1`.
    pub(crate) version: &'static str,
    pub(crate) status: u16,
    /// Of the response's body.
    pub(crate) bytes: u64,
    pub(crate) client: Option<IpAddr>,
    pub(crate) user_agent: Option<String>,
    pub(crate) request_id: RequestId,
    pub(crate) ended: SystemTime,
    pub(crate) duration: Duration,
}

/// Sends spans to a collector while it lives.
#[derive(Clone, Debug)]
pub(crate) struct Exporter {
    queue: mpsc::Sender<Message>,
    sampler: Sampler,
    counters: Counters,
}

enum Message {
    Span(Box<Span>),
    /// Answered once all before it is sent.
    Flush(oneshot::Sender<()>),
}

/// What the task has.
struct Sender {
    settings: TraceSettings,
    tls: Option<TlsConnector>,
    counters: Counters,
    /// Whether the log says already that spans get lost.
    told: bool,
}

/// Why a batch could not be sent.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("cannot resolve {0:?}")]
    Resolve(String),
    #[error("cannot reach the collector: {0}")]
    Connect(#[from] io::Error),
    #[error("connection to the collector broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the collector did not answer in time")]
    Timeout,
    #[error("the collector answered {0}")]
    Status(StatusCode, Option<Duration>),
    #[error("the request can't be written: {0}")]
    Request(#[from] http::Error),
}

impl Span {
    /// The method, or what stands for one that is in no list.
    pub(super) fn method(&self) -> &str {
        let known = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::CONNECT,
            Method::OPTIONS,
            Method::TRACE,
            Method::PATCH,
        ];
        if known.contains(&self.method) { self.method.as_str() } else { "_OTHER" }
    }

    pub(super) fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }

    /// In nanoseconds since 1970.
    pub(super) fn end(&self) -> u64 {
        let since = self.ended.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn start(&self) -> u64 {
        self.end().saturating_sub(u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Exporter {
    /// Starts the task that sends, within a tokio runtime.
    ///
    /// # Errors
    /// [`TlsError`]: the endpoint is `https`, and there are no authorities to
    /// know its certificate by.
    pub(crate) fn start(settings: &TraceSettings, counters: Counters) -> Result<Self, TlsError> {
        let is_https = settings.endpoint.scheme_str() == Some("https");
        let authorities = settings.authorities.as_deref();
        let tls = is_https.then(|| tls::client(authorities)).transpose()?.map(TlsConnector::from);
        let (queue, messages) = mpsc::channel(settings.queue);
        let sampler = settings.sampler;
        let sender = Sender { settings: settings.clone(), tls, counters, told: false };
        tokio::spawn(sender.run(messages));
        Ok(Self { queue, sampler, counters })
    }

    pub(crate) const fn sampler(&self) -> Sampler {
        self.sampler
    }

    /// Queues a span; never waits.
    pub(crate) fn export(&self, span: Box<Span>) {
        if self.queue.try_send(Message::Span(span)).is_err() {
            self.counters.add(Count::SpansDropped);
        }
    }

    /// Waits until what is queued is sent, at most `limit`.
    pub(crate) async fn flush(&self, limit: Duration) {
        let (done, sent) = oneshot::channel();
        let _ = timeout(limit, async {
            if self.queue.send(Message::Flush(done)).await.is_ok() {
                let _ = sent.await;
            }
        })
        .await;
    }
}

impl Sender {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(first) = messages.recv().await {
            let (mut batch, mut flushed) = (Vec::new(), None);
            let deadline = Instant::now() + self.settings.delay;
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Span(span) => batch.push(*span),
                    Message::Flush(done) => {
                        flushed = Some(done);
                        break;
                    }
                }
                if batch.len() >= self.settings.batch {
                    break;
                }
                next = timeout_at(deadline, messages.recv()).await.ok().flatten();
            }
            if !batch.is_empty() {
                self.send(&batch).await;
            }
            if let Some(done) = flushed {
                let _ = done.send(());
            }
        }
    }

    async fn send(&mut self, batch: &[Span]) {
        let resource = &self.settings.resource;
        let body = Bytes::from(match self.settings.protocol {
            Protocol::Protobuf => otlp::protobuf(resource, batch),
            Protocol::Json => otlp::json(resource, batch),
        });
        let amount = batch.len() as u64;
        let mut tried = 0;
        loop {
            let result = timeout(self.settings.timeout, self.try_send(body.clone())).await;
            let Err(error) = result.unwrap_or(Err(ExportError::Timeout)) else {
                self.counters.add_many(Count::SpansExported, amount);
                self.told = false;
                return;
            };
            tried += 1;
            if tried == TRIES || !error.is_transient() {
                self.counters.add_many(Count::SpansDropped, amount);
                if self.told {
                    debug!(%error, spans = amount, "spans can't be exported");
                } else {
                    // Not the whole URL: it may have a password in it.
                    let collector = self.settings.endpoint.host();
                    warn!(%error, collector, spans = amount, "spans can't be exported; further failures are not logged");
                }
                self.told = true;
                return;
            }
            sleep(error.pause(tried)).await;
        }
    }

    async fn try_send(&self, body: Bytes) -> Result<(), ExportError> {
        let endpoint = &self.settings.endpoint;
        let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_https = self.tls.is_some();
        let port = endpoint.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let stream = connect(host, port).await?;
        let request = self.request(body)?;
        let answer = match &self.tls {
            None => exchange(stream, request).await?,
            Some(tls) => {
                let name = ServerName::try_from(host.to_owned());
                let name = name.map_err(|_| ExportError::Resolve(host.to_owned()))?;
                exchange(tls.connect(name, stream).await?, request).await?
            }
        };
        if answer.status().is_success() {
            return Ok(());
        }
        let pause = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(ExportError::Status(answer.status(), pause.map(Duration::from_secs)))
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let endpoint = &self.settings.endpoint;
        let path = endpoint.path_and_query().map_or("/", |path| path.as_str());
        let authority = endpoint.authority().map_or("", |authority| authority.as_str());
        let host = authority.rsplit('@').next().unwrap_or_default();
        let media_type = match self.settings.protocol {
            Protocol::Protobuf => "application/x-protobuf",
            Protocol::Json => "application/json",
        };
        let mut request = Request::post(path).body(Full::new(body))?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(host)?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("OTel-OTLP-Exporter-wharf/", env!("CARGO_PKG_VERSION"))),
        );
        for (name, value) in &self.settings.headers {
            headers.insert(name, value.clone());
        }
        Ok(request)
    }
}

impl ExportError {
    /// Whether the same may be taken later (OTLP, "Retryable Response Codes").
    fn is_transient(&self) -> bool {
        match self {
            Self::Status(status, _) => [429, 502, 503, 504].contains(&status.as_u16()),
            Self::Request(_) => false,
            _ => true,
        }
    }

    fn pause(&self, tried: u32) -> Duration {
        let asked = if let Self::Status(_, asked) = self { *asked } else { None };
        asked.unwrap_or(Duration::from_secs(1) * 2_u32.pow(tried - 1)).min(LONGEST_PAUSE)
    }
}

/// Connects to a name or an address. Names are resolved here: a static binary
/// has no resolver of the C library's.
async fn connect(host: &str, port: u16) -> Result<TcpStream, ExportError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(TcpStream::connect(SocketAddr::new(address, port)).await?);
    }
    // Made anew each time: a collector's address changes, and this is seldom.
    let unknown = |error: &dyn std::fmt::Display| ExportError::Resolve(format!("{host}: {error}"));
    let resolver =
        TokioResolver::builder_tokio().and_then(ResolverBuilder::build).map_err(|e| unknown(&e))?;
    let addresses = resolver.lookup_ip(host).await.map_err(|error| unknown(&error))?;
    let mut last = ExportError::Resolve(host.to_owned());
    for address in addresses.iter() {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<()>, ExportError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer: Response<Incoming> = sender.send_request(request).await?;
        let (head, body) = answer.into_parts();
        // Read, so that the collector sees an end that is none of its failures.
        let _ = Limited::new(body, LARGEST_ANSWER).collect().await;
        Ok::<_, ExportError>(Response::from_parts(head, ()))
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            // It may have ended with the answer (`Connection: close`).
            exchange.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_collector_will_never_take_is_not_sent_again() {
        let status = |code: u16| ExportError::Status(StatusCode::from_u16(code).unwrap(), None);
        assert!([429, 502, 503, 504].into_iter().all(|code| status(code).is_transient()));
        assert!(![400, 401, 404, 500].into_iter().any(|code| status(code).is_transient()));
        assert!(ExportError::Timeout.is_transient());
    }

    #[test]
    fn pauses_double_unless_the_collector_asks_for_another_one_within_reason() {
        let asked = |seconds| {
            let pause = Some(Duration::from_secs(seconds));
            ExportError::Status(StatusCode::TOO_MANY_REQUESTS, pause).pause(1)
        };
        assert_eq!(
            (1..4).map(|tried| ExportError::Timeout.pause(tried).as_secs()).collect::<Vec<_>>(),
            [1, 2, 4]
        );
        assert_eq!((asked(7).as_secs(), asked(86_400)), (7, LONGEST_PAUSE));
    }
}
