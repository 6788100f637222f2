//! A request's record: written when its response's body ends, or is given up.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{HeaderMap, REFERER, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body::{Body as _, Frame, SizeHint};

use super::{Connected, Observer, RequestContext};
use crate::access_log::{Entry, redacted};
use crate::body::Body;
use crate::connection::{Activity, WaitingStream};
use crate::metrics::{Count, Failure, Held, Route};
use crate::proxies::Client;
use crate::trace::{RequestId, Span, TRACESTATE, TraceContext};

/// Bytes that are handed over at once, in HTTP/1.1. What was handed over looks
/// sent, and hyper has less than that in its own buffer.
const PIECE: usize = 256 << 10;

/// The same in HTTP/2: also what a client must take within the time to send.
const PIECE_OF_STREAM: usize = 32 << 10;

/// A response's body, which is counted, and handed over piece by piece.
pub(crate) struct Observed {
    body: Body,
    /// What is left of a frame.
    rest: Bytes,
    piece: usize,
    stream: Option<WaitingStream>,
    record: Record,
}

/// What is noted of a request. Dropped, it is written.
pub(super) struct Record {
    started: Instant,
    observer: Arc<Observer>,
    activity: Arc<Activity>,
    /// Counts the request as long as the record lives.
    _in_flight: Held,
    pub(super) route: Route,
    status: u16,
    bytes: u64,
    /// Bytes after which the response is whole, if it says so.
    expected: Option<u64>,
    is_head: bool,
    progress: Progress,
    pub(super) details: Option<Box<Details>>,
}

/// How far a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The app has not answered yet.
    Unanswered,
    Sending,
    Whole,
    /// The app could not go on.
    CutOff,
}

/// What logs and spans need of a request beyond what is counted.
pub(super) struct Details {
    client: Client,
    method: Method,
    uri: Uri,
    version: Version,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    state: Option<String>,
    request_id: RequestId,
    trace: Option<TraceContext>,
    /// Of the worker that answered.
    pub(super) pattern: Option<String>,
}

impl Details {
    pub(super) fn new<B>(connected: &Connected, request: &Request<B>, context: &RequestContext) -> Self {
        let headers: &HeaderMap = request.headers();
        let is_continued = context.trace.is_some_and(|trace| trace.parent.is_some());
        let state = || {
            let values = headers.get_all(TRACESTATE).iter().map(HeaderValue::to_str);
            Some(values.collect::<Result<Vec<_>, _>>().ok()?.join(",")).filter(|state| !state.is_empty())
        };
        Self {
            client: context.client.clone(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            referer: headers.get(REFERER).cloned(),
            user_agent: headers.get(USER_AGENT).cloned(),
            state: if connected.observer.exporter.is_some() && is_continued { state() } else { None },
            request_id: context.request_id,
            trace: context.trace,
            pattern: None,
        }
    }
}

impl Record {
    pub(super) fn new(started: Instant, connected: &Connected, is_head: bool) -> Self {
        Self {
            started,
            observer: Arc::clone(&connected.observer),
            activity: Arc::clone(&connected.activity),
            _in_flight: connected.observer.counters.hold(Count::Requests),
            route: Route::Refused,
            // As nginx has it: the client went before there was a status.
            status: 499,
            bytes: 0,
            expected: None,
            is_head,
            progress: Progress::Unanswered,
            details: None,
        }
    }

    pub(super) const fn answered(&mut self, status: u16) {
        self.status = status;
        self.progress = Progress::Sending;
    }

    fn write(&self, details: &Details, duration: std::time::Duration) {
        let ended = SystemTime::now();
        let observer = &*self.observer;
        let route = details.pattern.as_deref();
        if observer.log.is_on() {
            observer.log.write(&Entry {
                ended,
                client: &details.client,
                method: &details.method,
                uri: &details.uri,
                version: details.version,
                status: self.status,
                bytes: self.bytes,
                duration,
                is_complete: self.progress == Progress::Whole,
                route: route.unwrap_or(self.route.kind()),
                referer: details.referer.as_ref(),
                user_agent: details.user_agent.as_ref(),
                request_id: &details.request_id,
                trace: details.trace,
            });
        }
        if let (Some(exporter), Some(context)) =
            (&observer.exporter, details.trace.filter(TraceContext::is_sampled))
        {
            let agent = details.user_agent.as_ref();
            exporter.export(Box::new(Span {
                context,
                state: details.state.clone(),
                method: details.method.clone(),
                route: details.pattern.clone(),
                path: redacted(details.uri.path()).into_owned(),
                scheme: details.client.scheme(),
                version: match details.version {
                    Version::HTTP_10 => "1.0",
                    Version::HTTP_2 => "2",
                    _ => "1.1",
                },
                status: self.status,
                bytes: self.bytes,
                client: details.client.address(),
                user_agent: agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned()),
                request_id: details.request_id,
                ended,
                duration,
            }));
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        let duration = now - self.started;
        if self.progress == Progress::Sending
            && (self.is_head || self.expected.is_some_and(|all| self.bytes >= all))
        {
            self.progress = Progress::Whole;
        }
        let counters = self.observer.counters;
        counters.request(self.route, self.status, duration, self.bytes);
        match self.progress {
            Progress::Whole => {}
            Progress::CutOff => counters.failure(self.route, Failure::CutOff),
            Progress::Unanswered | Progress::Sending => counters.failure(self.route, Failure::ClientGone),
        }
        self.activity.request_ended(now);
        if let Some(details) = self.details.take() {
            self.write(&details, duration);
        }
    }
}

impl Observed {
    pub(super) fn new(body: Body, version: Version, mut record: Record) -> Self {
        if body.is_end_stream() {
            record.progress = Progress::Whole;
        }
        record.expected = body.size_hint().exact();
        let is_http2 = version == Version::HTTP_2;
        let stream = is_http2.then(|| WaitingStream::new(Arc::clone(&record.activity)));
        let piece = if is_http2 { PIECE_OF_STREAM } else { PIECE };
        Self { body, rest: Bytes::new(), piece, stream, record }
    }

    /// Whether only its last frame will tell its length.
    pub(super) const fn has_open_end(&self) -> bool {
        self.record.expected.is_none()
    }

    /// Its length, by the response's header.
    pub(super) const fn expect(&mut self, length: u64) {
        self.record.expected = Some(length);
    }
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Some(stream) = &mut this.stream {
            stream.was_taken();
        }
        let frame = if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => {
                    let is_whole = end.is_none();
                    this.record.progress = if is_whole { Progress::Whole } else { Progress::CutOff };
                    return Poll::Ready(end);
                }
            }
        } else {
            Frame::data(mem::take(&mut this.rest))
        };
        let frame = match frame.into_data() {
            Ok(mut data) => {
                if data.len() > this.piece {
                    this.rest = data.split_off(this.piece);
                }
                this.record.bytes += data.len() as u64;
                Frame::data(data)
            }
            Err(trailers) => trailers,
        };
        // hyper need not ask for an end that it knows of.
        if this.is_end_stream() {
            this.record.progress = Progress::Whole;
        }
        if let Some(stream) = &mut this.stream {
            stream.waits();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest + body.lower());
        if let Some(upper) = body.upper() {
            hint.set_upper(rest + upper);
        }
        hint
    }
}
