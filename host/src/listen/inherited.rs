//! Listening sockets that this process was started with: by number, or as
//! systemd passes them (`sd_listen_fds(3)`).

use std::env;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::Kind;

/// The first descriptor that systemd passes.
const FIRST: RawFd = 3;

/// The one socket of `LISTEN_FDS`.
pub(super) fn from_systemd() -> io::Result<Kind> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let is_for_us = number("LISTEN_PID") == Some(std::process::id());
    match number("LISTEN_FDS").filter(|_| is_for_us) {
        Some(1) => take(FIRST),
        Some(count) => Err(io::Error::other(format!("LISTEN_FDS passes {count} sockets: expected 1"))),
        None => Err(io::Error::other("LISTEN_FDS passes no socket to this process")),
    }
}

/// The listening stream socket with this number.
pub(super) fn take(number: RawFd) -> io::Result<Kind> {
    recognise(duplicate(number)?)
}

/// What listening stream socket this is.
pub(super) fn recognise(socket: OwnedFd) -> io::Result<Kind> {
    let error = |found: &str| io::Error::other(format!("expected a listening stream socket, found {found}"));
    let no_socket = |_| error("no socket");
    if sockopt::socket_type(&socket).map_err(no_socket)? != SocketType::STREAM {
        return Err(error("one of another type"));
    }
    if !sockopt::socket_acceptconn(&socket)? {
        return Err(error("one that does not listen"));
    }
    match sockopt::socket_domain(&socket)? {
        AddressFamily::INET | AddressFamily::INET6 => Ok(Kind::Tcp(socket.into())),
        AddressFamily::UNIX => Ok(Kind::Unix(socket.into())),
        _ => Err(error("one of another family")),
    }
}

/// A descriptor of our own for what `number` refers to: whoever else may think
/// that it owns `number` does not close it for us.
fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: not negative, and borrowed for this one call, in which the kernel
    // checks whether the number refers to anything.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_listening_socket_is_taken_and_what_is_none_is_called_so() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let Kind::Tcp(taken) = take(listener.as_raw_fd()).unwrap() else { panic!("not TCP") };
        assert_eq!(taken.local_addr().unwrap(), listener.local_addr().unwrap());

        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let error = take(connected.as_raw_fd()).unwrap_err();
        assert!(error.to_string().contains("does not listen"), "{error}");
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(take(datagrams.as_raw_fd()).unwrap_err().to_string().contains("another type"));
        let file = tempfile::tempfile().unwrap();
        assert!(take(file.as_raw_fd()).unwrap_err().to_string().contains("no socket"));
        assert!(take(1_000_000).is_err());
        assert!(take(-1).is_err());
    }
}
