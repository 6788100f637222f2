//! Commands: programs that are started for each request, and end with it.
//!
//! What the request and the response look like is the protocol's to say
//! (`cgi`, `wws`). Here a fresh instance gets them by environment, stdin and
//! stdout, streaming both ways, and is stopped when its time is over or its
//! client has gone. Its stderr goes to the log.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Request, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, warn};
use wasmtime::component::InstancePre;
use wasmtime::{Result, Store, Trap};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder};
use wharf_app::{Abi, Params};

use super::cgi::{Caller, Head, HeadError, LARGEST_HEAD, Script, head_length, host_of, joined};
use super::stdio::{self, End, Ending, LimitedBody, Output, Stdin};
use super::wws::{self, Input, LARGEST_OUTPUT, OutputError};
use super::{AbortOnDrop, State, Worker, chain, deadline_in, instance};
use crate::body::Body;
use crate::grants::Grants;
use crate::log::GuestLog;
use crate::observe::RequestContext;
use crate::outcome::Outcome;

/// Bytes of output that wait for the client at most; the guest waits then.
const PIPE: usize = 64 << 10;

// The head must fit into the pipe: it is taken as a whole.
const _: () = assert!(PIPE > LARGEST_HEAD);

/// A command, ready to be instantiated.
pub(super) struct Command {
    pre: CommandPre<State>,
    script: Script,
    protocol: Protocol,
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
        let protocol = match worker.abi {
            Abi::Http => return Ok(None),
            Abi::Cgi => Protocol::Cgi,
            Abi::Wws => Protocol::Wws,
        };
        let script = Script::new(&worker.name, &worker.pattern, grants.variables());
        Ok(Some(Self { pre: CommandPre::new(pre.clone())?, script, protocol }))
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
        let (stdin, length) = match size {
            Some(size) => {
                let has_body = size > 0 || request.headers.contains_key(header::CONTENT_LENGTH);
                (Stdin::new(body), has_body.then_some(size))
            }
            // RFC 3875, 4.1.2: the length is always told.
            None => match collect(body, call.deadline).await {
                Ok(body) => (Stdin::of_bytes(body.clone()), Some(body.len() as u64)),
                Err(outcome) => return outcome,
            },
        };
        let mut wasi = WasiCtx::builder();
        self.script.variables(request, length, params, &mut |name, value| _ = wasi.env(name, value));
        let Running { mut output, abort } = match self.start(call, wasi, stdin.clone(), PIPE).await {
            Ok(running) => running,
            Err(outcome) => return outcome,
        };
        let mut seen = 0;
        let head = output.find(|written, end| take_head(written, &mut seen, end)).await;
        // Whatever the guest made of its truncated body.
        if stdin.is_too_large() {
            return Outcome::BodyTooLarge;
        }
        match head {
            Ok(Head { status, headers }) => {
                let left = declared_length(&headers);
                let mut response = Response::new(Body::pieces(Streamed {
                    output,
                    left,
                    allowed: call.worker.description.limits.response,
                    abort,
                }));
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
        let body = match collect(body, call.deadline).await {
            Ok(body) => body,
            Err(outcome) => return outcome,
        };
        let text = std::str::from_utf8(&body).unwrap_or_else(|_| {
            debug!(worker = self.script.name(), "body is not UTF-8, and so not passed on");
            ""
        });
        let stdin = Stdin::of_bytes(wws_input(request, text, params).to_json().into());
        let mut wasi = WasiCtx::builder();
        wasi.envs(call.worker.grants.variables());
        // One byte more than allowed, to see that there is more.
        let running = self.start(call, wasi, stdin, LARGEST_OUTPUT + 1).await;
        let Running { mut output, abort } = match running {
            Ok(running) => running,
            Err(outcome) => return outcome,
        };
        let found = output.find(|written, end| match end {
            _ if written.len() > LARGEST_OUTPUT => Some(Ok(Err(OutputError::TooLarge))),
            Some(End::Complete) => Some(Ok(wws::response(written))),
            Some(end) => Some(Err(end)),
            None => None,
        });
        match found.await {
            Ok(Ok(response)) => {
                // It has ended.
                abort.defuse();
                Outcome::Worker(response.map(Body::Whole))
            }
            Ok(Err(error)) => {
                let error = chain(&wasmtime::Error::new(error));
                error!(worker = self.script.name(), error, "worker gave no valid wws response");
                Outcome::WorkerFailed
            }
            Err(end) => failed(end),
        }
    }

    /// Starts a fresh instance, when one may start.
    async fn start(
        &self,
        &Call { worker, context, deadline }: &Call<'_>,
        mut wasi: WasiCtxBuilder,
        stdin: Stdin,
        capacity: usize,
    ) -> std::result::Result<Running, Outcome> {
        let turn = worker.turn(deadline, context).await.ok_or(Outcome::Busy)?;
        let (stdout, ending, output) = stdio::pipe(capacity);
        let (limits, grants) = (&worker.description.limits, &worker.grants);
        wasi.arg(self.script.name()).stdin(stdin).stdout(stdout).stderr(GuestLog::new(limits.log));
        // As every address is denied there is nothing that a socket is good for.
        let mut wasi = wasi.allow_tcp(false).allow_udp(false).build();
        grants.mount(&mut wasi);
        let store = instance::store(self.pre.engine(), limits, grants, wasi);
        let name = self.script.name().to_owned();
        let pre = self.pre.clone();
        // A task of its own: the guest goes on while its output is sent.
        let task = tokio::spawn(async move {
            run(name, pre, store, deadline, ending).await;
            // The instance's memory went back before its place does.
            drop(turn);
        });
        Ok(Running { output, abort: AbortOnDrop(Some(task.abort_handle())) })
    }
}

/// Runs the program to its end, and tells how that was.
async fn run(
    worker: String,
    pre: CommandPre<State>,
    mut store: Store<State>,
    deadline: Instant,
    ending: Ending,
) {
    let call = async {
        let command = pre.instantiate_async(&mut store).await?;
        command.wasi_cli_run().call_run(&mut store).await
    };
    let result = timeout_at(deadline, call).await;
    drop(store);
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

/// The whole body.
async fn collect(body: LimitedBody, deadline: Instant) -> std::result::Result<Bytes, Outcome> {
    match timeout_at(deadline, body.collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if stdio::is_too_large(&error) => Err(Outcome::BodyTooLarge),
        Ok(Err(error)) => {
            debug!(error, "body of a request can't be read");
            Err(Outcome::BadBody)
        }
        Err(_) => Err(Outcome::WorkerTimedOut),
    }
}

fn wws_input<'a>(request: &'a Parts, body: &'a str, params: &'a Params) -> Input<'a> {
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
        kv: Default::default(),
        params: params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
    }
}

/// The length that the guest gave its body; `Head` has checked it.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
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
