//! How commands end: by themselves, by force, or with their client.

use crate::guest::{ECHO, ENVIRONMENT, FOREVER, MUCH, POUR, printing};
use crate::served::Served;

const HEAD: &[u8] = b"Content-Type: text/plain\n\n";

fn served(output: &[u8], body: &str, settings: &str) -> Served {
    let settings = format!("[workers.index]\n{settings}");
    Served::new(&[("index.wasm", &printing(output, body)), ("wharf.toml", settings.as_bytes())])
}

#[test]
fn a_program_that_ends_with_status_0_has_answered() {
    for end in ["", "(call $exit (i32.const 0))", "return"] {
        let response = served(HEAD, &format!("{MUCH} {end}"), "").get("/");
        assert_eq!((response.status, response.body.len(), response.whole), (200, 256 << 10, true), "{end}");
    }
}

#[test]
fn a_failure_before_the_head_is_500() {
    for end in ["(call $exit (i32.const 1))", "unreachable"] {
        assert_eq!(served(b"Content-Type: text/plain\n", end, "").get("/").status, 500, "{end}");
    }
}

#[test]
fn a_failure_after_the_head_breaks_the_connection() {
    for end in ["(call $exit (i32.const 1))", "unreachable"] {
        let response = served(HEAD, &format!("{MUCH} {end}"), "").get("/");
        assert_eq!((response.status, response.whole), (200, false), "{end}: must not look whole");
    }
}

#[test]
fn a_program_without_end_is_504_or_cut_off() {
    let settings = "timeout = \"200ms\"";
    assert_eq!(served(b"", FOREVER, settings).get("/").status, 504);
    let late = served(HEAD, &format!("{MUCH} {FOREVER}"), settings).get("/");
    assert_eq!((late.status, late.whole), (200, false));
}

#[test]
fn memory_has_a_limit() {
    // More than the module begins with, or the adapter itself would not fit.
    let grow = "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then unreachable))";
    let program = format!("{grow} (call $write (i32.const 4096) (i32.const {}))", HEAD.len());
    let app = |memory: &str| {
        let program = crate::guest::module(HEAD, &program);
        let settings = format!("[workers.index]\nmemory = \"{memory}\"");
        Served::new(&[("index.wasm", &program), ("wharf.toml", settings.as_bytes())])
    };
    assert_eq!(app("4MiB").get("/").status, 500);
    assert_eq!(app("16MiB").get("/").status, 200);
}

#[test]
fn cpu_time_has_a_limit_of_its_own() {
    assert_eq!(served(b"", FOREVER, "timeout = \"1h\"\ncpu = \"100ms\"").get("/").status, 504);
}

#[test]
fn a_response_that_is_longer_than_its_limit_is_cut_off() {
    let response = served(HEAD, POUR, "response = \"1MiB\"").get("/");
    assert_eq!((response.status, response.whole), (200, false));
    assert!((1..=1 << 20).contains(&response.body.len()), "{}", response.body.len());
    assert!(served(HEAD, MUCH, "response = \"256KiB\"").get("/").whole);
}

#[test]
fn who_does_not_get_a_turn_in_time_is_told_to_come_back() {
    let app = served(b"", FOREVER, "timeout = \"300ms\"\nconcurrency = 1");
    let clients: Vec<_> =
        (0..6).map(|_| app.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).collect();
    let heads: Vec<_> = clients.into_iter().map(|mut client| client.head()).collect();
    assert!(heads.iter().any(|(status, _)| *status == 504), "{heads:?}");
    let (busy, headers) = heads.iter().find(|(status, _)| *status == 503).expect("one is refused");
    assert!(headers.iter().any(|line| line.eq_ignore_ascii_case("retry-after: 1")), "{busy} {headers:?}");
}

#[test]
fn a_program_that_never_ends_holds_up_nobody_else() {
    let app = Served::new(&[
        ("spin.wasm", &printing(b"", FOREVER)),
        ("hello.wasm", &printing(b"Content-Type: text/plain\n\nhello", "")),
        ("wharf.toml", b"[workers.spin]\ntimeout = \"1h\"\ncpu = \"1h\"\n"),
    ]);
    let _spinning = app.send("GET /spin HTTP/1.1\r\nHost: a\r\n\r\n");
    for _ in 0..20 {
        assert_eq!(app.get("/hello").text(), "hello");
    }
}

#[test]
fn a_program_ends_with_its_client() {
    // Without their end, these would hold all places for an hour.
    let settings = b"[workers.pour]\ntimeout = \"1h\"\nconcurrency = 128\n\
        [workers.stuck]\ntimeout = \"1h\"\nconcurrency = 128\n";
    let app = Served::new(&[
        ("pour.wasm", &printing(HEAD, POUR)),
        ("stuck.wasm", &printing(HEAD, ECHO)),
        ("hello.wasm", &printing(b"Content-Type: text/plain\n\nhello", "")),
        ("wharf.toml", settings),
    ]);
    for path in ["/pour", "/stuck"] {
        let clients: Vec<_> = (0..128)
            .map(|_| {
                // One never stops writing, the other one waits for a body.
                let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
                let mut client = app.send(&request);
                assert_eq!(client.head().0, 200);
                client
            })
            .collect();
        drop(clients);
        assert_eq!(app.get("/hello").text(), "hello", "after {path}");
    }
}

#[test]
fn nothing_of_one_request_is_seen_by_the_next() {
    let app = served(HEAD, ENVIRONMENT, "");
    let secret = app.request("GET /?secret HTTP/1.1\r\nHost: a\r\nX-Secret: 1\r\nConnection: close\r\n\r\n");
    assert!(secret.text().contains("QUERY_STRING=secret\0"));
    for _ in 0..50 {
        let next = app.get("/");
        assert!(next.text().contains("QUERY_STRING=\0") && !next.text().to_lowercase().contains("secret"));
    }
}
