//! An address to listen on, as people write it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Kind, Socket, inherited, unix};

/// Where to listen: `ADDRESS:PORT`, `unix:/PATH`, `fd:NUMBER` or `systemd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP address; port 0 takes any free one.
    Tcp(SocketAddr),
    /// A Unix socket at this absolute path.
    Unix(PathBuf),
    /// A listening socket that this process was started with.
    Descriptor(RawFd),
    /// The one socket that systemd passes (`LISTEN_FDS`).
    Systemd,
}

/// Text that is no [`Endpoint`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed address {0:?}: expected ADDRESS:PORT, unix:/PATH, fd:NUMBER or systemd")]
pub struct InvalidEndpoint(String);

/// Who may connect to a Unix socket: the mode of its file, in octal. Default
/// 660: the user and the group of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode(pub(super) u32);

/// The address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {endpoint}")]
pub struct BindError {
    endpoint: Endpoint,
    #[source]
    source: io::Error,
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let error = || InvalidEndpoint(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            // A relative path would depend on where the program is started.
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(error()) };
        }
        if let Some(number) = text.strip_prefix("fd:") {
            let number = number.parse().ok().filter(|number| *number >= 0);
            return number.map(Self::Descriptor).ok_or_else(error);
        }
        if text == "systemd" {
            return Ok(Self::Systemd);
        }
        text.parse().map(Self::Tcp).map_err(|_| error())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
            Self::Systemd => f.write_str("systemd"),
        }
    }
}

impl FromStr for SocketMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.map(Self).ok_or("expected an octal mode such as 660")
    }
}

impl Default for SocketMode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl Endpoint {
    /// Listens there; `mode` is for a Unix socket's file.
    ///
    /// # Errors
    /// [`BindError`]: the address is in use or not this machine's, or nothing
    /// that listens was inherited.
    pub fn bind(&self, mode: SocketMode) -> Result<Socket, BindError> {
        let bound = match self {
            Self::Tcp(address) => TcpListener::bind(address).map(|listener| (Kind::Tcp(listener), None)),
            Self::Unix(path) => {
                unix::bind(path, mode).map(|(listener, file)| (Kind::Unix(listener), Some(file)))
            }
            Self::Descriptor(number) => inherited::take(*number).map(|kind| (kind, None)),
            Self::Systemd => inherited::from_systemd().map(|kind| (kind, None)),
        };
        let bound = bound.and_then(|(kind, file)| {
            match &kind {
                Kind::Tcp(listener) => listener.set_nonblocking(true)?,
                Kind::Unix(listener) => listener.set_nonblocking(true)?,
            }
            Ok(Socket { kind, file })
        });
        bound.map_err(|source| BindError { endpoint: self.clone(), source })
    }
}

impl BindError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match (&self.endpoint, self.source.kind()) {
            (Endpoint::Tcp(address), io::ErrorKind::AddrInUse) => Some(format!(
                "port {} is in use by another program; choose another one, or 0 for any free port",
                address.port()
            )),
            (Endpoint::Unix(_), io::ErrorKind::AddrInUse) => {
                Some("another program listens on this socket".into())
            }
            (Endpoint::Unix(_), io::ErrorKind::AlreadyExists) => {
                Some("there is a file that is no socket; remove it, or choose another path".into())
            }
            (Endpoint::Unix(_), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound) => {
                Some("its folder must exist, and this user must be able to write to it".into())
            }
            (Endpoint::Tcp(_), io::ErrorKind::PermissionDenied) => {
                Some("ports below 1024 need privileges; choose a higher one".into())
            }
            (Endpoint::Tcp(_), io::ErrorKind::AddrNotAvailable) => {
                Some("this machine has no such address".into())
            }
            (Endpoint::Systemd, _) => Some("start it by a .socket unit with one ListenStream=".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_alike() {
        for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/app.sock", "fd:3", "systemd"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("unix:///run/a".parse(), Ok(Endpoint::Unix("/run/a".into())));
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_what_would_be_one() {
        for text in ["", "8080", "localhost:80", "unix:app.sock", "unix:", "fd:-1", "fd:x", "127.0.0.1:99999"]
        {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}: expected ADDRESS:PORT")), "{error}");
        }
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!("0600".parse(), Ok(SocketMode(0o600)));
        for text in ["", "888", "1777", "rw"] {
            assert!(text.parse::<SocketMode>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_in_use_is_hinted_at() {
        let socket = "127.0.0.1:0".parse::<Endpoint>().unwrap().bind(SocketMode::default()).unwrap();
        let taken: Endpoint = socket.address().to_string().parse().unwrap();
        let error = taken.bind(SocketMode::default()).unwrap_err();
        assert!(error.hint().unwrap().contains("is in use"), "{error}");
    }
}
