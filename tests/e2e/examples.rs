//! The guestbooks of examples/: the same requests to each, however it runs.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use hyper::{Method, Response};
use serde_json::{Value, json};
use wharf_tests::client::Connection;
use wharf_tests::engine::{Docker, Generation, Store};
use wharf_tests::fixture::{Tools, with_tools};
use wharf_tests::network::Host;
use wharf_tests::process::run;
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::{Server, Wharf, text};

const IMAGE: &str = "localhost/guestbook:1";

/// What must be escaped in pages, and may not be lost on the way.
const NAME: &str = "Zoë <b> & \"Ann\"'s";

macro_rules! guestbooks {
    ($($language:ident: $tools:expr,)+) => {$(
        #[test]
        fn $language() {
            check(stringify!($language), $tools);
        }
    )+};
}

guestbooks! {
    python: Some(Tools::Python),
    javascript: Some(Tools::JavaScript),
    ruby: Some(Tools::Ruby),
    go: Some(Tools::Go),
    rust: None,
    c: None,
}

fn check(language: &str, tools: Option<Tools>) {
    let project = Project::copied(&format!("guestbook-{language}"));
    let wharf = tools.into_iter().fold(Wharf::new(), with_tools);
    // Those that are mounted must be there.
    let data = wharf.scratch().join("data");
    fs_err::create_dir(&data).expect("a folder can be made");

    let server = serve(&wharf, project.path());
    guestbook(address(&server));
    drop(server);
    let server = serve(&wharf, project.path());
    is_kept(address(&server));
    drop(server);

    let archive = wharf.scratch().join("image.tar");
    let platform = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    let mut build =
        wharf.command(&Host, &["build", text(project.path()), "-t", IMAGE, "--platform", platform]);
    let _ = testbed::with_wasm_toolchain(&mut build);
    run(&mut build).succeeded();
    wharf.run(&["save", IMAGE, "-o", text(&archive)]).succeeded();
    let docker = Docker::start(Generation::Forky, Store::Containerd);
    docker.docker(&["load", "--input", text(&archive)]).succeeded();
    for runtime in [Some("--runtime=io.containerd.wasm"), None] {
        let volume = format!("data-{}:/data", runtime.is_some());
        let run =
            ["run", "--detach", "--name", "app", "--publish", "127.0.0.1:8080:8080", "--volume", &volume];
        let run: Vec<&str> = run.into_iter().chain(runtime).chain([IMAGE]).collect();
        docker.docker(&run).succeeded();
        let up = || docker.answer_of("app", "http://127.0.0.1:8080");
        assert_eq!(up().status, 200);
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        docker.network().enter(|| guestbook(address));
        docker.docker(&["restart", "app"]).succeeded();
        assert_eq!(up().status, 200);
        docker.network().enter(|| is_kept(address));
        docker.docker(&["rm", "--force", "app"]).succeeded();
    }
}

#[track_caller]
fn serve(wharf: &Wharf, project: &Path) -> Server {
    wharf.serve_by(text(project), &[], |command| _ = testbed::with_wasm_toolchain(command))
}

fn address(server: &Server) -> SocketAddr {
    server
        .url
        .strip_prefix("http://")
        .and_then(|address| address.parse().ok())
        .expect("it listens on an address")
}

