//! Workers under load: Rust, JavaScript, Python and Flask with a fresh instance a
//! request, and Rust with instances that are reused; by wharf, by `wasmtime serve`
//! from the very same components, and by raw hyper, which runs no worker at all.

use std::path::Path;
use std::process::{Command, ExitStatus};

use wharf_tests::fixture;
use wharf_tests::http::get_when_up;
use wharf_tests::network::{Host, Namespace, Network};
use wharf_tests::process::{Daemon, run};
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::unpacked::Unpacked;
use wharf_tests::wharf::{Wharf, text};

use crate::load::{Server, compare, lines, measure};
use crate::sample::Comparison;
use crate::wasmtime::{Instances, Peer};

const OURS: &str = "127.0.0.1:8081";
const THEIRS: &str = "127.0.0.1:8082";
const HYPER: &str = "127.0.0.1:8083";

/// What answers, and the lines of the table for it.
struct Work {
    name: &'static str,
    project: fn() -> Project,
    source: &'static str,
    path: &'static str,
    lines: [&'static str; 5],
}

const FRESH: [Work; 4] = [
    Work {
        name: "Rust",
        project: rust,
        source: "api/hello.wasm",
        path: "/api/hello",
        lines: lines!("Rust hello, fresh", "(≥ 2.0)"),
    },
    Work {
        name: "JS",
        project: || guest("js-hello", "api/js.wasm"),
        source: "api/js.wasm",
        path: "/api/js",
        lines: lines!("JS hello, fresh", "(≥ 3.0)"),
    },
    Work {
        name: "Python",
        project: python,
        source: "api/python.py",
        path: "/api/python",
        lines: lines!("Python hello, fresh", "(≥ 2.0)"),
    },
    Work {
        name: "Flask",
        project: || guest("python-flask", "api/flask.wasm"),
        source: "api/flask.wasm",
        path: "/api/flask",
        lines: lines!("Flask hello, fresh", "(≥ 2.0)"),
    },
];

/// A worker whose instance answers many requests.
const REUSE: &str = "[workers.\"api/hello\"]\nreuse = 1000000\n";

/// Builds what the measures need, where it isn't there: guests and `wasmtime`.
///
/// # Errors
/// The script that failed, after it said why.
pub(crate) fn prepare() -> Result<(), String> {
    for script in [&["guests.sh", "js-hello", "python-flask"][..], &["wasmtime.sh"]] {
        let [name, arguments @ ..] = script else { continue };
        let path = testbed::repository().join("tests/testbed").join(name);
        // Its progress is for people; the folder that it prints, for scripts.
        let status = Command::new(&path).args(arguments).stdout(std::process::Stdio::null()).status();
        if !status.as_ref().is_ok_and(ExitStatus::success) {
            return Err(format!("cannot prepare the workers: tests/testbed/{name} failed"));
        }
    }
    Ok(())
}

/// All comparisons, and what to know about them.
pub(crate) fn measure_all(rounds: usize) -> (Vec<Comparison>, Vec<String>) {
    let _ = fixture::with_python(Wharf::new());
    let (mut comparisons, mut notes) = (Vec::new(), Vec::new());
    for work in FRESH {
        eprintln!("workers: {}", work.name);
        let (network, app) = (Namespace::create(), Unpacked::build((work.project)().path()));
        let scratch = app.scratch();
        let component = app.component(work.source);
        let at = (THEIRS, work.path);
        let peer = Peer::best(&network, &component, at, Instances::Fresh, scratch);
        notes.push(format!("{}: {}", work.name, peer.note));
        let servers = [ours(&network, &app, work.path), peer.serve(&network, at, scratch)];
        let figures = measure(&network, &servers, rounds);
        comparisons.extend(compare(work.lines, &figures[0], ("wasmtime serve", &figures[1])));
    }
    eprintln!("workers: Rust, reused");
    match reused(rounds) {
        Ok((lines, note)) => {
            comparisons.extend(lines);
            notes.push(note);
        }
        Err(missing) => notes.push(missing),
    }
    (comparisons, notes)
}

/// The comparisons, and a note on the peer.
///
/// # Errors
/// This wharf can't reuse instances.
fn reused(rounds: usize) -> Result<(Vec<Comparison>, String), String> {
    let project = rust().with("wharf.toml", REUSE);
    let routes = Wharf::new().run(&["routes", text(project.path())]);
    if routes.stderr.contains("unknown") && routes.stderr.contains("`reuse`") {
        return Err("Rust hello, reuse: left out, as this wharf has no `reuse` in wharf.toml".into());
    }
    routes.succeeded();
    let (network, app) = (Namespace::create(), Unpacked::build(project.path()));
    let scratch = app.scratch();
    let at = (THEIRS, "/api/hello");
    let peer = Peer::best(&network, &app.component("api/hello.wasm"), at, Instances::Reused, scratch);
    let servers =
        [ours(&network, &app, "/api/hello"), peer.serve(&network, at, scratch), hyper(&network, scratch)];
    let figures = measure(&network, &servers, rounds);
    let mut lines =
        compare(lines!("Rust hello, reuse", "(≥ 1.2)"), &figures[0], ("wasmtime serve", &figures[1]));
    let beside_hyper = lines!("Rust hello, reuse, and raw hyper", "(≥ 0.5)");
    lines.extend(compare(beside_hyper, &figures[0], ("raw hyper", &figures[2])));
    Ok((lines, format!("Rust: {}", peer.note)))
}

fn ours(network: &Namespace, app: &Unpacked, path: &str) -> Server {
    let address = OURS.parse().expect("the address is well-formed");
    Server { name: "wharf", url: format!("http://{OURS}{path}"), daemon: app.serve(network, address, path) }
}

/// It lies beside this program.
fn hyper(network: &Namespace, scratch: &Path) -> Server {
    let program =
        std::env::current_exe().expect("this program has a path").with_file_name("wharf-bench-hyper");
    let mut command = network.command(program.as_os_str());
    let daemon = Daemon::start("hyper", scratch, command.arg(HYPER));
    let url = format!("http://{HYPER}/");
    assert_eq!(get_when_up(network, &url).status, 200, "{}", daemon.log());
    Server { name: "raw hyper", url, daemon }
}

pub(crate) fn rust() -> Project {
    let script = testbed::repository().join("examples/hello/build.sh");
    run(&mut Host.command(script.as_os_str())).succeeded();
    let worker = testbed::repository().join("examples/hello/api/hello.wasm");
    let worker = fs_err::read(worker).expect("the example has its worker");
    Project::empty().with("public/index.html", "<title>hello</title>").with("api/hello.wasm", worker)
}

pub(crate) fn python() -> Project {
    Project::empty().with("public/index.html", "<title>hello</title>").with(
        "api/python.py",
        "def worker(request):\n    return Response('hello\\n', headers={'content-type': 'text/plain'})\n",
    )
}

fn guest(name: &str, source: &str) -> Project {
    let component = testbed::part(&format!("guests/{name}.wasm"), &format!("guests.sh {name}"));
    let component = fs_err::read(component).expect("the guest can be read");
    Project::empty().with("public/index.html", "<title>hello</title>").with(source, component)
}
