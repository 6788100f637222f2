//! Static files: one of 1 KB, one of 1 MB, and all that JupyterLite's page takes,
//! by wharf and by nginx from the very same files.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nix::sys::signal::Signal;
use wharf_tests::client::{Connection, Error};
use wharf_tests::http::get_when_up;
use wharf_tests::network::{Namespace, Network};
use wharf_tests::process::run;
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::unpacked::Unpacked;

use crate::build::site;
use crate::load::{Figures, Server, compare, lines, measure};
use crate::nginx;
use crate::sample::Comparison;

const OURS: &str = "127.0.0.1:8081";
const THEIRS: &str = "127.0.0.1:8082";

/// JupyterLite's first page, and what it shows once it is there.
const PAGE: &str = "/dist/lab/index.html";
const SHOWN: &str = ".jp-Launcher";

/// As many as a browser opens to one host by HTTP/1.1.
const CONNECTIONS: usize = 6;

/// Page loads by each server in a round.
const LOADS: usize = 10;

/// What a browser accepts, and what a client with gzip alone does.
const BROWSER: &str = "gzip, deflate, br, zstd";
const GZIP: &str = "gzip";

/// A small and a large file under load, then the page.
pub(crate) fn measure_all(rounds: usize) -> Vec<Comparison> {
    let mut comparisons = files(rounds);
    comparisons.extend(page(rounds));
    comparisons
}

fn files(rounds: usize) -> Vec<Comparison> {
    // wrk accepts no coding: both are sent as they are.
    let (small, large) = ("x".repeat(1024), vec![b'x'; 1024 * 1024]);
    let project = Project::empty().with("public/small.txt", small).with("public/large.bin", large);
    let (network, app) = (Namespace::create(), Unpacked::build(project.path()));
    let mut comparisons = Vec::new();
    for (file, names) in
        [("/small.txt", lines!("static 1 KB", "(≥ 1.1)")), ("/large.bin", lines!("static 1 MB", "(≥ 1.0)"))]
    {
        // Each file has servers of its own, so that memory is of it alone.
        let servers = servers(&network, &app, file);
        let figures = measure(&network, &servers, rounds);
        comparisons.extend(compare(names, &figures[0], ("nginx", &figures[1])));
        comparisons.extend(bandwidth(file, &figures));
    }
    comparisons
}

/// Of the large file: what its requests are in bytes.
fn bandwidth(file: &str, figures: &[Figures]) -> Option<Comparison> {
    (file == "/large.bin").then(|| Comparison {
        // A request is one MiB.
        name: "static 1 MB, throughput (≥ 1.0)",
        unit: "MiB/s",
        wharf: figures[0].requests.clone(),
        peer: Some(("nginx", figures[1].requests.clone())),
    })
}

fn servers(network: &Namespace, app: &Unpacked, path: &str) -> [Server; 2] {
    let url = |address: &str| format!("http://{address}{path}");
    let ours = app.serve(network, address(OURS), path);
    let theirs = nginx::start(network, &app.app().join("site"), THEIRS, app.scratch(), nginx::Log::Off);
    assert_eq!(get_when_up(network, &url(THEIRS)).status, 200, "{}", theirs.log());
    [
        Server { name: "wharf", url: url(OURS), daemon: ours },
        Server { name: "nginx", url: url(THEIRS), daemon: theirs },
    ]
}

