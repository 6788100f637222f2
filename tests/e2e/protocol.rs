//! HTTP/1.1 and HTTP/2 as clients speak them: curl, nghttp and h2load, and one
//! that means ill. What a message means is tested by tests/differential.

mod frames;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wharf_tests::http::{get, request};
use wharf_tests::network::Host;
use wharf_tests::process::run;
use wharf_tests::project::Project;
use wharf_tests::wharf::{Server, Wharf, text};

use frames::{
    ACK, CONTINUATION, Connection, DATA, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, WINDOW, frame,
    request_block,
};

/// Length of the file that no window holds.
const LARGE: usize = 4 << 20;

/// A client that reads nothing may cost the server this much memory, in bytes.
const BOUND: u64 = 64 << 20;

/// The hello project with a large file, served; and its authority.
fn served() -> (Wharf, Project, Server, String) {
    let (wharf, project) = (Wharf::new(), Project::hello().with("public/large.txt", large()));
    let server = wharf.serve(text(project.path()));
    let authority = server.url.trim_start_matches("http://").to_owned();
    (wharf, project, server, authority)
}

/// Text in which each line tells where it is.
fn large() -> Vec<u8> {
    let lines = (0..LARGE / 16).map(|n| format!("line {n:>10}\n"));
    lines.collect::<String>().into_bytes()
}

fn connect(authority: &str) -> TcpStream {
    let stream = TcpStream::connect(authority).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
    stream
}

/// Reads until `end` came.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let mut byte = [0];
        assert_eq!(
            stream.read(&mut byte).expect("something comes"),
            1,
            "{:?}",
            String::from_utf8_lossy(&bytes)
        );
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).expect("a head is text")
}

