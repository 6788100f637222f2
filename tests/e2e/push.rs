//! To a registry and back, and what other tools make of the images.

use std::collections::BTreeMap;
use std::process::Command;

use wharf_tests::fixture::push_hello;
use wharf_tests::layout;
use wharf_tests::network::{Namespace, Network};
use wharf_tests::process::{Outcome, run};
use wharf_tests::project::Project;
use wharf_tests::registry::Registry;
use wharf_tests::wharf::{Wharf, text};

const REFERENCE: &str = "127.0.0.1:5000/hello:1";

#[test]
fn a_pushed_image_is_pulled_with_the_same_digest() {
    let network = Namespace::create();
    let _registry = Registry::start(&network);
    let from = Wharf::new();
    let digest = from.build(Project::hello().path(), REFERENCE);
    from.run_in(&network, &["push", REFERENCE]).succeeded();

    let to = Wharf::new();
    to.run_in(&network, &["pull", REFERENCE]).succeeded();
    assert_eq!(to.digest(REFERENCE), digest);
    assert_eq!(layout::blobs(&from.store()), layout::blobs(&to.store()));
}

#[test]
fn a_second_push_uploads_nothing() {
    let network = Namespace::create();
    let registry = Registry::start(&network);
    let wharf = Wharf::new();
    let _ = wharf.build(Project::hello().path(), REFERENCE);
    wharf.run_in(&network, &["push", REFERENCE]).succeeded();
    let uploads =
        |log: &str| log.lines().filter(|line| line.contains("POST /v2/hello/blobs/uploads")).count();
    let before = uploads(&registry.log());
    assert!(before > 0, "expected uploads in the registry's log:\n{}", registry.log());
    wharf.run_in(&network, &["push", REFERENCE]).succeeded();
    assert_eq!(uploads(&registry.log()), before);
}

#[test]
fn a_truncated_layer_is_not_pushed() {
    let network = Namespace::create();
    let _registry = Registry::start(&network);
    let wharf = Wharf::new();
    let index = wharf.build(Project::hello().path(), REFERENCE);
    let digest = layout::largest_layer(&wharf.store(), &index);
    layout::truncate(&wharf.store(), &digest);
    let error = wharf.run_in(&network, &["push", REFERENCE]).exited(1).refusal();
    assert!(error.contains(&digest), "expected {digest} to be named: {error}");
    let _ = Wharf::new().run_in(&network, &["pull", REFERENCE]).refusal();
}

#[test]
fn a_registry_that_is_down_is_said_with_its_address() {
    let network = Namespace::create();
    let wharf = Wharf::new();
    let _ = wharf.build(Project::hello().path(), REFERENCE);
    let error = wharf.run_in(&network, &["push", REFERENCE]).exited(1).refusal();
    assert!(error.contains("127.0.0.1:5000"), "{error}");
    let error = Wharf::new().run_in(&network, &["pull", REFERENCE]).exited(1).refusal();
    assert!(error.contains("127.0.0.1:5000"), "{error}");
}

#[test]
fn a_tag_that_does_not_exist_is_named_and_leaves_nothing() {
    let network = Namespace::create();
    let _registry = Registry::start(&network);
    let _ = push_hello(&network);
    let wharf = Wharf::new();
    let missing = "127.0.0.1:5000/hello:nothing";
    let error = wharf.run_in(&network, &["pull", missing]).exited(1).refusal();
    assert!(error.contains(missing), "{error}");
    assert!(!wharf.run(&["images"]).output().contains("hello"), "a half image was left");
    let error = wharf.run_in(&network, &["push", missing]).exited(1).refusal();
    assert!(error.contains(missing), "{error}");
}

#[test]
fn skopeo_copies_every_image_out_and_back_byte_for_byte() {
    let network = Namespace::create();
    let _registry = Registry::start(&network);
    let reference = push_hello(&network);
    let scratch = Wharf::new();
    let copy = |from: &str, to: &str| {
        skopeo(
            &network,
            &["copy", "--quiet", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", from, to],
        )
        .succeeded();
    };
    let (out, again) = (scratch.scratch().join("out"), scratch.scratch().join("again"));
    copy(&format!("docker://{reference}"), &format!("oci:{}:1", text(&out)));
    copy(&format!("oci:{}:1", text(&out)), "docker://127.0.0.1:5000/returned:1");
    copy("docker://127.0.0.1:5000/returned:1", &format!("oci:{}:1", text(&again)));
    assert_eq!(named(&out), named(&again));
    let raw = |name: &str| {
        let name = format!("docker://127.0.0.1:5000/{name}:1");
        skopeo(&network, &["inspect", "--raw", "--tls-verify=false", &name]).output()
    };
    assert_eq!(raw("hello"), raw("returned"));
}

#[test]
fn umoci_unpacks_the_linux_image() {
    let network = Namespace::create();
    let _registry = Registry::start(&network);
    let reference = push_hello(&network);
    let scratch = Wharf::new();
    let layout = scratch.scratch().join("layout");
    let target = format!("oci:{}:1", text(&layout));
    let source = format!("docker://{reference}");
    skopeo(&network, &["copy", "--quiet", "--src-tls-verify=false", &source, &target]).succeeded();

    let bundle = scratch.scratch().join("bundle");
    let image = format!("{}:1", text(&layout));
    run(Command::new("umoci").args(["unpack", "--image", &image, text(&bundle)])).succeeded();
    let spec: serde_json::Value =
        serde_json::from_slice(&fs_err::read(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(spec["process"]["args"][0], "/wharf-host");
    assert_eq!(spec["process"]["user"]["uid"], 65532);
    for file in ["wharf-host", "app/wharf.json", "app/site/index.html"] {
        assert!(bundle.join("rootfs").join(file).is_file(), "expected /{file}");
    }
    // Static: it starts with nothing else in its root.
    let libraries = run(Command::new("ldd").arg(bundle.join("rootfs/wharf-host")));
    let said = format!("{}{}", libraries.stdout, libraries.stderr);
    assert!(said.contains("statically linked") || said.contains("not a dynamic executable"), "{said}");
}

/// The blobs of a layout, each checked against its name.
fn named(layout: &std::path::Path) -> BTreeMap<String, String> {
    let blobs = layout::blobs(layout);
    for (name, content) in &blobs {
        assert_eq!(name, content);
    }
    blobs
}

fn skopeo(network: &impl Network, arguments: &[&str]) -> Outcome {
    run(network.command("skopeo".as_ref()).args(arguments))
}
