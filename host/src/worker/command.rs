//! Commands: programs that are started for each request, and end with it.
//!
//! What the request and the response look like is the protocol's to say
//! (`cgi`, `wws`). Here a fresh instance gets them by environment, stdin and
//! stdout, streaming both ways, and is stopped when its time is over or its
//! client has gone. Its stderr goes to the log.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{Method, Request, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, warn};
use wasmtime::component::InstancePre;
use wasmtime::{Module, Result, Store, Trap};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiView as _};
use wharf_app::{Abi, Params};

use super::budget::Budget;
use super::cgi::{Caller, Head, HeadError, LARGEST_HEAD, Script, head_length, host_of, joined};
use super::instance::{self, Budgeted, State};
use super::kit;
use super::stdio::{self, End, Ending, LimitedBody, Output, Stdin};
use super::wws::{self, Answer, Input, LARGEST_OUTPUT, OutputError};
use super::{AbortOnDrop, Turn, Worker, chain, deadline_in, declared_length, drain};
use crate::body::Body;
use crate::grants::{Changed, Granted, Grants, StateError};
use crate::log::GuestLog;
use crate::observe::{RequestContext, has_no_content};
use crate::outcome::Outcome;

/// Bytes of output that wait for the client at most; the guest waits then.
const PIPE: usize = 64 << 10;

/// How often a worker of the wws protocol answers a request at most, while others change
/// what it wants to change in its store. All but the last of those that change it at the
/// same moment may have to answer again, so this is more than requests of one host that
/// run at a time on most machines.
const ATTEMPTS: usize = 64;

// The head must fit into the pipe: it is taken as a whole.
const _: () = assert!(PIPE > LARGEST_HEAD);

/// A command, ready to be instantiated.
pub(super) struct Command {
    pre: Pre,
    script: Script,
    protocol: Protocol,
}

/// The program of it.
#[derive(Clone)]
enum Pre {
    Component(CommandPre<State>),
    Module(wasmtime::InstancePre<ModuleState>),
}

/// The host's side of an instance of a core module.
pub(super) struct ModuleState {
    wasi: WasiP1Ctx,
    pub(super) granted: Granted,
    budget: Budget,
}

impl Budgeted for ModuleState {
    fn budget(&self) -> &Budget {
        &self.budget
    }

    fn budget_mut(&mut self) -> &mut Budget {
        &mut self.budget
    }
}

/// An instance to be.
enum Instance {
    Component(CommandPre<State>, Store<State>),
    Module(wasmtime::InstancePre<ModuleState>, Store<ModuleState>),
}

#[derive(Clone, Copy)]
enum Protocol {
    Cgi,
    Wws,
}

/// What concerns one request, whatever the protocol.
struct Call<'a> {
    worker: &'a Worker,
    context: &'a RequestContext,
    deadline: Instant,
}

impl Call<'_> {
    /// Waits until the worker may run. What the request sends is read then, or
    /// any number of requests would hold their bodies while they wait.
    async fn turn(&self) -> std::result::Result<Turn, Outcome> {
        self.worker.turn(self.deadline, self.context).await.ok_or(Outcome::Busy)
    }
}

/// A program that was started.
struct Running {
    output: Output,
    /// Stops it if nobody waits for it any more.
    abort: AbortOnDrop,
}

impl Command {
    /// The command of the component `pre`; none if its worker speaks `wasi:http`.
    ///
    /// # Errors
    /// The component exports no `wasi:cli/run`.
    pub(super) fn new(
        worker: &wharf_app::Worker,
        grants: &Grants,
        pre: &InstancePre<State>,
    ) -> Result<Option<Self>> {
        let Some(protocol) = Protocol::of(worker.abi) else { return Ok(None) };
        let script = Script::new(&worker.name, &worker.pattern, grants.variables());
        Ok(Some(Self { pre: Pre::Component(CommandPre::new(pre.clone())?), script, protocol }))
    }

