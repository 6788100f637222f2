//! One process when idle, one a core under load, and none left behind.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use wharf_tests::family::Family;
use wharf_tests::http::request;
use wharf_tests::isolation;
use wharf_tests::network::{Namespace, Network};
use wharf_tests::process::{Daemon, Running, wait_for};
use wharf_tests::project::Project;
use wharf_tests::unpacked::Unpacked;

const URL: &str = "http://127.0.0.1:8080/api/hello";

/// Length of a file that no buffer holds.
const LARGE: usize = 64 << 20;

/// A server of at most two processes, with its counters on port 9090.
fn serve(network: &impl Network, app: &Unpacked) -> Daemon {
    let address: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
    let mut command = app.command(network, address);
    command.env("WHARF_PROCESSES", "2").env("WHARF_ADMIN_ADDR", "127.0.0.1:9090");
    let daemon = Daemon::start("wharf-host", app.scratch(), &mut command);
    assert_eq!(wharf_tests::http::get_when_up(network, URL).status, 200);
    daemon
}

/// Requests from 32 connections for some seconds, begun.
fn load(network: &impl Network) -> Running {
    Running::start(network.command("wrk".as_ref()).args(["-t1", "-c32", "-d6s", URL]))
}

fn wait_for_processes(server: &Daemon, count: usize) -> Vec<u32> {
    let found = wait_for(Duration::from_secs(20), || {
        let members = Family::of(server.id()).members().to_vec();
        (members.len() == count).then_some(members)
    });
    found.unwrap_or_else(|| panic!("expected {count} processes\n{}", server.log()))
}

#[test]
fn load_starts_a_second_process_whose_requests_count_and_which_ends_with_the_first() {
    let network = Namespace::create();
    let app = Unpacked::build(Project::hello().path());
    let mut server = serve(&network, &app);
    assert_eq!(wait_for_processes(&server, 1).len(), 1, "idle, there is one");
    let load = load(&network);
    let members = wait_for_processes(&server, 2);
    let report = load.finish().output();
    assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
    let sent: u64 =
        report.lines().find_map(|line| line.trim().split_once(" requests in")).unwrap().0.parse().unwrap();
    let metrics = request(&network, &[], "http://127.0.0.1:9090/metrics").body;
    let counted: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("wharf_requests_total{") && line.contains("/api/hello"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert!(counted >= sent, "expected at least {sent} requests of both processes\n{metrics}");
    let (code, _) = server.end_by(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{}", server.log());
    let gone = |id: &u32| !std::path::Path::new(&format!("/proc/{id}")).exists();
    assert!(members.iter().all(gone), "all have ended");
}

#[test]
fn a_process_that_dies_is_replaced_and_one_whose_first_died_ends() {
    let network = Namespace::create();
    let app = Unpacked::build(Project::hello().path());
    let mut server = serve(&network, &app);
    let mut load = load(&network);
    let second = wait_for_processes(&server, 2)[1];
    kill(second, Signal::SIGKILL);
    let replaced = wait_for(Duration::from_secs(20), || {
        Family::of(server.id()).members().iter().find(|id| **id != server.id() && **id != second).copied()
    });
    let third = replaced.unwrap_or_else(|| panic!("expected another process\n{}", server.log()));
    load.kill();
    let _ = load.finish();
    assert_eq!(request(&network, &[], URL).status, 200);
    server.end_by(Signal::SIGKILL);
    let gone = || (!std::path::Path::new(&format!("/proc/{third}")).exists()).then_some(());
    assert!(wait_for(Duration::from_secs(20), gone).is_some(), "it serves nobody's app");
}

#[test]
fn a_process_that_drains_holds_up_no_other() {
    let network = Namespace::create();
    let app = Unpacked::build(Project::hello().with("public/large.bin", vec![b'l'; LARGE]).path());
    let mut server = serve(&network, &app);
    let mut load = load(&network);
    let second = wait_for_processes(&server, 2)[1];
    let _stalled = network.enter(|| stall_at(server.id(), second));
    kill(second, Signal::SIGTERM);
    load.kill();
    let _ = load.finish();
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(request(&network, &[], URL).status, 200);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
    assert!(Family::of(server.id()).members().contains(&second), "it drains");
    server.end_by(Signal::SIGTERM);
}

#[test]
fn memory_of_guests_is_given_back_when_none_has_run_for_a_while() {
    let network = Namespace::create();
    let app = Unpacked::build(isolation::project().path());
    let address: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
    let mut command = app.command(&network, address);
    command.env("WHARF_PROCESSES", "1");
    let server = Daemon::start("wharf-host", app.scratch(), &mut command);
    let ask = |query: &str| request(&network, &[], &format!("http://127.0.0.1:8080/api/{query}"));
    assert_eq!(wharf_tests::http::get_when_up(&network, "http://127.0.0.1:8080/").status, 200);
    let held = || Family::of(server.id()).anonymous();
    let before = held();
    // Odd: each writes to each page, in a slot of its component's own.
    for worker in ["probe", "other"] {
        assert_eq!(ask(&format!("{worker}?fill=1235")).status, 200, "{}", server.log());
    }
    let is_as_before = || (held() < before + isolation::FILLED).then_some(());
    let given_back = wait_for(Duration::from_secs(20), is_as_before);
    assert!(given_back.is_some(), "{} bytes before, {} after a while", before, held());
    let found = ask("probe?find");
    assert_eq!((found.status, found.body.trim_end()), (200, isolation::NOTHING), "an emptied slot works");
}

#[test]
fn a_host_that_nobody_asks_maps_little_of_its_code_and_answers_all_the_same() {
    let network = Namespace::create();
    let app = Unpacked::build(Project::hello().path());
    let address: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
    let server = Daemon::start("wharf-host", app.scratch(), &mut app.command(&network, address));
    assert_eq!(wharf_tests::http::get_when_up(&network, URL).status, 200);
    let code = || {
        let family = Family::of(server.id());
        family.rss().saturating_sub(family.anonymous())
    };
    let used = code();
    let rests = || wait_for(Duration::from_secs(20), || (code() < used / 2).then_some(()));
    assert!(rests().is_some(), "{used} bytes used, {} after a while", code());
    let client = network.enter(|| TcpStream::connect(address).expect("it listens"));
    assert_eq!(request(&network, &[], URL).status, 200);
    // Longer than a rest takes, but somebody is there.
    std::thread::sleep(Duration::from_secs(6));
    assert!(code() > used / 2, "{used} bytes used, {} with a client", code());
    drop(client);
    assert!(rests().is_some(), "{used} bytes used, {} after the client", code());
}

/// A client of the process `second` of the server `root` that takes nothing more
/// of a file once its first byte has come.
fn stall_at(root: u32, second: u32) -> TcpStream {
    let connection = wait_for(Duration::from_secs(20), || {
        let mut client = TcpStream::connect("127.0.0.1:8080").ok()?;
        client.write_all(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        client.read_exact(&mut [0]).ok()?;
        let port = client.local_addr().ok()?.port();
        (Family::of(root).serving(8080, port) == Some(second)).then_some(client)
    });
    connection.expect("the second process accepts connections")
}

fn kill(id: u32, signal: Signal) {
    let id = nix::unistd::Pid::from_raw(i32::try_from(id).expect("a process id"));
    nix::sys::signal::kill(id, signal).expect("the process is there");
}
