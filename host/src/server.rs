//! Connections: accepting them, and letting them end well.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::app::App;
use crate::body::Body;
use crate::outcome::Outcome;
use crate::processes::{Board, Crew, Leave, Membership, publish};
use crate::sending::Sending;

/// Time for a client to send its headers; past it the connection is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for requests in flight to end once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a process to end once its connections have.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a connection could not be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time in which another process may take a connection before one that has
/// more than its share does.
const ACCEPT_DELAY: Duration = Duration::from_millis(1);

/// A listening HTTP server: HTTP/1.1, and HTTP/2 with prior knowledge.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    board: Board,
    place: Place,
}

/// A server's place among the processes that serve one app.
enum Place {
    /// There are no others.
    Alone,
    /// It starts the others.
    First(Crew),
    /// Another one started it.
    Further(Leave),
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
        Ok(Self { listener, address, board: Board::alone(), place: Place::Alone })
    }

    /// Serves with the processes of `crew` too, as load asks for them.
    #[must_use]
    pub fn with_crew(self, crew: Crew) -> Self {
        Self { board: crew.board(), place: Place::First(crew), ..self }
    }

    /// Accepts from the socket of the process that started this one.
    ///
    /// # Errors
    /// It handed over something else.
    pub fn join(membership: Membership) -> io::Result<Self> {
        let (board, listener, leave) = membership.into_parts();
        let listener = TcpListener::from_std(listener.into())?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, board, place: Place::Further(leave) })
    }

    /// The address that it listens on, with the port that it got.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `app` until `stop` completes, then lets requests in flight end
    /// for up to ten seconds.
    pub async fn serve(self, app: Arc<App>, stop: impl Future<Output = ()>) {
        let Self { listener, board, place, .. } = self;
        board.serve(true);
        let mut crew = None;
        let stop = match place {
            Place::Alone => stop.left_future(),
            Place::First(first) => {
                crew = Some(first);
                stop.left_future()
            }
            Place::Further(mut leave) => {
                if leave.ready().await.is_err() {
                    return;
                }
                async move {
                    tokio::select! {
                        () = stop => {}
                        () = leave.told() => {}
                    }
                }
                .right_future()
            }
        };
        let connections = GracefulShutdown::new();
        accept_until(stop, &listener, &app, &board, &connections, crew.as_mut()).await;
        board.serve(false);
        drop(listener);
        info!(connections = connections.count(), "draining");
        let others = async {
            if let Some(crew) = crew {
                crew.disband(DRAIN_TIMEOUT + EXIT_TIMEOUT).await;
            }
        };
        let ours = async {
            if timeout(DRAIN_TIMEOUT, connections.shutdown()).await.is_err() {
                warn!("requests still in flight were cut off");
            }
        };
        tokio::join!(others, ours);
    }
}

/// Accepts connections, and manages `crew`, until `stop` completes.
async fn accept_until(
    stop: impl Future<Output = ()>,
    listener: &TcpListener,
    app: &Arc<App>,
    board: &Board,
    connections: &GracefulShutdown,
    crew: Option<&mut Crew>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(HEADER_TIMEOUT);
    let shared = match listener.as_fd().try_clone_to_owned() {
        Ok(shared) => shared,
        Err(error) => {
            error!(%error, "the listening socket can't be shared");
            return;
        }
    };
    let mut stop = std::pin::pin!(stop);
    let mut watch = std::pin::pin!(async {
        match crew {
            Some(crew) => crew.manage(&shared).await,
            None => publish(board).await,
        }
    });
    loop {
        tokio::select! {
            accepted = accept(listener, board) => match accepted {
                Ok(stream) => serve_connection(&builder, stream, Arc::clone(app), board, connections),
                Err(error) => {
                    warn!(%error, "connection can't be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            () = &mut watch => {}
            () = &mut stop => break,
        }
    }
}

/// Accepts a connection once it is this process's turn.
async fn accept(listener: &TcpListener, board: &Board) -> io::Result<TcpStream> {
    if board.has_more_than_its_share() {
        sleep(ACCEPT_DELAY).await;
    }
    Ok(listener.accept().await?.0)
}

fn serve_connection(
    builder: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    app: Arc<App>,
    board: &Board,
    connections: &GracefulShutdown,
) {
    // Answers are written whole; waiting for more would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY can't be set");
    }
    let spoke = Arc::new(AtomicBool::new(false));
    let has_spoken = Arc::clone(&spoke);
    let connected = board.connect();
    let board = board.clone();
    let service = service_fn(move |request| {
        has_spoken.store(true, Ordering::Relaxed);
        respond(Arc::clone(&app), board.clone(), request)
    });
    let connection = builder.serve_connection(TokioIo::new(Sending::new(stream)), service);
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
        drop(connected);
    });
}

/// Answers one request, whatever happens on the way.
async fn respond(
    app: Arc<App>,
    board: Board,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    board.stir();
    let version = request.version();
    // Nothing that a request changes outlives it, but counters and caches
    // that are never half-written.
    let answered = AssertUnwindSafe(app.respond(request)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        error!("a request failed by a defect of the host");
        Outcome::HostFailed.into_response(None, false)
    });
    if version < Version::HTTP_2 && board.should_shed() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}
