//! Differential tests: one site, the same bytes sent to wharf and to its peers.
//!
//! The expectation of each case is the RFC's; `docs/http.md` shows who meets it.
//! `make http-table` writes that file, by `WHARF_HTTP_TABLE=write`. All cases run
//! once, whichever test asks first.

mod case;
mod cases;
mod client;
mod pending;
mod server;
mod site;
mod table;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use case::Case;
use client::{Observation, Response, exchange};
use server::{Name, Server};

/// Requests under way at each server at once.
const AT_ONCE: usize = 4;

/// The columns.
const SERVERS: [Name; 4] = [Name::Nginx, Name::Caddy, Name::Wrangler, Name::Wharf];

/// All that was seen.
struct Run {
    /// Those that ran, and which version of each.
    servers: Vec<(Name, String)>,
    sections: Vec<(&'static str, Vec<Row>)>,
}

/// A case and what each server made of it.
struct Row {
    case: Case,
    seen: BTreeMap<Name, Seen>,
}

/// What one server made of a case.
struct Seen {
    address: SocketAddr,
    observation: Observation,
    differences: Vec<String>,
}

impl Run {
    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.sections.iter().flat_map(|(_, rows)| rows)
    }
}

fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| {
        let starting = SERVERS.map(|name| thread::spawn(move || Server::start(name)));
        // All of them, before one that failed to start ends this: the others end, too.
        let started = starting.map(thread::JoinHandle::join);
        let servers = started.into_iter().filter_map(|server| server.expect("the server starts"));
        let mut servers: Vec<Server> = servers.collect();
        let mut sections: Vec<(&str, Vec<Row>)> = cases::sections()
            .into_iter()
            .map(|(title, cases)| (title, cases.into_iter().map(Row::new).collect()))
            .collect();
        let rows = sections.iter().flat_map(|(_, rows)| rows);
        let cases: Vec<&Case> = rows.map(|row| &row.case).collect();
        let of_server: Vec<Vec<Seen>> = thread::scope(|scope| {
            let addresses = servers.iter().map(|server| server.address);
            let asking: Vec<_> = addresses
                .map(|address| {
                    scope.spawn({
                        let cases = &cases;
                        move || ask_all(address, cases)
                    })
                })
                .collect();
            asking.into_iter().map(|asking| asking.join().expect("the cases run")).collect()
        });
        for (server, seen) in servers.iter_mut().zip(of_server) {
            // No request may end a server.
            server.assert_alive();
            let rows = sections.iter_mut().flat_map(|(_, rows)| rows);
            for (row, seen) in rows.zip(seen) {
                row.seen.insert(server.name, seen);
            }
        }
        let servers = servers.iter().map(|server| (server.name, server.version.clone())).collect();
        Run { servers, sections }
    })
}

impl Row {
    fn new(case: Case) -> Self {
        Self { case, seen: BTreeMap::new() }
    }
}

/// What a server makes of each case, in their order.
fn ask_all(server: SocketAddr, cases: &[&Case]) -> Vec<Seen> {
    let next = AtomicUsize::new(0);
    let mut seen: Vec<(usize, Seen)> = thread::scope(|scope| {
        let askers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(case) = cases.get(index) else { return seen };
                        seen.push((index, ask(server, case)));
                    }
                })
            })
            .collect();
        askers.into_iter().flat_map(|asker| asker.join().expect("a case runs")).collect()
    });
    seen.sort_by_key(|(index, _)| *index);
    seen.into_iter().map(|(_, seen)| seen).collect()
}

fn ask(server: SocketAddr, case: &Case) -> Seen {
    let known = case.known.map(|(path, codings)| first_answer(server, path, codings));
    let observation = exchange(server, &case.bytes_for(known.as_ref()), &case.methods);
    let differences = case.differences(&observation, known.as_ref());
    Seen { address: server, observation, differences }
}

/// The plain answer of a file, for its validators.
fn first_answer(server: SocketAddr, path: &str, codings: &str) -> Response {
    let (bytes, methods) = case::request("GET", path, &[&format!("Accept-Encoding: {codings}")]);
    exchange(server, &bytes, &methods).responses.pop().unwrap_or_default()
}