    /// The command of the core module `module`.
    ///
    /// # Errors
    /// It imports what there is not, or its worker is to speak `wasi:http`.
    pub(super) fn of_module(worker: &wharf_app::Worker, grants: &Grants, module: &Module) -> Result<Self> {
        let protocol = Protocol::of(worker.abi);
        let protocol =
            protocol.ok_or_else(|| wasmtime::format_err!("a core module does not speak wasi:http"))?;
        let mut linker = wasmtime::Linker::new(module.engine());
        p1::add_to_linker_async(&mut linker, |state: &mut ModuleState| &mut state.wasi)?;
        kit::add_to_linker(&mut linker)?;
        let script = Script::new(&worker.name, &worker.pattern, grants.variables());
        Ok(Self { pre: Pre::Module(linker.instantiate_pre(module)?), script, protocol })
    }

    /// Lets a fresh instance answer `request`.
    pub(super) async fn answer<B>(
        &self,
        worker: &Worker,
        request: Request<B>,
        params: &Params,
        context: &RequestContext,
    ) -> Outcome
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let limits = &worker.description.limits;
        let deadline = deadline_in(limits.timeout());
        if request.body().size_hint().lower() > limits.body {
            return Outcome::BodyTooLarge;
        }
        let (mut parts, body) = request.into_parts();
        let client = context.client();
        parts.extensions.insert(Caller { address: client.address(), secure: client.scheme() == "https" });
        let call = Call { worker, context, deadline };
        let size = body.size_hint().exact().or_else(|| body.is_end_stream().then_some(0));
        let body = stdio::limited(body, limits.body);
        match self.protocol {
            Protocol::Cgi => self.answer_cgi(&call, &parts, (body, size), params).await,
            Protocol::Wws => self.answer_wws(&call, &parts, body, params).await,
        }
    }

    async fn answer_cgi(
        &self,
        call: &Call<'_>,
        request: &Parts,
        (body, size): (LimitedBody, Option<u64>),
        params: &Params,
    ) -> Outcome {
        let turn = match call.turn().await {
            Ok(turn) => turn,
            Err(outcome) => return outcome,
        };
        let mut held = None;
        let (stdin, length) = match size {
            Some(size) => {
                let has_body = size > 0 || request.headers.contains_key(header::CONTENT_LENGTH);
                (Stdin::new(body), has_body.then_some(size))
            }
            // RFC 3875, 4.1.2: the length is always told.
            None => match collect(body, call).await {
                Ok((body, memory)) => {
                    held = Some(memory);
                    (Stdin::of_bytes(body.clone()), Some(body.len() as u64))
                }
                Err(outcome) => return outcome,
            },
        };
        let mut wasi = WasiCtx::builder();
        self.script.variables(request, length, params, &mut |name, value| _ = wasi.env(name, value));
        let Running { mut output, abort } = self.start(call, wasi, stdin.clone(), PIPE, (turn, held));
        let mut seen = 0;
        let head = output.find(|written, end| take_head(written, &mut seen, end)).await;
        // Whatever the guest made of its truncated body.
        if stdin.is_too_large() {
            return Outcome::BodyTooLarge;
        }
        match head {
            Ok(Head { status, headers }) => {
                let body = if request.method == Method::HEAD || has_no_content(status) {
                    // What the guest still does, it may finish.
                    abort.defuse();
                    tokio::spawn(drain(output));
                    Body::none()
                } else {
                    let left = declared_length(&headers);
                    let allowed = call.worker.description.limits.response;
                    Body::pieces(Streamed { output, left, allowed, abort })
                };
                let mut response = Response::new(body);
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                Outcome::Worker(response)
            }
            Err(Refused::Ended(end)) => failed(end),
            Err(Refused::Malformed(error)) => {
                error!(worker = self.script.name(), %error, "worker gave no valid CGI response");
                Outcome::WorkerFailed
            }
        }
    }

    async fn answer_wws(
        &self,
        call: &Call<'_>,
        request: &Parts,
        body: LimitedBody,
        params: &Params,
    ) -> Outcome {
        let mut turn = match call.turn().await {
            Ok(turn) => turn,
            Err(outcome) => return outcome,
        };
        let (body, held) = match collect(body, call).await {
            Ok(collected) => collected,
            Err(outcome) => return outcome,
        };
        let text = std::str::from_utf8(&body).unwrap_or_else(|_| {
            debug!(worker = self.script.name(), "body is not UTF-8, and so not passed on");
            ""
        });
        let grants = &call.worker.grants;
        for _ in 0..ATTEMPTS {
            let before = match grants.state().await {
                Ok(state) => state,
                Err(error) => return self.has_no_state(&error),
            };
            let none = wws::State::new();
            let document = wws_input(request, text, params, before.as_ref().unwrap_or(&none)).to_json();
            let answer = match self.exchange(call, document, turn).await {
                Ok(answer) => answer,
                Err(outcome) => return outcome,
            };
            let changed = match (before, answer.state) {
                (Some(before), Some(after)) => grants.change_state(before, after).await,
                _ => Ok(Changed::Yes),
            };
            match changed {
                Ok(Changed::Yes) => {
                    drop(held);
                    let Some(held) = hold(call, answer.response.body().len()) else { return Outcome::Busy };
                    let body = |bytes| Body::Whole(Bytes::from_owner(Held { bytes, _held: held }));
                    return Outcome::Worker(answer.response.map(body));
                }
                // Nobody but the worker has seen its answer: it gets what there is now.
                Ok(Changed::No) => {
                    turn = match call.turn().await {
                        Ok(turn) => turn,
                        Err(outcome) => return outcome,
                    };
                }
                Err(error) => return self.has_no_state(&error),
            }
        }
        warn!(worker = self.script.name(), "too many requests change the same keys of the key-value store");
        Outcome::Busy
    }

    fn has_no_state(&self, error: &StateError) -> Outcome {
        error!(worker = self.script.name(), %error, "worker's key-value store cannot be used");
        Outcome::WorkerFailed
    }

    /// Lets a fresh instance answer `document` of the protocol of Wasm Workers Server.
    async fn exchange(
        &self,
        call: &Call<'_>,
        document: Vec<u8>,
        turn: Turn,
    ) -> std::result::Result<Answer, Outcome> {
        // What is escaped is longer.
        let held = hold(call, document.len()).ok_or(Outcome::Busy)?;
        let stdin = Stdin::of_bytes(document.into());
        let mut wasi = WasiCtx::builder();
        wasi.envs(call.worker.grants.variables());
        // One byte more than allowed, to see that there is more.
        let Running { mut output, abort } =
            self.start(call, wasi, stdin, LARGEST_OUTPUT + 1, (turn, Some(held)));
        let found = output.find(|written, end| match end {
            _ if written.len() > LARGEST_OUTPUT => Some(Ok(Err(OutputError::TooLarge))),
            Some(End::Complete) => Some(Ok(wws::answer(written))),
            Some(end) => Some(Err(end)),
            None => None,
        });
        match found.await {
            Ok(Ok(answer)) => {
                // It has ended.
                abort.defuse();
                if answer.response.body().len() as u64 > call.worker.description.limits.response {
                    error!(worker = self.script.name(), "worker's response is longer than its limit");
                    return Err(Outcome::WorkerFailed);
                }
                Ok(answer)
            }
            Ok(Err(error)) => {
                let error = chain(&wasmtime::Error::new(error));
                error!(worker = self.script.name(), error, "worker gave no valid wws response");
                Err(Outcome::WorkerFailed)
            }
            Err(end) => Err(failed(end)),
        }
    }

    /// Starts a fresh instance, which keeps its turn and what `held` accounts
    /// for until it has ended.
    fn start(
        &self,
        &Call { worker, deadline, .. }: &Call<'_>,
        mut wasi: WasiCtxBuilder,
        stdin: Stdin,
        capacity: usize,
        held: (Turn, Option<OwnedSemaphorePermit>),
    ) -> Running {
        let (stdout, ending, output) = stdio::pipe(capacity);
        let (limits, grants) = (&worker.description.limits, &worker.grants);
        wasi.arg(self.script.name()).stdin(stdin).stdout(stdout).stderr(GuestLog::new(limits.log));
        grants.network(&mut wasi);
        let instance = match self.pre.clone() {
            Pre::Component(pre) => {
                let mut wasi = wasi.build();
                grants.mount(&mut wasi);
                let store = instance::store(pre.engine(), limits, grants, wasi);
                Instance::Component(pre, store)
            }
            Pre::Module(pre) => {
                let mut wasi = wasi.build_p1();
                grants.mount(wasi.ctx().ctx);
                let state = ModuleState { wasi, granted: grants.granted(), budget: Budget::new(limits) };
                let store = instance::bounded(pre.module().engine(), state);
                Instance::Module(pre, store)
            }
        };
        let name = self.script.name().to_owned();
        // A task of its own: the guest goes on while its output is sent.
        let task = tokio::spawn(async move {
            run(name, instance, deadline, ending).await;
            // The instance's memory went back before its place does.
            drop(held);
        });
        Running { output, abort: AbortOnDrop(Some(task.abort_handle())) }
    }
}

