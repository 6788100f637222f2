//! `wharf build` of the JupyterLite site, and buildah adding and committing it.

use std::path::Path;
use std::process::Command;

use wharf_tests::process::run;
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

use crate::sample::Comparison;

const REFERENCE: &str = "example.test/site:1";

/// The first build and one of an unchanged site.
pub(crate) fn measure(rounds: usize) -> [Comparison; 2] {
    let project = Project::python();
    fs_err::remove_file(project.path().join("index.py")).expect("the project has a worker");
    let site = project.path().join("public");
    let (mut first, mut again, mut peer_first, mut peer_again) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let wharf = Wharf::new();
        first.push(build(&wharf, project.path()));
        let storage = wharf.scratch().join("buildah");
        peer_first.push(commit(&site, &storage));
        again.push(build(&wharf, project.path()));
        peer_again.push(commit(&site, &storage));
        buildah(&storage, &["rmi", "--all", "--force"]);
    }
    let compare = |name, wharf, peer| Comparison { name, unit: "ms", wharf, peer: Some(("buildah", peer)) };
    [
        compare("build of the site, first", first, peer_first),
        compare("build of the site, unchanged", again, peer_again),
    ]
}

fn build(wharf: &Wharf, project: &Path) -> f64 {
    // buildah compresses layers alone.
    let built = wharf.run(&["build", text(project), "-t", REFERENCE, "--no-precompress"]);
    let took = built.took.as_secs_f64() * 1000.0;
    built.succeeded();
    took
}

fn commit(site: &Path, storage: &Path) -> f64 {
    let (container, mut took) = buildah(storage, &["from", "scratch"]);
    took += buildah(storage, &["add", "--quiet", &container, text(site), "/app/site"]).1;
    took += buildah(storage, &["commit", "--quiet", "--rm", &container, REFERENCE]).1;
    took
}

/// Stdout, and the milliseconds that it took.
fn buildah(storage: &Path, arguments: &[&str]) -> (String, f64) {
    let mut command = Command::new("buildah");
    command.args(["--root", text(&storage.join("root")), "--runroot", text(&storage.join("run"))]);
    let outcome = run(command.args(["--storage-driver", "overlay"]).args(arguments));
    let took = outcome.took.as_secs_f64() * 1000.0;
    (outcome.output(), took)
}
