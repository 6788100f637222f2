//! CGI/1.1 (RFC 3875).

use std::collections::BTreeMap;

use crate::guest::{ECHO, ENVIRONMENT, module, printing};
use crate::served::{Response, Served};

const PLAIN: &[u8] = b"Content-Type: text/plain\n\n";

fn served(program: &[u8]) -> Served {
    Served::new(&[("index.wasm", program)])
}

/// A worker whose output is the body of the request.
fn parrot() -> Served {
    served(&module(b"", ECHO))
}

fn answer(app: &Served, output: &str) -> Response {
    let length = output.len();
    app.request(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{output}"
    ))
}

fn variables(response: &Response) -> BTreeMap<&str, &str> {
    let pairs = response.text().split_terminator('\0');
    let pairs: Vec<_> = pairs.map(|pair| pair.split_once('=').unwrap()).collect();
    let map: BTreeMap<_, _> = pairs.iter().copied().collect();
    assert_eq!(map.len(), pairs.len(), "each variable once: {pairs:?}");
    map
}

#[test]
fn a_document_is_sent_with_its_status_and_its_headers() {
    let app = parrot();
    let response = answer(&app, "Status: 418 Teapot\r\nContent-Type: text/plain\r\nX-A: b\r\n\r\nshort");
    assert_eq!((response.status, response.text(), response.whole), (418, "short", true));
    assert_eq!(response.header("content-type"), Some("text/plain"));
    assert_eq!(response.header("x-a"), Some("b"));
    assert_eq!(response.header("status"), None);
}

#[test]
fn a_location_redirects_the_client() {
    let app = parrot();
    let response = answer(&app, "Location: /elsewhere\n\n");
    assert_eq!((response.status, response.header("location")), (302, Some("/elsewhere")));
    let response =
        answer(&app, "Location: https://example.com/\nStatus: 301\nContent-Type: text/plain\n\ngone");
    assert_eq!((response.status, response.text()), (301, "gone"));
}

#[test]
fn output_that_is_no_response_is_500() {
    let long = format!("X: {}\n", "x".repeat(40_000));
    let app = parrot();
    for output in ["", "hello", "hello\n\n", "\nbody", "X-A: b\n\nbody", "Status: 99\n\n", &long] {
        let response = answer(&app, output);
        assert_eq!(response.status, 500, "{output:?}");
        assert!(response.text().starts_with("500 Internal Server Error\nrequest "));
    }
}

#[test]
fn a_guest_that_counts_its_bytes_is_held_to_it() {
    let app = parrot();
    for (counted, whole) in [(5, true), (4, true), (0, true), (6, false)] {
        let response = answer(&app, &format!("Status: 200\nContent-Length: {counted}\n\nhello"));
        assert_eq!(response.header("content-length"), Some(counted.to_string().as_str()));
        assert_eq!(response.text(), &"hello"[..counted.min(5)]);
        assert_eq!(response.whole, whole, "{counted}");
    }
}

