//! What a request leaves behind: counters, a line of access log, a span. And
//! what it is given: an id, a place in a trace, a client that can be believed.
//!
//! [`Observer::observe`] wraps the app's answer. With neither log nor spans it
//! allocates nothing for a static file, and reads the clock twice.

mod record;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tracing::error;

pub(crate) use record::Observed;
use record::{Details, Record};

use crate::access_log::{AccessLog, AccessLogFormat};
use crate::app::App;
use crate::body::Body;
use crate::connection::Activity;
use crate::metrics::{Counters, Failure, Held, Route};
use crate::outcome::Outcome;
use crate::proxies::{Client, ForwardedBy, Peer, Secure, TrustedProxies};
use crate::tls::TlsError;
use crate::trace::{Exporter, RequestId, TRACEPARENT, TRACESTATE, TraceContext, TraceSettings, X_REQUEST_ID};

/// How requests are observed.
#[derive(Clone, Debug, Default)]
pub struct ObserveSettings {
    /// Whose word about the client counts.
    pub trusted_proxies: TrustedProxies,
    /// By which headers they give it.
    pub forwarded_by: ForwardedBy,
    /// Whether and how requests are logged.
    pub access_log: AccessLogFormat,
    /// Where spans go, if anywhere.
    pub traces: Option<TraceSettings>,
}

/// Observes the requests of one process. Made in the process itself and within
/// its runtime: it has tasks there.
#[derive(Debug)]
pub(crate) struct Observer {
    settings: ObserveSettings,
    log: AccessLog,
    exporter: Option<Exporter>,
    counters: Counters,
}

/// A connection, as far as its requests are concerned.
#[derive(Clone)]
pub(crate) struct Connected {
    pub(crate) observer: Arc<Observer>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) peer: Peer,
    pub(crate) secure: Secure,
}

/// What is known of a request, while it is answered.
#[derive(Debug)]
pub(crate) struct RequestContext {
    client: Client,
    request_id: RequestId,
    /// Its place in a trace, where the host takes part.
    trace: Option<TraceContext>,
    /// The number of its [`Route`]: noted by who resolves it.
    route: AtomicU32,
    counters: Counters,
}

impl Observer {
    /// # Errors
    /// [`TlsError`]: spans are to go to an `https` endpoint, and there is
    /// nothing to know its certificate by.
    pub(crate) fn start(settings: ObserveSettings, counters: Counters) -> Result<Self, TlsError> {
        let exporter =
            settings.traces.as_ref().map(|traces| Exporter::start(traces, counters)).transpose()?;
        Ok(Self { log: AccessLog::start(settings.access_log, counters), settings, exporter, counters })
    }

    /// Sends what waits to be logged or exported: at the end of a process.
    pub(crate) async fn finish(&self, limit: Duration) {
        self.log.flush();
        if let Some(exporter) = &self.exporter {
            exporter.flush(limit).await;
        }
    }

    fn context(&self, connected: &Connected, headers: &HeaderMap) -> RequestContext {
        let ObserveSettings { trusted_proxies, forwarded_by, .. } = &self.settings;
        let client = trusted_proxies.client(*forwarded_by, connected.peer, connected.secure, headers);
        let given = if client.by_proxy() { RequestId::of(headers) } else { None };
        let trace = match &self.exporter {
            Some(exporter) => Some(exporter.sampler().decide(TraceContext::of(headers))),
            // For the log, if the caller has one; it names no span but the caller's.
            None if self.log.is_on() => TraceContext::continued(headers)
                .map(|trace| TraceContext { span: trace.parent.unwrap_or(trace.span), ..trace }),
            None => None,
        };
        RequestContext {
            client,
            request_id: given.unwrap_or_else(RequestId::new),
            trace,
            route: AtomicU32::new(Route::Refused.number()),
            counters: self.counters,
        }
    }
}

