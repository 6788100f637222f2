//! The first start of an app on a node, whose workers are compiled then, and
//! the second; and the size of the shim's file.

use std::time::{Duration, Instant};

use wharf_tests::engine::{Containerd, Generation};
use wharf_tests::fixture::{PYTHON, python};
use wharf_tests::http::try_get;
use wharf_tests::process::wait_for;
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

use crate::sample::{Comparison, MEBIBYTE};

const HELLO: &str = "example.test/hello:1";

/// Measures both, on a node whose cache is empty.
pub(crate) fn measure(generation: Generation, rounds: usize) -> Vec<Comparison> {
    let wharf = Wharf::new();
    let (ours, theirs) = (wharf.scratch().join("hello.tar"), wharf.scratch().join("python.tar"));
    let _ = wharf.build(Project::hello().path(), HELLO);
    wharf.run(&["save", HELLO, "-o", text(&ours)]).succeeded();
    python().run(&["save", PYTHON, "-o", text(&theirs)]).succeeded();
    let (mut first, mut second, mut rust) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let cache = wharf.scratch().join(format!("cache-{}", first.len()));
        let containerd = Containerd::start_with(generation, &[("WHARF_CACHE_DIR", cache.as_os_str())]);
        for archive in [&ours, &theirs] {
            containerd.ctr(&["images", "import", text(archive)]).succeeded();
        }
        first.push(start(&containerd, PYTHON, "/").as_secs_f64());
        // Compiled, too, before the two are compared.
        let _ = start(&containerd, HELLO, "/api/hello");
        for _ in 0..5 {
            second.push(start(&containerd, PYTHON, "/").as_secs_f64() * 1000.0);
            rust.push(start(&containerd, HELLO, "/api/hello").as_secs_f64() * 1000.0);
        }
    }
    let shim = testbed::prefix().join("bin/containerd-shim-wasm-v1");
    let size = fs_err::metadata(shim).expect("the shim is installed").len() as f64 / MEBIBYTE;
    vec![
        Comparison { name: "first start of a Python app (≤ 8 s)", unit: "s", wharf: first, peer: None },
        Comparison {
            name: "its further starts (≤ 1.1)",
            unit: "ms",
            wharf: second,
            peer: Some(("the Rust app", rust)),
        },
        Comparison { name: "the shim's file (≤ 25 MB)", unit: "MiB", wharf: vec![size], peer: None },
    ]
}

/// From `ctr run` to the first answer.
fn start(containerd: &Containerd, image: &str, path: &str) -> Duration {
    let since = Instant::now();
    let run = ["run", "--detach", "--net-host", "--runtime", "io.containerd.wasm.v1", image, "app"];
    containerd.ctr(&run).succeeded();
    let url = format!("http://127.0.0.1:8080{path}");
    let answer = wait_for(Duration::from_secs(60), || try_get(containerd.network(), &url));
    let took = since.elapsed();
    assert!(answer.is_some_and(|answer| answer.status == 200), "{image} does not answer");
    let _ = containerd.ctr(&["tasks", "delete", "--force", "app"]);
    containerd.ctr(&["containers", "delete", "app"]).succeeded();
    took
}
