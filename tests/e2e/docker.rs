//! Docker 26 and 28, with both image stores, run our images: through the shim,
//! and with no plugin at all.

use std::time::Duration;

use wharf_tests::engine::{Docker, Generation, Store};
use wharf_tests::fixture::{PYTHON, push_busybox, push_python};
use wharf_tests::http::get;
use wharf_tests::project::Project;
use wharf_tests::registry::Registry;
use wharf_tests::wharf::{Wharf, text};

const RUNTIME: &str = "--runtime=io.containerd.wasm";
const PUBLISHED: &str = "127.0.0.1:8080:8080";
const URL: &str = "http://127.0.0.1:8080";

macro_rules! on {
    ($module:ident, $generation:expr, $store:expr) => {
        mod $module {
            use super::{Generation, Store};

            #[test]
            fn pulls_an_app_runs_it_with_and_without_the_shim_and_stops_it() {
                super::runs_an_app($generation, $store);
            }

            #[test]
            fn runs_native_programs_through_the_same_runtime() {
                super::runs_native_programs($generation, $store);
            }

            #[test]
            fn runs_a_plain_image_of_zstd_from_an_archive_and_a_registry() {
                super::runs_a_plain_zstd_image($generation, $store);
            }

            #[test]
            fn loads_a_saved_archive() {
                super::loads_an_archive($generation, $store);
            }
        }
    };
}

on!(v26_containerd_store, Generation::Trixie, Store::Containerd);
on!(v26_classic_store, Generation::Trixie, Store::Classic);
on!(v28_containerd_store, Generation::Forky, Store::Containerd);
on!(v28_classic_store, Generation::Forky, Store::Classic);

fn runs_an_app(generation: Generation, store: Store) {
    let docker = Docker::start(generation, store);
    let network = docker.network();
    let _registry = Registry::start(network);
    push_python(network);
    docker.docker(&["pull", "--quiet", PYTHON]).succeeded();
    for runtime in [Some(RUNTIME), None] {
        let arguments = ["run", "--detach", "--name", "app", "--publish", PUBLISHED];
        let arguments = arguments.into_iter().chain(runtime).chain([PYTHON]).collect::<Vec<_>>();
        docker.docker(&arguments).succeeded();

        let page = docker.answer_of("app", URL);
        assert_eq!(page.status, 200, "{runtime:?}");
        assert!(page.body.contains("href=\"/dist/\""), "{runtime:?}: expected the worker's page: {page:?}");
        let redirect = get(network, &format!("{URL}/dist"));
        assert_eq!(redirect.status, 308, "{runtime:?}");
        assert!(redirect.header("location").ends_with("/dist/"), "{runtime:?}: {redirect:?}");
        assert_eq!(get(network, &format!("{URL}/dist/")).status, 200, "{runtime:?}");
        assert_eq!(get(network, &format!("{URL}/dist/lab/index.html")).status, 200, "{runtime:?}");

        let (took, code) = docker.stop("app");
        assert_eq!(code, "0", "{runtime:?}");
        assert!(took < Duration::from_secs(2), "{runtime:?}: took {took:?}");
        docker.docker(&["rm", "app"]).succeeded();
    }
}

fn runs_native_programs(generation: Generation, store: Store) {
    let docker = Docker::start(generation, store);
    let network = docker.network();
    let _registry = Registry::start(network);
    let busybox = push_busybox(network);
    let shell = ["run", "--rm", RUNTIME, &busybox, "/bin/sh", "-c"];
    let ended = docker.docker(&[&shell[..], &["echo native; exit 7"]].concat()).exited(7);
    assert_eq!(ended.stdout, "native\n");
}

/// With no plugin at all.
fn runs_a_plain_zstd_image(generation: Generation, store: Store) {
    let docker = Docker::start(generation, store);
    let network = docker.network();
    let _registry = Registry::start(network);
    let (wharf, reference) = (Wharf::new(), "127.0.0.1:5000/hello:zstd");
    let project = Project::hello();
    let build = ["build", text(project.path()), "-t", reference, "--zstd", "--single-platform"];
    let digest = wharf.run(&build).output();
    let archive = wharf.scratch().join("hello.tar");
    wharf.run(&["save", reference, "-o", text(&archive)]).succeeded();
    wharf.run_in(network, &["push", reference]).succeeded();
    let pulled = Wharf::new();
    assert_eq!(pulled.run_in(network, &["pull", reference]).output(), digest);
    assert!(pulled.run(&["routes", reference]).output().contains("/api/hello"));

    for fetch in [&["load", "--input", text(&archive)][..], &["pull", "--quiet", reference]] {
        docker.docker(fetch).succeeded();
        docker.docker(&["run", "--detach", "--name", "app", "--publish", PUBLISHED, reference]).succeeded();
        assert_eq!(docker.answer_of("app", &format!("{URL}/api/hello")).json()["message"], "hello");
        let title = "{{index .Config.Labels \"org.opencontainers.image.title\"}}";
        assert_eq!(docker.docker(&["inspect", "--format", title, "app"]).output(), "hello");
        docker.docker(&["rm", "--force", "app"]).succeeded();
        docker.docker(&["rmi", "--force", reference]).succeeded();
    }
}

fn loads_an_archive(generation: Generation, store: Store) {
    let docker = Docker::start(generation, store);
    let (wharf, reference) = (Wharf::new(), "example.test/hello:1");
    let _ = wharf.build(Project::hello().path(), reference);
    let archive = wharf.scratch().join("hello.tar");
    wharf.run(&["save", reference, "-o", text(&archive)]).succeeded();
    let loaded = docker.docker(&["load", "--input", text(&archive)]).output();
    assert!(loaded.contains(reference), "expected the image's name: {loaded}");
    docker
        .docker(&["run", "--detach", "--name", "app", "--publish", PUBLISHED, RUNTIME, reference])
        .succeeded();
    assert_eq!(docker.answer_of("app", &format!("{URL}/api/hello")).json()["message"], "hello");
}
