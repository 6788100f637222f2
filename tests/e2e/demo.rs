//! The last step of `make demo`: by containerd where one answers, else alone.

use std::process::Command;

use nix::sys::signal::Signal;
use wharf_tests::engine::{Containerd, Generation};
use wharf_tests::http::{get, try_get};
use wharf_tests::network::Host;
use wharf_tests::process::Daemon;
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

const IMAGE: &str = "localhost/demo:1";

/// `demo.sh STAGE IMAGE ADDRESS`, by way of `start`.
fn demo(wharf: &Wharf, mut command: Command, address: &str) -> Daemon {
    let _ = wharf.build(Project::hello().path(), IMAGE);
    command.args([text(&testbed::prefix()), IMAGE, address]);
    wharf.configure(&mut command);
    Daemon::start("demo", wharf.scratch(), &mut command)
}

#[test]
fn without_containerd_the_demo_serves_by_itself() {
    let wharf = Wharf::new();
    let mut command = Command::new(testbed::repository().join("tests/demo.sh"));
    // Nothing of an engine here; root's own folders, for `id` and `mktemp`.
    command.env("PATH", "/usr/bin:/bin").env("CONTAINERD_ADDRESS", "/nonexistent");
    let mut demo = demo(&wharf, command, "127.0.0.1:0");
    let url = demo.wait_until("it printed its URL", |demo| {
        let log = demo.log();
        let (_, rest) = log.split_once("http://")?;
        Some(format!("http://{}", rest.split_once('\n')?.0))
    });
    assert_eq!(get(&Host, &format!("{url}/api/hello")).json()["message"], "hello");
    assert_eq!(demo.end_by(Signal::SIGINT).0, Some(0), "{}", demo.log());
}

#[test]
fn where_containerd_answers_the_demo_is_a_container() {
    let wharf = Wharf::new();
    let containerd = Containerd::start(Generation::Forky);
    let command = containerd.beside(&testbed::repository().join("tests/demo.sh"));
    let mut demo = demo(&wharf, command, "127.0.0.1:8080");
    let network = containerd.network();
    let page =
        demo.wait_until("it answered", |_| try_get(network, "http://127.0.0.1:8080/api/hello?name=demo"));
    assert_eq!(page.json()["name"], "demo");
    assert!(demo.log().contains("on http://127.0.0.1:8080"), "{}", demo.log());
    assert_eq!(containerd.shims().len(), 1);
    // As ctr does when a terminal interrupts it.
    let here = ["--namespace", "wharf-demo"];
    let container = containerd.ctr(&[&here[..], &["tasks", "list", "--quiet"]].concat()).output();
    let interrupt = ["tasks", "kill", "--signal", "SIGINT", container.trim()];
    containerd.ctr(&[&here[..], &interrupt].concat()).succeeded();
    assert_eq!(demo.ended().0, Some(0), "{}", demo.log());
    assert!(containerd.ctr(&[&here[..], &["images", "list", "--quiet"]].concat()).output().is_empty());
}