impl Connected {
    /// Answers one request by `app`, and takes note of it.
    pub(crate) async fn observe(self, app: Arc<App>, request: Request<Incoming>) -> Response<Observed> {
        let started = Instant::now();
        self.activity.request_began();
        // From here on the record ends the request, whatever becomes of it.
        let is_head = request.method() == Method::HEAD;
        let mut record = Record::new(started, &self, is_head);
        let observer = &self.observer;
        let context = observer.context(&self, request.headers());
        let is_sampled = observer.exporter.is_some() && context.trace.is_some_and(|trace| trace.is_sampled());
        if observer.log.is_on() || is_sampled {
            record.details = Some(Box::new(Details::new(&self, &request, &context)));
        }
        // Nothing that a request changes outlives it, but counters and caches
        // that are never half-written.
        let version = request.version();
        let unanswered = Unanswered { record: &mut record, context: &context, app: &app };
        let answered = AssertUnwindSafe(app.respond(request, &context)).catch_unwind().await;
        drop(unanswered);
        let mut response = answered.unwrap_or_else(|_| {
            error!(request = %context.request_id, "request failed by a defect of the host");
            let mut response = Outcome::HostFailed.into_response(None, false);
            context.sign(&mut response);
            response
        });
        let (route, status) = (context.route(), response.status());
        let is_failure = status.is_client_error() || status.is_server_error();
        if is_failure || matches!(route, Route::Worker(_)) || observer.log.is_on() {
            response.headers_mut().insert(X_REQUEST_ID, context.request_id.header());
        }
        if is_head || has_no_content(status) {
            leave_out_content(is_head, &mut response);
        }
        record.answered(status.as_u16());
        let mut response = response.map(|body| Observed::new(body, version, record));
        // hyper stops asking for frames when it has as many bytes as were
        // announced; a body that does not know its length would look given up.
        if response.body().has_open_end()
            && let Some(length) = response.headers().get(CONTENT_LENGTH)
            && let Some(length) = length.to_str().ok().and_then(|length| length.parse().ok())
        {
            response.body_mut().expect(length);
        }
        response
    }
}

/// A request that the app works on. Whatever ends that, the record then has the
/// request's route.
struct Unanswered<'a> {
    record: &'a mut Record,
    context: &'a RequestContext,
    app: &'a App,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let route = self.context.route();
        self.record.route = route;
        if let (Some(details), Route::Worker(index)) = (&mut self.record.details, route) {
            let worker = self.app.manifest().workers.get(index as usize);
            details.pattern = worker.map(|worker| worker.pattern.clone());
        }
    }
}

/// Whether no response of this status has content (RFC 9110, 6.4.1).
pub(crate) fn has_no_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Takes the content away, which hyper does in HTTP/1.1 alone.
fn leave_out_content(is_head: bool, response: &mut Response<Body>) {
    let length = response.body().size_hint().exact();
    let body = std::mem::replace(response.body_mut(), Body::none());
    let (status, headers) = (response.status(), response.headers_mut());
    if status == StatusCode::NO_CONTENT {
        // RFC 9110, 8.6.
        headers.remove(CONTENT_LENGTH);
    } else if is_head
        && let Some(length) = length
        && !body.is_end_stream()
    {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
}

impl RequestContext {
    /// Notes what answers the request.
    pub(crate) fn routed(&self, route: Route) {
        self.route.store(route.number(), Ordering::Relaxed);
    }

    pub(crate) fn route(&self) -> Route {
        Route::numbered(self.route.load(Ordering::Relaxed))
    }

    /// Who asks.
    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// What names the request in the log.
    pub(crate) const fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// An instance that works for it, from now until the result is dropped.
    pub(crate) fn instance(&self) -> Held {
        self.counters.instance()
    }

    /// Notes what became of the request, where it failed.
    pub(crate) fn became(&self, outcome: &Outcome) {
        let failure = match outcome {
            Outcome::WorkerFailed => Failure::Trap,
            Outcome::WorkerTimedOut => Failure::Timeout,
            Outcome::Busy => Failure::Busy,
            Outcome::BodyTooLarge => Failure::BodyTooLarge,
            _ => return,
        };
        self.counters.failure(self.route(), failure);
    }

    /// Tells a worker who asks, by which id, in which trace: headers that a
    /// client made up are replaced. [`Client`] becomes an extension.
    pub(crate) fn tell<B>(&self, request: &mut Request<B>) {
        let headers = request.headers_mut();
        self.client.tell(headers);
        headers.insert(X_REQUEST_ID, self.request_id.header());
        let is_continued = match self.trace {
            // Of which the host's own span is a part.
            Some(trace) if trace.parent.is_none() => false,
            _ => TraceContext::continued(headers).is_some(),
        };
        if !is_continued {
            // "If the vendor failed to parse traceparent, it MUST NOT attempt
            // to parse tracestate" (3.3), nor may anybody else.
            headers.remove(TRACESTATE);
        }
        match self.trace {
            Some(trace) => _ = headers.insert(TRACEPARENT, trace.header()),
            // Nobody would know of a span of ours: the caller's stays.
            None if is_continued => {}
            None => _ = headers.insert(TRACEPARENT, TraceContext::of(headers).header()),
        }
        request.extensions_mut().insert(self.client.clone());
    }

    /// Adds the request's id to a page of the host's own that tells of its
    /// failure.
    pub(crate) fn sign(&self, response: &mut Response<Body>) {
        if response.status().is_server_error() {
            let status = response.status();
            let reason = status.canonical_reason().unwrap_or("Error");
            let text = format!("{} {reason}\nrequest {}\n", status.as_u16(), self.request_id);
            response.headers_mut().remove(CONTENT_LENGTH);
            *response.body_mut() = Body::Whole(text.into());
        }
    }
}

#[cfg(test)]
mod tests;
