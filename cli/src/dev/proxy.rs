//! In front of the app: passes requests on, and tells pages when to load again.
//!
//! A page of the app gets a script at its end. The script listens to events: of
//! another generation of the app, upon which it reloads; and of a report, which it
//! shows over the page. A navigation that the app can't answer well gets a page that
//! is nothing but the report.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{broadcast, watch};

use super::Stage;
use super::app::Running;
use super::report::Report;

/// Below it are paths of ours; names with a dot in front are no app's.
const OURS: &str = "/.wharf/dev/";

/// How long a log may lag behind the response that it explains.
const LAG: Duration = Duration::from_millis(50);

/// How long a request waits for the first build.
const FIRST_BUILD: Duration = Duration::from_secs(300);

type ProxyBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// The server that browsers speak to.
pub(super) struct Proxy {
    dir: PathBuf,
    stage: watch::Receiver<Stage>,
    /// Reports of workers that failed.
    failures: broadcast::Sender<Arc<Report>>,
}

impl Proxy {
    /// For the project in `dir`.
    pub(super) fn new(dir: PathBuf, stage: watch::Receiver<Stage>) -> Self {
        Self { dir, stage, failures: broadcast::channel(16).0 }
    }

    /// Serves connections to `listener`, for ever.
    pub(super) async fn serve(self, listener: TcpListener) {
        let proxy = Arc::new(self);
        loop {
            let Ok((connection, _)) = listener.accept().await else {
                // Too many files are open, say: it may pass.
                tokio::time::sleep(LAG).await;
                continue;
            };
            let proxy = Arc::clone(&proxy);
            tokio::spawn(async move {
                let answer = |request| {
                    let proxy = Arc::clone(&proxy);
                    async move { Ok::<_, Infallible>(proxy.answer(request).await) }
                };
                // A browser that goes is no failure.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(connection), service_fn(answer))
                    .await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<ProxyBody> {
        match request.uri().path().strip_prefix(OURS) {
            Some("script.js") => return of_text("text/javascript; charset=utf-8", include_str!("dev.js")),
            Some("events") => return self.events(),
            _ => {}
        }
        let is_navigation = matches!(*request.method(), Method::GET | Method::POST)
            && request.headers().get(ACCEPT).is_some_and(|accept| {
                accept
                    .to_str()
                    .is_ok_and(|accept| accept.split(',').any(|kind| kind.starts_with("text/html")))
            });
        let mut stages = self.stage.clone();
        let first = stages.wait_for(|stage| stage.app.is_some() || stage.broken.is_some());
        let stage = match tokio::time::timeout(FIRST_BUILD, first).await {
            Ok(Ok(stage)) => stage.clone(),
            _ => {
                return status(
                    of_text("text/plain", "the first build takes too long\n"),
                    StatusCode::GATEWAY_TIMEOUT,
                );
            }
        };
        match (&stage.broken, &stage.app) {
            (Some(report), _) if is_navigation => page(report, stage.generation),
            (Some(report), None) => {
                let text = format!("{}\n", report.title());
                status(of_text("text/plain; charset=utf-8", text), StatusCode::SERVICE_UNAVAILABLE)
            }
            (_, Some(app)) => self.pass_on(request, app, stage.generation, is_navigation).await,
            (None, None) => {
                status(of_text("text/plain", "nothing is served\n"), StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }

    /// Lets the app answer.
    async fn pass_on(
        &self,
        mut request: Request<Incoming>,
        app: &Running,
        generation: u64,
        is_navigation: bool,
    ) -> Response<ProxyBody> {
        let headers = request.headers_mut();
        if is_navigation {
            // A page is added to: it has to come, and as it is.
            for name in [ACCEPT_ENCODING, IF_NONE_MATCH, IF_MODIFIED_SINCE] {
                headers.remove(name);
            }
        }
        let said = app.said_so_far();
        let mut response = match send(app, request).await {
            Ok(response) => response,
            Err(error) => {
                let text = format!("the app does not answer: {error:#}\n");
                return status(of_text("text/plain; charset=utf-8", text), StatusCode::BAD_GATEWAY);
            }
        };
        if matches!(response.status().as_u16(), 500 | 502 | 504) {
            tokio::time::sleep(LAG).await;
            let said = app.said_since(said);
            if !said.trim().is_empty() {
                let report = Arc::new(Report::of_worker(&said, &self.dir));
                if is_navigation {
                    return status(page(&report, generation), response.status());
                }
                // Nobody may be listening.
                let _ = self.failures.send(report);
            }
        }
        let headers = response.headers_mut();
        // What is being worked on is looked at anew each time.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if !is_navigation || !is_html(headers) {
            return response.map(BodyExt::boxed_unsync);
        }
        for name in [CONTENT_LENGTH, ETAG, LAST_MODIFIED] {
            headers.remove(name);
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let end = Bytes::from(script(generation));
        response.map(|body| WithEnd { body, end: Some(end) }.boxed_unsync())
    }

    /// Events for as long as the browser listens (HTML, "Server-sent events").
    fn events(&self) -> Response<ProxyBody> {
        let (mut stages, mut failures) = (self.stage.clone(), self.failures.subscribe());
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(16);
        tokio::spawn(async move {
            loop {
                let event = {
                    let stage = stages.borrow_and_update();
                    let report =
                        stage.broken.as_ref().map_or_else(|| "null".into(), |report| report.to_json());
                    format!("data: {{\"generation\":{},\"report\":{report}}}\n\n", stage.generation)
                };
                if sender.send(event.into()).await.is_err() {
                    return;
                }
                loop {
                    tokio::select! {
                        changed = stages.changed() => match changed {
                            Ok(()) => break,
                            Err(_) => return,
                        },
                        Ok(report) = failures.recv() => {
                            let event = format!("event: failure\ndata: {}\n\n", report.to_json());
                            if sender.send(event.into()).await.is_err() {
                                return;
                            }
                        }
                        () = sender.closed() => return,
                    }
                }
            }
        });
        let mut response = Response::new(Events(receiver).boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Sends a request to the app, on a connection of its own.
async fn send(app: &Running, request: Request<Incoming>) -> anyhow::Result<Response<Incoming>> {
    let stream = UnixStream::connect(app.socket()).await.context("cannot connect to it")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html"))
}

fn script(generation: u64) -> String {
    format!("\n<script src=\"{OURS}script.js\" data-generation=\"{generation}\" defer></script>\n")
}

/// A page that shows a report, and goes when another generation is there.
fn page(report: &Report, generation: u64) -> Response<ProxyBody> {
    // As JSON in a script that is not run; `<` could end it.
    let json = report.to_json().replace('<', "\\u003c");
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{}</title>\n\
        <script type=\"application/json\" id=\"wharf-report\">{json}</script>{}</html>\n",
        report.title(),
        script(generation)
    );
    status(of_text("text/html; charset=utf-8", text), StatusCode::INTERNAL_SERVER_ERROR)
}

fn of_text(kind: &'static str, text: impl Into<Bytes>) -> Response<ProxyBody> {
    let mut response = Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn status(mut response: Response<ProxyBody>, status: StatusCode) -> Response<ProxyBody> {
    *response.status_mut() = status;
    response
}

/// A body, and more behind it.
struct WithEnd {
    body: Incoming,
    end: Option<Bytes>,
}

impl Body for WithEnd {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(None) => Poll::Ready(self.end.take().map(|end| Ok(Frame::data(end)))),
            // Behind trailers nothing can come.
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => {
                Poll::Ready(self.end.take().map(|end| Ok(Frame::data(end))))
            }
            other => other,
        }
    }
}

/// Events as they come.
struct Events(tokio::sync::mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
