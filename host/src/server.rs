//! Connections: accepting them, and letting them end well.

use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::app::App;
use crate::connection::{Activity, Protocols, Stage, Stopping};
use crate::health::Health;
use crate::listen::{Address, BindError, Endpoint, Listener, Raw, Socket, SocketMode};
use crate::mapped_file;
use crate::metrics::{Count, Counters, Layout, Metrics};
use crate::observe::{Connected, Observed, Observer};
use crate::processes::{Board, Crew, Leave, Membership, publish};
use crate::proxies::Peer;
use crate::rest::rest;
use crate::settings::ServeSettings;
use crate::tls::{Tls, TlsError};

/// Pause after a connection could not be accepted for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that are being refused at once; further ones just end.
const REFUSALS: usize = 64;

/// Time for a refused client to read why.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// What a refused client reads (RFC 9110, 15.6.4).
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 24\r\n\r\n503 Service Unavailable\n";

/// Time for spans to reach their collector at the end.
const LAST_EXPORT: Duration = Duration::from_secs(5);

/// Time for a process to end once its connections have.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time in which another process may take a connection before one that has
/// more than its share does.
const ACCEPT_DELAY: Duration = Duration::from_millis(1);

/// Time for connections to see that they are cut off.
const CUT_OFF: Duration = Duration::from_millis(500);

/// Descriptors that are not for connections: the runtime's, the log's, what
/// workers open.
const OTHER_DESCRIPTORS: u64 = 64;

/// Allows this process as many open files as it may allow itself, and returns
/// how many connections these are enough for.
#[must_use]
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    let limit = limit.unwrap_or(u64::MAX);
    let files = mapped_file::allow(usize::try_from(limit / 4).unwrap_or(usize::MAX));
    limit.saturating_sub(OTHER_DESCRIPTORS + files as u64).max(1)
}

