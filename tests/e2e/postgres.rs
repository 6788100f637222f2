//! Workers with a PostgreSQL database (tests/guests/postgres-*): its clients in Python
//! and Rust, as they are, over the TCP that `outbound` grants.

use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;

use serde_json::json;
use wharf_tests::fixture::with_python;
use wharf_tests::http::{Response, get, request};
use wharf_tests::network::Host;
use wharf_tests::postgres::{DATABASE, PASSWORD, Postgres, USER};
use wharf_tests::process::Daemon;
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::{Server, Wharf, text};

/// What is taken for a statement's end, a placeholder or a byte by those that err.
const TEXT: &str = "Zoë's \"naïve\" 日本 🐘 \\ $1 :text %s'); drop table notes; --\n\ttab";

#[test]
fn a_client_in_python_works_as_it_is() {
    let requirements = fs_err::read(guest("postgres-python/requirements.txt")).unwrap();
    let worker = fs_err::read(guest("postgres-python/worker.py")).unwrap();
    let project = Project::empty().with("requirements.txt", requirements);
    a_client_works(&with_python(Wharf::new()), project, "py", &worker);
}

#[test]
fn a_client_in_rust_works_as_it_is() {
    let worker = fs_err::read(testbed::part("guests/postgres-rust.wasm", "guests.sh postgres-rust")).unwrap();
    a_client_works(&Wharf::new(), Project::empty(), "wasm", &worker);
}

fn guest(file: &str) -> PathBuf {
    testbed::repository().join("tests/guests").join(file)
}

/// The whole story of one worker, whose source or component is `worker`: as `notes`
/// with all that it needs, and beside it under names that lack something.
#[track_caller]
fn a_client_works(wharf: &Wharf, project: Project, extension: &str, worker: &[u8]) {
    let database = Postgres::start();
    // By the role of the workers, as which alone they may do this.
    let _ = database.sql(&format!(
        "set role {USER}; \
         create table notes (id bigint generated always as identity primary key, text text not null)"
    ));
    let other = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let other = other.local_addr().expect("it has an address");
    let port = database.port();
    let by_address = format!("tcp://127.0.0.1:{port}");
    let password = "{ from = \"PGPASSWORD\" }";
    let workers = [
        // By name, which takes a look-up; loopback needs the address too.
        ("notes", "localhost", password, format!("[\"tcp://localhost:{port}\", {by_address:?}]")),
        ("without", "127.0.0.1", password, "[]".to_owned()),
        ("elsewhere", "127.0.0.1", password, format!("[\"tcp://{other}\"]")),
        ("unnamed", "localhost", password, format!("[{by_address:?}]")),
        ("stranger", "127.0.0.1", "\"wrong\"", format!("[{by_address:?}]")),
    ];
    let mut settings = String::new();
    let mut project = project;
    for (name, host, password, outbound) in workers {
        settings += &format!(
            "[workers.\"{name}/[...path]\"]\noutbound = {outbound}\n\
             env = {{ PGHOST = \"{host}\", PGPORT = \"{port}\", PGUSER = \"{USER}\", \
             PGDATABASE = \"{DATABASE}\", PGPASSWORD = {password} }}\n"
        );
        project = project.with(&format!("{name}/[...path].{extension}"), worker);
    }
    let project = project.with("wharf.toml", settings);
    let server = serve(wharf, &project);

    // Who lacks a grant reaches nobody.
    for name in ["without", "elsewhere", "unnamed"] {
        let refused = get(&Host, &server.at(&format!("/{name}")));
        assert_eq!(refused.status, 502, "{name}: {refused:?}\n{}", server.daemon.log());
        assert!(refused.json()["error"].is_string(), "{name}: {refused:?}");
    }
    assert_eq!(database.connections(), 0, "{}", server.daemon.log());
    let log = server.daemon.log();
    assert!(log.contains("outbound connection denied"), "{log}");

    // Who has it logs in, by the host's secret alone.
    let notes = || get(&Host, &server.at("/notes"));
    assert_eq!(answer(&notes()), (200, json!([])));
    assert_eq!(database.connections(), 1);
    let refused = get(&Host, &server.at("/stranger"));
    assert_eq!(refused.status, 502, "{refused:?}");
    assert!(refused.body.contains("password authentication failed"), "{refused:?}");

    let add = |text: &str| request(&Host, &["--data-binary", text], &server.at("/notes"));
    assert_eq!(answer(&add(TEXT)), (201, json!({ "id": 1 })));
    assert_eq!(answer(&notes()), (200, json!([{ "id": 1, "text": TEXT }])));
    assert_eq!(database.sql("select text from notes"), TEXT);

    // What PostgreSQL refuses is an error of that statement, and no end of the connection.
    let error = json!({ "code": "42P01", "message": "relation \"nowhere\" does not exist", "still": "here" });
    assert_eq!(answer(&get(&Host, &server.at("/notes/error"))), (400, error));

    let before = database.connections();
    thread::scope(|scope| {
        for number in 0..20 {
            let add = &add;
            scope.spawn(move || assert_eq!(add(&format!("note {number}")).status, 201));
        }
    });
    let kept =
        "select count(*), count(distinct id), count(distinct text) from notes where text like 'note %'";
    assert_eq!(database.sql(kept), "20|20|20");
    assert_eq!(notes().json().as_array().map(Vec::len), Some(21));
    assert_eq!(database.connections(), before + 21, "an instance a request, and a connection each");

    // A database that is away is an error of the request, and no end of the worker.
    drop(database);
    assert_eq!(notes().status, 502);
    assert_eq!(get(&Host, &server.at("/without")).status, 502);
}

#[track_caller]
fn answer(response: &Response) -> (u16, serde_json::Value) {
    (response.status, response.json())
}

/// `wharf serve` of the project, with the password in its environment.
#[track_caller]
fn serve(wharf: &Wharf, project: &Project) -> Server {
    let mut command = wharf.command(&Host, &["serve", text(project.path()), "--addr", "127.0.0.1:0"]);
    let mut daemon = Daemon::start("wharf-serve", wharf.scratch(), command.env("PGPASSWORD", PASSWORD));
    let url = daemon.wait_until("it printed its URL", |daemon| {
        let log = daemon.log();
        // A whole line, or the port may be cut.
        let (port, _) = log.split_once("http://127.0.0.1:")?.1.split_once('\n')?;
        Some(format!("http://127.0.0.1:{}", port.trim_end().trim_end_matches('/')))
    });
    Server { daemon, url }
}
