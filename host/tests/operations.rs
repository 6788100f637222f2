//! `wharf-host` in operation: the program itself, by its variables, signals and
//! sockets.

// Each is a way to fail, in the functions that tests share as in the tests.
#![allow(clippy::unwrap_used)]

#[path = "operations/host.rs"]
mod host;
#[path = "operations/tls.rs"]
mod tls;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use host::{Host, exchange, request};

#[test]
fn health_and_metrics_are_on_a_listener_of_their_own() {
    let host = Host::start(&[("WHARF_ADMIN_ADDR", "127.0.0.1:0")]);
    assert_eq!(host.admin("/healthz").status, 200);
    assert_eq!(host.admin("/readyz").status, 200);
    assert_eq!(host.get("/").status, 200);
    assert_eq!(host.get("/missing").status, 404);
    // The second response is counted once it is sent, maybe after it was read.
    let metrics = host.until(|| {
        let text = host.admin("/metrics").text();
        text.contains(r#"{route="not_found",kind="not_found",status="4xx"} 1"#).then_some(text)
    });
    assert!(
        metrics.contains(r#"wharf_requests_total{route="static",kind="static",status="2xx"} 1"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"wharf_response_body_bytes_total{route="static",kind="static"} 5"#),
        "{metrics}"
    );
    assert!(metrics.contains("wharf_connections_accepted_total 2"), "{metrics}");
    assert_eq!(host.admin("/").status, 404);
    assert_eq!(host.get("/metrics").status, 404, "the app's address has none of it");
    assert_eq!(host.get("/healthz").status, 404);
}

#[test]
fn sigterm_turns_readyz_off_first_and_lets_a_request_in_flight_end() {
    let host = Host::start(&[("WHARF_ADMIN_ADDR", "127.0.0.1:0"), ("WHARF_DRAIN_TIMEOUT", "1m")]);
    // In flight: most of a large file still waits for its reader.
    let mut slow = host.connect();
    slow.write_all(request("/large.bin", "").as_bytes()).unwrap();
    let mut start = [0; 1000];
    slow.read_exact(&mut start).unwrap();
    host.signal(rustix::process::Signal::TERM);
    host.until(|| (host.admin("/readyz").status == 503).then_some(()));
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert!(start.len() + rest.len() > host::LARGE, "{}", rest.len());
    assert!(host.wait().success());
}

#[test]
fn who_did_not_notice_yet_is_served_while_the_drain_delay_lasts() {
    let host = Host::start(&[("WHARF_ADMIN_ADDR", "127.0.0.1:0"), ("WHARF_DRAIN_DELAY", "1h")]);
    host.signal(rustix::process::Signal::TERM);
    host.until(|| (host.admin("/readyz").status == 503).then_some(()));
    assert_eq!(host.get("/").status, 200);
}

#[test]
fn a_request_that_outlives_the_drain_is_cut_off() {
    let host = Host::start(&[("WHARF_DRAIN_TIMEOUT", "100ms")]);
    let mut stuck = host.connect();
    stuck.write_all(request("/large.bin", "").as_bytes()).unwrap();
    stuck.read_exact(&mut [0; 1000]).unwrap();
    host.signal(rustix::process::Signal::INT);
    let log = host.log_until("cut off");
    assert!(log.contains("draining"), "{log}");
    assert!(host.wait().success());
}

#[test]
fn a_line_of_access_log_tells_who_asked_what_and_hides_secrets() {
    let host = Host::start(&[("WHARF_ACCESS_LOG", "json"), ("WHARF_TRUSTED_PROXIES", "127.0.0.1")]);
    let headers = "x-forwarded-for: 203.0.113.9\r\nuser-agent: a\"b\r\nauthorization: Bearer hidden1\r\n\
        cookie: hidden2\r\nx-request-id: given-1\r\n\
        traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let answer = host.send(&request("/?q=1&token=hidden3", headers));
    assert_eq!(answer.header("x-request-id"), Some("given-1"));
    let log = host.log_until("given-1");
    let line = log.lines().find(|line| line.contains("given-1")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["client"], "203.0.113.9");
    assert_eq!(line["target"], "/?q=1&token=***");
    assert_eq!((&line["status"], &line["bytes"], &line["complete"]), (&200.into(), &5.into(), &true.into()));
    assert_eq!((&line["route"], &line["user_agent"]), (&"static".into(), &"a\"b".into()));
    assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(!log.contains("hidden"), "{log}");
}

#[test]
fn who_is_no_trusted_proxy_cannot_choose_its_address_or_id() {
    let host = Host::start(&[("WHARF_ACCESS_LOG", "text")]);
    let answer = host.send(&request("/nothing", "x-forwarded-for: 203.0.113.9\r\nx-request-id: given-1\r\n"));
    let id = answer.header("x-request-id").unwrap();
    assert_eq!((answer.status, id.len()), (404, 32));
    let log = host.log_until(id);
    let line = log.lines().find(|line| line.contains(id)).unwrap();
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.contains("\"GET /nothing HTTP/1.1\" 404 "), "{line}");
}

#[test]
fn spans_reach_the_collector_and_the_last_ones_at_the_end() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let host = Host::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a"),
        // Never by itself: a stop sends what waits.
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
    ]);
    host.send(&request("/", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"));
    host.send(&request("/", "traceparent: 00-11111111111111111111111111111111-00f067aa0ba902b7-00\r\n"));
    host.signal(rustix::process::Signal::TERM);
    let (mut stream, _) = collector.accept().unwrap();
    let (head, body) = host::read_message(&mut stream);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n") && head.contains("x-tenant: a\r\n"), "{head}");
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 1, "the other caller did not sample: {body}");
    assert_eq!(spans[0]["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(spans[0]["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(spans[0]["name"], "GET");
    let service = &body["resourceSpans"][0]["resource"]["attributes"][0];
    assert_eq!(service["value"]["stringValue"], "test");
    assert!(host.wait().success());
}

#[test]
fn a_collector_that_is_gone_holds_up_no_request() {
    // Bound and dropped: nobody listens there.
    let endpoint = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let host = Host::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_BSP_MAX_QUEUE_SIZE", "1")]);
    for _ in 0..50 {
        assert_eq!(host.get("/").status, 200);
    }
}

#[test]
fn a_unix_socket_has_its_mode_and_goes_with_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let address = format!("unix:{}", path.display());
    let host = Host::start(&[("WHARF_ADDR", &address), ("WHARF_SOCKET_MODE", "600")]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(exchange(UnixStream::connect(&path).unwrap(), &request("/", "")).text(), "hello");
    host.signal(rustix::process::Signal::TERM);
    assert!(host.wait().success());
    assert!(!path.exists());
}

#[test]
fn an_inherited_socket_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = Host::start_with_stdin(
        &[("WHARF_ADDR", "fd:0")],
        std::os::fd::OwnedFd::from(listener.try_clone().unwrap()).into(),
    );
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(exchange(stream, &request("/", "")).text(), "hello");
    drop(host);
}

#[test]
fn a_head_that_comes_too_slowly_ends_the_connection() {
    let host = Host::start(&[("WHARF_HEADER_TIMEOUT", "300ms"), ("WHARF_IDLE_TIMEOUT", "1h")]);
    // Nothing at all, and a byte from time to time.
    let mut silent = host.connect();
    let mut slow = host.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").unwrap();
    let mut writer = slow.try_clone().unwrap();
    let drip = std::thread::spawn(move || {
        while writer.write_all(b"a").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0);
    // Closed with bytes unread: an end, or a reset.
    assert!(matches!(slow.read(&mut [0; 10]), Ok(0) | Err(_)));
    drip.join().unwrap();
}

#[test]
fn a_slow_second_head_ends_the_connection_too() {
    let host = Host::start(&[("WHARF_HEADER_TIMEOUT", "300ms"), ("WHARF_IDLE_TIMEOUT", "1h")]);
    let mut stream = host.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let (head, body) = host::read_message(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200") && body == b"hello");
    stream.write_all(b"GET / HT").unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn an_idle_connection_ends() {
    let host = Host::start(&[("WHARF_IDLE_TIMEOUT", "300ms"), ("WHARF_ADMIN_ADDR", "127.0.0.1:0")]);
    let mut stream = host.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let (head, _) = host::read_message(&mut stream);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
    let series = r#"wharf_connections_closed_total{reason="idle_timeout"} 1"#;
    host.until(|| host.admin("/metrics").text().contains(series).then_some(()));
}

#[test]
fn an_idle_connection_of_http2_ends() {
    let host = Host::start(&[("WHARF_IDLE_TIMEOUT", "300ms"), ("WHARF_ADMIN_ADDR", "127.0.0.1:0")]);
    let mut stream = host.connect();
    // The preface, SETTINGS, and on stream 1 HEADERS with GET / of http://x, in
    // HPACK's static table (RFC 9113, 3.4, 6.2, 6.5; RFC 7541, Appendix A).
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(b"\0\0\0\x04\0\0\0\0\0").unwrap();
    stream.write_all(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01x").unwrap();
    // It keeps nobody from being idle that the clock looks at the connection.
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.len() > 100, "{answer:?}");
    let series = r#"wharf_connections_closed_total{reason="idle_timeout"} 1"#;
    host.until(|| host.admin("/metrics").text().contains(series).then_some(()));
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let host = Host::start(&[("WHARF_SEND_TIMEOUT", "300ms"), ("WHARF_ADMIN_ADDR", "127.0.0.1:0")]);
    let mut stream = host.connect();
    stream.write_all(request("/large.bin", "").as_bytes()).unwrap();
    host.until(|| {
        let metrics = host.admin("/metrics").text();
        metrics.contains(r#"wharf_connections_closed_total{reason="send_timeout"} 1"#).then_some(())
    });
}

#[test]
fn a_head_that_is_too_large_is_told_so() {
    let host = Host::start(&[("WHARF_MAX_HEADER_SIZE", "4KiB")]);
    assert_eq!(host.send(&request("/", &format!("x-large: {}\r\n", "x".repeat(2000)))).status, 200);
    assert_eq!(host.send(&request("/", &format!("x-large: {}\r\n", "x".repeat(100_000)))).status, 431);
}

#[test]
fn one_connection_too_many_is_told_to_come_again() {
    let host = Host::start(&[("WHARF_MAX_CONNECTIONS", "1"), ("WHARF_ADMIN_ADDR", "127.0.0.1:0")]);
    let mut first = host.connect();
    first.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    host::read_message(&mut first);
    let refused = host.get("/");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    drop(first);
    host.until(|| (host.get("/").status == 200).then_some(()));
    let metrics = host.admin("/metrics").text();
    assert!(metrics.contains(r#"wharf_connections_closed_total{reason="connections"}"#), "{metrics}");
}

#[test]
fn http2_says_how_many_streams_and_how_large_a_head_it_takes() {
    let host = Host::start(&[("WHARF_MAX_STREAMS", "7"), ("WHARF_MAX_HEADER_SIZE", "5000")]);
    let mut stream = host.connect();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let settings = host::read_settings(&mut stream);
    // RFC 9113, 6.5.2.
    assert!(settings.contains(&(3, 7)), "{settings:?}");
    assert!(settings.contains(&(6, 5000)), "{settings:?}");
}

/// RFC 9113, 8.3.1: what another rule of names than the proxy's would be told.
#[test]
fn http2_is_refused_hosts_that_contradict_each_other_and_the_connection_stays() {
    let host = Host::start(&[]);
    let mut stream = host.connect();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    // RFC 7541, appendices A and B: `:authority` is 1, `host` 38; what is answered
    // begins with `:status`, of which 200 is 8 and 400 is 12.
    let authority = |name: &str| [&[0x01, name.len() as u8], name.as_bytes()].concat();
    let field = |name: &str| [&[0x0f, 38 - 15, name.len() as u8], name.as_bytes()].concat();
    let cases = [
        (vec![authority("a.test")], 200),
        (vec![authority("a.test"), field("A.test:80")], 200),
        (vec![field("a.test")], 200),
        (vec![authority("a.test"), field("b.test")], 400),
        (vec![authority("a.test"), field("a.test"), field("a.test")], 400),
        (vec![field("a.test"), field("a.test")], 400),
        (vec![field("a@b")], 400),
        (vec![authority("a.test")], 200),
    ];
    for (number, (names, status)) in cases.into_iter().enumerate() {
        // GET, http, `/`.
        let block = [&[0x82, 0x86, 0x84], names.concat().as_slice()].concat();
        let head = [0, 0, block.len() as u8, 1, 0x1 | 0x4, 0, 0, 0, 2 * number as u8 + 1];
        stream.write_all(&[&head, block.as_slice()].concat()).unwrap();
        let answer = loop {
            match host::read_frame(&mut stream) {
                (1, answer) => break answer,
                (kind, _) => assert!(![3, 7].contains(&kind), "the stream or the connection ended"),
            }
        };
        assert_eq!(answer[0], 0x80 | if status == 200 { 8 } else { 12 }, "{number}: expected {status}");
    }
}

#[test]
fn a_malformed_variable_is_named_with_what_was_expected() {
    for (name, value, expected) in [
        ("WHARF_ADDR", "8080", "malformed WHARF_ADDR \"8080\""),
        ("WHARF_TRUSTED_PROXIES", "10.0.0.0/99", "\"10.0.0.0/99\" is no proxy"),
        ("WHARF_TLS_CERT", "/x", "WHARF_TLS_KEY is not"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "x", "malformed OTEL_EXPORTER_OTLP_ENDPOINT"),
    ] {
        let error = host::failure(&[(name, value)]);
        assert!(error.starts_with("error: ") && error.contains(expected), "{error}");
    }
    let error = host::failure(&[("WHARF_ADDR", "systemd")]);
    assert!(error.contains("hint: "), "{error}");
}