fn page(rounds: usize) -> Vec<Comparison> {
    let (network, app) = (Namespace::create(), Unpacked::build(site().path()));
    let targets = Arc::new(requests_of_the_page(&network, &app));
    eprintln!("static: the page is {} requests", targets.len());
    let _servers = servers(&network, &app, PAGE);
    let mut comparisons = Vec::new();
    for (accepted, names) in [
        (BROWSER, ["page load, as a browser asks (≤ 1.0)", "… bytes (< 1.0)"]),
        (GZIP, ["page load, gzip alone (≤ 1.0)", "… bytes (≤ 1.0)"]),
    ] {
        let mut figures = [(); 2].map(|()| [Vec::new(), Vec::new()]);
        for round in 0..=rounds {
            for (server, figures) in [OURS, THEIRS].into_iter().zip(&mut figures) {
                for _ in 0..LOADS {
                    let [milliseconds, kibibytes] = load(&network, address(server), &targets, accepted);
                    // The first round only warms up.
                    if round > 0 {
                        figures[0].push(milliseconds);
                        figures[1].push(kibibytes);
                    }
                }
            }
        }
        let [[our_time, our_bytes], [their_time, their_bytes]] = figures;
        let row = |name, unit, wharf, peer| Comparison { name, unit, wharf, peer: Some(("nginx", peer)) };
        comparisons.push(row(names[0], "ms", our_time, their_time));
        comparisons.push(row(names[1], "KiB", our_bytes, their_bytes));
    }
    comparisons
}

/// What Chromium asks for when it opens the page, in its order.
fn requests_of_the_page(network: &Namespace, app: &Unpacked) -> Vec<String> {
    let scratch = app.scratch().join("recorded");
    fs_err::create_dir(&scratch).expect("a folder can be made");
    let site = app.app().join("site");
    let mut nginx = nginx::start(network, &site, THEIRS, &scratch, nginx::Log::Requests);
    let url = format!("http://{THEIRS}{PAGE}");
    let log = scratch.join("access.log");
    assert_eq!(get_when_up(network, &url).status, 200, "{}", nginx.log());
    // Our own, which the browser did not make.
    let before = fs_err::read_to_string(&log).expect("nginx writes its log").lines().count();
    let driver = testbed::part("browser/page.mjs", "browser.sh");
    let mut node = network.command("node".as_ref());
    run(node.arg(driver).args([&url, SHOWN])).succeeded();
    // Ended, it has written all of it.
    assert_eq!(nginx.end_by(Signal::SIGQUIT).0, Some(0), "{}", nginx.log());
    let log = fs_err::read_to_string(&log).expect("nginx writes its log");
    let requests = log.lines().skip(before).filter_map(|line| {
        let (method, rest) = line.split_once(' ')?;
        let (target, _status) = rest.rsplit_once(' ')?;
        (method == "GET").then(|| target.to_owned())
    });
    let requests: Vec<_> = requests.collect();
    assert!(requests.len() > 20, "expected the requests of a page:\n{log}");
    requests
}

/// One load of the page by new connections: milliseconds, and KiB on the wire.
fn load(
    network: &Namespace,
    server: SocketAddr,
    targets: &Arc<Vec<String>>,
    accepted: &'static str,
) -> [f64; 2] {
    let loaded = network.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let next = Arc::new(AtomicUsize::new(0));
            let since = Instant::now();
            let connections = (0..CONNECTIONS)
                .map(|_| tokio::spawn(take(server, Arc::clone(targets), Arc::clone(&next), accepted)));
            let mut bytes = 0;
            for connection in connections.collect::<Vec<_>>() {
                bytes += connection.await??;
            }
            Ok::<_, Error>([since.elapsed().as_secs_f64() * 1000.0, bytes as f64 / 1024.0])
        })
    });
    loaded.unwrap_or_else(|error| panic!("{server}: {error}"))
}

/// One connection's part of it: bytes received.
async fn take(
    server: SocketAddr,
    targets: Arc<Vec<String>>,
    next: Arc<AtomicUsize>,
    accepted: &'static str,
) -> Result<u64, Error> {
    let mut connection = Connection::open(server).await?;
    let mut before = 0;
    loop {
        let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) else {
            return Ok(before + connection.received());
        };
        if connection.is_over() {
            before += connection.received();
            connection = Connection::open(server).await?;
        }
        let answer = connection.get(target, &[("accept-encoding", accepted)]).await?;
        // What is missing is missing in both: JupyterLite asks for some such files.
        let status = answer.status().as_u16();
        if !matches!(status, 200 | 404) {
            return Err(format!("{target}: expected 200 or 404, found {status}").into());
        }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("the address is well-formed")
}
