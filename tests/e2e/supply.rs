//! Signatures, SBOMs and provenances, against cosign and oras.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use wharf_tests::engine::{Containerd, Docker, Generation, Store};
use wharf_tests::layout;
use wharf_tests::network::{Namespace, Network};
use wharf_tests::process::{Outcome, run};
use wharf_tests::project::Project;
use wharf_tests::registry::Registry;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

const REFERENCE: &str = "127.0.0.1:5000/hello:1";
const OTHER: &str = "127.0.0.1:5000/hello:2";
const PASSWORD: &str = "secret";
const SBOM: &str = "application/vnd.cyclonedx+json";
const PROVENANCE: &str = "application/vnd.in-toto+json";

/// A registry with an image, and keys by cosign: `ours` and `theirs`.
struct Bench {
    network: Namespace,
    _registry: Registry,
    wharf: Wharf,
    digest: String,
}

impl Bench {
    fn new() -> Self {
        let network = Namespace::create();
        let registry = Registry::start(&network);
        let wharf = Wharf::new();
        let digest = wharf.build(Project::hello().path(), REFERENCE);
        wharf.run_in(&network, &["push", REFERENCE]).succeeded();
        let bench = Self { network, _registry: registry, wharf, digest };
        for name in ["ours", "theirs"] {
            bench.cosign(&["generate-key-pair", "--output-key-prefix", name]).succeeded();
        }
        // No transparency log, no timestamps: the namespace has no network.
        bench.cosign(&["signing-config", "create", "--out", "no-log.json"]).succeeded();
        bench
    }

    fn tool(&self, name: &str, arguments: &[&str]) -> Outcome {
        let program = testbed::part("supply-chain", "supply-chain.sh").join("usr/bin").join(name);
        let mut command = self.network.command(program.as_os_str());
        run(configured(&mut command, self.folder()).args(arguments))
    }

    fn cosign(&self, arguments: &[&str]) -> Outcome {
        self.tool("cosign", arguments)
    }

    /// `cosign sign`, as it signs without a transparency log.
    fn cosign_sign(&self, key: &str) {
        let image = format!("127.0.0.1:5000/hello@{}", self.digest);
        self.cosign(&["sign", "--signing-config", "no-log.json", "--key", key, &image]).succeeded();
    }

    fn cosign_verify(&self, key: &str, reference: &str) -> Outcome {
        self.cosign(&["verify", "--insecure-ignore-tlog", "--key", key, reference])
    }

    fn wharf(&self, arguments: &[&str]) -> Outcome {
        let mut command = self.wharf.command(&self.network, arguments);
        run(configured(&mut command, self.folder()))
    }

    /// The types of what refers to an image, as oras tells them.
    fn referrers(&self, reference: &str) -> Vec<(String, String)> {
        let output = self.tool("oras", &["discover", "--plain-http", "--format", "json", reference]).output();
        let found: Value = serde_json::from_str(&output).expect("oras prints JSON");
        let list = found["referrers"].as_array().or(found["manifests"].as_array());
        let list = list.unwrap_or_else(|| panic!("expected referrers: {output}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        list.iter().map(|one| (text(&one["artifactType"]), text(&one["digest"]))).collect()
    }

    fn folder(&self) -> &Path {
        self.wharf.scratch()
    }
}

/// In a folder of the test's own, with the keys' password.
fn configured<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    command.current_dir(folder).env("HOME", folder).env("COSIGN_PASSWORD", PASSWORD)
}

#[test]
fn cosign_verifies_what_wharf_signs_and_no_other_key_does() {
    let bench = Bench::new();
    let signed = bench.wharf(&["sign", REFERENCE, "--key", "ours.key"]).output();
    assert_eq!(signed.trim(), bench.digest);
    bench.cosign_verify("ours.pub", REFERENCE).succeeded();
    let _ = bench.cosign_verify("theirs.pub", REFERENCE).exited(1);
    let error = bench.wharf(&["verify", REFERENCE, "--key", "theirs.pub"]).exited(1).refusal();
    assert!(error.contains("no signature on") && error.contains("by another key"), "{error}");

    let told = bench.wharf(&["inspect", REFERENCE, "--json"]).output();
    let told: Value = serde_json::from_str(&told).expect("inspect prints JSON");
    assert_eq!(
        told["referrers"][0]["artifactType"], "application/vnd.dev.sigstore.bundle.v0.3+json",
        "{told}"
    );

    // Again says nothing new, and a second key takes nothing from the first.
    bench.wharf(&["sign", REFERENCE, "--key", "ours.key"]).succeeded();
    assert_eq!(bench.referrers(REFERENCE).len(), 1);
    bench.wharf(&["sign", REFERENCE, "--key", "theirs.key"]).succeeded();
    for key in ["ours.pub", "theirs.pub"] {
        bench.cosign_verify(key, REFERENCE).succeeded();
        assert_eq!(bench.wharf(&["verify", REFERENCE, "--key", key]).output().trim(), bench.digest);
    }
}

#[test]
fn cosign_verifies_signatures_with_keys_by_openssl() {
    let bench = Bench::new();
    for (name, options) in [
        ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..]),
        ("ed25519", &["-algorithm", "ed25519"]),
    ] {
        let (private, public) = (format!("{name}.pem"), format!("{name}.pub"));
        let openssl = |arguments: &[&str]| {
            run(Command::new("openssl").current_dir(bench.folder()).args(arguments)).succeeded();
        };
        openssl(&[&["genpkey", "-out", &private], options].concat());
        openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
        bench.wharf(&["sign", REFERENCE, "--key", &private]).succeeded();
        bench.cosign_verify(&public, REFERENCE).succeeded();
        bench.wharf(&["verify", REFERENCE, "--key", &public]).succeeded();
    }
}

