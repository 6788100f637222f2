//! Connections: accepting them, and letting them end well.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::app::App;
use crate::worker::Caller;

/// Time for a client to send its headers; past it the connection is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for requests in flight to end once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a connection could not be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening HTTP server: HTTP/1.1, and HTTP/2 with prior knowledge.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// The address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

impl BindError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => Some(format!(
                "port {} is in use by another program; choose another one, or 0 for any free port",
                self.address.port()
            )),
            io::ErrorKind::PermissionDenied => {
                Some("ports below 1024 need privileges; choose a higher one".into())
            }
            io::ErrorKind::AddrNotAvailable => Some("this machine has no such address".into()),
            _ => None,
        }
    }
}

impl Server {
    /// Listens on `address`; port 0 takes any free one.
    ///
    /// # Errors
    /// [`BindError`]: the address is in use, or not this machine's.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let error = |source| BindError { address, source };
        let listener = TcpListener::bind(address).await.map_err(error)?;
        let address = listener.local_addr().map_err(error)?;
        Ok(Self { listener, address })
    }

    /// The address that it listens on, with the port that it got.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `app` until `stop` completes, then lets requests in flight end
    /// for up to ten seconds.
    pub async fn serve(self, app: Arc<App>, stop: impl Future<Output = ()>) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEADER_TIMEOUT);
        let connections = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => serve_connection(&builder, (stream, peer), Arc::clone(&app), &connections),
                    Err(error) => {
                        warn!(%error, "connection can't be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = &mut stop => break,
            }
        }
        drop(self.listener);
        info!(connections = connections.count(), "draining");
        if timeout(DRAIN_TIMEOUT, connections.shutdown()).await.is_err() {
            warn!("requests still in flight were cut off");
        }
    }
}

fn serve_connection(
    builder: &auto::Builder<TokioExecutor>,
    (stream, peer): (TcpStream, SocketAddr),
    app: Arc<App>,
    connections: &GracefulShutdown,
) {
    // Answers are written whole; waiting for more would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY can't be set");
    }
    let spoke = Arc::new(AtomicBool::new(false));
    let has_spoken = Arc::clone(&spoke);
    let caller = Caller { address: Some(peer.ip().to_canonical()), secure: false };
    let service = service_fn(move |mut request: Request<Incoming>| {
        has_spoken.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(caller);
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.respond(request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection.into_owned());
    // Until hyper knows which HTTP is spoken, it has no timer of its own.
    let silent = async move {
        sleep(HEADER_TIMEOUT).await;
        if spoke.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                debug!(error, "connection ended early");
            },
            () = silent => debug!("connection without a request closed"),
        }
    });
}
