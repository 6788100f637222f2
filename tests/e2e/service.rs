//! Workers of `wasi:http` 0.3 (tests/guests/service), beside one of 0.2.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use wharf_tests::http::{get, request};
use wharf_tests::network::Host;
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::{Server, Wharf, text};

/// The hello project with `/api/service`, served.
fn served(settings: &str) -> (Wharf, Project, Server) {
    let guest = testbed::part("guests/service.wasm", "guests.sh service");
    let project = Project::hello()
        .with("api/service.wasm", fs_err::read(guest).expect("the guest can be read"))
        .with("wharf.toml", format!("[workers.\"api/service\"]\n{settings}"));
    let wharf = Wharf::new();
    let server = wharf.serve(text(project.path()));
    (wharf, project, server)
}

#[test]
fn workers_of_both_versions_answer_side_by_side() {
    let (_wharf, _project, server) = served("");
    let authority = server.url.trim_start_matches("http://");
    for flags in [&[][..], &["--http2-prior-knowledge"]] {
        let answer = request(&Host, flags, &server.at("/api/service?name=ada"));
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain"));
        assert_eq!(answer.body, format!("hello ada of {authority}\n"));
        assert_eq!(get(&Host, &server.at("/api/hello?name=ada")).json()["name"], "ada");
    }
}

#[test]
fn an_image_has_it_compiled_and_serves_it() {
    let (wharf, project, server) = served("");
    drop(server);
    wharf.run(&["build", text(project.path()), "-t", "example.test/service:1"]).succeeded();
    let server = wharf.serve("example.test/service:1");
    assert_eq!(get(&Host, &server.at("/api/service?name=1")).status, 200);
}

#[test]
fn a_body_goes_both_ways_as_it_comes() {
    let (_wharf, _project, server) = served("");
    let authority = server.url.trim_start_matches("http://");
    let mut client = TcpStream::connect(authority).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = "POST /api/service HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    let mut received = String::new();
    for word in ["first", "second", "third"] {
        client.write_all(format!("{:x}\r\n{word}\r\n", word.len()).as_bytes()).unwrap();
        // Its answer comes before the next is sent.
        while !received.contains(&word.to_uppercase()) {
            let mut bytes = [0; 1024];
            let read = client.read(&mut bytes).unwrap();
            assert!(read > 0, "{received}");
            received.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
    }
    client.write_all(b"0\r\n\r\n").unwrap();

    let large = "abc".repeat(1_000_000);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), &large).unwrap();
    let data = format!("@{}", text(file.path()));
    let answer = request(&Host, &["--data-binary", &data], &server.at("/api/service"));
    assert!(answer.body == large.to_uppercase(), "{} bytes", answer.body.len());
}

#[test]
fn its_traps_and_limits_are_those_of_any_worker() {
    let (_wharf, _project, server) = served("timeout = \"1s\"\nbody = \"1KiB\"\n");
    let status = |query: &str| get(&Host, &server.at(&format!("/api/service?{query}"))).status;
    assert_eq!(status("trap"), 500);
    assert_eq!(status("spin"), 504);
    assert_eq!(status("sleep"), 504);
    assert_eq!(status("name=after"), 200);
    let body = "x".repeat(2000);
    let chunked = ["-H", "Transfer-Encoding: chunked", "--data", &body];
    assert_eq!(request(&Host, &["--data", &body], &server.at("/api/service")).status, 413);
    assert_eq!(request(&Host, &chunked, &server.at("/api/service")).status, 413);
    assert!(server.daemon.log().contains("asked to trap"), "{}", server.daemon.log());
    // Cut off, it must not look whole.
    let mut client = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    client.write_all(b"GET /api/service?late HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut received = Vec::new();
    let _ = client.read_to_end(&mut received);
    let received = String::from_utf8_lossy(&received);
    assert!(received.contains("half of it") && !received.ends_with("0\r\n\r\n"), "{received}");
}

#[test]
fn a_body_that_the_host_makes_is_whole_and_ends_with_its_request() {
    let folder = tempfile::tempdir().unwrap();
    let content = "line\n".repeat(1_000_000);
    fs_err::write(folder.path().join("large.txt"), &content).unwrap();
    let mount = format!("mounts = [{{ host = {:?}, guest = \"/data\" }}]", text(folder.path()));
    let (_wharf, _project, server) = served(&format!("timeout = \"2s\"\n{mount}\n"));
    let answer = get(&Host, &server.at("/api/service?file=large.txt"));
    assert!(answer.status == 200 && answer.body == content, "{} bytes", answer.body.len());
    let passed = request(&Host, &["--request", "PUT", "--data", "as it is"], &server.at("/api/service"));
    assert_eq!(passed.body, "as it is");
    // One that never comes to its end.
    let mut client = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = "PUT /api/service HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    client.write_all(head.as_bytes()).unwrap();
    let mut received = Vec::new();
    if let Err(error) = client.read_to_end(&mut received) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "cut off in time");
    }
    let received = String::from_utf8_lossy(&received);
    assert!(received.contains("half") && !received.ends_with("0\r\n\r\n"), "{received}");
}

#[test]
fn an_instance_that_answers_by_an_error_may_serve_again() {
    let (_wharf, _project, server) = served("reuse = 10\n");
    for _ in 0..2 {
        assert_eq!(get(&Host, &server.at("/api/service?fail")).status, 500);
    }
    assert!(server.daemon.log().contains("failure number 2"), "{}", server.daemon.log());
}

#[test]
fn it_reaches_only_what_it_is_granted() {
    let (wharf, project, server) = served("");
    let other = Project::hello();
    let page = wharf.serve(text(other.path()));
    let authority = page.url.trim_start_matches("http://");
    let query = format!("/api/service?fetch={authority}");
    let denied = get(&Host, &server.at(&query));
    assert_eq!((denied.status, denied.body.as_str()), (200, "ErrorCode::HttpRequestDenied"));
    drop(server);
    let grant = format!("[workers.\"api/service\"]\noutbound = [\"http://{authority}\"]\n");
    fs_err::write(project.path().join("wharf.toml"), grant).unwrap();
    let server = wharf.serve(text(project.path()));
    assert_eq!(get(&Host, &server.at(&query)).body, "200");
}

#[test]
fn a_worker_goes_on_after_an_answer_without_content() {
    for flags in [&["--head"][..], &[], &["--http2-prior-knowledge", "--head"]] {
        let (_wharf, _project, mut server) = served("");
        let query = if flags.is_empty() { "after=204" } else { "after" };
        let answer = request(&Host, flags, &server.at(&format!("/api/service?{query}")));
        assert_eq!(answer.status, if flags.is_empty() { 204 } else { 200 });
        server.daemon.wait_until("the worker went on", |daemon| {
            daemon.log().contains("done afterwards").then_some(())
        });
    }
}
