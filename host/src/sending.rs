//! A connection that lets the kernel send files.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::mapped_file::{self, Part};

/// Bytes from which on sending the file itself pays.
const LEAST: usize = 16 << 10;

/// A connection. What is written of a mapped file the kernel sends by itself
/// (`sendfile`), all else is copied as ever.
#[derive(Debug)]
pub(crate) struct Sending(TcpStream);

impl Sending {
    pub(crate) const fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// Tries `operation` when the socket takes more.
    fn poll_operation(
        &self,
        cx: &mut Context<'_>,
        mut operation: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_io(Interest::WRITABLE, &mut operation) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_send_file(&self, cx: &mut Context<'_>, part: &Part) -> Poll<io::Result<usize>> {
        self.poll_operation(cx, || {
            let mut offset = part.offset;
            match rustix::fs::sendfile(self.0.as_fd(), &part.file, Some(&mut offset), part.length)? {
                // The file is shorter than it was.
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                sent => Ok(sent),
            }
        })
    }

    /// Sends what goes before a file, in one packet with its beginning.
    fn poll_send_before(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.poll_operation(cx, || {
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            Ok(sendmsg(self.0.as_fd(), parts, &mut SendAncillaryBuffer::default(), flags)?)
        })
    }
}

fn find(bytes: &[u8]) -> Option<Part> {
    if bytes.len() < LEAST { None } else { mapped_file::find(bytes) }
}

impl AsyncRead for Sending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Sending {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match find(bytes) {
            Some(part) => self.poll_send_file(cx, &part),
            None => Pin::new(&mut self.0).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let file = parts.iter().enumerate().find_map(|(at, part)| Some((at, find(part)?)));
        match file {
            None => Pin::new(&mut self.0).poll_write_vectored(cx, parts),
            Some((0, part)) => self.poll_send_file(cx, &part),
            Some((at, _)) => self.poll_send_before(cx, &parts[..at]),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn headers_and_a_file_larger_than_any_buffer_arrive_in_order() {
        let content: Vec<u8> = (0..8_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let bytes = mapped_file::map(file, content.len()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = tokio::spawn(async move {
            let mut received = Vec::new();
            TcpStream::connect(address).await.unwrap().read_to_end(&mut received).await.unwrap();
            received
        });
        let mut sending = Sending::new(listener.accept().await.unwrap().0);
        let (mut head, mut body) = (&b"head"[..], bytes.slice(4..));
        while !head.is_empty() || !body.is_empty() {
            let parts = [IoSlice::new(head), IoSlice::new(&body)];
            let sent = sending.write_vectored(&parts[usize::from(head.is_empty())..]).await.unwrap();
            let of_head = sent.min(head.len());
            head = &head[of_head..];
            body = body.slice(sent - of_head..);
        }
        sending.write_all(b"tail").await.unwrap();
        drop(sending);
        let received = client.await.unwrap();
        assert!(received.len() == content.len() + 4 && received.starts_with(b"head"));
        assert!(received[4..content.len()] == content[4..]);
        assert!(received.ends_with(b"tail"));
    }
}
