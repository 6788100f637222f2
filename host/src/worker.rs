//! Workers: one fresh instance a request.
//!
//! Here those that speak `wasi:http`; those that are commands are in `command`.

mod cgi;
mod command;
mod stdio;
mod wws;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, warn};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, ResourceLimiter, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};
use wharf_app::{Params, Worker as Description};

pub(crate) use self::cgi::Caller;
use self::command::Command;
use crate::engine::MAX_INSTANCES;
use crate::log::Log;
use crate::outcome::Outcome;
use crate::ticker::{Running, Ticker};

/// Tells the guest which worker of its component is meant.
const WORKER_HEADER: HeaderName = HeaderName::from_static("wharf-worker");

/// Tells the guest the route's parameters, as `a=1&b=2`.
const PARAMS_HEADER: HeaderName = HeaderName::from_static("wharf-params");

/// What all workers of a process share.
pub(crate) struct Shared {
    ticker: Ticker,
    slots: Arc<Semaphore>,
}

/// A worker, ready to be instantiated.
pub(crate) struct Worker {
    description: Description,
    engine: Engine,
    program: Program,
    shared: Arc<Shared>,
}

/// What answers the requests.
enum Program {
    Http(ProxyPre<State>),
    Command(Command),
}

/// The right to run one instance, as long as it lives.
struct Admitted {
    _slot: OwnedSemaphorePermit,
    _running: Running,
}

/// The host's side of one instance.
struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: NoEgress,
    memory: Memory,
}

/// Linear memory that an instance may still take, in bytes, all its memories
/// together; wasmtime's own `StoreLimits` counts each by itself.
struct Memory {
    left: usize,
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let left = desired.checked_sub(current).and_then(|more| self.left.checked_sub(more));
        match left.filter(|_| maximum.is_none_or(|maximum| desired <= maximum)) {
            Some(left) => self.left = left,
            None => return Ok(false),
        }
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|maximum| desired <= maximum))
    }
}

/// How a guest ended.
enum Ended {
    /// It returned.
    ByItself,
    /// It failed or was stopped, and the log says so.
    Told,
}

/// Denies all outbound HTTP: no worker may do what it was not granted.
struct NoEgress;

impl Shared {
    pub(crate) fn new(engine: &Engine) -> io::Result<Self> {
        Ok(Self { ticker: Ticker::start(engine)?, slots: Arc::new(Semaphore::new(MAX_INSTANCES as usize)) })
    }
}

