//! The scripted server: connections, a record of every request, and what is to
//! go wrong. What a registry answers is in [`super::registry`].

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::registry::{Quirks, Store};

/// Bytes that the server writes at a time.
const CHUNK: u64 = 64 << 10;
/// Most of a refused request's body that the server reads: a client that is
/// still sending might not see the answer otherwise.
const DRAINED: usize = 64 << 20;

/// A request, and what became of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub method: String,
    /// The host that the client meant, with its port.
    pub host: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub arrived: Instant,
    /// Bytes of the body that the server read.
    pub received: u64,
    /// None if the connection was closed without an answer.
    pub status: Option<u16>,
    /// Bytes of the answer's body that the client took.
    pub sent: Arc<AtomicU64>,
}

impl Exchange {
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

/// What goes wrong, for requests of one kind and a number of times.
pub struct Fault {
    method: &'static str,
    needle: String,
    times: usize,
    action: Action,
}

/// How it goes wrong.
#[derive(Debug, Clone)]
pub enum Action {
    /// This answer instead of the right one.
    Answer(Answer),
    /// The connection ends after so many bytes of the request's body. An
    /// upload keeps them if the registry's uploads can be asked for.
    CloseAfter(usize),
    /// All is done as asked, and the connection ends without the answer.
    Swallow,
    /// The right answer, and the connection ends after so many bytes of it.
    Cut(u64),
    /// The right answer, which stops after so many bytes of it.
    StopAfter(u64),
    /// No answer at all.
    Stall,
    /// Tokens that were given out so far are worth nothing from now on.
    ExpireTokens,
}

impl Fault {
    /// Once, for requests whose path and query have `needle` in them.
    pub fn on(method: &'static str, needle: impl Into<String>, action: Action) -> Self {
        Self { method, needle: needle.into(), times: 1, action }
    }

    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }
}

/// What the server answers.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

/// A body, which need not be what its headers say.
#[derive(Debug, Clone)]
pub struct Body {
    pub content: Source,
    pub end: End,
}

#[derive(Debug, Clone)]
pub enum Source {
    Bytes(Bytes),
    /// So many spaces, which JSON may begin with.
    Blank(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Proper,
    Close,
    Silence,
}

impl Source {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blank(length) => *length,
        }
    }

    fn shorten(&mut self, length: u64) {
        match self {
            Self::Bytes(bytes) => bytes.truncate(usize::try_from(length).unwrap()),
            Self::Blank(old) => *old = length.min(*old),
        }
    }

    fn chunk(&self, from: u64) -> Bytes {
        let length = (self.len() - from).min(CHUNK);
        match self {
            Self::Bytes(bytes) => {
                let from = usize::try_from(from).unwrap();
                bytes.slice(from..from + usize::try_from(length).unwrap())
            }
            Self::Blank(_) => Bytes::from(vec![b' '; usize::try_from(length).unwrap()]),
        }
    }
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Body { content: Source::Bytes(Bytes::new()), end: End::Proper },
        }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A body with its right length.
    pub fn body(self, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        let length = content.len();
        Self { body: Body { content: Source::Bytes(content), end: End::Proper }, ..self }
            .header("content-length", length.to_string())
    }

    /// A body that says nothing of its length.
    pub fn unmeasured(self, content: Source) -> Self {
        Self { body: Body { content, end: End::Proper }, ..self }
    }

    /// An error as registries give it (distribution-spec, "Error Codes").
    pub fn error(status: u16, code: &str) -> Self {
        let text = format!(r#"{{"errors":[{{"code":"{code}","message":"{code} by the test"}}]}}"#);
        Self::new(status).header("content-type", "application/json").body(text)
    }

    fn ending(mut self, length: u64, end: End) -> Self {
        self.body.content.shorten(length);
        self.body.end = end;
        self
    }

    fn into_response(self, is_head: bool, sent: Arc<AtomicU64>) -> Response<UnsyncBoxBody<Bytes, io::Error>> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(*name, value);
        }
        let has_length = self.headers.iter().any(|(name, _)| *name == "content-length");
        if !has_length && self.body.content.len() == 0 && !is_head {
            response = response.header("content-length", "0");
        }
        let mut body = self.body;
        if is_head {
            body.content = Source::Bytes(Bytes::new());
        }
        let frames = stream::unfold((body, 0_u64), move |(body, at)| {
            let sent = Arc::clone(&sent);
            async move {
                if at < body.content.len() {
                    let chunk = body.content.chunk(at);
                    let next = at + chunk.len() as u64;
                    sent.store(next, Ordering::SeqCst);
                    return Some((Ok(Frame::data(chunk)), (body, next)));
                }
                match body.end {
                    End::Proper => None,
                    End::Close => {
                        // What was written is to be on its way first.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        Some((Err(io::ErrorKind::ConnectionReset.into()), (body, at)))
                    }
                    End::Silence => std::future::pending().await,
                }
            }
        });
        response.body(StreamBody::new(frames).boxed_unsync()).unwrap()
    }
}