/// All that examples/README.md says of a guestbook, of one that is empty.
#[track_caller]
fn guestbook(address: SocketAddr) {
    let page = ask(address, Method::GET, "/", &[], "");
    assert_eq!((page.status().as_u16(), header(&page, "content-type")), (200, "text/html; charset=utf-8"));
    assert!(content(&page).contains("<form"), "{page:?}");
    has(address, "/api/entries", &json!([]));

    let form = "application/x-www-form-urlencoded";
    let signed =
        ask(address, Method::POST, "/entries", &[("content-type", form)], "name=Ann&text=th%C3%A9+%26+more");
    assert_eq!((signed.status().as_u16(), header(&signed, "location")), (303, "/entries"), "{signed:?}");
    for (body, expected) in [
        ("name=+&text=x".to_owned(), "name: expected a text"),
        ("name=x".to_owned(), "text: expected a text"),
        (format!("name={}&text=x", "a".repeat(101)), "name: expected at most 100 characters"),
        (format!("name=x&text={}", "a".repeat(1001)), "text: expected at most 1000 characters"),
    ] {
        let refused = ask(address, Method::POST, "/entries", &[("content-type", form)], &body);
        assert_eq!(refused.status(), 400, "{body}: {refused:?}");
        assert_eq!(content(&refused).trim_end(), expected);
    }

    let entry = json!({"name": NAME, "text": "日本 🐘"});
    let made = ask(
        address,
        Method::POST,
        "/api/entries",
        &[("content-type", "application/json")],
        entry.to_string(),
    );
    assert_eq!((made.status().as_u16(), header(&made, "location")), (201, "/api/entries/2"), "{made:?}");
    let entries = json!([
        {"id": 1, "name": "Ann", "text": "thé & more"},
        {"id": 2, "name": NAME, "text": "日本 🐘"},
    ]);
    assert_eq!(json_of(&made), entries[1]);
    has(address, "/api/entries", &entries);
    has(address, "/api/entries/2", &entries[1]);
    for body in [
        "",
        "{",
        "[]",
        "{\"name\": 1, \"text\": \"x\"}",
        "{\"name\": \"x\"}",
        "{\"name\": \"x\", \"text\": \"\"}",
    ] {
        let refused =
            ask(address, Method::POST, "/api/entries", &[("content-type", "application/json")], body);
        assert_eq!(refused.status(), 400, "{body}: {refused:?}");
        assert!(json_of(&refused)["error"].is_string(), "{body}: {refused:?}");
    }
    for id in ["3", "0", "x", "1x", "99999999999999999999"] {
        let missing = ask(address, Method::GET, &format!("/api/entries/{id}"), &[], "");
        assert_eq!(
            (missing.status().as_u16(), json_of(&missing)),
            (404, json!({"error": "no such entry"})),
            "{id}"
        );
    }
    let list = ask(address, Method::GET, "/entries", &[], "");
    assert_eq!((list.status().as_u16(), header(&list, "content-type")), (200, "text/html; charset=utf-8"));
    // Numbers or names, as each language's library has it.
    let list = ["38;amp;", "60;lt;", "62;gt;"].iter().fold(content(&list), |list, escape| {
        let (number, name) = escape.split_at(3);
        list.replace(&format!("&#{number}"), &format!("&{name}"))
    });
    assert!(list.contains("<li><b>Ann</b> thé &amp; more</li>"), "{list}");
    assert!(
        list.contains("日本 🐘</li>") && list.contains("Zoë &lt;b&gt; &amp; ") && !list.contains("\"Ann\""),
        "{list}"
    );

    let all: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let put = ask(address, Method::PUT, "/files/a-1_b.bin", &[], all.clone());
    assert_eq!(put.status(), 204, "{put:?}");
    let got = ask(address, Method::GET, "/files/a-1_b.bin", &[], "");
    assert_eq!((got.status().as_u16(), header(&got, "content-type")), (200, "application/octet-stream"));
    assert!(*got.body() == all, "{} bytes came back of {}", got.body().len(), all.len());
    assert_eq!(ask(address, Method::PUT, "/files/a-1_b.bin", &[], "").status(), 204);
    assert!(ask(address, Method::GET, "/files/a-1_b.bin", &[], "").body().is_empty(), "the last one counts");
    assert_eq!(ask(address, Method::PUT, "/files/kept", &[], "kept").status(), 204);
    assert_eq!(ask(address, Method::GET, "/files/none", &[], "").status(), 404);
    for name in [".hidden", "a%20b", &"a".repeat(101)] {
        assert_eq!(ask(address, Method::PUT, &format!("/files/{name}"), &[], "x").status(), 400, "{name}");
    }

    for (path, allowed) in
        [("/entries", "POST"), ("/api/entries", "POST"), ("/visits", "POST"), ("/files/x", "PUT")]
    {
        let refused = ask(address, Method::DELETE, path, &[], "");
        assert_eq!(refused.status(), 405, "{path}: {refused:?}");
        let allow = header(&refused, "allow");
        assert!(allow.contains("GET") && allow.contains(allowed), "{path}: {allow}");
    }

    assert_eq!(content(&ask(address, Method::GET, "/visits", &[], "")).trim(), "0");
    let mut visits: Vec<u64> = at_once(|_| {
        let visit = ask(address, Method::POST, "/visits", &[], "");
        content(&visit).trim().parse().unwrap_or_else(|_| panic!("expected a number: {visit:?}"))
    });
    visits.sort_unstable();
    assert_eq!(visits, (1..=20).collect::<Vec<_>>(), "each visit has its own number");
    let mut ids: Vec<u64> = at_once(|n| {
        let entry = json!({"name": format!("n{n}"), "text": "t"}).to_string();
        let made =
            ask(address, Method::POST, "/api/entries", &[("content-type", "application/json")], &entry);
        json_of(&made)["id"].as_u64().unwrap_or_else(|| panic!("expected an entry: {made:?}"))
    });
    ids.sort_unstable();
    assert_eq!(ids, (3..=22).collect::<Vec<_>>(), "each entry has its own number");
    is_kept(address);
}

/// That the guestbook still has what [`guestbook`] left there.
#[track_caller]
fn is_kept(address: SocketAddr) {
    let entries = json_of(&ask(address, Method::GET, "/api/entries", &[], ""));
    let ids: Vec<u64> =
        entries.as_array().into_iter().flatten().filter_map(|entry| entry["id"].as_u64()).collect();
    assert_eq!(ids, (1..=22).collect::<Vec<_>>(), "{entries}");
    assert_eq!(entries[1]["name"], NAME);
    assert_eq!(content(&ask(address, Method::GET, "/visits", &[], "")).trim(), "20");
    assert_eq!(content(&ask(address, Method::GET, "/files/kept", &[], "")), "kept");
}

/// What twenty at the same time get.
fn at_once<T: Send>(one: impl Fn(usize) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let running: Vec<_> = (0..20)
            .map(|n| {
                scope.spawn({
                    let one = &one;
                    move || one(n)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("it is answered")).collect()
    })
}

type Answer = Response<bytes::Bytes>;

#[track_caller]
fn ask(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Answer {
    let body = bytes::Bytes::copy_from_slice(body.as_ref());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    let shown = format!("{method} {path}");
    let answer = runtime
        .block_on(async { Connection::open(address).await?.request(method, path, headers, body).await });
    answer.unwrap_or_else(|error| panic!("{shown}: {error}"))
}

#[track_caller]
fn has(address: SocketAddr, path: &str, expected: &Value) {
    let answer = ask(address, Method::GET, path, &[], "");
    assert_eq!(
        (answer.status().as_u16(), header(&answer, "content-type")),
        (200, "application/json"),
        "{path}: {answer:?}"
    );
    assert_eq!(json_of(&answer), *expected);
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn content(answer: &Answer) -> String {
    String::from_utf8_lossy(answer.body()).into_owned()
}

#[track_caller]
fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_else(|error| panic!("expected JSON: {error}: {answer:?}"))
}