#[test]
fn the_variables_tell_of_the_request_and_its_route() {
    let program = printing(PLAIN, ENVIRONMENT);
    let settings =
        b"[workers.\"files/[...rest]\"]\nenv = { HTTP_PROXY = \"http://proxy\", COLOUR = \"blue\" }\n";
    let app = Served::new(&[("files/[...rest].wasm", &program), ("wharf.toml", settings)]);
    let response = app.request(
        "POST /files/a%20b/c?x=%201 HTTP/1.1\r\nHost: app.example:81\r\nConnection: close\r\nContent-Length: 2\r\n\
         Content-Type: text/x\r\nProxy: http://evil\r\nX_Y: 1\r\nX-Y: 2\r\nAccept: a\r\nAccept: b\r\n\r\nhi",
    );
    assert_eq!(response.status, 200);
    let software = format!("wharf/{}", env!("CARGO_PKG_VERSION"));
    let expected = BTreeMap::from([
        ("COLOUR", "blue"),
        ("CONTENT_LENGTH", "2"),
        ("CONTENT_TYPE", "text/x"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("HTTP_ACCEPT", "a, b"),
        ("HTTP_HOST", "app.example:81"),
        ("HTTP_PROXY", "http://proxy"),
        ("HTTP_X_Y", "2"),
        ("PATH_INFO", "/a b/c"),
        ("QUERY_STRING", "x=%201"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REMOTE_HOST", "127.0.0.1"),
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_SCHEME", "http"),
        ("REQUEST_URI", "/files/a%20b/c?x=%201"),
        ("SCRIPT_NAME", "/files"),
        ("SERVER_NAME", "app.example"),
        ("SERVER_PORT", "81"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", software.as_str()),
        ("WHARF_PARAMS", "rest=a%20b%2Fc"),
        ("WHARF_PARAM_REST", "a b/c"),
        ("WHARF_WORKER", "files/[...rest]"),
    ]);
    let mut found = variables(&response);
    // Different each time, and the host's own word.
    for name in ["HTTP_TRACEPARENT", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_REQUEST_ID"] {
        assert!(found.remove(name).is_some(), "{name}");
    }
    assert_eq!(found, expected);
}

#[test]
fn only_a_request_with_a_body_has_a_length() {
    let app = served(&printing(PLAIN, ENVIRONMENT));
    let response = app.get("/");
    assert_eq!(variables(&response).get("CONTENT_LENGTH"), None);
    let empty = app.request("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(variables(&empty).get("CONTENT_LENGTH"), Some(&"0"));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    let chunked = app.request(chunked);
    let variables = variables(&chunked);
    assert_eq!(variables.get("CONTENT_LENGTH"), Some(&"7"), "what it has in all");
    assert_eq!(variables.get("HTTP_TRANSFER_ENCODING"), None);
}

#[test]
fn a_body_goes_in_and_comes_back() {
    let app = served(&printing(PLAIN, ECHO));
    let body = "0123456789abcdef".repeat(64 << 10);
    let length = body.len();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    // While the client still sends, the guest answers already.
    let address = app.address();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sent = body.clone();
    let thread = std::thread::spawn(move || {
        use std::io::Write as _;
        writer.write_all(head.as_bytes()).unwrap();
        writer.write_all(sent.as_bytes()).unwrap();
    });
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer).unwrap();
    thread.join().unwrap();
    let letters = answer.iter().filter(|byte| byte.is_ascii_hexdigit()).count();
    assert!(letters >= length, "{letters} of {length} bytes came back");
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    assert_eq!(app.request(chunked).text(), "abcdefg");
}

#[test]
fn both_ways_stream_at_the_same_time() {
    let first = b"Content-Type: text/plain\n\nready";
    let app = served(&printing(first, ECHO));
    let mut connection = app.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    assert_eq!(connection.head().0, 200);
    assert_eq!(connection.chunk().unwrap(), b"ready");
    connection.write(b"hello");
    assert_eq!(connection.chunk().unwrap(), b"hello");
    connection.write(b"world");
    assert_eq!(connection.chunk().unwrap(), b"world");
    assert_eq!(connection.chunk().unwrap(), b"");
}

#[test]
fn a_body_past_the_limit_is_413_however_it_comes() {
    let settings = b"[workers.index]\nbody = \"10B\"\n";
    // It reads before it writes its head.
    let program = module(
        PLAIN,
        &format!(
            "(drop (call $read (i32.const 65536) (i32.const 16)))
            (call $write (i32.const 4096) (i32.const {}))",
            PLAIN.len()
        ),
    );
    let app = Served::new(&[("index.wasm", &program), ("wharf.toml", settings)]);
    let told = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 11\r\n\r\n01234567890";
    assert_eq!(app.request(told).status, 413);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
        b\r\n01234567890\r\n0\r\n\r\n";
    assert_eq!(app.request(chunked).status, 413);
    let fits = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\n0123456789";
    assert_eq!(app.request(fits).status, 200);
}

#[test]
fn a_malformed_body_is_400() {
    let app = served(&printing(PLAIN, ECHO));
    let request =
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    assert_eq!(app.request(request).status, 400);
}

#[test]
fn head_has_no_body() {
    let app = served(&printing(b"Content-Type: text/plain\nContent-Length: 5\n\nhello", ""));
    let response = app.request("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!((response.status, response.body.len()), (200, 0));
    assert_eq!(response.header("content-length"), Some("5"));
}
