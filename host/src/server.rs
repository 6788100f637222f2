//! Connections: accepting them, and letting them end well.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use crate::app::App;
use crate::connection::{Activity, Protocols, Stopping};
use crate::health::Health;
use crate::listen::{Address, BindError, Endpoint, Listener, Raw, Socket, SocketMode};
use crate::metrics::{Count, Counters, Layout, Metrics};
use crate::observe::{Connected, Observer};
use crate::proxies::Peer;
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

/// Descriptors that are not for connections: files, the runtime's, the log's.
const OTHER_DESCRIPTORS: u64 = 64;

/// Allows this process as many open files as it may allow itself, and returns
/// how many connections these are enough for.
#[must_use]
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.unwrap_or(u64::MAX).saturating_sub(OTHER_DESCRIPTORS).max(1)
}

/// A listening HTTP server: HTTP/1.1 and HTTP/2, by TLS and ALPN, or without
/// TLS with prior knowledge.
pub struct Server {
    socket: Socket,
    settings: ServeSettings,
    tls: Option<Arc<Tls>>,
    health: Health,
    metrics: Option<Metrics>,
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
        Self { socket, settings, tls: None, health: Health::default(), metrics: None }
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
        let Self { socket, settings, tls, health, metrics } = self;
        let metrics = metrics.unwrap_or_else(|| Metrics::of_one_process(Layout::new(app.manifest(), 1)));
        let counters = metrics.process(0);
        let listener = socket.listener().map_err(ServeError::Listen)?;
        let mut observe = settings.observe.clone();
        if let Some(traces) = &mut observe.traces {
            traces.name_service(&app.manifest().name);
        }
        let observer = Arc::new(Observer::start(observe, counters).map_err(ServeError::Traces)?);
        let (stopper, stopping) = watch::channel(false);
        let acceptor = Acceptor {
            listener,
            protocols: Arc::new(Protocols::new(settings.limits, counters)),
            max_connections: settings.max_connections,
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            metrics,
            app,
            tls,
            observer: Arc::clone(&observer),
            counters,
        };
        health.ready();
        let stop = async {
            stop.await;
            health.draining();
            sleep(settings.drain_delay).await;
        };
        tokio::select! {
            () = stop => {}
            () = acceptor.accept(&stopping) => {}
        }
        drop((acceptor, socket, stopping));
        info!(connections = stopper.receiver_count(), "draining");
        stopper.send_replace(true);
        if timeout(settings.drain_timeout, stopper.closed()).await.is_err() {
            warn!(connections = stopper.receiver_count(), "requests still in flight are cut off");
        }
        observer.finish(LAST_EXPORT).await;
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
}

impl Acceptor {
    async fn accept(&self, stopping: &Stopping) {
        loop {
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
        if self.metrics.connections() >= self.max_connections {
            self.counters.add(Count::ConnectionLimit);
            self.refuse(stream);
            return;
        }
        let held = self.counters.hold(Count::Connections);
        let (app, tls) = (Arc::clone(&self.app), self.tls.clone());
        let (protocols, observer) = (Arc::clone(&self.protocols), Arc::clone(&self.observer));
        tokio::spawn(async move {
            let activity = Arc::new(Activity::new());
            let noted = Arc::clone(&activity);
            let respond = |secure| {
                let connected = Connected { observer, activity: noted, peer, secure };
                move |request| connected.clone().observe(Arc::clone(&app), request)
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