impl Protocol {
    /// None: the worker speaks `wasi:http`.
    const fn of(abi: Abi) -> Option<Self> {
        match abi {
            Abi::Http => None,
            Abi::Cgi => Some(Self::Cgi),
            Abi::Wws => Some(Self::Wws),
        }
    }
}

impl Instance {
    /// Calls the main function.
    async fn run(self) -> Result<std::result::Result<(), ()>> {
        match self {
            Self::Component(pre, mut store) => {
                let cpu_time = store.data().cpu_time();
                let call = async {
                    let command = pre.instantiate_async(&mut store).await?;
                    command.wasi_cli_run().call_run(&mut store).await
                };
                cpu_time.measure(call).await
            }
            Self::Module(pre, mut store) => {
                let cpu_time = store.data().budget.cpu_time();
                let call = async {
                    let instance = pre.instantiate_async(&mut store).await?;
                    // A reactor by Zig, as the kit of Wasm Workers Server has it, runs its
                    // main function as it initializes itself.
                    let start = match instance.get_typed_func::<(), ()>(&mut store, "_start") {
                        Ok(start) => start,
                        Err(_) => instance.get_typed_func(&mut store, "_initialize")?,
                    };
                    start.call_async(&mut store, ()).await.map(Ok)
                };
                cpu_time.measure(call).await
            }
        }
    }
}

