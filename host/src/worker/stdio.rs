//! Stdin and stdout of a command: the request's body, and a pipe to the
//! response.
//!
//! Both are polled where they are used: no task, no thread and no copy more
//! than needed. The pipe has a fixed capacity, so that a guest writes no
//! faster than the client reads. What the bytes mean is not known here.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

/// Bytes that one write of a guest may have at most: the host allocates them.
const LARGEST_WRITE: usize = 64 << 10;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body that ends with an error past a limit.
pub(super) type LimitedBody = UnsyncBoxBody<Bytes, BoxError>;

/// `body`, which fails where it has more than `limit` bytes.
pub(super) fn limited<B>(body: B, limit: u64) -> LimitedBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX)).boxed_unsync()
}

/// Whether `error` is that of a [`limited`] body past its limit.
pub(super) fn is_too_large(error: &BoxError) -> bool {
    error.is::<LengthLimitError>()
}

/// What a guest reads from its stdin. Clones read the same bytes.
#[derive(Clone)]
pub(super) struct Stdin(Arc<Mutex<Source>>);

struct Source {
    /// Until it ends or fails.
    body: Option<LimitedBody>,
    /// What came and is not read yet.
    next: Bytes,
    /// Told once.
    failure: Option<BoxError>,
    too_large: bool,
}

impl Stdin {
    pub(super) fn new(body: LimitedBody) -> Self {
        Self::from(Source { body: Some(body), next: Bytes::new(), failure: None, too_large: false })
    }

    pub(super) fn of_bytes(bytes: Bytes) -> Self {
        Self::from(Source { body: None, next: bytes, failure: None, too_large: false })
    }

    fn from(source: Source) -> Self {
        Self(Arc::new(Mutex::new(source)))
    }

    /// Whether the guest read up to the limit of the body, and there was more.
    pub(super) fn is_too_large(&self) -> bool {
        lock(&self.0).too_large
    }

    fn take(&self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Bytes, Option<BoxError>>> {
        let mut source = lock(&self.0);
        if source.poll_next(cx).is_pending() {
            return Poll::Pending;
        }
        if source.next.is_empty() {
            return Poll::Ready(Err(source.failure.take()));
        }
        let length = most.min(source.next.len());
        Poll::Ready(Ok(source.next.split_to(length)))
    }
}

impl Source {
    /// Ready when there are bytes, or none will come.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.next.is_empty()
            && let Some(body) = &mut self.body
        {
            match Pin::new(body).poll_frame(cx) {
                // Trailers are not part of what CGI and wws know.
                Poll::Ready(Some(Ok(frame))) => self.next = frame.into_data().unwrap_or_default(),
                Poll::Ready(Some(Err(error))) => {
                    self.too_large = is_too_large(&error);
                    self.failure = Some(error);
                    self.body = None;
                }
                Poll::Ready(None) => self.body = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for Stdin {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| lock(&self.0).poll_next(cx)).await;
    }
}

impl InputStream for Stdin {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        // Who finds nothing waits by `ready`, with a waker of its own.
        match self.take(size, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(bytes)) => Ok(bytes),
            Poll::Ready(Err(None)) => Err(StreamError::Closed),
            Poll::Ready(Err(Some(error))) => {
                Err(StreamError::LastOperationFailed(wasmtime::Error::from_boxed(error)))
            }
            Poll::Pending => Ok(Bytes::new()),
        }
    }
}

