//! The admin listener: `/healthz`, `/readyz`, `/metrics`. By one process, on an
//! address of its own, which is nobody else's business: no TLS, no
//! authentication.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::health::{Health, State};
use crate::listen::{Raw, Socket};
use crate::metrics::Metrics;

/// Connections at once.
const CONNECTIONS: usize = 64;

/// Time for a client to send its headers, and to keep an idle connection.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a connection could not be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The media type of Prometheus' text format.
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What the admin listener tells of.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Whether requests are taken.
    pub health: Health,
    /// Counters of all processes, once the app is loaded.
    pub metrics: Arc<std::sync::OnceLock<Metrics>>,
}

impl Admin {
    /// Serves until it is dropped: also while the server drains, so that a
    /// probe sees it do so.
    ///
    /// # Errors
    /// The socket can't be watched in this runtime.
    pub async fn serve(self, socket: Socket) -> std::io::Result<Infallible> {
        let listener = socket.listener()?;
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                // Nobody closes it.
                continue;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let admin = self.clone();
                    tokio::spawn(async move {
                        admin.connection(stream).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    warn!(%error, "admin connection can't be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self, stream: Raw) {
        let service = service_fn(|request| {
            let response = self.respond(&request);
            async { Ok::<_, Infallible>(response) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(TIMEOUT);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            debug!(%error, "admin connection ended early");
        }
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, media_type, text) = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, PLAIN, "ok\n".to_owned()),
            (&Method::GET | &Method::HEAD, "/readyz") => match self.health.state() {
                State::Ready => (StatusCode::OK, PLAIN, "ok\n".to_owned()),
                State::Starting => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, "starting\n".to_owned()),
                State::Draining => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, "draining\n".to_owned()),
            },
            (&Method::GET | &Method::HEAD, "/metrics") => match self.metrics.get() {
                Some(metrics) => (StatusCode::OK, PROMETHEUS, metrics.to_text(&self.health)),
                None => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, "starting\n".to_owned()),
            },
            (_, "/healthz" | "/readyz" | "/metrics") => {
                (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "405 Method Not Allowed\n".to_owned())
            }
            _ => (
                StatusCode::NOT_FOUND,
                PLAIN,
                "404 Not Found: /healthz, /readyz and /metrics are here\n".to_owned(),
            ),
        };
        let mut response = Response::new(Full::new(text.into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, media_type);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}
