//! A hello in each language: a request to a fresh instance, what a build takes and an
//! image holds; and componentize-py alone, beside the build of an edited Python worker.

use std::path::Path;
use std::process::Command;

use wharf_tests::fixture::{Tools, with_tools};
use wharf_tests::network::Namespace;
use wharf_tests::process::{Outcome, run};
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::unpacked::Unpacked;
use wharf_tests::wharf::{Wharf, text};

use crate::load::{Server, wrk_by};
use crate::sample::{Comparison, MEBIBYTE};
use crate::workers;

const ADDRESS: &str = "127.0.0.1:8081";
const REFERENCE: &str = "example.test/hello:1";

/// How long a server is under load in a round.
const ROUND: std::time::Duration = std::time::Duration::from_secs(3);

/// A language, and the lines of the table for it.
struct Work {
    tools: Option<Tools>,
    /// Path of the source, and its text.
    source: Option<(&'static str, &'static str)>,
    path: &'static str,
    /// A request at a time, requests a second, builds, the image.
    lines: [&'static str; 6],
}

macro_rules! lines {
    ($language:literal, $target:literal) => {
        [
            concat!($language, " hello, one request at a time ", $target),
            concat!($language, " hello, 64 at a time"),
            concat!($language, ", first build of the image"),
            concat!($language, ", build after an edit"),
            concat!($language, ", unchanged build (≤ 100)"),
            concat!($language, ", size of the image"),
        ]
    };
}

const WORKS: [Work; 5] = [
    Work { tools: None, source: None, path: "/api/hello", lines: lines!("Rust", "") },
    Work {
        tools: Some(Tools::Go),
        source: Some((
            "api/go.go",
            "package main\n\nimport (\n\t\"io\"\n\t\"net/http\"\n\t\"net/http/cgi\"\n)\n\nfunc main() {\n\
             \tcgi.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {\n\
             \t\tio.WriteString(w, \"hello\\n\")\n\t}))\n}\n",
        )),
        path: "/api/go",
        lines: lines!("Go", "(≤ 3)"),
    },
    Work {
        tools: Some(Tools::JavaScript),
        source: Some(("api/js.js", "export default { fetch: () => new Response(\"hello\\n\") };\n")),
        path: "/api/js",
        lines: lines!("JavaScript", ""),
    },
    Work {
        tools: Some(Tools::Python),
        source: Some((
            "api/python.py",
            "from wharf import Response\n\ndef worker(request):\n    return Response('hello\\n')\n",
        )),
        path: "/api/python",
        lines: lines!("Python", ""),
    },
    Work {
        tools: Some(Tools::Ruby),
        source: Some(("api/ruby.rb", "def worker(request)\n  Response.new(\"hello\\n\")\nend\n")),
        path: "/api/ruby",
        lines: lines!("Ruby", "(≤ 10)"),
    },
];

/// All lines.
pub(crate) fn measure(rounds: usize) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for work in WORKS {
        eprintln!("languages: {}", work.lines[1]);
        if let Some(tools) = work.tools {
            let _ = with_tools(Wharf::new(), tools);
        }
        let project = match work.source {
            Some((path, source)) => plain().with(path, source),
            None => workers::rust(),
        };
        let network = Namespace::create();
        let app = Unpacked::build(project.path());
        let address = ADDRESS.parse().expect("the address is well-formed");
        let daemon = app.serve(&network, address, work.path);
        let server = Server { name: "wharf", url: format!("http://{ADDRESS}{}", work.path), daemon };
        let (mut single, mut many) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            single.push(wrk_by(&network, &server, 1, ROUND).latencies[0]);
            many.push(wrk_by(&network, &server, 64, ROUND).requests);
        }
        let (builds, size) = builds(&project, work.source, rounds);
        let [first, edited, unchanged] = builds;
        // What the last one is compared with is componentize-py's work alone.
        let alone =
            matches!(work.tools, Some(Tools::Python)).then(|| ("componentize-py", componentize(rounds)));
        let figures = [single, many, first, edited, unchanged, vec![size]];
        let units = ["ms", "req/s", "ms", "ms", "ms", "MiB"];
        for (at, (wharf, unit)) in figures.into_iter().zip(units).enumerate() {
            let peer = if at == 3 { alone.clone() } else { None };
            comparisons.push(Comparison { name: work.lines[at], unit, wharf, peer });
        }
    }
    comparisons.push(two());
    comparisons
}

