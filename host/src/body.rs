//! The body of a response.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

/// The body of a response. What is in memory needs no allocation of its own.
pub(crate) enum Body {
    /// These bytes, which may be none.
    Whole(Bytes),
    /// What comes piece by piece.
    Pieces(UnsyncBoxBody<Bytes, io::Error>),
    /// Nothing more, or nothing but this error.
    Ended(Option<io::Error>),
}

impl Body {
    /// None, whatever length the response's header states: the answer to a
    /// HEAD, or one whose status allows no content.
    pub(crate) const fn none() -> Self {
        Self::Ended(None)
    }

    /// What comes piece by piece from `body`.
    pub(crate) fn pieces<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = io::Error> + Send + 'static,
    {
        Self::Pieces(UnsyncBoxBody::new(body))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        match this {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Pieces(body) => match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Err(error))) => {
                    // hyper ends the connection at once, with what it has not
                    // sent yet: so it gets a turn to send it first.
                    *this = Self::Ended(Some(error));
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                frame => frame,
            },
            Self::Ended(error) => Poll::Ready(error.take().map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Pieces(body) => body.is_end_stream(),
            Self::Ended(error) => error.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(body) => body.size_hint(),
            Self::Ended(_) => SizeHint::default(),
        }
    }
}
