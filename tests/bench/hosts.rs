//! `wharf-host` by itself: how long from its start to the first 200 of a worker
//! whose machine code is in the image, and what it holds when idle.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use wharf_tests::family::Family;
use wharf_tests::fixture;
use wharf_tests::network::{Host, Namespace};
use wharf_tests::process::Daemon;
use wharf_tests::project::Project;
use wharf_tests::unpacked::Unpacked;
use wharf_tests::wharf::Wharf;

use crate::sample::{Comparison, MEBIBYTE};
use crate::workers;

/// How often a server that may be up is asked.
const POLL: Duration = Duration::from_micros(200);

/// Idle is a state after a while, not an event.
const A_WHILE: Duration = Duration::from_secs(1);

/// The time to the first answer of Rust and of Python, and the memory of Rust's.
pub(crate) fn measure(rounds: usize) -> Vec<Comparison> {
    let _ = fixture::with_python(Wharf::new());
    let network = Namespace::create();
    let apps = [
        (Unpacked::build(Project::hello().path()), "/api/hello"),
        (Unpacked::build(workers::python().path()), "/api/python"),
    ];
    let mut took = [Vec::new(), Vec::new()];
    let (mut rss, mut pss) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        for ((app, path), took) in apps.iter().zip(&mut took) {
            let (daemon, first) = start(&network, app, path);
            // The first round reads the files from disk.
            if round > 0 {
                took.push(first.as_secs_f64() * 1000.0);
            }
            drop(daemon);
        }
    }
    for _ in 0..rounds.min(5) {
        let (app, _) = &apps[0];
        let (daemon, _) = start(&network, app, "/");
        thread::sleep(A_WHILE);
        let family = Family::of(daemon.id());
        rss.push(family.rss() as f64 / MEBIBYTE);
        pss.push(family.pss() as f64 / MEBIBYTE);
    }
    let [rust, python] = took;
    let row = |name, unit, wharf| Comparison { name, unit, wharf, peer: None };
    vec![
        row("wharf-host to first 200, Rust (≤ 25 ms)", "ms", rust),
        row("wharf-host to first 200, Python (≤ 60 ms)", "ms", python),
        row("idle RSS of wharf-host, hello (≤ 12 MiB)", "MiB", rss),
        row("idle PSS of wharf-host, hello", "MiB", pss),
    ]
}

/// From the start of the process to the first 200.
fn start(network: &Namespace, app: &Unpacked, path: &str) -> (Daemon, Duration) {
    let address: SocketAddr = "127.0.0.1:8081".parse().expect("the address is well-formed");
    network.enter(|| {
        // Started from within the namespace: nsenter would take its time too.
        let mut command = app.command(&Host, address);
        let since = Instant::now();
        let mut daemon = Daemon::start("wharf-host", app.scratch(), &mut command);
        let deadline = since + Duration::from_secs(60);
        while !answers(address, path) {
            assert!(!daemon.has_ended() && Instant::now() < deadline, "{path}: {}", daemon.log());
            thread::sleep(POLL);
        }
        (daemon, since.elapsed())
    })
}

fn answers(address: SocketAddr, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