#[test]
fn every_behaviour_has_a_name_of_its_own() {
    let sections = cases::sections();
    let mut names = HashSet::new();
    for case in sections.iter().flat_map(|(_, cases)| cases) {
        assert!(names.insert(case.behaviour), "{:?} is there twice", case.behaviour);
    }
    for name in pending::CASES {
        assert!(names.contains(name), "pending.rs has {name:?}, which is no case");
    }
}

#[test]
fn wharf_does_what_is_laid_down_and_what_is_custom() {
    let mut wrong = Vec::new();
    for row in run().rows() {
        let seen = &row.seen[&Name::Wharf];
        let is_pending = pending::CASES.contains(&row.case.behaviour);
        if is_pending && seen.differences.is_empty() {
            wrong.push(format!("{}: it passes: take it off pending.rs", row.case.behaviour));
        } else if !is_pending && !seen.differences.is_empty() {
            wrong.push(format!(
                "{} ({}): {}\n  sent {:?}\n  seen {:?}",
                row.case.behaviour,
                row.case.clause,
                seen.differences.join("; "),
                shortened(&String::from_utf8_lossy(&row.case.bytes)),
                shortened(&format!("{:?}", seen.observation)),
            ));
        }
    }
    assert!(wrong.is_empty(), "{} cases\n{}", wrong.len(), wrong.join("\n"));
}

/// What an RFC says some server does, or the expectation is ours alone: such
/// cases are rare, and each is named here.
#[test]
fn what_is_expected_is_done_by_some_peer() {
    let mut alone = Vec::new();
    for row in run().rows() {
        let mut peers = row.seen.iter().filter(|(name, _)| **name != Name::Wharf);
        if !peers.any(|(_, seen)| seen.differences.is_empty()) {
            alone.push(row.case.behaviour);
        }
    }
    // Without wrangler there are more.
    let all = run().servers.len() == SERVERS.len();
    let unknown: Vec<_> = alone.iter().filter(|behaviour| !ALONE.contains(behaviour)).collect();
    assert!(!all || unknown.is_empty(), "no peer does {unknown:#?}");
}

/// What no peer does.
const ALONE: &[&str] = &[
    // nginx refuses a second field, the others read the first alone.
    "`If-None-Match` in two fields",
    // Their 405 has no `Allow`.
    "`OPTIONS` of a file lists its methods",
    "`PUT` to a file",
    "`DELETE` of a file",
    // wrangler compresses, and chooses by other rules.
    "`*` is any coding",
    // By their users' settings alone.
    "A name with a hash of its content is kept",
    // What wharf's build leaves out, they serve.
    "A link out of the site",
    "`_headers` is not served",
    "`_redirects` is not served",
    // nginx takes it and goes on, as does what wrangler is made of.
    "A chunk that ends in LF alone",
];

#[test]
fn the_table_shows_what_wharf_does() {
    let document = table::document(run());
    let file = table::file();
    if std::env::var_os("WHARF_HTTP_TABLE").is_some_and(|value| value == "write") {
        let missing: Vec<_> =
            SERVERS.iter().filter(|name| !run().servers.iter().any(|(ran, _)| ran == *name)).collect();
        assert!(
            missing.is_empty(),
            "cannot write the table without {missing:?}: run tests/testbed/wrangler.sh"
        );
        fs_err::write(&file, &document).expect("the table can be written");
    }
    let kept = fs_err::read_to_string(&file).expect("docs/http.md is there");
    let (kept, seen) = (table::of_wharf(&kept), table::of_wharf(&document));
    let stale: Vec<_> = seen.iter().filter(|row| !kept.contains(row)).collect();
    assert!(
        kept.len() == seen.len() && stale.is_empty(),
        "docs/http.md is stale: run `make http-table`\n{stale:#?}"
    );
}

fn shortened(text: &str) -> String {
    text.chars().take(600).collect()
}
