//! `wharf build` of the JupyterLite site, and buildah and umoci making an image of it.
//! wharf's has its server in it as well, for each architecture at hand; theirs
//! has the site alone.

use std::path::Path;
use std::process::Command;

use wharf_tests::process::{Outcome, run};
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

use crate::sample::{Comparison, MEBIBYTE};

const REFERENCE: &str = "example.test/site:1";
/// The peers compress a layer, and so does wharf then: no page beside its page.
const PLAIN: &str = "--no-precompress";

/// The site without its worker: the peers have none to compile.
pub(crate) fn site() -> Project {
    let project = Project::python();
    fs_err::remove_file(project.path().join("index.py")).expect("the project has a worker");
    project
}

/// The first build, one of an unchanged site, and the memory of the first; and
/// where wharf also compresses pages, the first with that.
pub(crate) fn measure(rounds: usize) -> Vec<Comparison> {
    let project = site();
    let public = project.path().join("public");
    let plain: &[&str] =
        if Wharf::new().run(&["build", "--help"]).output().contains(PLAIN) { &[PLAIN] } else { &[] };
    let mut wharf = Figures::default();
    let mut precompressed = Figures::default();
    let (mut buildah, mut umoci) = (Figures::default(), Figures::default());
    for _ in 0..rounds {
        let scratch = Wharf::new();
        wharf.first(&[build(&scratch, project.path(), plain)]);
        let (buildah_storage, umoci_layout) =
            (scratch.scratch().join("buildah"), scratch.scratch().join("umoci"));
        buildah.first(&commit(&public, &buildah_storage));
        umoci.first(&insert(&public, &umoci_layout));
        wharf.again(&[build(&scratch, project.path(), plain)]);
        buildah.again(&commit(&public, &buildah_storage));
        umoci.again(&insert(&public, &umoci_layout));
        let _ = in_storage(&buildah_storage, &["rmi", "--all", "--force"]);
        if !plain.is_empty() {
            precompressed.first(&[build(&Wharf::new(), project.path(), &[])]);
        }
    }
    let mut comparisons = Vec::new();
    for (peer, figures) in [("buildah", &buildah), ("umoci", &umoci)] {
        let compare = |name, unit, wharf: &[f64], peers: &[f64]| Comparison {
            name,
            unit,
            wharf: wharf.to_vec(),
            peer: Some((peer, peers.to_vec())),
        };
        comparisons.extend([
            compare("build of the site, first", "ms", &wharf.first, &figures.first),
            compare("build of the site, unchanged", "ms", &wharf.again, &figures.again),
            compare("first build, most memory", "MiB", &wharf.memory, &figures.memory),
        ]);
        if !plain.is_empty() {
            let name = "build of the site, precompressed";
            comparisons.push(compare(name, "ms", &precompressed.first, &figures.first));
        }
    }
    comparisons
}

#[derive(Debug, Default)]
struct Figures {
    first: Vec<f64>,
    again: Vec<f64>,
    memory: Vec<f64>,
}

impl Figures {
    fn first(&mut self, commands: &[Outcome]) {
        self.first.push(together(commands));
        let most = commands.iter().map(|command| command.peak).max().unwrap_or_default();
        self.memory.push(most as f64 / MEBIBYTE);
    }

    fn again(&mut self, commands: &[Outcome]) {
        self.again.push(together(commands));
    }
}

/// In milliseconds.
fn together(commands: &[Outcome]) -> f64 {
    commands.iter().map(|command| command.took.as_secs_f64() * 1000.0).sum()
}

fn build(wharf: &Wharf, project: &Path, flags: &[&str]) -> Outcome {
    wharf.run(&[&["build", text(project), "-t", REFERENCE], flags].concat()).exited(0)
}

fn commit(site: &Path, storage: &Path) -> [Outcome; 3] {
    let from = in_storage(storage, &["from", "scratch"]);
    let container = from.stdout.trim().to_owned();
    let add = in_storage(storage, &["add", "--quiet", &container, text(site), "/app/site"]);
    [from, add, in_storage(storage, &["commit", "--quiet", "--rm", &container, REFERENCE])]
}

fn in_storage(storage: &Path, arguments: &[&str]) -> Outcome {
    let mut command = Command::new("buildah");
    command.args(["--root", text(&storage.join("root")), "--runroot", text(&storage.join("run"))]);
    run(command.args(["--storage-driver", "overlay"]).args(arguments)).exited(0)
}

/// A new image each time: umoci keeps nothing that a second could use.
fn insert(site: &Path, layout: &Path) -> Vec<Outcome> {
    let umoci = |arguments: &[&str]| run(Command::new("umoci").args(arguments)).exited(0);
    let mut done = Vec::new();
    if !layout.exists() {
        done.push(umoci(&["init", "--layout", text(layout)]));
    }
    let image = format!("{}:1", text(layout));
    done.push(umoci(&["new", "--image", &image]));
    done.push(umoci(&["insert", "--rootless", "--image", &image, text(site), "/app/site"]));
    done
}
