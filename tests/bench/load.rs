//! `wrk -t1 -c64` against servers side by side, on loopback of a namespace: the
//! requests a second, latencies, and what the servers' processes hold.

use std::thread;
use std::time::Duration;

use wharf_tests::family::Family;
use wharf_tests::network::{Namespace, Network};
use wharf_tests::process::{Daemon, Running, run};

use crate::sample::{Comparison, MEBIBYTE};

/// How long one server is under load in one round.
const ROUND: Duration = Duration::from_secs(5);

/// How long after its start a server is idle, and when under load its memory is
/// looked at: both are states after a while, not events.
const A_WHILE: Duration = Duration::from_secs(1);

/// A server that answers at `url`.
#[derive(Debug)]
pub(crate) struct Server {
    /// What it is called in the table.
    pub(crate) name: &'static str,
    /// What is asked of it.
    pub(crate) url: String,
    /// It ends with the value.
    pub(crate) daemon: Daemon,
}

/// What one server did, by round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// A second.
    pub(crate) requests: Vec<f64>,
    /// Milliseconds, the 50th and the 99th percentile.
    pub(crate) latencies: [Vec<f64>; 2],
    /// MiB, of all processes together: idle, and under load.
    pub(crate) memory: [Vec<f64>; 2],
}

/// What one run of wrk says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// A second.
    pub(crate) requests: f64,
    /// Milliseconds, the 50th and the 99th percentile.
    pub(crate) latencies: [f64; 2],
}

/// Names of the five lines of a comparison: the work with its target, and more.
macro_rules! lines {
    ($work:literal, $target:literal) => {
        [
            concat!($work, " ", $target),
            concat!($work, ", 50th percentile"),
            concat!($work, ", 99th percentile"),
            concat!($work, ", idle PSS"),
            concat!($work, ", PSS under load"),
        ]
    };
}
pub(crate) use lines;

/// Loads the servers in turn, `rounds` times; the figures are in their order.
pub(crate) fn measure(network: &Namespace, servers: &[Server], rounds: usize) -> Vec<Figures> {
    thread::sleep(A_WHILE);
    let mut figures: Vec<Figures> = servers
        .iter()
        .map(|server| Figures { memory: [vec![held(server)], Vec::new()], ..Figures::default() })
        .collect();
    for server in servers {
        let _ = expect(server, wrk(network, &server.url, A_WHILE));
    }
    for _ in 0..rounds {
        for (server, figures) in servers.iter().zip(&mut figures) {
            let sample = expect(server, wrk(network, &server.url, ROUND));
            figures.requests.push(sample.requests);
            for (all, one) in figures.latencies.iter_mut().zip(sample.latencies) {
                all.push(one);
            }
        }
    }
    // In a run of its own: to look at a process' pages holds it up.
    for (server, figures) in servers.iter().zip(&mut figures) {
        let load = Running::start(command(network, &server.url, 2 * A_WHILE).args(["--latency"]));
        thread::sleep(A_WHILE);
        figures.memory[1].push(held(server));
        let _ = expect(server, understand(&load.finish().output()));
    }
    figures
}

/// wharf's and a peer's figures as lines of the table.
pub(crate) fn compare(
    names: [&'static str; 5],
    wharf: &Figures,
    peer: (&'static str, &Figures),
) -> Vec<Comparison> {
    let rows = |figures: &Figures| {
        let [median, highest] = figures.latencies.clone();
        let [idle, loaded] = figures.memory.clone();
        [figures.requests.clone(), median, highest, idle, loaded]
    };
    let units = ["req/s", "ms", "ms", "MiB", "MiB"];
    let rows = names.into_iter().zip(units).zip(rows(wharf).into_iter().zip(rows(peer.1)));
    let rows =
        rows.map(|((name, unit), (wharf, of))| Comparison { name, unit, wharf, peer: Some((peer.0, of)) });
    rows.collect()
}

/// Loads `url` for as long.
///
/// # Errors
/// wrk's report, if there were answers other than 200 or broken connections.
pub(crate) fn wrk(network: &Namespace, url: &str, time: Duration) -> Result<Sample, String> {
    understand(&run(command(network, url, time).arg("--latency")).output())
}

/// Loads a server by so many connections for as long.
#[track_caller]
pub(crate) fn wrk_by(network: &Namespace, server: &Server, connections: usize, time: Duration) -> Sample {
    let mut command = command_by(network, &server.url, connections, time);
    expect(server, understand(&run(command.arg("--latency")).output()))
}

fn command(network: &Namespace, url: &str, time: Duration) -> std::process::Command {
    command_by(network, url, 64, time)
}

fn command_by(network: &Namespace, url: &str, connections: usize, time: Duration) -> std::process::Command {
    let mut wrk = network.command("wrk".as_ref());
    let (connections, time) = (format!("-c{connections}"), format!("-d{}s", time.as_secs()));
    // A slow answer is a latency, not an error.
    wrk.args(["-t1", &connections, &time, "--timeout", "60s", url]);
    wrk
}

fn understand(report: &str) -> Result<Sample, String> {
    if report.contains("Non-2xx") || report.contains("Socket errors") {
        return Err(format!("expected only 200s and no broken connection\n{report}"));
    }
    let field = |name: &str| {
        let line = report.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map(|line| line.trim().to_owned()).ok_or_else(|| format!("expected {name} of wrk\n{report}"))
    };
    let number = |text: &str| text.parse::<f64>().map_err(|_| format!("expected a number: {text}\n{report}"));
    let milliseconds = |text: &str| {
        let (text, factor) = if let Some(text) = text.strip_suffix("us") {
            (text, 0.001)
        } else if let Some(text) = text.strip_suffix("ms") {
            (text, 1.0)
        } else {
            (text.trim_end_matches('s'), 1000.0)
        };
        Ok::<_, String>(number(text)? * factor)
    };
    Ok(Sample {
        requests: number(&field("Requests/sec:")?)?,
        latencies: [milliseconds(&field("50%")?)?, milliseconds(&field("99%")?)?],
    })
}

#[track_caller]
fn expect(server: &Server, sample: Result<Sample, String>) -> Sample {
    sample.unwrap_or_else(|report| {
        panic!("{} at {}: {report}\n{}", server.name, server.url, server.daemon.log())
    })
}

/// In MiB.
fn held(server: &Server) -> f64 {
    Family::of(server.daemon.id()).pss() as f64 / MEBIBYTE
}