impl Worker {
    pub(crate) fn new(
        description: Description,
        component: &Component,
        shared: Arc<Shared>,
    ) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(component.engine());
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        let pre = linker.instantiate_pre(component)?;
        let program = match Command::new(&description, &pre)? {
            Some(command) => Program::Command(command),
            None => Program::Http(ProxyPre::new(pre)?),
        };
        Ok(Self { description, engine: component.engine().clone(), program, shared })
    }

    /// Lets a fresh instance answer `request`.
    pub(crate) async fn answer(&self, request: Request<Incoming>, params: &Params) -> Outcome {
        let pre = match &self.program {
            Program::Http(pre) => pre.clone(),
            Program::Command(command) => return command.answer(self, request, params).await,
        };
        let limits = &self.description.limits;
        let deadline = deadline_in(limits.timeout());
        if request.body().size_hint().lower() > limits.body {
            return Outcome::BodyTooLarge;
        }
        let Some(admitted) = self.admit(deadline).await else {
            return Outcome::Busy;
        };
        let too_large = Arc::new(AtomicBool::new(false));
        let request = self.prepare(request, params, &too_large);
        let (store, request, out, receiver) = match self.http_store(request) {
            Ok(ready) => ready,
            Err(error) => {
                warn!(worker = self.description.name, error = %chain(&error), "request can't be given to worker");
                return Outcome::WorkerFailed;
            }
        };
        let name = self.description.name.clone();
        let ended_early = Arc::new(AtomicBool::new(false));
        let cut_off = Arc::clone(&ended_early);
        // A task of its own: the guest may go on after it gave its response.
        let task: JoinHandle<Ended> = tokio::spawn(async move {
            let mut store = store;
            let call = async {
                let proxy = pre.instantiate_async(&mut store).await?;
                proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await
            };
            let result = timeout_at(deadline, call).await;
            // Before the store goes, and the body's channel with it: from then
            // on the body looks as if it had ended well.
            cut_off.store(!matches!(result, Ok(Ok(()))), Ordering::Release);
            // The instance's memory goes back before its slot does.
            drop(store);
            drop(admitted);
            match result {
                Ok(Ok(())) => Ended::ByItself,
                Ok(Err(error)) => {
                    error!(worker = name, error = %chain(&error), "worker failed");
                    Ended::Told
                }
                Err(_) => {
                    warn!(worker = name, "worker timed out");
                    Ended::Told
                }
            }
        });
        let abort = AbortOnDrop(Some(task.abort_handle()));
        match receiver.await {
            // Whatever the guest made of its truncated body.
            _ if too_large.load(Ordering::Relaxed) => Outcome::BodyTooLarge,
            Ok(Ok(response)) => {
                Outcome::Worker(response.map(|body| WorkerBody { body, abort, ended_early }.boxed_unsync()))
            }
            Ok(Err(code)) => {
                error!(worker = self.description.name, error = ?code, "worker answered with an error");
                Outcome::WorkerFailed
            }
            // The guest is gone without a word.
            Err(_) if Instant::now() >= deadline => Outcome::WorkerTimedOut,
            Err(_) => {
                abort.defuse();
                if let Ok(Ended::ByItself) = task.await {
                    error!(worker = self.description.name, "worker gave no response");
                }
                Outcome::WorkerFailed
            }
        }
    }

    /// Waits for the right to run an instance; none is given past `deadline`.
    async fn admit(&self, deadline: Instant) -> Option<Admitted> {
        let slots = Arc::clone(&self.shared.slots);
        let slot = timeout_at(deadline, slots.acquire_owned()).await.ok()?.ok()?;
        Some(Admitted { _slot: slot, _running: self.shared.ticker.run() })
    }

    /// The request as the guest sees it.
    fn prepare(
        &self,
        mut request: Request<Incoming>,
        params: &Params,
        too_large: &Arc<AtomicBool>,
    ) -> Request<WasiBody> {
        let headers = request.headers_mut();
        // What a client sends under these names is no word of ours.
        headers.remove(WORKER_HEADER);
        headers.remove(PARAMS_HEADER);
        if let Ok(name) = HeaderValue::try_from(encode(&self.description.name)) {
            headers.insert(WORKER_HEADER, name);
        }
        if !params.is_empty()
            && let Ok(pairs) = HeaderValue::try_from(encode_params(params))
        {
            headers.insert(PARAMS_HEADER, pairs);
        }
        // HTTP/1.0 has no Host; wasi:http wants an authority.
        if !headers.contains_key(HOST) {
            headers.insert(HOST, HeaderValue::from_static("localhost"));
        }
        let limit = usize::try_from(self.description.limits.body).unwrap_or(usize::MAX);
        let too_large = Arc::clone(too_large);
        request.map(|body| {
            let body =
                Limited::new(body, limit).map_err(move |error| match error.downcast::<hyper::Error>() {
                    Ok(error) => HttpError::Hyper(*error),
                    Err(error) => {
                        if error.is::<LengthLimitError>() {
                            too_large.store(true, Ordering::Relaxed);
                        }
                        HttpError::HttpRequestBodySize(None)
                    }
                });
            body.boxed_unsync()
        })
    }

    /// What holds a fresh instance, with the limits of this worker.
    fn store(&self, wasi: WasiCtx) -> Store<State> {
        let memory = usize::try_from(self.description.limits.memory).unwrap_or(usize::MAX);
        let state = State {
            wasi,
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            hooks: NoEgress,
            memory: Memory { left: memory },
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_epoch_deadline(1);
        // Not a trap: the deadline ends the guest, the epoch only lets others
        // of this thread have their turn, the deadline's timer among them.
        store.epoch_deadline_async_yield_and_update(1);
        store
    }

    #[allow(clippy::type_complexity)]
    fn http_store(
        &self,
        request: Request<WasiBody>,
    ) -> wasmtime::Result<(
        Store<State>,
        wasmtime::component::Resource<wasmtime_wasi_http::p2::types::HostIncomingRequest>,
        wasmtime::component::Resource<wasmtime_wasi_http::p2::types::HostResponseOutparam>,
        oneshot::Receiver<
            Result<Response<HyperOutgoingBody>, wasmtime_wasi_http::p2::bindings::http::types::ErrorCode>,
        >,
    )> {
        let env: Vec<(&String, &String)> = self.description.env.iter().collect();
        let mut store = self.store(WasiCtx::builder().stdout(Log).stderr(Log).envs(&env).build());
        let (sender, receiver) = oneshot::channel();
        let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
        let out = store.data_mut().http().new_response_outparam(sender)?;
        Ok((store, request, out, receiver))
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

type Sent<T> = Box<dyn Future<Output = Result<T, HttpError>> + Send>;

impl WasiHttpHooks for NoEgress {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _done: Sent<()>,
    ) -> Sent<(Response<WasiBody>, Sent<()>)> {
        debug!(authority = request.uri().authority().map(tracing::field::display), "outbound request denied");
        Box::new(async { Err(HttpError::HttpRequestDenied) })
    }
}

/// A worker's body. Dropped before its end, when the client has gone, it
/// takes the guest with it.
struct WorkerBody {
    body: HyperOutgoingBody,
    abort: AbortOnDrop,
    /// Whether the guest failed or was stopped before it had finished.
    ended_early: Arc<AtomicBool>,
}

impl http_body::Body for WorkerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(None) = frame {
            self.abort.0 = None;
            if self.ended_early.load(Ordering::Acquire) {
                // The connection breaks: a truncated answer must not look whole.
                let error = io::Error::other("worker ended before its response did");
                return Poll::Ready(Some(Err(error)));
            }
        }
        frame.map(|frame| frame.map(|frame| frame.map_err(|error| io::Error::other(error.to_string()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WorkerBody {
    fn drop(&mut self) {
        // hyper need not poll a body to its end when it knows its length.
        if self.body.is_end_stream() {
            self.abort.0 = None;
        }
    }
}

struct AbortOnDrop(Option<AbortHandle>);

impl AbortOnDrop {
    fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

fn deadline_in(timeout: Duration) -> Instant {
    // A timeout past what the clock can hold is as good as none.
    let year = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + timeout.min(year)
}

/// The parameters of a route, as `a=1&b=2`.
fn encode_params(params: &[(String, String)]) -> String {
    let pairs = params.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// An error and its causes in one line of log.
fn chain(error: &wasmtime::Error) -> String {
    format!("{error:#}").replace('\n', " | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_limit_is_for_all_memories_of_an_instance_together() {
        let mut memory = Memory { left: 100 };
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert!(!memory.memory_growing(0, 60, None).unwrap(), "a second memory has only the rest");
        assert!(memory.memory_growing(60, 100, None).unwrap());
        assert!(!memory.memory_growing(100, 101, None).unwrap());
    }

    #[test]
    fn a_memory_does_not_outgrow_its_own_maximum() {
        let mut memory = Memory { left: 100 };
        assert!(!memory.memory_growing(0, 60, Some(50)).unwrap());
        assert!(memory.memory_growing(0, 50, Some(50)).unwrap());
    }
}
