//! A small static file under load, on loopback of a namespace.

use std::process::Command;

use wharf_tests::http::get_when_up;
use wharf_tests::network::{Namespace, Network};
use wharf_tests::process::{Daemon, run};
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

use crate::nginx;
use crate::sample::Comparison;

const OURS: &str = "127.0.0.1:8081";
const THEIRS: &str = "127.0.0.1:8082";

/// Requests a second and the 99th percentile of their latency.
pub(crate) fn measure(rounds: usize) -> [Comparison; 2] {
    let network = Namespace::create();
    let (wharf, project) = (Wharf::new(), Project::hello());
    let scratch = wharf.scratch();
    let settings = scratch.join("nginx.conf");
    fs_err::write(&settings, nginx::settings(text(&project.path().join("public")), THEIRS, text(scratch)))
        .expect("the configuration can be written");
    let mut nginx = network.command(nginx::PROGRAM.as_ref());
    let _nginx = Daemon::start("nginx", scratch, nginx.args(["-e", "stderr", "-c", text(&settings)]));
    let mut serve = wharf.command(&network, &["serve", text(project.path()), "--addr", OURS]);
    let _serve = Daemon::start("wharf-serve", scratch, &mut serve);
    let url = |address: &str| format!("http://{address}/style.css");
    for address in [OURS, THEIRS] {
        assert_eq!(get_when_up(&network, &url(address)).status, 200, "{address}");
    }
    let (mut ours, mut theirs) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    for _ in 0..rounds {
        for (address, figures) in [(OURS, &mut ours), (THEIRS, &mut theirs)] {
            let (requests, latency) = wrk(network.command("wrk".as_ref()), &url(address));
            figures.0.push(requests);
            figures.1.push(latency);
        }
    }
    let compare = |name, unit, wharf, peer| Comparison { name, unit, wharf, peer: Some(("nginx", peer)) };
    [
        compare("small file, wrk -t1 -c32", "req/s", ours.0, theirs.0),
        compare("small file, 99th percentile", "ms", ours.1, theirs.1),
    ]
}

/// Requests a second, and milliseconds.
fn wrk(mut command: Command, url: &str) -> (f64, f64) {
    let report = run(command.args(["-t1", "-c32", "-d4s", "--latency", url])).output();
    assert!(!report.contains("Non-2xx"), "expected only 200s\n{report}");
    let field = |name: &str| {
        let line = report.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("expected {name} of wrk\n{report}")).trim().to_owned()
    };
    let requests = field("Requests/sec:").parse().expect("wrk prints a number");
    (requests, in_milliseconds(&field("99%")))
}

/// Of wrk's `1.23ms`, `456.00us` or `1.20s`.
fn in_milliseconds(text: &str) -> f64 {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (text.trim_end_matches('s'), 1000.0)
    };
    number.parse::<f64>().expect("wrk prints a number") * factor
}
