//! Workers: who may run, for how long, and what becomes of it.
//!
//! A request gets an instance of its own, or by the user's choice one that has
//! answered others before. It runs within the request's own task, so that a
//! client that goes takes it along. What an instance is made of is in
//! `instance`, what it may use in `budget`; workers that are commands are in
//! `command`.

mod body;
mod budget;
mod cgi;
mod command;
mod handler;
mod instance;
mod kit;
mod stdio;
mod wws;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::{error, warn};
use wasmtime::component::{Component, Linker};
use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{Error as HttpError, WasiBody};
use wharf_app::{Params, Wasi, Worker as Description};

use self::body::{AbortOnDrop, End, WorkerBody, drain};
use self::command::Command;
use self::handler::Handler;
use self::instance::{Idle, Instance};
use crate::body::Body;
use crate::code::Code;
use crate::engine::MAX_INSTANCES;
use crate::grants::{self, Grants};
use crate::metrics::Held;
use crate::observe::{RequestContext, has_no_content};
use crate::outcome::Outcome;
use crate::ticker::{Running, Ticker};
use crate::trace::RequestId;

/// Tells the guest which worker of its component is meant.
const WORKER_HEADER: HeaderName = HeaderName::from_static("wharf-worker");

/// Tells the guest the route's parameters, as `a=1&b=2`.
const PARAMS_HEADER: HeaderName = HeaderName::from_static("wharf-params");

/// Requests that wait for their turn at one worker, at most, in each process;
/// further ones are refused at once.
const LONGEST_QUEUE: u32 = 1024;

/// Memory for bodies that are held whole, in KiB, in each process. Past it
/// requests with such bodies are refused for a while.
const MOST_HELD: usize = 256 << 10;

/// What all workers of a process share.
pub(crate) struct Shared {
    ticker: Ticker,
    slots: Arc<Semaphore>,
    idle: Idle,
    /// What is left of [`MOST_HELD`].
    memory: Arc<Semaphore>,
}

/// A worker, ready to be instantiated.
pub(crate) struct Worker {
    description: Arc<Description>,
    grants: Arc<Grants>,
    /// Its name as a header says it.
    name: HeaderValue,
    program: Program,
    shared: Arc<Shared>,
    /// Which of the app's workers it is.
    index: usize,
    /// Turns to run, and places in the queue for one.
    turns: Arc<Semaphore>,
    queue: Semaphore,
}

/// What answers the requests.
enum Program {
    Http(Handler),
    Command(Command),
}

/// What a request holds while its guest runs.
struct Turn {
    _slot: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
    _running: Running,
    _counted: Held,
}

/// Why a guest gave no response.
#[derive(Clone, Copy)]
enum Failure {
    Failed,
    TimedOut,
    /// No address space is left for it right now.
    Crowded,
}

type GuestResponse = Result<Response<HyperOutgoingBody>, ErrorCode>;

impl Shared {
    /// For workers of these programs.
    pub(crate) fn new(code: Vec<Code>) -> io::Result<Self> {
        Ok(Self {
            ticker: Ticker::start(code)?,
            slots: Arc::new(Semaphore::new(MAX_INSTANCES as usize)),
            idle: Idle::default(),
            memory: Arc::new(Semaphore::new(MOST_HELD)),
        })
    }
}

