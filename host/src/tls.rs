//! TLS by rustls: the server's certificate, which can be replaced while it
//! serves, and whom a client of ours trusts.
//!
//! One certificate chain for all names. Versions 1.2 and 1.3 and their ciphers
//! are rustls' defaults; ALPN offers `h2`, then `http/1.1`. Client certificates
//! are not asked for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// Where systems keep the authorities that they trust.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificate of a server, with its key.
#[derive(Debug)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

/// Why TLS can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read; the cause names it.
    #[error("cannot read TLS {what}")]
    Read {
        /// What it should hold.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file holds no such thing, or a broken one.
    #[error("cannot use {} as TLS {what}: expected PEM, found {found}", path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What it holds instead.
        found: String,
    },
    /// The key is not the certificate's.
    #[error("the TLS key {} does not belong to the certificate {}", key.display(), certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate or the key is of a kind that can't be used.
    #[error("cannot use TLS certificate {}", certificate.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// No file of authorities was found.
    #[error("no certificate authorities found to verify an https endpoint by")]
    NoAuthorities,
}

impl TlsError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { .. } => {
                Some("the file must be readable for this user; in images that is user 65532")
            }
            Self::Pem { what: "certificate", .. } => {
                Some("expected the chain, the server's own certificate first: -----BEGIN CERTIFICATE-----")
            }
            Self::Pem { what: "key", .. } => {
                Some("expected an unencrypted key: -----BEGIN PRIVATE KEY----- (or RSA, or EC)")
            }
            Self::Mismatch { .. } => Some("the first certificate of the file must be the server's own"),
            Self::NoAuthorities => Some("name a PEM file in OTEL_EXPORTER_OTLP_CERTIFICATE or SSL_CERT_FILE"),
            Self::Pem { .. } | Self::Unusable { .. } => None,
        }
    }
}

impl Tls {
    /// The certificate chain and the key in these PEM files.
    ///
    /// # Errors
    /// [`TlsError`]: one can't be read or used, or they don't belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(configuration(certificate, key)?));
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Reads the files anew, for connections from now on.
    ///
    /// # Errors
    /// [`TlsError`]: as of [`Tls::load`]; then the old certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let new = Arc::new(configuration(&self.certificate, &self.key)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// For one connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

fn configuration(certificate: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let chain = certificates(certificate, "certificate")?;
    let text = read(key, "key")?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|error| malformed("key", key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |source| match source {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
        }
        source => TlsError::Unusable { certificate: certificate.to_owned(), source },
    };
    let mut configuration = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(configuration)
}

/// For connections of ours to servers that these authorities vouch for; by
/// default, those that the system trusts.
pub(crate) fn client(authorities: Option<&str>) -> Result<Arc<ClientConfig>, TlsError> {
    let system = || AUTHORITIES.into_iter().find(|file| Path::new(file).is_file());
    let file = authorities.or_else(system).ok_or(TlsError::NoAuthorities)?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(Path::new(file), "authorities")?);
    if added == 0 {
        return Err(TlsError::NoAuthorities);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let configuration = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unusable { certificate: file.into(), source })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(configuration))
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path, what)?;
    let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| malformed(what, path, &error))?;
    if chain.is_empty() { Err(malformed(what, path, &pem::Error::NoItemsFound)) } else { Ok(chain) }
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    fs_err::read(path).map_err(|source| TlsError::Read { what, source })
}

fn malformed(what: &'static str, path: &Path, error: &pem::Error) -> TlsError {
    let found = match error {
        pem::Error::NoItemsFound => "none of it".to_owned(),
        // Without what was found: it may be half a key.
        pem::Error::MissingSectionEnd { .. } => "a section without end".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a malformed section".to_owned(),
        _ => "malformed base64".to_owned(),
    };
    TlsError::Pem { what, path: path.to_owned(), found }
}

#[cfg(test)]
mod tests;
