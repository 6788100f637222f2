//! Outbound HTTP: which requests may leave, and where to.
//!
//! A request passes twice: by its method, scheme, host and port before
//! anything is resolved, and by each address of its host afterwards. The
//! connection goes to an address that passed, with no second look-up between
//! (no DNS rebinding), and the guest follows redirects itself, so that each
//! request of a chain passes by itself. How it is sent: see `connection`.

pub(super) mod connection;
mod response;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody};
use wharf_app::{HostName, Outbound, OutboundRequest, OutboundScheme};

use super::address::special;
use super::resolver::Resolver;

pub(crate) use self::connection::TlsError;

/// Connections of one worker at a time, all its instances in this process
/// together. Further ones wait for as long as a connection may take.
const MAX_CONNECTIONS: usize = 128;

/// Time to resolve the host and to connect, TLS and all, unless the guest says
/// less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time until the response's headers, unless the guest says less.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time without a byte of the response's body, unless the guest says less.
const BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(60);

/// One worker's outbound HTTP.
///
/// Nothing of it is shared with another worker but the DNS cache: connections
/// are not reused, and TLS sessions only within the worker, so that no request
/// travels with another worker's credentials.
pub(super) struct Egress {
    entries: Vec<Outbound>,
    resolver: Arc<Resolver>,
    connections: Arc<Semaphore>,
    tls: Option<TlsConnector>,
}

/// Where a request goes, once its name has passed.
#[derive(Debug)]
pub(super) struct Destination {
    method: Method,
    scheme: OutboundScheme,
    host: HostName,
    port: u16,
}

/// Why a request does not leave, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("no entry of `outbound` covers it")]
    NotGranted,
    #[error("CONNECT is never granted")]
    Connect,
    #[error("its URI has no host that is a name or an address, or has a user in it")]
    Uri,
}

/// Why a request was not answered.
#[derive(Debug)]
pub(super) enum SendError {
    /// The host has no address that the worker may connect to.
    Prohibited { destination: Destination, address: IpAddr, kind: &'static str },
    /// Anything else.
    Http(HttpError),
}

impl Egress {
    /// For requests that one of `entries` covers. `certificates` are trusted
    /// besides those that are part of the program.
    ///
    /// # Errors
    /// [`TlsError`]: some are by https, and the file of certificate authorities
    /// can't be read.
    pub(super) fn new(
        entries: Vec<Outbound>,
        resolver: Arc<Resolver>,
        certificates: Option<&Path>,
    ) -> Result<Self, TlsError> {
        let tls = if entries.iter().any(Outbound::is_https) {
            Some(connection::tls(certificates, &["http/1.1"])?)
        } else {
            None
        };
        Ok(Self { entries, resolver, connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)), tls })
    }

    /// Whether `request` may leave, as far as its name tells.
    ///
    /// # Errors
    /// [`Denied`]: it may not.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<Destination, Denied> {
        let destination = Destination::of(request)?;
        let asked = destination.asked();
        if self.entries.iter().any(|entry| entry.covers(&asked)) {
            Ok(destination)
        } else {
            Err(Denied::NotGranted)
        }
    }

    /// Sends `request` and waits for the response's headers. The future beside
    /// the response drives the connection and ends with it.
    ///
    /// # Errors
    /// [`SendError`]: no address may be used, none answers, or not by HTTP.
    pub(super) async fn send(
        &self,
        destination: Destination,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<(Response<WasiBody>, impl Future<Output = ()> + Send + use<>), SendError> {
        let at_most = |asked: Option<Duration>, most: Duration| asked.map_or(most, |asked| asked.min(most));
        let connect_timeout = at_most(options.connect_timeout, CONNECT_TIMEOUT);
        let connect = async {
            let connections = Arc::clone(&self.connections);
            let Ok(permit) = connections.acquire_owned().await else {
                return Err(SendError::Http(HttpError::ConnectionLimitReached));
            };
            let (destination, addresses) = self.addresses(destination).await?;
            let stream = connection::open(&addresses).await?;
            let stream = match (destination.scheme, &self.tls) {
                (OutboundScheme::Http, _) => connection::Stream::Plain(stream),
                (OutboundScheme::Https, Some(tls)) => {
                    connection::secure(tls, &destination.host, stream).await?
                }
                (OutboundScheme::Https, None) | (OutboundScheme::Tcp, _) => {
                    return Err(HttpError::ConfigurationError.into());
                }
            };
            Ok((permit, destination, stream))
        };
        let connected = timeout(connect_timeout, connect).await;
        let (permit, destination, stream) =
            connected.unwrap_or_else(|_| Err(self.connect_timed_out().into()))?;
        let request = connection::prepare(request, &destination);
        let first_byte = at_most(options.first_byte_timeout, FIRST_BYTE_TIMEOUT);
        let (response, driver) = connection::exchange(stream, request, first_byte).await?;
        let between = at_most(options.between_bytes_timeout, BETWEEN_BYTES_TIMEOUT);
        let response = response::guarded(response, between).map(BodyExt::boxed_unsync);
        Ok((response, async move {
            driver.await;
            drop(permit);
        }))
    }

    /// The addresses of the host that the worker may connect to.
    async fn addresses(&self, destination: Destination) -> Result<(Destination, Vec<SocketAddr>), SendError> {
        let found = match &destination.host {
            HostName::Address(address) => vec![*address],
            HostName::Name(name) => self.resolver.addresses(name).await?,
        };
        let mut allowed = Vec::with_capacity(found.len());
        let mut prohibited = None;
        for address in found.into_iter().map(|address| address.to_canonical()) {
            match self.prohibits(&destination, address) {
                None => allowed.push(SocketAddr::new(address, destination.port)),
                Some(kind) => prohibited = Some((address, kind)),
            }
        }
        match prohibited {
            Some((address, kind)) if allowed.is_empty() => {
                Err(SendError::Prohibited { destination, address, kind })
            }
            _ if allowed.is_empty() => Err(HttpError::DestinationNotFound.into()),
            _ => Ok((destination, allowed)),
        }
    }

    /// What `address` is, if that needs an entry by address and has none.
    fn prohibits(&self, destination: &Destination, address: IpAddr) -> Option<&'static str> {
        let special = special(address)?;
        let asked = destination.asked();
        let mut bits = self.entries.iter().filter_map(|entry| entry.covers_address(&asked, address));
        (!bits.any(|bits| bits >= special.bits)).then_some(special.kind)
    }

    fn connect_timed_out(&self) -> HttpError {
        match self.connections.available_permits() {
            0 => HttpError::ConnectionLimitReached,
            _ => HttpError::ConnectionTimeout,
        }
    }
}

