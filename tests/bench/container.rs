//! Containers of one containerd: ours through the shim, nginx through runc.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use wharf_tests::engine::{Containerd, Generation};
use wharf_tests::family::Family;
use wharf_tests::network::Namespace;
use wharf_tests::plain;
use wharf_tests::process::Outcome;
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

use crate::nginx;
use crate::sample::{Comparison, MEBIBYTE};

pub(crate) const WHARF: Runtime =
    Runtime { name: "io.containerd.wasm.v1", image: "example.test/hello:1", container: "wharf", path: "/" };
const WORKER: Runtime = Runtime { container: "worker", path: "/api/hello", ..WHARF };
pub(crate) const NGINX: Runtime =
    Runtime { name: "io.containerd.runc.v2", image: "example.test/nginx:1", container: "nginx", path: "/" };
pub(crate) const PEER: &str = "runc + nginx";

/// Time for a container to be idle, which is a state after a while, not an event.
pub(crate) const REST: Duration = Duration::from_secs(6);

const PLAIN: Runtime = Runtime { image: "example.test/plain:1", container: "plain", ..WHARF };
const RUNWASI: &str = "runwasi";

/// Figures of containers, by their names.
type Figures = BTreeMap<&'static str, Vec<f64>>;

/// How a container is run, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    pub(crate) image: &'static str,
    pub(crate) container: &'static str,
    path: &'static str,
}

/// A containerd that has both images.
#[derive(Debug)]
pub(crate) struct Bench {
    containerd: Containerd,
}

impl Bench {
    /// Starts containerd, makes both images of examples/hello, and runs each
    /// once, so that what is cached is cached.
    pub(crate) fn prepare(generation: Generation) -> Self {
        let containerd = Containerd::start(generation);
        let wharf = Wharf::new();
        for archive in images(&wharf) {
            containerd.ctr(&["images", "import", text(&archive)]).succeeded();
        }
        let bench = Self { containerd };
        for runtime in [WHARF, NGINX] {
            let _ = bench.run(runtime);
            bench.remove(runtime);
        }
        bench
    }

    /// From `ctr run` to the first 200.
    pub(crate) fn start(&self, rounds: usize) -> [Comparison; 2] {
        let mut took = Figures::new();
        for _ in 0..rounds {
            for runtime in [WHARF, NGINX, WORKER] {
                took.entry(runtime.container).or_default().push(milliseconds(self.run(runtime)));
                self.remove(runtime);
            }
        }
        let of = |runtime: Runtime| took[runtime.container].clone();
        [
            Comparison {
                name: "ctr run to first 200 (≤ 0.6)",
                unit: "ms",
                wharf: of(WHARF),
                peer: Some((PEER, of(NGINX))),
            },
            Comparison {
                name: "… of the worker",
                unit: "ms",
                wharf: of(WORKER),
                peer: Some((PEER, of(NGINX))),
            },
        ]
    }

    /// What one idle container and its shim hold: the sum of their processes' PSS.
    pub(crate) fn memory(&self, rounds: usize) -> Comparison {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            for (runtime, figures) in [(WHARF, &mut ours), (NGINX, &mut theirs)] {
                let _ = self.run(runtime);
                thread::sleep(REST);
                figures.push(self.resident());
                self.remove(runtime);
            }
        }
        Comparison {
            name: "idle PSS of a container (≤ 0.4)",
            unit: "MiB",
            wharf: ours,
            peer: Some((PEER, theirs)),
        }
    }

    /// The same of a plain component in an image, by our shim and by runwasi's, which is
    /// the file `shim`.
    pub(crate) fn runwasi(&self, shim: &'static str, rounds: usize) -> [Comparison; 2] {
        let wasm = fs_err::read(Project::hello().path().join("api/hello.wasm")).expect("the worker is built");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let archive = plain::archive(folder.path(), PLAIN.image, plain::Form::File, &wasm);
        self.ctr(&["images", "import", text(&archive)]).succeeded();
        let theirs = Runtime { name: shim, container: RUNWASI, ..PLAIN };
        let (mut took, mut held) = (Figures::new(), Figures::new());
        for round in 0..rounds {
            for runtime in [PLAIN, theirs] {
                let start = milliseconds(self.run(runtime));
                // The first compiles, for one of them.
                if round > 0 {
                    took.entry(runtime.container).or_default().push(start);
                }
                if round < 5 {
                    thread::sleep(REST);
                    held.entry(runtime.container).or_default().push(self.resident());
                }
                self.remove(runtime);
            }
        }
        let compare = |name, unit, of: &Figures| Comparison {
            name,
            unit,
            wharf: of[PLAIN.container].clone(),
            peer: Some((RUNWASI, of[RUNWASI].clone())),
        };
        [
            compare("ctr run of a plain component", "ms", &took),
            compare("idle PSS of its container", "MiB", &held),
        ]
    }

    fn run(&self, runtime: Runtime) -> Duration {
        let Runtime { name, image, container, path } = runtime;
        let since = Instant::now();
        let run = ["run", "--detach", "--net-host", "--runtime", name, image, container];
        let mut ctr = self.containerd.start_ctr(container, &run);
        let first = first_answer(self.containerd.network(), path, since);
        assert_eq!(ctr.ended().0, Some(0), "{}", ctr.log());
        first.unwrap_or_else(|| panic!("{container} does not answer"))
    }

    fn remove(&self, runtime: Runtime) {
        let _ = self.containerd.ctr(&["tasks", "delete", "--force", runtime.container]);
        self.containerd.ctr(&["containers", "delete", runtime.container]).succeeded();
    }

    pub(crate) fn shims(&self) -> Vec<u32> {
        self.containerd.shims()
    }

    pub(crate) fn ctr(&self, arguments: &[&str]) -> Outcome {
        self.containerd.ctr(arguments)
    }

    /// In MiB.
    fn resident(&self) -> f64 {
        Family::of_all(&self.shims()).pss() as f64 / MEBIBYTE
    }
}

/// Archives of [`WHARF`]'s image and of [`NGINX`]'s, of the same site.
pub(crate) fn images(wharf: &Wharf) -> [PathBuf; 2] {
    let project = Project::hello();
    let _ = wharf.build(project.path(), WHARF.image);
    let ours = wharf.scratch().join("wharf.tar");
    wharf.run(&["save", WHARF.image, "-o", text(&ours)]).succeeded();
    let theirs = nginx::image(&project.path().join("public"), NGINX.image, wharf.scratch());
    [ours, theirs]
}

/// How long after `since` the first 200 came; none if it does not come.
pub(crate) fn first_answer(network: &Namespace, path: &str, since: Instant) -> Option<Duration> {
    network.enter(|| {
        let deadline = since + Duration::from_secs(30);
        while Instant::now() < deadline {
            if answers(path) {
                return Some(since.elapsed());
            }
            thread::sleep(Duration::from_micros(300));
        }
        None
    })
}

fn answers(path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect("127.0.0.1:8080")?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(head == *b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
