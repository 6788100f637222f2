//! Pushing the image of the JupyterLite site to a registry on loopback: wharf,
//! skopeo and crane, all the very same blobs.

use std::process::Command;
use std::thread;
use std::time::Duration;

use wharf_tests::network::{Namespace, Network};
use wharf_tests::process::{Outcome, run};
use wharf_tests::project::Project;
use wharf_tests::proxy::{PROXY, Proxy};
use wharf_tests::registry::Registry;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

use crate::build::site;
use crate::sample::{Comparison, MEBIBYTE};

/// A page of many.
const PAGE: &str = "public/dist/lab/index.html";
const KIBIBYTE: f64 = 1024.0;

/// The image as it was and with one page edited, each in a store of its own,
/// which is an OCI layout.
struct Images {
    reference: String,
    before: Wharf,
    after: Wharf,
    _project: Project,
}

#[derive(Clone, Copy, Debug)]
enum Tool {
    Wharf,
    Skopeo,
    Crane,
}

/// Time, bytes sent and requests of a push to a new registry, of another one of
/// the same image, and of one with an edited page.
const NAMES: [[&str; 3]; 3] = [
    ["first push of the site", "first push, sent", "first push, requests"],
    ["push of the unchanged site", "unchanged push, sent", "unchanged push, requests"],
    ["push with a page edited", "edited push, sent", "edited push, requests"],
];

/// What one tool took.
#[derive(Debug, Default)]
struct Figures {
    stages: [[Vec<f64>; 3]; 3],
    memory: Vec<f64>,
}

pub(crate) fn measure(rounds: usize) -> Vec<Comparison> {
    let images = Images::make();
    let tools = [Tool::Wharf, Tool::Skopeo, Tool::Crane];
    let mut figures = [(); 3].map(|()| Figures::default());
    for _ in 0..rounds {
        for (tool, figures) in tools.into_iter().zip(&mut figures) {
            images.round(tool, figures);
        }
    }
    let [wharf, skopeo, crane] = &figures;
    let mut comparisons = Vec::new();
    for (peer, theirs) in [("skopeo", skopeo), ("crane", crane)] {
        for (at, names) in NAMES.iter().enumerate() {
            for (of, unit) in ["ms", "KiB", "requests"].into_iter().enumerate() {
                comparisons.push(Comparison {
                    name: names[of],
                    unit,
                    wharf: wharf.stages[at][of].clone(),
                    peer: Some((peer, theirs.stages[at][of].clone())),
                });
            }
        }
        comparisons.push(Comparison {
            name: "first push, most memory",
            unit: "MiB",
            wharf: wharf.memory.clone(),
            peer: Some((peer, theirs.memory.clone())),
        });
    }
    comparisons
}

impl Images {
    fn make() -> Self {
        let reference = format!("{PROXY}/site:1");
        let project = site();
        let (before, after) = (Wharf::new(), Wharf::new());
        let first = before.build(project.path(), &reference);
        let page = project.path().join(PAGE);
        let content = fs_err::read_to_string(&page).expect("the site has the page");
        fs_err::write(&page, content + "<!-- edited -->\n").expect("the page can be written");
        let second = after.build(project.path(), &reference);
        assert_ne!(first, second, "the edit made no difference");
        Self { reference, before, after, _project: project }
    }

    /// A tool and a registry of its own.
    fn round(&self, tool: Tool, figures: &mut Figures) {
        let network = Namespace::create();
        let registry = Registry::start(&network);
        let proxy = Proxy::start(&network);
        for (stage, image) in [&self.before, &self.before, &self.after].into_iter().enumerate() {
            let (sent, requests) = (proxy.sent(), registry.requests());
            let pushed = self.push(tool, &network, image).exited(0);
            // The registry writes its log after the answer.
            thread::sleep(Duration::from_millis(100));
            let [took, bytes, asked] = &mut figures.stages[stage];
            took.push(pushed.took.as_secs_f64() * 1000.0);
            bytes.push((proxy.sent() - sent) as f64 / KIBIBYTE);
            asked.push((registry.requests() - requests) as f64);
            if stage == 0 {
                figures.memory.push(pushed.peak as f64 / MEBIBYTE);
            }
        }
    }

    fn push(&self, tool: Tool, network: &Namespace, image: &Wharf) -> Outcome {
        let (reference, layout) = (&self.reference, image.store());
        let mut command: Command = match tool {
            Tool::Wharf => return image.run_in(network, &["push", reference]),
            Tool::Skopeo => network.command("skopeo".as_ref()),
            Tool::Crane => network.command(testbed::oci_tool("crane").as_os_str()),
        };
        match tool {
            Tool::Crane => command.args(["push", text(&layout), reference]),
            _ => command.args([
                "copy",
                "--quiet",
                "--all",
                "--dest-tls-verify=false",
                &format!("oci:{}:{reference}", text(&layout)),
                &format!("docker://{reference}"),
            ]),
        };
        image.configure(&mut command);
        run(&mut command)
    }
}