/// Memory that the server has held at most, in bytes.
fn peak(server: &Server) -> u64 {
    let status = fs_err::read_to_string(format!("/proc/{}/status", server.daemon.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("the kernel tells the peak") * 1024
}

/// The value behind `name` in what h2load prints: `requests: 10 total, …`.
fn counted(report: &str, name: &str) -> u64 {
    let line =
        report.lines().find(|line| line.starts_with("requests: ")).unwrap_or_else(|| panic!("{report}"));
    let (before, _) = line.split_once(&format!(" {name}")).unwrap_or_else(|| panic!("{report}"));
    before.rsplit(' ').next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn http2_by_prior_knowledge_serves_files_and_workers() {
    let (_wharf, project, server, _) = served();
    let h2 = ["--http2-prior-knowledge"];
    let page = request(&Host, &h2, &server.at("/"));
    assert_eq!(page.status, 200);
    assert_eq!(page.body, fs_err::read_to_string(project.path().join("public/index.html")).unwrap());
    let version = run(Command::new("curl").args(h2).args([
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_version} %{response_code}",
        &server.at("/style.css"),
    ]));
    assert_eq!(version.output(), "2 200");
    let greeting = request(&Host, &h2, &server.at("/api/hello?name=Ada")).json();
    assert_eq!(greeting["name"], "Ada");
    let echo = request(&Host, &[h2[0], "--data-binary", "over frames"], &server.at("/api/hello"));
    assert_eq!((echo.status, echo.body.as_str()), (200, "over frames"));
    // A field of HTTP/1 that HTTP/2 has no place for (RFC 9113, 8.2.2).
    assert_eq!(page.header("connection"), "");
}

#[test]
fn a_page_and_what_it_names_come_over_one_connection() {
    let (_wharf, _project, server, _) = served();
    let outcome = run(Command::new("nghttp").args(["-v", "-n", "-a", &server.at("/")]));
    let log = outcome.exited(0).stdout;
    let streams: BTreeSet<_> = log
        .lines()
        .filter(|line| line.contains("recv (stream_id=") && line.contains(":status: 200"))
        .filter_map(|line| line.split("stream_id=").nth(1)?.split(')').next())
        .collect();
    assert!(streams.len() >= 2, "expected the page and its style:\n{log}");
    assert_eq!(log.matches("] Connected").count(), 1, "{log}");
}

#[test]
fn many_streams_and_many_connections_are_all_answered() {
    let (_wharf, _project, server, _) = served();
    for (arguments, path) in [
        (&["-n", "4000", "-c", "4", "-m", "100"][..], "/style.css"),
        (&["-n", "400", "-c", "4", "-m", "20"], "/api/hello"),
        (&["--h1", "-n", "4000", "-c", "16"], "/style.css"),
        (&["--h1", "-n", "400", "-c", "8"], "/api/hello"),
    ] {
        let mut load = Command::new("h2load");
        let report = run(load.args(arguments).arg(server.at(path))).output();
        let total = counted(&report, "total");
        assert_eq!(counted(&report, "succeeded"), total, "{arguments:?} {path}\n{report}");
        let answered = report.lines().find(|line| line.starts_with("status codes: ")).unwrap_or_default();
        assert!(answered.contains(&format!("{total} 2xx")), "{report}");
    }
}

#[test]
fn a_large_file_is_whole_whatever_the_windows_are() {
    let (_wharf, _project, server, _) = served();
    let expected = String::from_utf8(large()).unwrap();
    // 1 KiB, less than a frame; and more than the file.
    for (stream, connection) in [("10", "16"), ("16", "10"), ("24", "24")] {
        let outcome =
            run(Command::new("nghttp").args(["-w", stream, "-W", connection, &server.at("/large.txt")]));
        let body = outcome.exited(0).stdout;
        assert!(body == expected, "windows {stream} and {connection}: {} bytes", body.len());
    }
    let slow = request(&Host, &["--http2-prior-knowledge", "--limit-rate", "8M"], &server.at("/large.txt"));
    assert!(slow.body == expected, "{} bytes", slow.body.len());
}

#[test]
fn a_stream_whose_window_is_shut_holds_up_no_other() {
    let (_wharf, _project, server, authority) = served();
    let mut client = Connection::open(&authority);
    // The connection's window is opened, the first stream's is not.
    client.open_window(0, 8 * LARGE);
    client.get(1, "/large.txt");
    let mut received = 0;
    while received < WINDOW {
        let frame = client.frame_of(DATA);
        assert_eq!((frame.stream, frame.flags & END_STREAM), (1, 0));
        received += frame.payload.len();
    }
    assert_eq!(received, WINDOW, "the server must not send more than it may");
    for stream in (3..103).step_by(2) {
        client.get(stream, "/style.css");
        loop {
            let frame = client.frame().expect("the connection stays");
            assert!(frame.stream != 1, "the window of stream 1 is shut: {frame:?}");
            if frame.stream == stream && frame.ends_stream() {
                break;
            }
        }
    }
    client.open_window(1, LARGE);
    loop {
        let frame = client.frame_of(DATA);
        received += frame.payload.len();
        if frame.ends_stream() {
            break;
        }
    }
    assert_eq!(received, LARGE);
    drop(server);
}

#[test]
fn clients_that_read_nothing_cost_bounded_memory() {
    let (_wharf, _project, server, authority) = served();
    assert_eq!(get(&Host, &server.at("/large.txt")).status, 200);
    let before = peak(&server);
    let mut clients: Vec<Connection> = (0..16)
        .map(|_| {
            let mut client = Connection::open(&authority);
            client.open_window(0, 1 << 30);
            for stream in (1..41).step_by(2) {
                client.get(stream, "/large.txt");
            }
            client
        })
        .collect();
    // All 320 streams have been answered as far as their windows let them: the
    // last one's headers are behind everything that was asked before.
    for client in &mut clients {
        let mut answered = BTreeSet::new();
        while answered.len() < 20 {
            answered.insert(client.frame_of(HEADERS).stream);
        }
    }
    let held = peak(&server).saturating_sub(before);
    // What is read ahead for a stream, not the file.
    assert!(held < 320 << 20, "{} MiB for 320 streams of {} MiB", held >> 20, LARGE >> 20);
    assert_eq!(get(&Host, &server.at("/style.css")).status, 200);
}

/// CVE-2023-44487: opening and resetting streams costs a client nothing.
#[test]
fn rapid_resets_are_bounded_and_others_are_served() {
    let (_wharf, _project, server, authority) = served();
    assert_eq!(get(&Host, &server.at("/style.css")).status, 200);
    let before = peak(&server);
    let mut client = Connection::open(&authority);
    let block = request_block("/api/hello?spin=1");
    let mut refused = false;
    for stream in (1..100_000_u32).step_by(2) {
        let mut bytes = frame(HEADERS, frames::END_HEADERS | END_STREAM, stream, &block);
        // CANCEL (RFC 9113, 7).
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        if client.write(&bytes).is_err() {
            refused = true;
            break;
        }
    }
    if !refused {
        client.send(PING, 0, 0, b"are you?");
        // It ends the connection, calmly or at once, or has lived through it.
        while let Some(frame) = client.frame() {
            if frame.kind == GOAWAY {
                // ENHANCE_YOUR_CALM.
                assert_eq!(frame.goaway_code(), 11);
                break;
            }
            if frame.kind == PING && frame.flags & ACK != 0 {
                break;
            }
        }
    }
    assert_eq!(get(&Host, &server.at("/style.css")).status, 200);
    assert_eq!(get(&Host, &server.at("/api/hello")).status, 200);
    let held = peak(&server).saturating_sub(before);
    assert!(held < BOUND, "{} MiB after 50,000 resets", held >> 20);
}

/// CVE-2024-27316: fields that never end.
#[test]
fn a_flood_of_continuation_frames_ends_the_connection() {
    let (_wharf, _project, server, authority) = served();
    assert_eq!(get(&Host, &server.at("/style.css")).status, 200);
    let before = peak(&server);
    let mut client = Connection::open(&authority);
    client.send(HEADERS, END_STREAM, 1, &request_block("/"));
    // `x: bbb…`, not indexed, again and again.
    let mut field = vec![0x00, 0x01, b'x', 0x7f, 0xa1, 0x1e];
    field.resize(field.len() + 127 + 0x21 + 0x1e * 128, b'b');
    let flood = frame(CONTINUATION, 0, 1, &field);
    let ended = (0..100_000).any(|_| client.write(&flood).is_err());
    assert!(ended, "expected an end before 400 MB of fields");
    assert_eq!(get(&Host, &server.at("/style.css")).status, 200);
    let held = peak(&server).saturating_sub(before);
    assert!(held < BOUND, "{} MiB", held >> 20);
}

#[test]
fn fields_that_are_too_large_are_refused_in_http2_as_well() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    // curl would refuse to send the 64 KiB of the default.
    let server = wharf.serve_with(text(project.path()), &["--max-header-size", "16KiB"]);
    let field = format!("x-large: {}", "b".repeat(20_000));
    let refused = request(&Host, &["--http2-prior-knowledge", "-H", &field], &server.at("/"));
    assert_eq!(refused.status, 431);
    assert_eq!(request(&Host, &["--http2-prior-knowledge"], &server.at("/")).status, 200);
}

#[test]
fn a_stop_says_goaway_and_lets_streams_end() {
    let (_wharf, _project, mut server, authority) = served();
    let mut client = Connection::open(&authority);
    client.get(1, "/large.txt");
    let mut received = 0;
    while received < WINDOW {
        received += client.frame_of(DATA).payload.len();
    }
    kill(Pid::from_raw(server.daemon.id().cast_signed()), Signal::SIGTERM).unwrap();
    let goaway = client.frame_of(GOAWAY);
    // NO_ERROR.
    assert_eq!(goaway.goaway_code(), 0);
    // It asks whether we got that before it takes no more streams (RFC 9113, 6.8).
    client.open_window(0, 2 * LARGE);
    client.open_window(1, 2 * LARGE);
    let mut ended = false;
    while let Some(frame) = client.frame() {
        match frame.kind {
            PING if frame.flags & ACK == 0 => client.send(PING, ACK, 0, &frame.payload),
            DATA => received += frame.payload.len(),
            _ => {}
        }
        ended |= frame.ends_stream();
    }
    assert!(ended && received == LARGE, "{received} of {LARGE} bytes");
    let (code, _) = server.daemon.ended();
    assert_eq!(code, Some(0));
}

#[test]
fn a_stop_ends_kept_connections_of_http1_after_their_answers() {
    let (_wharf, _project, mut server, authority) = served();
    let mut idle = connect(&authority);
    idle.write_all(b"GET /style.css HTTP/1.1\r\nHost: site.test\r\n\r\n").unwrap();
    read_until(&mut idle, "\r\n\r\n");
    let mut busy = connect(&authority);
    busy.write_all(b"GET /large.txt HTTP/1.1\r\nHost: site.test\r\n\r\n").unwrap();
    let head = read_until(&mut busy, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    kill(Pid::from_raw(server.daemon.id().cast_signed()), Signal::SIGTERM).unwrap();
    // Both end by themselves, and the answer under way is whole.
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).unwrap();
    let mut body = Vec::new();
    busy.read_to_end(&mut body).unwrap();
    assert!(body == large(), "{} of {LARGE} bytes", body.len());
    let (code, _) = server.daemon.ended();
    assert_eq!(code, Some(0));
}

#[test]
fn a_worker_asks_for_the_body_before_it_is_sent() {
    let (_wharf, _project, _server, authority) = served();
    let mut client = connect(&authority);
    client
        .write_all(
            b"POST /api/hello HTTP/1.1\r\nHost: site.test\r\nContent-Type: text/plain\r\n\
              Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        )
        .unwrap();
    let interim = read_until(&mut client, "\r\n\r\n");
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    client.write_all(b"hello").unwrap();
    let head = read_until(&mut client, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let (_wharf, _project, _server, authority) = served();
    let mut client = connect(&authority);
    client
        .write_all(
            b"POST /api/hello HTTP/1.1\r\nHost: site.test\r\nContent-Length: 1000000000\r\n\
              Expect: 100-continue\r\n\r\n",
        )
        .unwrap();
    let head = read_until(&mut client, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
}

#[test]
fn pipelined_requests_to_files_and_workers_are_answered_in_order() {
    let (_wharf, _project, _server, authority) = served();
    let mut client = connect(&authority);
    let names = ["one", "two", "three", "four"];
    let requests = names.map(|name| {
        format!(
            "GET /api/hello?name={name} HTTP/1.1\r\nHost: site.test\r\n\r\n\
             HEAD /style.css HTTP/1.1\r\nHost: site.test\r\n\r\n"
        )
    });
    client.write_all(requests.concat().as_bytes()).unwrap();
    client.write_all(b"GET /none HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap();
    let places =
        names.map(|name| answers.find(&format!("\"{name}\"")).unwrap_or_else(|| panic!("{answers}")));
    assert!(places.is_sorted(), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 8, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 404 ").count(), 1, "{answers}");
}