/// A registry on a port of its own, which ends with the test.
#[derive(Clone)]
pub struct Registry {
    pub address: String,
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) quirks: Quirks,
    pub(super) store: Mutex<Store>,
    exchanges: Mutex<Vec<Exchange>>,
    faults: Mutex<Vec<Fault>>,
}

impl Registry {
    pub async fn start(quirks: Quirks) -> Self {
        Self::start_on("127.0.0.1", quirks).await
    }

    /// On another address of this machine: another host to a client.
    pub async fn start_on(host: &str, quirks: Quirks) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            quirks,
            store: Mutex::default(),
            exchanges: Mutex::default(),
            faults: Mutex::default(),
        });
        let registry = Self { address, shared };
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let registry = serving.clone();
                let service = service_fn(move |request| {
                    let registry = registry.clone();
                    async move { registry.answer(request).await }
                });
                // A broken connection is what some tests are about.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
            }
        });
        registry
    }

    pub fn reference(&self, name: &str) -> wharf_images::Reference {
        format!("{}/{name}", self.address).parse().unwrap()
    }

    pub fn fault(&self, fault: Fault) {
        self.shared.faults.lock().unwrap().push(fault);
    }

    /// Every request so far, in the order in which they came.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.shared.exchanges.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.exchanges().iter().map(Exchange::line).collect()
    }

    /// The requests of this method whose path and query have `needle` in them.
    pub fn requests(&self, method: &str, needle: &str) -> Vec<Exchange> {
        let fits = |exchange: &Exchange| {
            exchange.method == method && format!("{}?{}", exchange.path, exchange.query).contains(needle)
        };
        self.exchanges().into_iter().filter(fits).collect()
    }

    pub fn forget_requests(&self) {
        self.shared.exchanges.lock().unwrap().clear();
    }

    pub fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.shared.store.lock().unwrap()
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> io::Result<Response<UnsyncBoxBody<Bytes, io::Error>>> {
        let (parts, mut body) = request.into_parts();
        let host = parts.uri.authority().map(ToString::to_string);
        let said = || parts.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
        let exchange = Exchange {
            method: parts.method.to_string(),
            host: host.or_else(said).unwrap_or_default(),
            path: parts.uri.path().into(),
            query: parts.uri.query().unwrap_or_default().into(),
            headers: parts.headers,
            arrived: Instant::now(),
            received: 0,
            status: None,
            sent: Arc::default(),
        };
        let at = {
            let mut exchanges = self.shared.exchanges.lock().unwrap();
            exchanges.push(exchange.clone());
            exchanges.len() - 1
        };
        let note = |change: &dyn Fn(&mut Exchange)| {
            // Not there any more if the test forgot it.
            if let Some(exchange) = self.shared.exchanges.lock().unwrap().get_mut(at) {
                change(exchange);
            }
        };
        let fault = self.next_fault(&exchange);
        let limit = match &fault {
            Some(Action::CloseAfter(length)) => *length,
            Some(Action::Stall) => 0,
            _ => DRAINED,
        };
        let mut content = Vec::new();
        while content.len() < limit {
            let Some(frame) = body.frame().await else { break };
            let Ok(frame) = frame else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            content.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
            content.truncate(limit);
            let received = content.len() as u64;
            note(&|exchange| exchange.received = received);
        }
        let answer = match fault {
            Some(Action::CloseAfter(_)) => {
                self.shared.receive_part(&exchange, &content);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(Action::Stall) => std::future::pending().await,
            Some(Action::Answer(answer)) => answer,
            Some(Action::ExpireTokens) => {
                self.store().expire_tokens();
                self.shared.route(&exchange, &content)
            }
            Some(Action::Swallow) => {
                drop(self.shared.route(&exchange, &content));
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(Action::Cut(length)) => self.shared.route(&exchange, &content).ending(length, End::Close),
            Some(Action::StopAfter(length)) => {
                self.shared.route(&exchange, &content).ending(length, End::Silence)
            }
            None => self.shared.route(&exchange, &content),
        };
        note(&|exchange| exchange.status = Some(answer.status));
        Ok(answer.into_response(exchange.method == "HEAD", exchange.sent))
    }

    fn next_fault(&self, exchange: &Exchange) -> Option<Action> {
        let target = format!("{}?{}", exchange.path, exchange.query);
        let mut faults = self.shared.faults.lock().unwrap();
        let fault = faults.iter_mut().find(|fault| {
            fault.times > 0 && fault.method == exchange.method && target.contains(&fault.needle)
        })?;
        fault.times -= 1;
        Some(fault.action.clone())
    }
}