/// Runs the program to its end, and tells how that was.
async fn run(worker: String, instance: Instance, deadline: Instant, ending: Ending) {
    // The instance ends with the future, before anybody is told.
    let result = timeout_at(deadline, instance.run()).await;
    let status = match result {
        Ok(Ok(Ok(()))) => 0,
        Ok(Ok(Err(()))) => 1,
        Ok(Err(error)) if matches!(error.downcast_ref(), Some(Trap::Interrupt)) => {
            warn!(worker, "worker used up its CPU time");
            return ending.tell(End::TimedOut);
        }
        Ok(Err(error)) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => exit.0,
            None => {
                error!(worker, error = %chain(&error), "worker failed");
                return ending.tell(End::Failed);
            }
        },
        Err(_) => {
            warn!(worker, "worker timed out");
            return ending.tell(End::TimedOut);
        }
    };
    if status != 0 {
        error!(worker, status, "worker ended with an error");
        return ending.tell(End::Failed);
    }
    ending.tell(End::Complete);
}

/// Why there is no head.
enum Refused {
    Malformed(HeadError),
    /// The log has the reason.
    Ended(End),
}

/// Takes the head of a CGI response from the start of `written`, if it is there
/// or never will be. `seen` bytes of it were looked at before.
fn take_head(
    written: &mut BytesMut,
    seen: &mut usize,
    end: Option<End>,
) -> Option<std::result::Result<Head, Refused>> {
    if let Some(end @ (End::Failed | End::TimedOut)) = end {
        // Nothing was sent yet: it can still be an honest error.
        return Some(Err(Refused::Ended(end)));
    }
    let malformed = |error| Some(Err(Refused::Malformed(error)));
    match head_length(written, *seen) {
        Some(length) if length <= LARGEST_HEAD => {
            Some(Head::parse(&written.split_to(length)).map_err(Refused::Malformed))
        }
        None if end.is_some() && written.is_empty() => malformed(HeadError::Empty),
        None if end.is_some() && written.len() < LARGEST_HEAD => malformed(HeadError::Incomplete),
        None if written.len() < LARGEST_HEAD => {
            *seen = written.len();
            None
        }
        _ => malformed(HeadError::TooLong),
    }
}