impl Program {
    fn of_component(
        component: &Component,
        wasi: Wasi,
        description: &Description,
        grants: &Grants,
    ) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(component.engine());
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        if wasi == Wasi::V03 {
            // Beside 0.2, which the guest's standard library may still use.
            wasmtime_wasi::p3::add_to_linker(&mut linker)?;
            wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        }
        grants::add_to_linker(&mut linker)?;
        let pre = linker.instantiate_pre(component)?;
        Ok(match Command::new(description, grants, &pre)? {
            Some(command) => Self::Command(command),
            None => Self::Http(Handler::new(pre, wasi)?),
        })
    }
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        description: Description,
        (code, wasi): (&Code, Wasi),
        grants: Arc<Grants>,
        shared: Arc<Shared>,
    ) -> wasmtime::Result<Self> {
        let program = match code {
            Code::Component(component) => Program::of_component(component, wasi, &description, &grants)?,
            Code::Module(module) => Program::Command(Command::of_module(&description, &grants, module)?),
        };
        let name = HeaderValue::try_from(encode(&description.name))?;
        let turns = Arc::new(Semaphore::new(description.limits.concurrency.max(1) as usize));
        let queue = Semaphore::new(LONGEST_QUEUE as usize);
        let description = Arc::new(description);
        Ok(Self { description, grants, name, program, shared, index, turns, queue })
    }

    /// Lets an instance answer `request`.
    pub(crate) async fn answer(
        &self,
        mut request: Request<Incoming>,
        params: &Params,
        context: &RequestContext,
    ) -> Outcome {
        context.tell(&mut request);
        let handler = match &self.program {
            Program::Http(handler) => handler,
            Program::Command(command) => return command.answer(self, request, params, context).await,
        };
        let limits = &self.description.limits;
        let deadline = deadline_in(limits.timeout());
        if request.body().size_hint().lower() > limits.body {
            return Outcome::BodyTooLarge;
        }
        let Some(turn) = self.turn(deadline, context).await else { return Outcome::Busy };
        let too_large = Arc::new(AtomicBool::new(false));
        let expects = request.headers().contains_key(EXPECT);
        let is_head = request.method() == Method::HEAD;
        let id = context.request_id();
        let scheme = if context.client().scheme() == "https" { Scheme::Https } else { Scheme::Http };
        let request = (scheme, self.prepare(request, params, &too_large));
        let (sender, mut receiver) = oneshot::channel();
        let end = Arc::new(End::default());
        let mut call = Box::pin(self.call(handler, request, sender, turn, deadline, (Arc::clone(&end), id)));
        let outcome = tokio::select! {
            // In this order: most guests are done when first asked.
            biased;
            ended = &mut call => match ended {
                Ok(()) => match receiver.try_recv() {
                    Ok(response) => match self.checked(response, id) {
                        Some(response) => {
                            let limit = self.description.limits.response;
                            let body = |body| Body::pieces(WorkerBody::ended(body, end, limit));
                            Outcome::Worker(response.map(body))
                        }
                        None => Outcome::WorkerFailed,
                    },
                    Err(_) => {
                        error!(worker = self.description.name, request = %id, "worker gave no response");
                        Outcome::WorkerFailed
                    }
                },
                // Nothing was sent yet: it can still be an honest error.
                Err(Failure::Failed) => Outcome::WorkerFailed,
                Err(Failure::TimedOut) => Outcome::WorkerTimedOut,
                Err(Failure::Crowded) => Outcome::Busy,
            },
            // It goes on after it gave its response. A sender that is gone
            // says nothing that the call's end does not.
            Ok(response) = &mut receiver => {
                // A guest that reads while it responds waits for a body that is
                // only sent once it is asked for. hyper does so when it next
                // looks at the connection, but not after the response's head
                // (RFC 9110, 10.1.1).
                if expects {
                    tokio::task::yield_now().await;
                }
                match self.checked(response, id) {
                    Some(response) if is_head || has_no_content(response.status()) => {
                        let (head, body) = response.into_parts();
                        tokio::spawn(async move { tokio::join!(call, drain(body)) });
                        Outcome::Worker(Response::from_parts(head, Body::none()))
                    }
                    Some(response) => {
                        let guest = tokio::spawn(async move { _ = call.await });
                        let limit = self.description.limits.response;
                        let due = declared_length(response.headers());
                        let body = |body| Body::pieces(WorkerBody::running(body, end, limit, &guest, due));
                        Outcome::Worker(response.map(body))
                    }
                    None => Outcome::WorkerFailed,
                }
            }
        };
        // Whatever the guest made of its truncated body.
        if too_large.load(Ordering::Relaxed) { Outcome::BodyTooLarge } else { outcome }
    }

    /// Waits until the worker may run; `None`: too many others do.
    async fn turn(&self, deadline: Instant, context: &RequestContext) -> Option<Turn> {
        let (turns, slots) = (&self.turns, &self.shared.slots);
        let (turn, slot) =
            match (Arc::clone(turns).try_acquire_owned(), Arc::clone(slots).try_acquire_owned()) {
                (Ok(turn), Ok(slot)) => (turn, slot),
                (Err(_), slot) => {
                    drop(slot);
                    let _place = self.queue.try_acquire().ok()?;
                    let turn = timeout_at(deadline, Arc::clone(turns).acquire_owned()).await.ok()?.ok()?;
                    let slot = timeout_at(deadline, Arc::clone(slots).acquire_owned()).await.ok()?.ok()?;
                    (turn, slot)
                }
                (Ok(turn), Err(_)) => {
                    let _place = self.queue.try_acquire().ok()?;
                    (turn, timeout_at(deadline, Arc::clone(slots).acquire_owned()).await.ok()?.ok()?)
                }
            };
        Some(Turn {
            _slot: slot,
            _turn: turn,
            _running: self.shared.ticker.run(),
            _counted: context.instance(),
        })
    }

    /// Calls the guest; returns when it has returned. Says why it failed to
    /// the log, and how it ended to `end`.
    fn call(
        &self,
        handler: &Handler,
        (scheme, request): (Scheme, Request<WasiBody>),
        sender: oneshot::Sender<GuestResponse>,
        turn: Turn,
        deadline: Instant,
        (end, id): (Arc<End>, RequestId),
    ) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let (handler, shared, index) = (handler.clone(), Arc::clone(&self.shared), self.index);
        let (description, grants) = (Arc::clone(&self.description), Arc::clone(&self.grants));
        async move {
            let mut instance = shared.idle.take(index);
            let call = async {
                let instance = match &mut instance {
                    Some(instance) => instance,
                    none => none.insert(Instance::new(&handler, &description, &grants).await?),
                };
                instance.handle(scheme, request, sender).await
            };
            let result = timeout_at(deadline, call).await;
            // Before the store goes, and the body's channel with it: from then
            // on the body looks as if it had ended well.
            end.set(matches!(result, Ok(Ok(()))));
            match instance {
                Some(instance) if instance.may_serve_again() && matches!(result, Ok(Ok(()))) => {
                    Idle::put(&shared, index, instance);
                }
                // The instance's memory goes back before its slot does.
                instance => drop(instance),
            }
            drop(turn);
            match result {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) if error.is::<PoolConcurrencyLimitError>() => {
                    warn!(worker = description.name, request = %id, error = %chain(&error), "no room for another instance");
                    Err(Failure::Crowded)
                }
                Ok(Err(error)) if matches!(error.downcast_ref(), Some(Trap::Interrupt)) => {
                    warn!(
                        worker = description.name,
                        request = %id,
                        limit_ms = description.limits.cpu_ms,
                        "worker used up its CPU time"
                    );
                    Err(Failure::TimedOut)
                }
                Ok(Err(error)) => {
                    error!(worker = description.name, request = %id, error = %chain(&error), "worker failed");
                    Err(Failure::Failed)
                }
                Err(_) => {
                    warn!(
                        worker = description.name,
                        request = %id,
                        limit_ms = description.limits.timeout_ms,
                        "worker timed out"
                    );
                    Err(Failure::TimedOut)
                }
            }
        }
    }

    /// The guest's response, if it is one. Else the log says why.
    fn checked(&self, response: GuestResponse, id: RequestId) -> Option<Response<HyperOutgoingBody>> {
        let worker = &self.description.name;
        match response {
            // A status of 1xx is none of a response, and others are none at
            // all (RFC 9110, 15).
            Ok(response) if (200..600).contains(&response.status().as_u16()) => Some(response),
            Ok(response) => {
                let status = response.status().as_u16();
                error!(worker, request = %id, status, "worker answered with a status that is not from 200 to 599");
                None
            }
            Err(code) => {
                error!(worker, request = %id, error = ?code, "worker answered with an error");
                None
            }
        }
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
        headers.remove(PARAMS_HEADER);
        headers.insert(WORKER_HEADER, self.name.clone());
        if !params.is_empty()
            && let Ok(pairs) = HeaderValue::try_from(encode_params(params))
        {
            headers.insert(PARAMS_HEADER, pairs);
        }
        // HTTP/1.0 has no Host, and others may have an empty one (RFC 9112, 3.2);
        // wasi:http wants an authority.
        if headers.get(HOST).is_none_or(HeaderValue::is_empty) {
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
}

/// The length that a guest gave its body.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
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
