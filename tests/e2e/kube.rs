//! `wharf kube`: what it prints for an image of the store, a layout, an archive
//! and a registry.

use wharf_tests::fixture::Busybox;
use wharf_tests::network::Namespace;
use wharf_tests::project::Project;
use wharf_tests::registry::{ADDRESS, Registry};
use wharf_tests::wharf::{Wharf, text};

const REFERENCE: &str = "registry.example/team/hello:1.2";

/// The hello project, with a worker that wants all that a cluster has to give.
fn project() -> Project {
    Project::hello().with(
        "wharf.toml",
        "[workers.\"api/hello\"]\nmemory = \"16MiB\"\nenv = { TOKEN = { from = \"API_TOKEN\" } }\n\
         mounts = [{ host = \"/data/files\", guest = \"/data\", write = true }]\n",
    )
}

#[test]
fn an_image_of_the_store_becomes_manifests_that_name_it_by_digest() {
    let (wharf, project) = (Wharf::new(), project());
    let digest = wharf.build(project.path(), REFERENCE);
    let printed = wharf.run(&["kube", REFERENCE]).output();
    let kinds: Vec<_> = printed.lines().filter(|line| line.starts_with("kind: ")).collect();
    assert_eq!(kinds, ["kind: RuntimeClass", "kind: Service", "kind: Deployment"]);
    for expected in [
        &format!("image: registry.example/team/hello@{digest}"),
        "name: hello",
        "app.kubernetes.io/version: \"1.2\"",
        "runtimeClassName: wasm",
        "runAsNonRoot: true",
        "readOnlyRootFilesystem: true",
        "path: /readyz",
        "key: API_TOKEN",
        "mountPath: /data/files",
    ] {
        assert!(printed.contains(expected), "expected {expected} in\n{printed}");
    }
    assert_eq!(wharf.run(&["kube", REFERENCE]).output(), printed, "the same each time");

    let (archive, folder) = (wharf.scratch().join("app.tar"), wharf.scratch().join("layout"));
    wharf.run(&["save", REFERENCE, "-o", text(&archive)]).succeeded();
    assert_eq!(wharf.run(&["kube", text(&archive)]).output(), printed);
    wharf.run(&["build", text(project.path()), "-t", REFERENCE, "-o", text(&folder)]).succeeded();
    assert_eq!(wharf.run(&["kube", text(&folder)]).output(), printed);
}

#[test]
fn what_the_store_lacks_is_read_from_its_registry_and_not_kept() {
    let network = Namespace::create();
    let _registry = Registry::start(&network);
    let reference = format!("{ADDRESS}/hello:1");
    let builder = Wharf::new();
    let _ = builder.build(project().path(), &reference);
    builder.run_in(&network, &["push", &reference]).succeeded();
    let wharf = Wharf::new();
    let printed = wharf.run_in(&network, &["kube", &reference]).output();
    assert_eq!(printed, builder.run(&["kube", &reference]).output());
    assert_eq!(wharf.run(&["images"]).output(), "");
    let error = wharf.run_in(&network, &["kube", &format!("{ADDRESS}/none:1")]).exited(1).refusal();
    assert!(error.contains("none:1"), "{error}");
}

#[test]
fn flags_say_what_the_manifest_cannot() {
    let (wharf, project) = (Wharf::new(), project());
    let _ = wharf.build(project.path(), REFERENCE);
    let flags = ["--name", "web", "--namespace", "shop", "--replicas", "3", "--port", "8000", "--by-tag"];
    let more = ["--no-runtime-class", "--env", "API_TOKEN=x", "--volume", "/data/files=claim:files"];
    let printed = wharf.run(&[&["kube", REFERENCE][..], &flags, &more].concat()).output();
    for expected in [
        "name: web",
        "namespace: shop",
        "replicas: 3",
        "port: 8000",
        "image: registry.example/team/hello:1.2",
        "value: x",
        "claimName: files",
        "type: Recreate",
    ] {
        assert!(printed.contains(expected), "expected {expected} in\n{printed}");
    }
    assert!(!printed.contains("RuntimeClass") && !printed.contains("secretKeyRef"), "{printed}");
    for (flag, value, expected) in [
        ("--name", "Web", "a letter first"),
        ("--env", "WHARF_ADDR=x", "WHARF_ADDR"),
        ("--volume", "/data/files=configmap:a", "hint: --volume /data/files=claim:NAME"),
        ("--limits", "memory=lots", "memory=256Mi"),
    ] {
        let error = wharf.run(&["kube", REFERENCE, flag, value]).refusal();
        assert!(error.contains(expected), "{flag} {value}: {error}");
    }
}

#[test]
fn what_no_node_could_run_is_refused() {
    let (wharf, project) = (Wharf::new(), project());
    let error = wharf.run(&["kube", text(project.path())]).exited(1).refusal();
    assert!(error.contains("is a project folder"), "{error}");
    let only_wasi = ["build", text(project.path()), "-t", REFERENCE, "--platform", "wasi/wasm"];
    if wharf.run(&only_wasi).code == 0 {
        let error = wharf.run(&["kube", REFERENCE]).exited(1).refusal();
        assert!(error.contains("linux/amd64"), "{error}");
    }
    let error = wharf.run(&["kube", text(&Busybox::make().path())]).exited(1).refusal();
    assert!(error.contains("wharf.json") || error.contains("no name"), "{error}");
}
