//! To a registry and back.

use wharf_tests::fixture::push_hello;
use wharf_tests::layout;
use wharf_tests::network::Namespace;
use wharf_tests::project::Project;
use wharf_tests::registry::Registry;
use wharf_tests::wharf::Wharf;

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
