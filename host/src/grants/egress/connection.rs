//! A connection for one outbound request, and the exchange on it.
//!
//! HTTP/1.1 alone: a connection carries one request, for which HTTP/2 has
//! nothing to give.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wasmtime_wasi::runtime::spawn;
use wasmtime_wasi_http::{Error as HttpError, WasiBody};
use wharf_app::HostName;

use super::{Destination, SendError};

/// Header section of a response, in bytes.
const MAX_HEADERS: usize = 64 << 10;

/// Fields in a header section.
const MAX_FIELDS: usize = 128;

/// TLS sessions that one worker may resume.
const SESSIONS: usize = 64;

/// Time for one address to answer, where there are others to try.
const ONE_ADDRESS: Duration = Duration::from_secs(3);

/// Why no TLS connection can be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of certificate authorities can't be read.
    #[error("cannot read the certificates of SSL_CERT_FILE, {}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library can't start.
    #[error("cannot start TLS")]
    Start(#[source] rustls::Error),
}

/// A TLS client that trusts Mozilla's certificate authorities, which are part
/// of the program, and those of the PEM file `certificates` besides. `protocols`
/// are offered by name (ALPN, RFC 7301).
pub(in crate::grants) fn tls(
    certificates: Option<&Path>,
    protocols: &[&str],
) -> Result<TlsConnector, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = certificates {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Certificates {
            path: path.to_owned(),
            source,
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.into()))?;
        let before = roots.len();
        for certificate in certificates {
            let certificate = certificate.map_err(|error| failed(error.into()))?;
            roots.add(certificate).map_err(|error| failed(error.into()))?;
        }
        if roots.len() == before {
            return Err(failed("expected certificates in PEM form, found none".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Start)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection to the first of `addresses` that answers, and to no other.
pub(in crate::grants) async fn open(addresses: &[SocketAddr]) -> Result<TcpStream, SendError> {
    let mut last = HttpError::DestinationNotFound;
    for (index, address) in addresses.iter().enumerate() {
        let connect = TcpStream::connect(address);
        let connected = if index + 1 < addresses.len() {
            timeout(ONE_ADDRESS, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        } else {
            connect.await
        };
        match connected {
            Ok(stream) => {
                // Small requests must not wait for Nagle's algorithm.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = connect_error(&error),
        }
    }
    Err(last.into())
}

fn connect_error(error: &io::Error) -> HttpError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => HttpError::ConnectionRefused,
        io::ErrorKind::TimedOut => HttpError::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            HttpError::DestinationIpUnroutable
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => HttpError::ConnectionTerminated,
        _ => HttpError::DestinationUnavailable,
    }
}

/// TLS on `stream`, with a certificate for `host`.
pub(in crate::grants) async fn secure(
    tls: &TlsConnector,
    host: &HostName,
    stream: TcpStream,
) -> Result<Stream, SendError> {
    let name = match host {
        HostName::Address(address) => ServerName::from(*address),
        HostName::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|_| HttpError::HttpRequestUriInvalid)?
        }
    };
    let stream = tls.connect(name, stream).await.map_err(|error| tls_error(&error))?;
    Ok(Stream::Tls(Box::new(stream)))
}

fn tls_error(error: &io::Error) -> HttpError {
    match error.get_ref().and_then(|source| source.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            HttpError::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) => HttpError::TlsAlertReceived {
            alert_id: Some(u8::from(*alert)),
            alert_message: Some(format!("{alert:?}")),
        },
        Some(_) => HttpError::TlsProtocolError,
        None => connect_error(error),
    }
}

/// The request as the server gets it (RFC 9112, 3.2.1): the target without
/// scheme and authority, `Host` by us, and nothing that is only for one hop.
pub(super) fn prepare(mut request: Request<WasiBody>, destination: &Destination) -> Request<WasiBody> {
    let target = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_hop_by_hop(headers);
    // Of host and port alone, so it is a valid value.
    if let Ok(authority) = HeaderValue::try_from(destination.authority()) {
        headers.insert(HOST, authority);
    }
    request
}

/// Fields that are for one connection (RFC 9110, 7.6.1), and those that
/// `Connection` names.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    const OTHERS: [HeaderName; 7] = [
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("http2-settings"),
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for value in headers.get_all(CONNECTION).iter().cloned().collect::<Vec<_>>() {
        for name in value.to_str().unwrap_or_default().split(',') {
            headers.remove(name.trim());
        }
    }
    headers.remove(CONNECTION);
    for name in OTHERS {
        headers.remove(name);
    }
}

/// Sends `request` on `stream`. The future beside the response drives the
/// connection; dropped, it closes it.
pub(super) async fn exchange(
    stream: Stream,
    request: Request<WasiBody>,
    first_byte: Duration,
) -> Result<(Response<Incoming>, impl Future<Output = ()> + Send + use<>), SendError> {
    let exchange = async {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEADERS).max_headers(MAX_FIELDS);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        // A task: the guest may write its body while it waits for the headers.
        let driver = spawn(async move {
            // An error is told by the response or its body as well.
            let _ = connection.await;
        });
        let response = sender.send_request(request).await?;
        Ok::<_, HttpError>((response, driver))
    };
    let answered = timeout(first_byte, exchange).await;
    Ok(answered.map_err(|_| HttpError::ConnectionReadTimeout)??)
}

/// A connection, with TLS or without.
pub(in crate::grants) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
