//! A TCP proxy before a registry: counts what passes, and stops at a byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::network::Namespace;
use crate::registry::ADDRESS;

/// The address of every [`Proxy`]: it lives in a namespace, so the port is free.
pub const PROXY: &str = "127.0.0.1:5001";

/// A proxy on [`PROXY`] before the registry on [`ADDRESS`].
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    acceptor: Option<thread::JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// What becomes of connections at the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// They stand still, until the limit is lifted: then they are closed.
    Hold,
    /// They are closed, and so is every new one until the limit is lifted.
    Close,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    sent: u64,
    /// The total at which it ends, and how.
    limit: Option<(u64, Limit)>,
    reached: bool,
    /// How often a limit was lifted: what was held before is closed.
    lifted: u64,
}

impl Proxy {
    /// Starts to listen.
    ///
    /// # Panics
    /// If the port is taken.
    #[track_caller]
    #[must_use]
    pub fn start(network: &Namespace) -> Self {
        let address: SocketAddr = PROXY.parse().expect("the address is one");
        let listener = network.enter(|| TcpListener::bind(address)).expect("the port is free");
        let shared = Arc::<Shared>::default();
        let acceptor = {
            let (door, shared) = (network.door(), Arc::clone(&shared));
            let listener = listener.try_clone().expect("the listener can be shared");
            thread::spawn(move || {
                door.pass();
                // The end of the listener is the end of the loop.
                while let Ok((client, _)) = listener.accept() {
                    // A registry that is down refuses, and so does the proxy by closing.
                    if let Ok(server) = TcpStream::connect(ADDRESS) {
                        shared.join(&client, &server);
                    }
                }
            })
        };
        Self { listener, acceptor: Some(acceptor), shared }
    }

    /// How many bytes the registry was sent so far, of all connections: heads
    /// of requests and bodies.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.lock().sent
    }

    /// Lets through only so many more bytes to the registry.
    pub fn limit(&self, bytes: u64, limit: Limit) {
        let mut state = self.shared.lock();
        state.limit = Some((state.sent + bytes, limit));
        state.reached = false;
    }

    /// Waits a moment for the limit: whether it was reached.
    #[must_use]
    pub fn reached(&self, within: Duration) -> bool {
        let state = self.shared.lock();
        let wait = self.shared.changed.wait_timeout_while(state, within, |state| !state.reached);
        wait.expect("no thread panics with the lock").0.reached
    }

    /// Lets everything through again, and closes what was held.
    pub fn lift(&self) {
        let mut state = self.shared.lock();
        state.limit = None;
        state.reached = false;
        state.lifted += 1;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.lift();
        // Wakes the thread that accepts (shutdown(2) of a listening socket, on Linux).
        let _ = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    /// Two threads a connection, which end with it.
    fn join(self: &Arc<Self>, client: &TcpStream, server: &TcpStream) {
        let pair = || {
            for stream in [client, server] {
                stream.set_nodelay(true).expect("a socket has no delay");
            }
            (
                client.try_clone().expect("a socket can be shared"),
                server.try_clone().expect("a socket can be shared"),
            )
        };
        let ((from, to), shared) = (pair(), Arc::clone(self));
        thread::spawn(move || {
            // Whichever end it was, the other is told.
            if shared.forward(&from, &to).is_some() {
                let _ = to.shutdown(Shutdown::Write);
            } else {
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
            }
        });
        let (mut to, mut from) = pair();
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }

    /// Until the client has said everything; none if the connection is to be closed.
    fn forward(&self, mut from: &TcpStream, mut to: &TcpStream) -> Option<()> {
        let mut buffer = vec![0; 64 << 10];
        let since = self.lock().lifted;
        loop {
            let count = from.read(&mut buffer).ok()?;
            if count == 0 {
                return Some(());
            }
            let (allowed, ends) = self.take(count, since)?;
            to.write_all(&buffer[..allowed]).ok()?;
            if ends {
                self.at_the_limit();
                return None;
            }
        }
    }

    /// How many of `count` bytes may pass, and whether that was the last of them;
    /// none on a connection from before the limit was lifted: what it still holds
    /// is of a push that was stopped.
    fn take(&self, count: usize, since: u64) -> Option<(usize, bool)> {
        let mut state = self.lock();
        if state.lifted != since {
            return None;
        }
        let left = state.limit.map_or(u64::MAX, |(limit, _)| limit - state.sent);
        let allowed = usize::try_from(left).map_or(count, |left| left.min(count));
        state.sent += allowed as u64;
        Some((allowed, allowed as u64 == left))
    }

    fn at_the_limit(&self) {
        let mut state = self.lock();
        let (Some((_, limit)), lifted) = (state.limit, state.lifted) else { return };
        state.reached = true;
        self.changed.notify_all();
        if limit == Limit::Hold {
            drop(self.changed.wait_while(state, |state| state.lifted == lifted));
        }
    }
}
