//! TLS: as a client sees it, and as it is replaced.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::host::{Host, exchange, read_settings, request};

/// A self-signed certificate and its key, in files.
struct Pair {
    folder: tempfile::TempDir,
    certificate: String,
}

fn generate() -> (String, String) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self { folder: tempfile::tempdir().unwrap(), certificate: String::new() };
        pair.replace();
        pair
    }

    fn replace(&mut self) {
        let (certificate, key) = generate();
        std::fs::write(self.folder.path().join("tls.crt"), &certificate).unwrap();
        std::fs::write(self.folder.path().join("tls.key"), key).unwrap();
        self.certificate = certificate;
    }

    fn host(&self, more: &[(&str, &str)]) -> Host {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let (certificate, key) = (path("tls.crt"), path("tls.key"));
        let mut variables = vec![("WHARF_TLS_CERT", certificate.as_str()), ("WHARF_TLS_KEY", key.as_str())];
        variables.extend_from_slice(more);
        Host::start(&variables)
    }

    /// A connection of a client that trusts this certificate alone.
    fn connect(&self, host: &Host, protocols: &[&str]) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(client, host.connect())
    }
}

#[test]
fn both_protocols_are_spoken_by_tls() {
    let pair = Pair::new();
    let host = pair.host(&[]);
    for protocols in [&["http/1.1"][..], &[]] {
        assert_eq!(exchange(pair.connect(&host, protocols), &request("/", "")).text(), "hello");
    }
    let mut stream = pair.connect(&host, &["h2", "http/1.1"]);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    assert!(!read_settings(&mut stream).is_empty());
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn sighup_takes_the_new_certificate_and_a_bad_one_changes_nothing() {
    let mut pair = Pair::new();
    let host = pair.host(&[]);
    pair.replace();
    host.signal(rustix::process::Signal::HUP);
    host.log_until("TLS certificate reloaded");
    assert_eq!(exchange(pair.connect(&host, &[]), &request("/", "")).status, 200);

    std::fs::write(pair.folder.path().join("tls.key"), generate().1).unwrap();
    host.signal(rustix::process::Signal::HUP);
    let log = host.log_until("the old one stays");
    assert!(log.contains("does not belong to the certificate"), "{log}");
    assert_eq!(exchange(pair.connect(&host, &[]), &request("/", "")).status, 200);
}

#[test]
fn who_never_shakes_hands_or_speaks_no_tls_is_let_go() {
    let pair = Pair::new();
    let host = pair.host(&[("WHARF_HANDSHAKE_TIMEOUT", "300ms"), ("WHARF_ADMIN_ADDR", "127.0.0.1:0")]);
    let mut silent = host.connect();
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0);
    let mut plain = host.connect();
    plain.write_all(request("/", "").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    // Counted once the connection is gone, maybe after its client saw that.
    for reason in ["handshake_timeout", "handshake_failed"] {
        let series = format!("closed_total{{reason=\"{reason}\"}} 1\n");
        host.until(|| host.admin("/metrics").text().contains(&series).then_some(()));
    }
}
