//! Which requests leave, to which addresses, and what arrives.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn egress(entries: &[&str]) -> Egress {
    let entries = entries.iter().map(|entry| entry.parse().unwrap()).collect();
    Egress::new(entries, Arc::default(), None).unwrap()
}

fn request(method: &str, url: &str, body: &'static str) -> Request<WasiBody> {
    let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(HttpError::from).boxed_unsync();
    Request::builder().method(method).uri(url).body(body).unwrap()
}

fn get(url: &str) -> Request<WasiBody> {
    request("GET", url, "")
}

/// An answer's status, headers and body, or the error.
async fn answer(
    egress: &Egress,
    request: Request<WasiBody>,
) -> Result<(http::response::Parts, String), SendError> {
    answer_with(egress, request, RequestOptions::default()).await
}

async fn answer_with(
    egress: &Egress,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<(http::response::Parts, String), SendError> {
    let destination = egress.check(&request).map_err(HttpError::from)?;
    let (response, connection) = egress.send(destination, request, options).await?;
    let connection = tokio::spawn(connection);
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(SendError::Http)?.to_bytes();
    connection.await.unwrap();
    Ok((parts, String::from_utf8(body.to_vec()).unwrap()))
}

/// A server that answers one connection with `response`, and its request.
async fn server(response: &'static [u8]) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = head(&mut stream).await;
        // The client may hang up at what it is sent.
        let _ = stream.write_all(response).await;
        request
    });
    (port, served)
}

async fn head(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap() == 0 {
            break;
        }
        request.push(byte[0]);
    }
    String::from_utf8(request).unwrap()
}