impl Destination {
    fn of<B>(request: &Request<B>) -> Result<Self, Denied> {
        let uri = request.uri();
        let scheme = if uri.scheme() == Some(&Scheme::HTTPS) {
            OutboundScheme::Https
        } else if uri.scheme() == Some(&Scheme::HTTP) {
            OutboundScheme::Http
        } else {
            return Err(Denied::Uri);
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or(Denied::Uri)?;
        if request.method() == Method::CONNECT {
            return Err(Denied::Connect);
        }
        let host = authority.host().parse().map_err(|_| Denied::Uri)?;
        // A port that is no number, or none after the colon, must not become
        // the default one.
        let rest = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let port = match authority.port_u16() {
            Some(port) if port > 0 => port,
            None if rest.is_empty() => scheme.default_port(),
            _ => return Err(Denied::Uri),
        };
        Ok(Self { method: request.method().clone(), scheme, host, port })
    }

    fn asked(&self) -> OutboundRequest<'_> {
        OutboundRequest {
            method: self.method.as_str(),
            scheme: self.scheme,
            host: &self.host,
            port: self.port,
        }
    }

    /// `Host` of the request (RFC 9112, 3.2).
    fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

/// What the log says of a request's URI: no path and no query, where secrets
/// may be.
pub(super) fn origin(uri: &Uri) -> String {
    let host = uri.authority().map_or("", |authority| {
        authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host)
    });
    format!("{}://{host}", uri.scheme_str().unwrap_or_default())
}

/// The code that tells a guest of a failure of the connection.
pub(super) fn error_code(error: &hyper::Error) -> ErrorCode {
    if error.is_timeout() {
        ErrorCode::HttpResponseTimeout
    } else if error.is_parse_too_large() {
        ErrorCode::HttpResponseHeaderSectionSize(None)
    } else if error.is_incomplete_message() || ends_early(error) {
        ErrorCode::HttpResponseIncomplete
    } else if error.is_closed() || error.is_canceled() || error.is_body_write_aborted() {
        ErrorCode::ConnectionTerminated
    } else {
        ErrorCode::HttpProtocolError
    }
}

/// Whether a body is shorter than its `Content-Length` said, or lacks its last
/// chunk.
fn ends_early(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}

impl SendError {
    /// Where a request was to go that was denied after its host was resolved.
    pub(super) fn denied(&self) -> Option<String> {
        match self {
            Self::Prohibited { destination, .. } => Some(destination.to_string()),
            Self::Http(_) => None,
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prohibited { destination, address, kind } => {
                let host = HostName::Address(*address);
                let entry = Destination { host, method: Method::GET, ..*destination };
                write!(f, "{address} is {kind}: add {:?} to `outbound` to allow it", entry.to_string())
            }
            Self::Http(error) => error.fmt(f),
        }
    }
}

impl From<HttpError> for SendError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

impl From<SendError> for HttpError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Prohibited { .. } => Self::DestinationIpProhibited,
            SendError::Http(error) => error,
        }
    }
}

impl From<Denied> for HttpError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NotGranted => Self::HttpRequestDenied,
            Denied::Connect => Self::HttpRequestMethodInvalid,
            Denied::Uri => Self::HttpRequestUriInvalid,
        }
    }
}

#[cfg(test)]
mod tests;