#[test]
fn wharf_verifies_what_cosign_signs_and_no_other_key_does() {
    let bench = Bench::new();
    let error = bench.wharf(&["verify", REFERENCE, "--key", "ours.pub"]).exited(1).refusal();
    assert!(error.contains("found none"), "{error}");
    bench.cosign_sign("ours.key");
    let report = bench.wharf(&["verify", REFERENCE, "--key", "ours.pub", "--json"]).output();
    let report: Value = serde_json::from_str(&report).expect("verify prints JSON");
    assert_eq!(report["digest"], bench.digest.as_str());
    assert_eq!(report["signatures"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!(report["signatures"][0]["form"], "bundle");
    let error = bench.wharf(&["verify", REFERENCE, "--key", "theirs.pub"]).exited(1).refusal();
    assert!(error.contains("by another key"), "{error}");
}

#[test]
fn a_signature_that_is_moved_to_another_image_counts_for_nothing() {
    let bench = Bench::new();
    bench.cosign_sign("ours.key");
    let signature = format!("127.0.0.1:5000/hello@{}", bench.referrers(REFERENCE)[0].1);
    let manifest = bench.tool("oras", &["manifest", "fetch", "--plain-http", &signature]).output();
    let manifest: Value = serde_json::from_str(&manifest).expect("a manifest is JSON");
    let layer = manifest["layers"][0]["digest"].as_str().expect("the signature has a layer");
    let layer = format!("127.0.0.1:5000/hello@{layer}");
    bench.tool("oras", &["blob", "fetch", "--plain-http", "--output", "bundle.json", &layer]).succeeded();

    let other = Project::hello().with("public/index.html", "another image");
    let _ = bench.wharf.build(other.path(), OTHER);
    bench.wharf(&["push", OTHER]).succeeded();
    let kind = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let file = format!("bundle.json:{kind}");
    bench.tool("oras", &["attach", "--plain-http", "--artifact-type", kind, OTHER, &file]).succeeded();
    let error = bench.wharf(&["verify", OTHER, "--key", "ours.pub"]).exited(1).refusal();
    assert!(error.contains("for another image") && error.contains(&bench.digest), "{error}");
    bench.wharf(&["verify", REFERENCE, "--key", "ours.pub"]).succeeded();
}

#[test]
fn a_wrong_password_signs_nothing() {
    let bench = Bench::new();
    let mut command = bench.wharf.command(&bench.network, &["sign", REFERENCE, "--key", "ours.key"]);
    let error = run(command.env("COSIGN_PASSWORD", "wrong")).exited(1).refusal();
    assert!(error.contains("wrong password") && error.contains("COSIGN_PASSWORD"), "{error}");
    assert!(bench.referrers(REFERENCE).is_empty());
}

#[test]
fn the_sbom_and_the_provenance_are_pushed_with_the_image() {
    let bench = Bench::new();
    let project = Project::hello();
    let build = ["build", text(project.path()), "-t", REFERENCE, "--sbom"];
    assert_eq!(bench.wharf(&build).output().trim(), bench.digest, "an SBOM changes no image");
    bench.wharf(&build).succeeded();
    assert_eq!(bench.wharf(&["images", "--json"]).output().matches("\"digest\"").count(), 1);
    bench.wharf(&["push", REFERENCE]).succeeded();
    let mut kinds: Vec<String> = bench.referrers(REFERENCE).into_iter().map(|(kind, _)| kind).collect();
    kinds.sort();
    assert_eq!(kinds, [SBOM, PROVENANCE]);

    // And a signature beside them.
    bench.wharf(&["sign", REFERENCE, "--key", "ours.key"]).succeeded();
    bench.cosign_verify("ours.pub", REFERENCE).succeeded();
    assert_eq!(bench.referrers(REFERENCE).len(), 3);
}

/// A project in a repository with a commit, whose filter would leave `ran` behind.
fn in_a_hostile_repository(ran: &Path) -> Project {
    let project = Project::hello().with(".gitattributes", "* filter=evil\n");
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(project.path()).args([
            "-c",
            "user.name=Test",
            "-c",
            "user.email=test@example.test",
        ]);
        run(git.args(arguments)).succeeded();
    };
    git(&["init", "--quiet"]);
    git(&["add", "--force", "."]);
    git(&["commit", "--quiet", "--message", "first"]);
    git(&["config", "filter.evil.clean", &format!("touch {}; cat", text(ran))]);
    // Of another time and the same size, so that git must look into it.
    let page = fs_err::read(project.path().join("public/index.html")).expect("there is a page");
    project.with("public/index.html", page)
}

/// The provenance of the one image in a layout.
fn provenance(layout: &Path) -> Value {
    let list = fs_err::read_to_string(layout.join("referrers.json")).expect("there are referrers");
    let list: Value = serde_json::from_str(&list).expect("the list is JSON");
    let all = list["manifests"].as_array().expect("the list is an index");
    let found = all.iter().find(|one| one["artifactType"] == PROVENANCE).expect("there is a provenance");
    let manifest = layout::json(layout, found["digest"].as_str().expect("it has a digest"));
    layout::json(layout, manifest["layers"][0]["digest"].as_str().expect("it has a layer"))
}

#[test]
fn an_sbom_runs_no_filter_of_the_repository_and_without_git_names_none() {
    let wharf = Wharf::new();
    let ran = wharf.scratch().join("ran");
    let project = in_a_hostile_repository(&ran);
    for (number, flags) in [&["--sbom"][..], &["--sbom", "--no-git"]].into_iter().enumerate() {
        let layout = wharf.scratch().join(number.to_string());
        let build = ["build", text(project.path()), "-o", text(&layout)];
        wharf.run(&[&build[..], flags].concat()).succeeded();
        assert!(!ran.exists(), "a filter was run by {flags:?}");
        let told = provenance(&layout).to_string();
        assert!(!told.contains("gitCommit"), "{flags:?}: {told}");
    }
    run(Command::new("git").arg("-C").arg(project.path()).arg("status")).succeeded();
    assert!(ran.exists(), "the test shows nothing");

    // Without the filter, only who is told not to ask git leaves it out.
    let configuration = project.path().join(".git/config");
    let text_of = fs_err::read_to_string(&configuration).expect("it can be read");
    let (harmless, _) = text_of.split_once("[filter").expect("there is a filter");
    fs_err::write(&configuration, harmless).expect("it can be written");
    for (flags, named) in [(&["--sbom"][..], true), (&["--sbom", "--no-git"], false)] {
        let layout = wharf.scratch().join(format!("named-{named}"));
        let build = ["build", text(project.path()), "-o", text(&layout)];
        wharf.run(&[&build[..], flags].concat()).succeeded();
        assert_eq!(provenance(&layout).to_string().contains("gitCommit"), named, "{flags:?}");
    }
}

#[test]
fn tools_copy_a_layout_and_an_archive_with_an_sbom_without_being_told_a_name() {
    let wharf = Wharf::new();
    let (layout, archive) = (wharf.scratch().join("layout"), wharf.scratch().join("hello.tar"));
    let project = Project::hello();
    wharf.run(&["build", text(project.path()), "-o", text(&layout), "--sbom"]).succeeded();
    wharf.run(&["build", text(project.path()), "-t", REFERENCE, "--sbom"]).succeeded();
    wharf.run(&["save", REFERENCE, "-o", text(&archive)]).succeeded();
    let copy = |from: String, to: &str| {
        let to = format!("oci:{}:1", text(&wharf.scratch().join(to)));
        run(Command::new("skopeo").args(["copy", "--quiet", &from, &to])).succeeded();
    };
    copy(format!("oci:{}", text(&layout)), "from-layout");
    copy(format!("oci-archive:{}", text(&archive)), "from-archive");
    copy(format!("docker-archive:{}", text(&archive)), "from-docker-archive");

    for target in [REFERENCE, text(&layout), text(&archive)] {
        let told = wharf.run(&["inspect", target, "--json"]).output();
        let told: Value = serde_json::from_str(&told).expect("inspect prints JSON");
        let referrers = told["referrers"].as_array().expect("a list");
        let kinds: Vec<_> = referrers.iter().map(|one| &one["artifactType"]).collect();
        assert_eq!(kinds, [SBOM, PROVENANCE], "{target}");
    }

    let to = Wharf::new();
    to.run(&["load", text(&archive)]).succeeded();
    let list =
        |store: &Path| fs_err::read_to_string(store.join("referrers.json")).expect("there are referrers");
    assert_eq!(list(&to.store()), list(&wharf.store()));
}

#[test]
fn engines_load_an_archive_with_an_sbom_and_see_one_image() {
    let wharf = Wharf::new();
    let archive = wharf.scratch().join("hello.tar");
    wharf.run(&["build", text(Project::hello().path()), "-t", REFERENCE, "--sbom"]).succeeded();
    wharf.run(&["save", REFERENCE, "-o", text(&archive)]).succeeded();
    for generation in [Generation::Trixie, Generation::Forky] {
        let containerd = Containerd::start(generation);
        containerd.ctr(&["images", "import", text(&archive)]).succeeded();
        assert_eq!(containerd.ctr(&["images", "ls", "--quiet"]).output().trim(), REFERENCE);
        drop(containerd);
        for store in [Store::Classic, Store::Containerd] {
            let docker = Docker::start(generation, store);
            docker.docker(&["load", "--input", text(&archive)]).succeeded();
            let images = docker.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).output();
            assert_eq!(images.trim(), REFERENCE);
        }
    }
}
