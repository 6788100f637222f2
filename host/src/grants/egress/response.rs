//! The response to an outbound request, as the guest may read it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};
use wasmtime_wasi_http::Error as HttpError;

use super::connection::remove_hop_by_hop;

/// Body of a response, in bytes. It passes through the host as the guest
/// reads it, so this bounds the traffic and not the memory.
const MAX_BODY: u64 = 1 << 30;

/// A body that ends in an error if it is too long, or if nothing comes for too
/// long while the guest waits.
pub(super) struct ResponseBody {
    body: Incoming,
    left: u64,
    patience: Duration,
    /// When the guest's patience ends; set only while it waits.
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

/// `response` without what is for one hop alone, and with its body guarded.
pub(super) fn guarded(mut response: Response<Incoming>, patience: Duration) -> Response<ResponseBody> {
    remove_hop_by_hop(response.headers_mut());
    let timer = Box::pin(sleep(patience));
    response.map(|body| ResponseBody { body, left: MAX_BODY, patience, timer, waiting: false })
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if !this.waiting {
                this.waiting = true;
                this.timer.as_mut().reset(Instant::now() + this.patience);
            }
            ready!(this.timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(HttpError::ConnectionReadTimeout)));
        };
        this.waiting = false;
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            this.left =
                this.left.checked_sub(length).ok_or(HttpError::HttpResponseBodySize(Some(MAX_BODY)))?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