impl AsyncRead for Stdin {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.take(buffer.remaining(), cx) {
            Poll::Ready(Ok(mut bytes)) => {
                while bytes.has_remaining() {
                    let length = bytes.chunk().len();
                    buffer.put_slice(bytes.chunk());
                    bytes.advance(length);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(None)) => Poll::Ready(Ok(())),
            Poll::Ready(Err(Some(error))) => Poll::Ready(Err(io::Error::other(error))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl StdinStream for Stdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With status 0.
    Complete,
    /// With another status, by a trap, or stopped by us; the log says so.
    Failed,
    /// Its time was over.
    TimedOut,
}

struct Pipe {
    buffer: BytesMut,
    capacity: usize,
    end: Option<End>,
    /// Nobody will read any more.
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The guest's end of the pipe. Clones write to the same.
#[derive(Clone)]
pub(super) struct Stdout(Arc<Mutex<Pipe>>);

/// The end of who runs the guest. Dropped without a word, the guest failed.
pub(super) struct Ending(Arc<Mutex<Pipe>>);

/// The end that is read.
pub(super) struct Output(Arc<Mutex<Pipe>>);

/// A pipe that holds `capacity` bytes.
pub(super) fn pipe(capacity: usize) -> (Stdout, Ending, Output) {
    let pipe = Arc::new(Mutex::new(Pipe {
        buffer: BytesMut::new(),
        capacity,
        end: None,
        closed: false,
        reader: None,
        writer: None,
    }));
    (Stdout(Arc::clone(&pipe)), Ending(Arc::clone(&pipe)), Output(pipe))
}

impl Pipe {
    /// Bytes that can be written now; none if the pipe is full.
    fn room(&self) -> StreamResult<usize> {
        if self.closed {
            return Err(StreamError::Closed);
        }
        Ok(self.capacity.saturating_sub(self.buffer.len()).min(LARGEST_WRITE))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<StreamResult<usize>> {
        match self.room() {
            Ok(0) => {
                self.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(room),
        }
    }

    fn end(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
    }
}

#[async_trait]
impl Pollable for Stdout {
    async fn ready(&mut self) {
        // Whether it is closed is for the next call to say.
        let _ = std::future::poll_fn(|cx| lock(&self.0).poll_room(cx)).await;
    }
}

impl OutputStream for Stdout {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut pipe = lock(&self.0);
        if bytes.len() > pipe.room()? {
            return Err(StreamError::trap("write of more bytes than permitted"));
        }
        pipe.write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        // What is written is with the reader already.
        lock(&self.0).room().map(drop)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        lock(&self.0).room()
    }
}

impl AsyncWrite for Stdout {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.0);
        match pipe.poll_room(cx) {
            Poll::Ready(Ok(room)) => {
                let length = room.min(bytes.len());
                pipe.write(&bytes[..length]);
                Poll::Ready(Ok(length))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl StdoutStream for Stdout {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl IsTerminal for Stdout {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl Ending {
    /// Tells the reader how the guest ended, after all that it wrote.
    pub(super) fn tell(self, end: End) {
        lock(&self.0).end(end);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        lock(&self.0).end(End::Failed);
    }
}

impl Output {
    /// Waits until `find` finds what it looks for in all that was written and
    /// not taken, asked anew each time there is more or the guest has ended.
    pub(super) async fn find<T>(
        &mut self,
        mut find: impl FnMut(&mut BytesMut, Option<End>) -> Option<T>,
    ) -> T {
        std::future::poll_fn(|cx| {
            let mut guard = lock(&self.0);
            let pipe = &mut *guard;
            match find(&mut pipe.buffer, pipe.end) {
                Some(found) => {
                    if let Some(writer) = pipe.writer.take() {
                        writer.wake();
                    }
                    Poll::Ready(found)
                }
                None => {
                    pipe.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let mut pipe = lock(&self.0);
        pipe.closed = true;
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
    }
}

/// The rest of the output, as it comes; an error where the guest failed.
impl Body for Output {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut pipe = lock(&self.0);
        if !pipe.buffer.is_empty() {
            let bytes = pipe.buffer.split().freeze();
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match pipe.end {
            Some(End::Complete) => Poll::Ready(None),
            // The connection breaks: a truncated answer must not look whole.
            Some(End::Failed | End::TimedOut) => {
                Poll::Ready(Some(Err(io::Error::other("worker ended before its response did"))))
            }
            None => {
                pipe.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let pipe = lock(&self.0);
        pipe.buffer.is_empty() && pipe.end == Some(End::Complete)
    }

    fn size_hint(&self) -> SizeHint {
        let pipe = lock(&self.0);
        let length = pipe.buffer.len() as u64;
        if pipe.end == Some(End::Complete) {
            return SizeHint::with_exact(length);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(length);
        hint
    }
}

/// Nothing can be half-changed when another thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