#[tokio::test]
async fn a_request_arrives_whole_and_so_does_its_answer() {
    let (port, served) = server(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-End: 2\r\n\r\nhello",
    )
    .await;
    let egress = egress(&[&format!("http://127.0.0.1:{port}")]);
    let mut request = get(&format!("http://127.0.0.1:{port}/path?query"));
    let headers = request.headers_mut();
    for (name, value) in [
        ("host", "elsewhere.example"),
        ("connection", "x-mine, te"),
        ("x-mine", "1"),
        ("te", "trailers"),
        ("proxy-authorization", "secret"),
        ("upgrade", "websocket"),
        ("authorization", "Bearer token"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    let (parts, body) = answer(&egress, request).await.unwrap();
    assert_eq!((parts.status.as_u16(), body.as_str()), (200, "hello"));
    assert_eq!(parts.headers["x-end"], "2");
    for hop in ["connection", "x-hop", "keep-alive"] {
        assert!(!parts.headers.contains_key(hop), "{hop}");
    }
    let sent = served.await.unwrap().to_lowercase();
    assert!(sent.starts_with("get /path?query http/1.1\r\n"), "{sent}");
    assert_eq!(sent.matches("host: ").count(), 1, "{sent}");
    assert!(sent.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{sent}");
    assert!(sent.contains("authorization: bearer token\r\n"), "{sent}");
    for hop in ["x-mine", "te:", "proxy-", "upgrade", "connection:"] {
        assert!(!sent.contains(hop), "{hop}: {sent}");
    }
}

#[test]
fn what_is_not_covered_or_malformed_does_not_leave() {
    let egress = egress(&["https://api.example.com", "GET http://*.example.org"]);
    let check = |method: &str, url: &str| egress.check(&request(method, url, "")).map(|to| to.to_string());
    assert_eq!(check("POST", "https://api.example.com/x").unwrap(), "https://api.example.com");
    assert_eq!(check("GET", "http://A.EXAMPLE.org.:80/").unwrap(), "http://a.example.org");
    for (method, url, expected) in [
        ("GET", "http://api.example.com/", Denied::NotGranted),
        ("POST", "http://a.example.org/", Denied::NotGranted),
        ("GET", "https://evil.example/", Denied::NotGranted),
        ("GET", "https://user@api.example.com/", Denied::Uri),
        ("GET", "https://evil.example@api.example.com/", Denied::Uri),
        ("GET", "https://api.example.com:/", Denied::Uri),
        ("GET", "https://api.example.com:0/", Denied::Uri),
        ("GET", "https://0x7f.0.0.1/", Denied::Uri),
        ("GET", "https://2130706433/", Denied::Uri),
        ("GET", "ftp://api.example.com/", Denied::Uri),
        ("GET", "/relative", Denied::Uri),
        ("CONNECT", "https://api.example.com/", Denied::Connect),
    ] {
        assert_eq!(check(method, url).unwrap_err(), expected, "{method} {url}");
    }
}

#[tokio::test]
async fn a_name_that_leads_into_the_own_network_needs_an_entry_by_address_too() {
    let (port, served) = server(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    let url = format!("http://localhost:{port}/");
    let by_name = egress(&[&format!("http://localhost:{port}"), "http://*:*"]);
    let error = answer(&by_name, get(&url)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("is loopback: add \"http://"), "{text}");
    assert!(text.contains(&format!("{port}\" to `outbound`")), "{text}");
    assert!(matches!(HttpError::from(error), HttpError::DestinationIpProhibited));
    // A block that has more than the special addresses does not grant them.
    let by_wide_block = egress(&[&format!("http://localhost:{port}"), &format!("http://0.0.0.0/0:{port}")]);
    assert!(matches!(answer(&by_wide_block, get(&url)).await, Err(SendError::Prohibited { .. })));
    let by_address = egress(&[&format!("http://localhost:{port}"), &format!("http://127.0.0.0/8:{port}")]);
    let (parts, _) = answer(&by_address, get(&url)).await.unwrap();
    assert_eq!(parts.status, 204);
    assert!(served.await.unwrap().to_lowercase().contains(&format!("host: localhost:{port}\r\n")));
}

#[tokio::test]
async fn an_address_by_itself_needs_an_entry_that_is_as_narrow_as_its_block() {
    for url in
        ["http://169.254.169.254/latest", "http://[::ffff:169.254.169.254]/", "http://[64:ff9b::a9fe:a9fe]/"]
    {
        let egress =
            egress(&["http://169.254.0.0/16", "http://0.0.0.0/0", "http://[::/0]", "http://[64:ff9b::/96]"]);
        let error = answer(&egress, get(url)).await.unwrap_err();
        assert!(error.to_string().contains("metadata"), "{url}: {error}");
    }
    let addresses = |entry: &'static str, url: &'static str| async move {
        let egress = egress(&[entry]);
        let destination = egress.check(&get(url)).unwrap();
        egress.addresses(destination).await.map(|(_, addresses)| addresses)
    };
    let metadata = addresses("http://169.254.169.254", "http://169.254.169.254/").await.unwrap();
    assert_eq!(metadata, ["169.254.169.254:80".parse().unwrap()]);
    assert!(addresses("http://0.0.0.0/0", "http://8.8.8.8/").await.is_ok());
    assert!(addresses("http://10.0.0.0/8", "http://10.1.2.3/").await.is_ok());
    assert!(addresses("http://8.0.0.0/5", "http://10.1.2.3/").await.is_err());
}

#[tokio::test]
async fn failures_have_codes_of_their_own() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let all = egress(&["http://127.0.0.1:*", "https://127.0.0.1:*"]);
    let error = answer(&all, get(&format!("http://127.0.0.1:{port}/"))).await.unwrap_err();
    assert!(matches!(error, SendError::Http(HttpError::ConnectionRefused)), "{error}");

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"this is no TLS").await.unwrap();
        stream
    });
    let error = answer(&all, get(&format!("https://127.0.0.1:{port}/"))).await.unwrap_err();
    assert!(matches!(error, SendError::Http(HttpError::TlsProtocolError)), "{error}");
    drop(served.await.unwrap());

    for (response, expected) in [
        (&b"not HTTP at all\r\n\r\n"[..], "HttpProtocolError"),
        (b"", "HttpResponseIncomplete"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "HttpResponseIncomplete"),
    ] {
        let (port, served) = server(response).await;
        let error = answer(&all, get(&format!("http://127.0.0.1:{port}/"))).await.unwrap_err();
        let SendError::Http(HttpError::Hyper(error)) = error else { panic!("{error}") };
        assert!(format!("{:?}", error_code(&error)).contains(expected), "{expected}: {error:?}");
        served.await.unwrap();
    }
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head(&mut stream).await;
        let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(128 << 10));
        let _ = stream.write_all(large.as_bytes()).await;
    });
    let egress = egress(&["http://127.0.0.1:*"]);
    let error = answer(&egress, get(&format!("http://127.0.0.1:{port}/"))).await.unwrap_err();
    let SendError::Http(HttpError::Hyper(error)) = error else { panic!("{error}") };
    assert!(matches!(error_code(&error), ErrorCode::HttpResponseHeaderSectionSize(_)), "{error:?}");
    served.await.unwrap();
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await;
            stream.write_all(answer).await.unwrap();
            held.push(stream);
        }
        held
    });
    let egress = egress(&["http://127.0.0.1:*"]);
    let short = Some(Duration::from_millis(50));
    for options in [
        RequestOptions { first_byte_timeout: short, ..RequestOptions::default() },
        RequestOptions { between_bytes_timeout: short, ..RequestOptions::default() },
    ] {
        let error =
            answer_with(&egress, get(&format!("http://127.0.0.1:{port}/")), options).await.unwrap_err();
        assert!(matches!(error, SendError::Http(HttpError::ConnectionReadTimeout)), "{error}");
    }
    drop(silent.await.unwrap());
}

