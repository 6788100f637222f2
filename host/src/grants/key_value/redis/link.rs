//! The connection to a Redis server: one, which all calls share.
//!
//! It is made when a call needs it, and anew when it is lost. The server may be
//! away as long as it likes: calls fail at once, and it is tried again each
//! second that calls come. What the log is told has neither password nor keys
//! nor values in it, and is little, however many calls fail.

use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisConnectionInfo, RedisError, Value};
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tracing::warn;
use wharf_app::{HostName, RedisUrl};

use super::super::Network;
use super::Failure;
use crate::grants::egress::connection::{self, Stream};
use crate::grants::egress::{SendError, TlsError};
use crate::grants::resolver::Resolver;

/// Time to resolve the host and to connect, TLS and all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for an answer. A guest's own deadline is most often earlier; this one
/// tells a server that hangs, whose connection is then given up.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time after a try to connect that failed, or led to a connection which is
/// lost, in which calls fail without another one.
const PAUSE: Duration = Duration::from_secs(1);

/// Time between two lines of log about one server.
const SILENCE: Duration = Duration::from_secs(10);

/// Time without a sign of the peer until it is asked for one, time between such
/// questions, and their number: who is gone without a word is so noticed.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// Longest text of a server that the log is told, in characters.
const LONGEST_TEXT: usize = 200;

/// Whether a command may be sent again where nobody knows whether it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    Allowed,
    Denied,
}

/// The way to one server.
pub(super) struct Link {
    server: Arc<Server>,
    /// The newest; `None`: no call has come yet.
    attempt: Mutex<Option<Attempt>>,
}

/// What connections are made of.
struct Server {
    url: RedisUrl,
    resolver: Arc<Resolver>,
    tls: Option<TlsConnector>,
    told: Mutex<Told>,
}

/// What the log has been told.
#[derive(Default)]
struct Told {
    last: Option<Instant>,
    unsaid: u64,
}

/// A connection, or why there is none; made by a task of its own, so that a
/// guest that is stopped meanwhile doesn't stop it.
type Attempt = Shared<BoxFuture<'static, Result<Arc<Live>, Failed>>>;

/// When it was that no connection came about.
#[derive(Clone, Copy)]
struct Failed(Instant);

/// A connection.
struct Live {
    connection: MultiplexedConnection,
    since: Instant,
    /// Reads and writes; it ends when the connection is lost.
    driver: JoinHandle<()>,
    /// No call is to come any more.
    given_up: AtomicBool,
}

/// Why a command was not answered.
enum Unanswered {
    /// The connection was lost.
    Lost,
    /// As it is to be told.
    Failure(Failure),
}

impl Link {
    pub(super) fn new(url: RedisUrl, network: &Network<'_>) -> Result<Self, TlsError> {
        let tls = if url.is_tls() { Some(connection::tls(network.certificates, &[])?) } else { None };
        let resolver = Arc::clone(network.resolver);
        let server = Server { url, resolver, tls, told: Mutex::default() };
        Ok(Self { server: Arc::new(server), attempt: Mutex::default() })
    }

    /// Sends `command` and waits for its answer, which is no error.
    pub(super) async fn call(&self, command: &Cmd, repeat: Repeat) -> Result<Value, Failure> {
        match self.send(command).await {
            // Servers close connections that idle, and who sends just then
            // learns it too late.
            Err(Unanswered::Lost) if repeat == Repeat::Allowed => self.send(command).await,
            result => result,
        }
        .map_err(|unanswered| match unanswered {
            Unanswered::Failure(failure) => failure,
            Unanswered::Lost => {
                self.tell("the connection was lost");
                Failure::Unreachable
            }
        })
    }

    /// Tells the log what is wrong with the server, but not too often.
    pub(super) fn tell(&self, error: &str) {
        self.server.tell(error);
    }

    async fn send(&self, command: &Cmd) -> Result<Value, Unanswered> {
        let live = self.live().await?;
        let mut connection = live.connection.clone();
        let answer = timeout(CALL_TIMEOUT, connection.send_packed_command(command)).await;
        let error = match answer {
            Ok(Ok(Value::ServerError(error))) => error.into(),
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => {
                live.give_up();
                self.tell(&format!("no answer in {} s", CALL_TIMEOUT.as_secs()));
                return Err(Unanswered::Failure(Failure::Unreachable));
            }
        };
        if error.is_io_error() {
            live.give_up();
            return Err(Unanswered::Lost);
        }
        Err(Unanswered::Failure(self.judge(&error, &live)))
    }

    /// What a server's error means.
    fn judge(&self, error: &RedisError, live: &Live) -> Failure {
        let detail = error.detail().unwrap_or_default();
        match error.code() {
            Some("WRONGTYPE") => return Failure::Type,
            Some("ERR") if detail.contains("not an integer") => return Failure::NotANumber,
            Some("ERR") if detail.contains("would overflow") => return Failure::Overflow,
            // It was the primary once: its name may lead to another one now.
            Some("READONLY") => live.give_up(),
            Some(_) => {}
            // The answer is none, and what follows can't be told apart.
            None => live.give_up(),
        }
        self.tell(&self.server.text(error));
        Failure::Server
    }

