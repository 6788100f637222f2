//! The streams that connections are. An enum and not a trait object: reading
//! and writing are jumps, not calls through a table, and nothing is boxed but
//! TLS's state.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_rustls::server::TlsStream;

use crate::sending::Sending;

/// Bytes that may be read before: HTTP/2's preface has as many.
const LONGEST: usize = 24;

/// A connection as it was accepted.
#[derive(Debug)]
pub(crate) enum Raw {
    Tcp(Sending),
    Unix(UnixStream),
}

/// A connection that HTTP can be spoken over.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Raw),
    Tls(Box<TlsStream<Raw>>),
}

/// A stream of which a few bytes were read already.
#[derive(Debug)]
pub(crate) struct Prefixed<S> {
    pub(crate) stream: S,
    prefix: [u8; LONGEST],
    /// Of the prefix, what is still to be read again.
    start: u8,
    end: u8,
}

impl<S> Prefixed<S> {
    /// `stream` after `read` was taken of it: 24 bytes at most.
    pub(crate) fn new(stream: S, read: &[u8]) -> Self {
        let mut prefix = [0; LONGEST];
        prefix[..read.len()].copy_from_slice(read);
        Self { stream, prefix, start: 0, end: read.len() as u8 }
    }
}

/// Calls the same method of whichever stream it is.
macro_rules! delegate {
    ($self:ident, $kind:ident: $($variant:ident)|+ => $method:ident $arguments:tt) => {
        match $self.get_mut() {
            $($kind::$variant(stream) => Pin::new(stream).$method $arguments,)+
        }
    };
}

macro_rules! stream {
    ($kind:ident: $($variant:ident)|+) => {
        impl AsyncRead for $kind {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                delegate!(self, $kind: $($variant)|+ => poll_read(cx, buffer))
            }
        }

        impl AsyncWrite for $kind {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                delegate!(self, $kind: $($variant)|+ => poll_write(cx, bytes))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                delegate!(self, $kind: $($variant)|+ => poll_write_vectored(cx, slices))
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $(Self::$variant(stream) => stream.is_write_vectored(),)+
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                delegate!(self, $kind: $($variant)|+ => poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                delegate!(self, $kind: $($variant)|+ => poll_shutdown(cx))
            }
        }
    };
}

stream!(Raw: Tcp | Unix);
stream!(Stream: Plain | Tls);

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.start < self.end && buffer.remaining() > 0 {
            let left = &self.prefix[self.start.into()..self.end.into()];
            let taken = left.len().min(buffer.remaining());
            buffer.put_slice(&left[..taken]);
            self.start += taken as u8;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}