fn failed(end: End) -> Outcome {
    match end {
        End::TimedOut => Outcome::WorkerTimedOut,
        End::Complete | End::Failed => Outcome::WorkerFailed,
    }
}

/// The whole body, and what accounts for its memory.
async fn collect(
    mut body: LimitedBody,
    call: &Call<'_>,
) -> std::result::Result<(Bytes, OwnedSemaphorePermit), Outcome> {
    let mut held = hold(call, 0).ok_or(Outcome::Busy)?;
    let mut bytes = BytesMut::new();
    loop {
        match timeout_at(call.deadline, body.frame()).await {
            Ok(None) => return Ok((bytes.freeze(), held)),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                let (all, before) = (kib(bytes.len() + data.len()), held.num_permits());
                held.merge(hold_kib(call, all.saturating_sub(before)).ok_or(Outcome::Busy)?);
                bytes.extend_from_slice(&data);
            }
            Ok(Some(Err(error))) if stdio::is_too_large(&error) => return Err(Outcome::BodyTooLarge),
            Ok(Some(Err(error))) => {
                debug!(error, "body of a request can't be read");
                return Err(Outcome::BadBody);
            }
            Err(_) => return Err(Outcome::WorkerTimedOut),
        }
    }
}

/// Accounts for `length` bytes, unless there are too many already.
fn hold(call: &Call<'_>, length: usize) -> Option<OwnedSemaphorePermit> {
    hold_kib(call, kib(length))
}

const fn kib(length: usize) -> usize {
    length.div_ceil(1024)
}

fn hold_kib(call: &Call<'_>, kib: usize) -> Option<OwnedSemaphorePermit> {
    let kib = u32::try_from(kib).ok()?;
    let held = Arc::clone(&call.worker.shared.memory).try_acquire_many_owned(kib);
    if held.is_err() {
        warn!(worker = call.worker.description.name, "too much memory is held by bodies already");
    }
    held.ok()
}

/// Bytes that are accounted for.
struct Held {
    bytes: Bytes,
    _held: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn wws_input<'a>(request: &'a Parts, body: &'a str, params: &'a Params, kv: &'a wws::State) -> Input<'a> {
    let secure = request.extensions.get::<Caller>().is_some_and(|caller| caller.secure);
    let scheme = if secure { "https" } else { "http" };
    let host = match host_of(request) {
        [] => "localhost".into(),
        host => String::from_utf8_lossy(host),
    };
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let headers = request.headers.keys();
    let headers = headers.filter(|name| **name != super::WORKER_HEADER && **name != super::PARAMS_HEADER);
    Input {
        url: format!("{scheme}://{host}{target}"),
        method: request.method.as_str(),
        headers: headers.map(|name| (name.as_str(), joined(&request.headers, name))).collect(),
        body,
        kv,
        params: params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
    }
}

/// A body that the guest still writes. Dropped before its end, when the client
/// has gone, it takes the guest with it.
struct Streamed {
    output: Output,
    /// Bytes still to come, where the guest said how many. More are not sent,
    /// and fewer break the connection.
    left: Option<u64>,
    /// Bytes that the worker may still send.
    allowed: u64,
    abort: AbortOnDrop,
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.left == Some(0) {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(Pin::new(&mut this.output).poll_frame(cx)) else {
            let short = "worker wrote less than its Content-Length says";
            return Poll::Ready(this.left.map(|_| Err(io::Error::other(short))));
        };
        let mut bytes = frame?.into_data().unwrap_or_default();
        if let Some(left) = &mut this.left {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
        }
        let Some(allowed) = this.allowed.checked_sub(bytes.len() as u64) else {
            warn!("response cut off: it is longer than the worker's limit");
            return Poll::Ready(Some(Err(io::Error::other("response is too long"))));
        };
        this.allowed = allowed;
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.map_or_else(|| self.output.is_end_stream(), |left| left == 0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(|| self.output.size_hint(), SizeHint::with_exact)
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // hyper need not poll a body to its end when it knows its length.
        if self.is_end_stream() {
            self.abort.0 = None;
        }
    }
}
