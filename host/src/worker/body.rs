//! A worker's body on its way out.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinHandle};
use tracing::warn;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

/// How a guest ended, if it has.
#[derive(Debug, Default)]
pub(super) struct End(AtomicU8);

const RETURNED: u8 = 1;
const FAILED: u8 = 2;

impl End {
    pub(super) fn set(&self, well: bool) {
        self.0.store(if well { RETURNED } else { FAILED }, Ordering::Release);
    }

    fn is(&self, end: u8) -> bool {
        self.0.load(Ordering::Acquire) == end
    }
}

/// A worker's body. Dropped before its end, when the client has gone, it
/// takes the guest with it.
pub(super) struct WorkerBody {
    body: HyperOutgoingBody,
    /// The guest, if it still runs: in a task of its own, so that its time
    /// ends even if nobody reads what it says.
    guest: AbortOnDrop,
    end: Arc<End>,
    /// Bytes that may still come.
    left: u64,
    /// Bytes that will come, if the guest said how many.
    due: Option<u64>,
}

impl WorkerBody {
    /// The body of a guest that has ended.
    pub(super) fn ended(body: HyperOutgoingBody, end: Arc<End>, limit: u64) -> Self {
        Self { body, guest: AbortOnDrop(None), end, left: limit, due: None }
    }

    /// The body of a guest that still runs, with the length that its response
    /// states.
    pub(super) fn running(
        body: HyperOutgoingBody,
        end: Arc<End>,
        limit: u64,
        guest: &JoinHandle<()>,
        due: Option<u64>,
    ) -> Self {
        Self { body, guest: AbortOnDrop(Some(guest.abort_handle())), end, left: limit, due }
    }
}

impl Body for WorkerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(left) = self.left.checked_sub(length) else {
                    warn!("response cut off: it is longer than the worker's limit");
                    return Poll::Ready(Some(Err(io::Error::other("response is too long"))));
                };
                self.left = left;
                self.due = self.due.map(|due| due.saturating_sub(length));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(io::Error::other(error.to_string())))),
            Poll::Ready(None) => {
                // What it does after its response, it may finish.
                self.guest.0 = None;
                if self.end.is(FAILED) {
                    // The connection breaks: a truncated answer must not look whole.
                    let error = io::Error::other("worker ended before its response did");
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.end.is(FAILED)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WorkerBody {
    fn drop(&mut self) {
        // hyper does not poll a body to its end when it knows its length. What
        // the guest does after its response, it may finish: and to end its body
        // is the first thing.
        if self.due == Some(0)
            && self.guest.0.take().is_some()
            && let Ok(runtime) = Handle::try_current()
        {
            let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
            runtime.spawn(drain(mem::replace(&mut self.body, empty)));
        }
    }
}

/// Lets a guest write on where nobody wants what it writes.
pub(super) async fn drain(mut body: impl Body + Unpin) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// A task that ends with this, unless it is defused.
pub(super) struct AbortOnDrop(pub(super) Option<AbortHandle>);

impl AbortOnDrop {
    pub(super) fn defuse(mut self) {
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
