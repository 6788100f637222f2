//! The soak: millions of requests over files and workers, some of which trap, run
//! out of time or are left by their client. At the end the server answers as at
//! the start, and holds what it held: no more memory, no more files.
//!
//! Then the hunt for secrets, on a server of its own, longer than the tests have
//! it. Everything takes place on loopback of a namespace, and ends by itself.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the figures are data, the progress is talk")]

mod app;
mod clients;
mod deck;
mod state;
mod tally;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use wharf_tests::isolation;
use wharf_tests::network::Namespace;
use wharf_tests::process::Daemon;
use wharf_tests::unpacked::Unpacked;

use state::State;
use tally::Tally;

/// Requests after the warm-up, if `SOAK_REQUESTS` does not say another number.
const REQUESTS: u64 = 2_000_000;

/// Searches for secrets, if `SOAK_SEARCHES` does not say another number.
const SEARCHES: u64 = 10_000;

/// The warm-up is a tenth of the requests, and at most this many: then every slot
/// for instances has been in use.
const WARM_UP: u64 = 100_000;

/// How far memory may be from what it was after the warm-up, as a part of it.
const TOLERANCE: f64 = 0.05;

fn main() -> ExitCode {
    let (requests, searches) = match (number("SOAK_REQUESTS", REQUESTS), number("SOAK_SEARCHES", SEARCHES)) {
        (Ok(requests), Ok(searches)) => (requests, searches),
        (Err(error), _) | (_, Err(error)) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let address: SocketAddr = ([127, 0, 0, 1], 8080).into();
    let mut faults = soak(address, requests);
    if searches > 0 {
        hunt(address, searches);
    }
    faults.sort();
    for fault in &faults {
        eprintln!("error: {fault}");
    }
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What should not have been.
fn soak(address: SocketAddr, requests: u64) -> Vec<String> {
    let (network, app) = (Namespace::create(), Unpacked::build(app::project().path()));
    let mut server = app.serve(&network, address, "/");
    let warm_up = WARM_UP.min(requests / 10).max(deck::SIZE);
    eprintln!("soak: {warm_up} requests to warm up");
    let mut faults = pass(&network, address, warm_up).unexpected();
    let before = State::settled(&server, None);
    eprintln!("soak: {requests} requests");
    let since = Instant::now();
    let tally = pass(&network, address, requests);
    let took = since.elapsed();
    let after = State::settled(&server, Some(&before));
    print!("{}", tally.table());
    println!(
        "{requests} requests in {:.0} s, {:.0} a second",
        took.as_secs_f64(),
        requests as f64 / took.as_secs_f64()
    );
    print!("{}", state::table(&before, &after));
    faults.extend(tally.unexpected());
    faults.extend(after.grown(&before, TOLERANCE));
    faults.extend(ended_badly(&mut server));
    faults
}

fn pass(network: &Namespace, address: SocketAddr, requests: u64) -> Tally {
    network.enter(|| clients::run(address, requests))
}

/// A server that traps and clients left still ends as it should.
fn ended_badly(server: &mut Daemon) -> Option<String> {
    if server.has_ended() {
        return Some(format!("wharf-host ended during the soak\n{}", server.log()));
    }
    let (code, _) = server.end_by(nix::sys::signal::Signal::SIGTERM);
    let panicked = server.log().lines().find(|line| line.contains("panicked")).map(str::to_owned);
    match code {
        Some(0) => panicked.map(|line| format!("wharf-host had a panic: {line}")),
        code => Some(format!("expected exit code 0 of wharf-host after SIGTERM, found {code:?}")),
    }
}

fn hunt(address: SocketAddr, searches: u64) {
    eprintln!("soak: {searches} searches for secrets");
    let (network, app) = (Namespace::create(), Unpacked::build(isolation::project().path()));
    let server = app.serve(&network, address, "/");
    let hunt = network.enter(|| isolation::hunt(server.id(), address, searches));
    println!(
        "{} secrets written, none found by {} searches on {} processes {:?}",
        hunt.secrets,
        hunt.searches.values().sum::<u64>(),
        hunt.searches.len(),
        hunt.searches
    );
}

fn number(name: &str, default: u64) -> Result<u64, String> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => text.parse().map_err(|_| format!("malformed {name} {text:?}: expected a number")),
    }
}
