//! `containerd-shim-wasm-v1 doctor`: what it says of a node that has all, and of
//! one that lacks something.

use std::process::Command;

use serde_json::Value;
use wharf_tests::engine::{Containerd, Generation};
use wharf_tests::process::{Outcome, run};
use wharf_tests::testbed;

/// The doctor beside a containerd, with a cache of its own.
fn doctor(containerd: &Containerd, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Outcome {
    let cache = tempfile::tempdir().expect("a folder can be made");
    let mut command = containerd.beside(&testbed::prefix().join("bin/containerd-shim-wasm-v1"));
    command.arg("doctor").args(arguments).env("WHARF_CACHE_DIR", cache.path().join("aot"));
    change(&mut command);
    run(&mut command)
}

fn report(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}\n{}", outcome.report()))
}

/// Level and text of a check; the first of its name.
fn finding<'a>(report: &'a Value, check: &str) -> (&'a str, &'a str) {
    let findings = report["findings"].as_array().expect("there are findings");
    let found = findings.iter().find(|finding| finding["check"] == check);
    let found = found.unwrap_or_else(|| panic!("expected {check} in {report:#}"));
    (found["level"].as_str().unwrap_or_default(), found["found"].as_str().unwrap_or_default())
}

#[test]
fn a_node_that_has_all_has_no_problem() {
    for generation in [Generation::Trixie, Generation::Forky] {
        let containerd = Containerd::start(generation);
        let outcome = doctor(&containerd, &["--json"], |_| ()).exited(0);
        let report = report(&outcome);
        assert_eq!(report["problems"], 0, "{report:#}");
        for check in
            ["kernel", "cgroups", "namespaces", "seccomp", "wharf-host", "wharf", "cache", "containerd"]
        {
            assert_eq!(finding(&report, check).0, "ok", "{report:#}");
        }
        let (level, found) = finding(&report, "shim on containerd's PATH");
        assert!(level == "ok" && found.starts_with("containerd-shim-wasm-v1 is "), "{report:#}");
        // As the tests start it.
        let (level, found) = finding(&report, "runtime of Kubernetes");
        assert!(level == "warning" && found.contains("disabled_plugins"), "{report:#}");
        let text = doctor(&containerd, &[], |_| ()).exited(0).stdout;
        assert!(text.contains("ok       wharf-host: /") && text.contains("0 problems, "), "{text}");
    }
}

#[test]
fn the_runtimes_of_kubernetes_are_those_of_containerds_configuration() {
    for (generation, file) in [(Generation::Trixie, "config-v2.toml"), (Generation::Forky, "config-v3.toml")]
    {
        let containerd = Containerd::start(generation);
        let config = testbed::repository().join("deploy/containerd").join(file);
        let config = config.to_str().expect("the path is UTF-8");
        let outcome = doctor(&containerd, &["--json", "--config", config], |_| ()).exited(0);
        let report = report(&outcome);
        let (level, found) = finding(&report, "runtime of Kubernetes");
        assert!(level == "ok" && found.contains("\"wasm\""), "{report:#}");
    }
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let containerd = Containerd::start(Generation::Forky);
    let outcome = doctor(&containerd, &["--json"], |command| {
        command.env("WHARF_HOST_BINARY", "/no/such/wharf-host").env("CONTAINERD_ADDRESS", "/no/such.sock");
    });
    let report = report(&outcome.exited(1));
    assert_eq!(report["problems"], 2, "{report:#}");
    let (level, found) = finding(&report, "wharf-host");
    assert!(level == "problem" && found.contains("/no/such/wharf-host"), "{report:#}");
    let (level, found) = finding(&report, "containerd");
    assert!(level == "problem" && found.contains("/no/such.sock"), "{report:#}");
    let every = report["findings"].as_array().expect("there are findings").iter();
    for finding in every.filter(|finding| finding["level"] != "ok") {
        assert!(finding["todo"].as_str().is_some_and(|todo| !todo.is_empty()), "{finding:#}");
    }
    let outcome = doctor(&containerd, &["--jsn"], |_| ()).exited(1);
    assert!(outcome.stderr.contains("expected --json"), "{}", outcome.report());
}
