//! Where connections come from: a TCP address, a Unix socket, or a socket that
//! was inherited. And the streams that they are.

mod endpoint;
mod inherited;
mod stream;
mod unix;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use endpoint::{BindError, Endpoint, InvalidEndpoint, SocketMode};
pub(crate) use stream::{Prefixed, Raw, Stream};
use unix::SocketFile;

use crate::proxies::Peer;
use crate::sending::Sending;

/// A socket that listens, and that no runtime knows yet: processes can inherit
/// it, and each makes its own [`Listener`] of it.
#[derive(Debug)]
pub struct Socket {
    kind: Kind,
    /// Removed when the socket is dropped, where it is this program's.
    file: Option<SocketFile>,
}

#[derive(Debug)]
enum Kind {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// Accepts connections, in one runtime.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Socket {
    /// Its address, for people: `127.0.0.1:8080` with the port that it got, or
    /// `unix:/run/app.sock`.
    #[must_use]
    pub fn address(&self) -> Address {
        match &self.kind {
            Kind::Tcp(listener) => listener.local_addr().map_or(Address::Unknown, Address::Tcp),
            Kind::Unix(listener) => {
                let path =
                    listener.local_addr().ok().and_then(|address| Some(address.as_pathname()?.to_owned()));
                // Bound under another name: see `unix`.
                let path = self.file.as_ref().map(|file| file.path().to_owned()).or(path);
                Address::Unix(path.unwrap_or_default())
            }
        }
    }

    /// A listener for the runtime that this is called in. The socket's file
    /// stays as long as this socket does.
    pub(crate) fn listener(&self) -> io::Result<Listener> {
        Ok(match &self.kind {
            Kind::Tcp(listener) => Listener::Tcp(tokio::net::TcpListener::from_std(listener.try_clone()?)?),
            Kind::Unix(listener) => {
                Listener::Unix(tokio::net::UnixListener::from_std(listener.try_clone()?)?)
            }
        })
    }
}

impl TryFrom<OwnedFd> for Socket {
    type Error = io::Error;

    /// The socket that another process listens on, too: its file is that
    /// one's.
    fn try_from(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { kind: inherited::recognise(socket)?, file: None })
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(listener) => listener.as_fd(),
            Kind::Unix(listener) => listener.as_fd(),
        }
    }
}

/// The address of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// With the port that it got.
    Tcp(std::net::SocketAddr),
    /// The socket's file; empty for a socket without one.
    Unix(std::path::PathBuf),
    /// The kernel does not tell.
    Unknown,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<(Raw, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers are written whole; waiting for more would only delay them.
                stream.set_nodelay(true)?;
                Ok((Raw::Tcp(Sending::new(stream)), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Raw::Unix(stream), Peer::Unix))
            }
        }
    }
}