#[tokio::test]
async fn connections_are_limited_and_given_back() {
    let egress = egress(&["http://127.0.0.1:*"]);
    let taken = Arc::clone(&egress.connections).acquire_many_owned(MAX_CONNECTIONS as u32).await.unwrap();
    let options = RequestOptions { connect_timeout: Some(Duration::ZERO), ..RequestOptions::default() };
    let error = answer_with(&egress, get("http://127.0.0.1:9/"), options).await.unwrap_err();
    assert!(matches!(error, SendError::Http(HttpError::ConnectionLimitReached)), "{error}");
    drop(taken);
    let (port, served) = server(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    answer(&egress, get(&format!("http://127.0.0.1:{port}/"))).await.unwrap();
    served.await.unwrap();
    assert_eq!(egress.connections.available_permits(), MAX_CONNECTIONS);
}

#[test]
fn the_log_has_no_path_no_query_and_no_user() {
    let uri = "https://user:secret@api.example.com:8443/reset?token=secret".parse().unwrap();
    assert_eq!(origin(&uri), "https://api.example.com:8443");
}

#[tokio::test]
async fn a_certificate_must_be_for_the_host_and_of_a_trusted_authority() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_der().try_into().unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let served = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Clients that do not trust it hang up.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 16];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"GET / HTTP/1.1\r\n");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret").await.unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let entries = || [format!("https://localhost:{port}"), format!("https://127.0.0.1:{port}")];
    let egress = |certificates: Option<&Path>| {
        let entries = entries().iter().map(|entry| entry.parse().unwrap()).collect();
        Egress::new(entries, Arc::default(), certificates)
    };
    let trusting = egress(Some(file.as_path())).unwrap();
    let by_name = format!("https://localhost:{port}/");
    for _ in 0..2 {
        let (parts, body) = answer(&trusting, get(&by_name)).await.unwrap();
        assert_eq!((parts.status.as_u16(), body.as_str()), (200, "secret"));
    }
    let by_address = get(&format!("https://127.0.0.1:{port}/"));
    for (egress, request) in [(&trusting, by_address), (&egress(None).unwrap(), get(&by_name))] {
        let error = answer(egress, request).await.unwrap_err();
        assert!(matches!(error, SendError::Http(HttpError::TlsCertificateError)), "{error}");
    }
    served.abort();
    for (name, content) in [("empty.pem", Some("no certificate")), ("missing.pem", None)] {
        let file = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let error = egress(Some(file.as_path())).err().unwrap();
        assert!(error.to_string().contains("SSL_CERT_FILE") && error.to_string().contains(name), "{error}");
    }
}