/// A listening HTTP server: HTTP/1.1 and HTTP/2, by TLS and ALPN, or without
/// TLS with prior knowledge.
pub struct Server {
    socket: Socket,
    settings: ServeSettings,
    tls: Option<Arc<Tls>>,
    health: Health,
    metrics: Option<Metrics>,
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

/// A server can't begin to serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket can't be watched.
    #[error("cannot accept connections")]
    Listen(#[source] io::Error),
    /// Spans can't be exported.
    #[error("cannot export spans")]
    Traces(#[source] TlsError),
    /// The process that started this one is gone.
    #[error("cannot tell the first process that this one serves")]
    Join(#[source] io::Error),
}

impl Server {
    /// A server with default settings that listens on `address`; port 0 takes
    /// any free one.
    ///
    /// # Errors
    /// [`BindError`]: the address is in use, or not this machine's.
    #[allow(clippy::unused_async)]
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let socket = Endpoint::Tcp(address).bind(SocketMode::default())?;
        Ok(Self::new(socket, ServeSettings::default()))
    }

    /// A server of connections to `socket`.
    #[must_use]
    pub fn new(socket: Socket, settings: ServeSettings) -> Self {
        Self {
            socket,
            settings,
            tls: None,
            health: Health::default(),
            metrics: None,
            board: Board::alone(),
            place: Place::Alone,
        }
    }

    /// The same, with the processes of `crew` too, as load asks for them.
    #[must_use]
    pub fn with_crew(self, crew: Crew) -> Self {
        Self { board: crew.board(), place: Place::First(crew), ..self }
    }

    /// A server of connections to the socket of the process that started this
    /// one.
    ///
    /// # Errors
    /// It handed over something else.
    pub fn join(membership: Membership, settings: ServeSettings) -> io::Result<Self> {
        let (board, socket, leave) = membership.into_parts();
        let socket = Socket::try_from(socket)?;
        Ok(Self { board, place: Place::Further(leave), ..Self::new(socket, settings) })
    }

    /// The same, by TLS alone.
    #[must_use]
    pub fn with_tls(self, tls: Arc<Tls>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The same, whose state and counters others see.
    #[must_use]
    pub fn with_metrics(self, health: Health, metrics: Metrics) -> Self {
        Self { health, metrics: Some(metrics), ..self }
    }

    /// The TCP address that it listens on, with the port that it got; of
    /// another socket, `0.0.0.0:0`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self.socket.address() {
            Address::Tcp(address) => address,
            Address::Unix(_) | Address::Unknown => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        }
    }

    /// Serves as [`Server::run`]; if it can't, the log says so.
    pub async fn serve(self, app: Arc<App>, stop: impl Future<Output = ()>) {
        if let Err(error) = self.run(app, stop).await {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            error!(%error, cause, "cannot serve");
        }
    }

    /// Serves `app` until `stop` completes, then lets requests in flight end
    /// for as long as the settings allow.
    ///
    /// # Errors
    /// [`ServeError`]: it could not begin.
    pub async fn run(self, app: Arc<App>, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { socket, settings, tls, health, metrics, board, place } = self;
        let metrics = metrics.unwrap_or_else(|| Metrics::of_one_process(Layout::new(app.manifest(), 1)));
        let counters = metrics.process(board.index());
        let listener = socket.listener().map_err(ServeError::Listen)?;
        let mut observe = settings.observe.clone();
        if let Some(traces) = &mut observe.traces {
            traces.name_service(&app.manifest().name);
        }
        let observer = Arc::new(Observer::start(observe, counters).map_err(ServeError::Traces)?);
        let (stopper, stopping) = watch::channel(Stage::Serving);
        let acceptor = Acceptor {
            listener,
            protocols: Arc::new(Protocols::new(settings.limits, counters)),
            max_connections: settings.max_connections,
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            metrics: metrics.clone(),
            app,
            tls,
            observer: Arc::clone(&observer),
            counters,
            board: board.clone(),
            accepted: Notify::new(),
        };
        let (mut crew, mut leave) = match place {
            Place::Alone => (None, None),
            Place::First(crew) => (Some(crew), None),
            Place::Further(leave) => (None, Some(leave)),
        };
        board.serve(true);
        health.ready();
        if let Some(leave) = &mut leave {
            leave.ready().await.map_err(ServeError::Join)?;
        }
        let stop = async {
            stop.await;
            health.draining();
            sleep(settings.drain_delay).await;
        };
        let dismissed = async {
            match &mut leave {
                Some(leave) => leave.told().await,
                None => pending().await,
            }
        };
        let watch = async {
            match &mut crew {
                Some(crew) => crew.manage(&socket, &metrics).await,
                None => publish(&board).await,
            }
        };
        tokio::select! {
            () = stop => {}
            () = dismissed => {}
            () = watch => {}
            () = acceptor.accept(&stopping) => {}
            () = rest(counters, &acceptor.accepted) => {}
        }
        board.serve(false);
        drop((acceptor, socket, stopping));
        let others = async {
            if let Some(crew) = crew {
                crew.disband(settings.drain_timeout + LAST_EXPORT + EXIT_TIMEOUT, &metrics).await;
            }
        };
        info!(connections = stopper.receiver_count(), "draining");
        stopper.send_replace(Stage::Draining);
        let ours = async {
            if timeout(settings.drain_timeout, stopper.closed()).await.is_err() {
                warn!(connections = stopper.receiver_count(), "requests still in flight are cut off");
                stopper.send_replace(Stage::CutOff);
                // So that the log has them.
                let _ = timeout(CUT_OFF, stopper.closed()).await;
                // Streams of HTTP/2 are tasks of their own.
                tokio::task::yield_now().await;
            }
            observer.finish(LAST_EXPORT).await;
        };
        tokio::join!(others, ours);
        Ok(())
    }
}

/// Accepts connections and serves each in a task of its own.
struct Acceptor {
    listener: Listener,
    protocols: Arc<Protocols>,
    max_connections: u64,
    refusals: Arc<Semaphore>,
    metrics: Metrics,
    app: Arc<App>,
    tls: Option<Arc<Tls>>,
    observer: Arc<Observer>,
    counters: Counters,
    board: Board,
    /// Told of each connection.
    accepted: Notify,
}

impl Acceptor {
    async fn accept(&self, stopping: &Stopping) {
        loop {
            if self.board.has_more_than_its_share() {
                sleep(ACCEPT_DELAY).await;
            }
            match self.listener.accept().await {
                Ok((stream, peer)) => self.serve(stream, peer, stopping.clone()),
                // Gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(%error, "connection can't be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: Raw, peer: Peer, stopping: Stopping) {
        self.counters.add(Count::ConnectionsAccepted);
        self.accepted.notify_one();
        if self.metrics.connections() >= self.max_connections {
            self.counters.add(Count::ConnectionLimit);
            self.refuse(stream);
            return;
        }
        let held = (self.counters.hold(Count::Connections), self.board.connect());
        let board = self.board.clone();
        let (app, tls) = (Arc::clone(&self.app), self.tls.clone());
        let (protocols, observer) = (Arc::clone(&self.protocols), Arc::clone(&self.observer));
        tokio::spawn(async move {
            let activity = Arc::new(Activity::new());
            let noted = Arc::clone(&activity);
            let respond = |secure| {
                let connected = Connected { observer, activity: noted, peer, secure };
                move |request| respond(board.clone(), connected.clone(), Arc::clone(&app), request)
            };
            protocols.serve(stream, tls.as_deref(), activity, stopping, respond).await;
            drop(held);
        });
    }

    /// Says that there are too many, to who speaks HTTP/1.1 without TLS.
    fn refuse(&self, mut stream: Raw) {
        let Ok(slot) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        if self.tls.is_some() {
            return;
        }
        tokio::spawn(async move {
            let told = timeout(REFUSAL_TIME, async {
                stream.write_all(REFUSAL).await?;
                stream.shutdown().await?;
                // Who closes with bytes unread resets the connection, and the
                // client may lose the answer.
                let mut bytes = [0; 1024];
                while stream.read(&mut bytes).await? > 0 {}
                io::Result::Ok(())
            });
            let told = told.await.is_ok_and(|told| told.is_ok());
            debug!(told, "connection refused: there are too many");
            drop(slot);
        });
    }
}

/// Answers one request, and ends its connection where another process should
/// have it.
async fn respond(
    board: Board,
    connected: Connected,
    app: Arc<App>,
    request: Request<Incoming>,
) -> Response<Observed> {
    board.stir();
    let version = request.version();
    let mut response = connected.observe(app, request).await;
    if version < Version::HTTP_2 && board.should_shed() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
