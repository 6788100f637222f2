//! `docker run` with a published port, through our shim and through runc.

use std::time::{Duration, Instant};

use wharf_tests::engine::{Docker, Generation, Store};
use wharf_tests::wharf::{Wharf, text};

use crate::container::{NGINX, PEER, WHARF, first_answer, images};
use crate::sample::Comparison;

const ADDRESS: &str = "127.0.0.1:8080";

/// From `docker run` to the first 200.
pub(crate) fn measure(generation: Generation, rounds: usize) -> Comparison {
    let docker = Docker::start(generation, Store::Containerd);
    let wharf = Wharf::new();
    for archive in images(&wharf) {
        docker.docker(&["load", "--input", text(&archive)]).succeeded();
    }
    let (mut wharf_took, mut nginx_took) = (Vec::new(), Vec::new());
    // The first of each is not counted: it fills caches.
    for round in 0..=rounds {
        let runtimes = [("io.containerd.wasm", WHARF.image), ("runc", NGINX.image)];
        for ((runtime, image), figures) in runtimes.into_iter().zip([&mut wharf_took, &mut nginx_took]) {
            let took = start(&docker, runtime, image);
            if round > 0 {
                figures.push(took.as_secs_f64() * 1000.0);
            }
        }
    }
    Comparison {
        name: "docker run to first 200 (≤ 0.8)",
        unit: "ms",
        wharf: wharf_took,
        peer: Some((PEER, nginx_took)),
    }
}

fn start(docker: &Docker, runtime: &str, image: &str) -> Duration {
    let since = Instant::now();
    let runtime = format!("--runtime={runtime}");
    let publish = format!("{ADDRESS}:8080");
    let run = ["run", "--detach", "--name", "app", &runtime, "--publish", &publish, image];
    docker.docker(&run).succeeded();
    let first = first_answer(docker.network(), "/", since);
    docker.docker(&["rm", "--force", "app"]).succeeded();
    first.unwrap_or_else(|| panic!("{image} does not answer"))
}