    async fn live(&self) -> Result<Arc<Live>, Unanswered> {
        let mut live = self.attempt().await;
        // The task may have ended long before anybody looked.
        let is_over = match &live {
            Ok(live) => !live.is_open(),
            Err(Failed(at)) => at.elapsed() >= PAUSE,
        };
        if is_over {
            live = self.attempt().await;
        }
        match live {
            Ok(live) if live.is_open() => Ok(live),
            Ok(_) => Err(Unanswered::Lost),
            Err(Failed(_)) => Err(Unanswered::Failure(Failure::Unreachable)),
        }
    }

    /// The newest attempt that is of use.
    fn attempt(&self) -> Attempt {
        let mut newest = lock(&self.attempt);
        let is_of_use = |attempt: &Attempt| match attempt.peek() {
            None => true,
            Some(Ok(live)) => live.is_open() || live.since.elapsed() < PAUSE,
            Some(Err(Failed(at))) => at.elapsed() < PAUSE,
        };
        if let Some(attempt) = newest.as_ref().filter(|attempt| is_of_use(attempt)) {
            return attempt.clone();
        }
        let task = tokio::spawn(connect(Arc::clone(&self.server)));
        // The task ends before its time only where the runtime does.
        let attempt = task.then(|result| ready(result.unwrap_or_else(|_| Err(Failed(Instant::now())))));
        newest.insert(attempt.boxed().shared()).clone()
    }
}

async fn connect(server: Arc<Server>) -> Result<Arc<Live>, Failed> {
    let connected = timeout(CONNECT_TIMEOUT, server.connect()).await;
    let error = match connected {
        Ok(Ok(live)) => return Ok(Arc::new(live)),
        Ok(Err(error)) => error,
        Err(_) => format!("no connection in {} s", CONNECT_TIMEOUT.as_secs()),
    };
    server.tell(&error);
    Err(Failed(Instant::now()))
}

impl Server {
    /// Connects and logs in; or says why not, for the log.
    async fn connect(&self) -> Result<Live, String> {
        let url = &self.url;
        let addresses = match url.host() {
            HostName::Address(address) => vec![*address],
            HostName::Name(name) => self.resolver.addresses(name).await.map_err(|error| error.to_string())?,
        };
        let addresses: Vec<_> = addresses.into_iter().map(|address| (address, url.port()).into()).collect();
        let text = |error: SendError| error.to_string();
        let stream = connection::open(&addresses).await.map_err(text)?;
        keep_alive(&stream).map_err(|error| error.to_string())?;
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some(tls) => connection::secure(tls, url.host(), stream).await.map_err(text)?,
        };
        let mut info = RedisConnectionInfo::default().set_db(url.database().into()).set_skip_set_lib_name();
        if let Some(password) = url.password() {
            info = info.set_password(password);
        }
        if let Some(user) = url.user() {
            info = info.set_username(user);
        }
        // Timeouts are here.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connected = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (connection, driver) = connected.map_err(|error| self.text(&error))?;
        let driver = tokio::spawn(driver);
        let live = Live { connection, since: Instant::now(), driver, given_up: AtomicBool::new(false) };
        // A kernel accepts for a server that hangs. Any answer will do: the user may
        // not have the right to ask.
        match live.connection.clone().send_packed_command(&redis::cmd("PING")).await {
            Err(error) if error.is_io_error() => Err(self.text(&error)),
            _ => Ok(live),
        }
    }

    /// An error as the log is told it. Servers repeat parts of a command that
    /// they don't know, which may be a key, a value or a password.
    fn text(&self, error: &RedisError) -> String {
        match error.kind() {
            ErrorKind::Io => return error.to_string(),
            ErrorKind::AuthenticationFailed => return "the server refuses user or password".into(),
            ErrorKind::Parse => return "malformed answer: expected one of a Redis server".into(),
            _ => {}
        }
        let detail = error.detail().unwrap_or_default();
        let known = detail.split(", with args").next().unwrap_or_default();
        let secrets = [self.url.password(), self.url.user()];
        let tells = secrets.into_iter().flatten().any(|secret| known.contains(secret));
        let known = if tells { "" } else { known };
        let text = format!("{} {known}", error.code().unwrap_or("unknown error"));
        let plain = text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c });
        plain.take(LONGEST_TEXT).collect()
    }

    fn tell(&self, error: &str) {
        let mut told = lock(&self.told);
        if told.last.is_some_and(|last| last.elapsed() < SILENCE) {
            told.unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(&mut told.unsaid);
        told.last = Some(Instant::now());
        drop(told);
        warn!(store = %self.url, error, unsaid, "key-value store failed");
    }
}

/// Lets the kernel notice a peer that is gone, whether bytes wait for it or not.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, interval)?;
    sockopt::set_tcp_keepcnt(stream, count)?;
    let all = idle + interval * count;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(all.as_millis()).unwrap_or(u32::MAX))
}

impl Live {
    fn is_open(&self) -> bool {
        !self.given_up.load(Ordering::Relaxed) && !self.driver.is_finished()
    }

    /// Lets the next call connect anew. Calls that wait go on waiting.
    fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is within is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