/// Milliseconds of the first build, of one after an edit and of one without; and the
/// size of the image.
fn builds(project: &Project, source: Option<(&str, &str)>, rounds: usize) -> ([Vec<f64>; 3], f64) {
    let mut figures: [Vec<f64>; 3] = Default::default();
    let mut size = 0.0;
    for round in 0..rounds {
        let wharf = Wharf::new();
        figures[0].push(milliseconds(&build(&wharf, project.path())));
        size = size_of(&wharf);
        if let Some((path, text)) = source {
            fs_err::write(project.path().join(path), text.replace("hello", &format!("hello {round}")))
                .expect("the source can be written");
        }
        figures[1].push(milliseconds(&build(&wharf, project.path())));
        figures[2].push(milliseconds(&build(&wharf, project.path())));
    }
    (figures, size)
}

/// What componentize-py takes for a worker of its own.
fn componentize(rounds: usize) -> Vec<f64> {
    let runtimes = testbed::folder().join("runtimes");
    let found = fs_err::read_dir(&runtimes).expect("the toolchains are installed");
    let mut found = found.filter_map(|entry| Some(entry.ok()?.path()));
    let package = found.find(|folder| folder.join("componentize_py/__init__.py").is_file());
    let package = package.expect("componentize-py is installed");
    let repository = testbed::repository();
    let scratch = tempfile::tempdir().expect("a folder can be made");
    let rounds = (0..rounds).map(|_| {
        // The script that pip makes, without the environment that it was made in.
        let mut command = Command::new("python3");
        command
            .args(["-c", "import sys; from componentize_py import script; sys.exit(script())"])
            .args(["--wit-path", text(&repository.join("app/python/wit")), "--world", "worker"])
            .args(["componentize", "app", "--python-path"])
            .arg(repository.join("tests/guests/python-hello"))
            .args(["--output", "made.wasm"])
            .current_dir(scratch.path())
            .env("PYTHONPATH", &package)
            .env("VIRTUAL_ENV", scratch.path())
            .env("PYTHONDONTWRITEBYTECODE", "1");
        milliseconds(&run(&mut command).exited(0))
    });
    rounds.collect()
}

/// The image of two Python workers, and that of one.
fn two() -> Comparison {
    let worker = "from wharf import Response\n\ndef worker(request):\n    return Response('hello\\n')\n";
    let size = |project: Project| {
        let wharf = Wharf::new();
        let _ = build(&wharf, project.path());
        size_of(&wharf)
    };
    Comparison {
        name: "image of two Python workers (≤ 1.1)",
        unit: "MiB",
        wharf: vec![size(plain().with("api/a.py", worker).with("api/b.py", worker))],
        peer: Some(("of one", vec![size(plain().with("api/a.py", worker))])),
    }
}

fn plain() -> Project {
    Project::empty().with("public/index.html", "<title>hello</title>")
}

fn build(wharf: &Wharf, project: &Path) -> Outcome {
    let platform = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    wharf.run(&["build", text(project), "-t", REFERENCE, "--platform", platform]).exited(0)
}

fn size_of(wharf: &Wharf) -> f64 {
    let archive = wharf.scratch().join("image.tar");
    wharf.run(&["save", REFERENCE, "-o", text(&archive)]).succeeded();
    fs_err::metadata(&archive).expect("the archive was written").len() as f64 / MEBIBYTE
}

fn milliseconds(outcome: &Outcome) -> f64 {
    outcome.took.as_secs_f64() * 1000.0
}
