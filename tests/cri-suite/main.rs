//! containerd's own tests of the CRI, run twice on the same machine: with runc, and
//! with our shim. What runc passes, ours must pass; what fails with both says
//! something of this machine.
//!
//! `make cri-suite`: root, tests/testbed/{setup,cri-suite}.sh, and `WHARF_BIN_DIR`
//! as for the other tests. `WHARF_CRI_SUITE=REGEX` runs the tests that it matches.

use std::collections::BTreeMap;
use std::time::Duration;

use wharf_tests::engine::{Generation, Handler, Node};
use wharf_tests::fixture::{PAUSE, push_busybox};
use wharf_tests::network::Network as _;
use wharf_tests::process::{Daemon, wait_for};
use wharf_tests::registry::Registry;
use wharf_tests::testbed;

/// How long one run may take.
const DEADLINE: Duration = Duration::from_secs(1800);

/// Tests that are not of the runtime, or that this machine must not run.
const SKIPPED: [&str; 18] = [
    // They end every containerd of the machine, by name. (tests/e2e/cri.rs restarts its own.)
    "TestContainerdRestart",
    "TestContainerdRestartSandboxRecover",
    "TestReload100Pods",
    "TestSandboxRemoveWithoutIPLeakage",
    "TestSandboxStopWithNilCNIResult",
    // They need failing CNI plugins and shims that only containerd's sources have.
    "TestRunPodSandbox(WithSetupCNI|WithShim|AndTeardown).*",
    "TestPodSandboxController_ShouldBackoffExitEventWhenFail",
    // They start a containerd of their own, or fetch one.
    "TestContainerCgroupWritable",
    "TestRunContainerWithVolatileOption",
    "TestIssue10467",
    "TestUpgrade",
    "TestImageVolume.*",
    // Images, and plugins of the NRI.
    "TestContainerdImage.*|TestContainerdSandboxImage.*|TestImageLoad|TestCRIImagePullTimeout",
    "TestNri.*",
    // It stops a shell, which may not have set its trap yet: not after a quick start.
    "TestContainerStopCancellation",
    // They need images of other registries.
    "TestContainerConsumedStats",
    "TestVolumeCopyUp|TestVolumeOwnership|TestUsernsVolumeCopyUp",
    "TestIssue10244LoopbackV2",
];

#[test]
fn our_shim_passes_what_runc_passes_with_containerd_1_7() {
    compare(Generation::Trixie);
}

#[test]
fn our_shim_passes_what_runc_passes_with_containerd_2_1() {
    compare(Generation::Forky);
}

#[expect(clippy::print_stderr, reason = "the comparison is for people")]
#[track_caller]
fn compare(generation: Generation) {
    let runc = results(generation, Handler::Runc);
    let ours = results(generation, Handler::Wasm);
    let passed = |results: &Results| results.values().filter(|result| result.0 == PASSED).count();
    assert!(passed(&runc) > 0, "runc passes nothing: {runc:#?}");
    let mut worse = Vec::new();
    for (test, (result, _)) in &runc {
        let (our, log) = ours.get(test).map_or(("missing", ""), |(our, log)| (our.as_str(), log.as_str()));
        if result != our {
            eprintln!("{test}: runc {result}, ours {our}");
        }
        if result == PASSED && our != PASSED {
            worse.push(format!("{test}: {our}\n{log}"));
        } else if our == FAILED {
            eprintln!("{test}: both fail");
        }
    }
    eprintln!(
        "{generation:?}: of {} tests runc passes {}, ours {}",
        runc.len(),
        passed(&runc),
        passed(&ours)
    );
    assert!(
        worse.is_empty(),
        "runc passes {} tests that our shim does not\n{}",
        worse.len(),
        worse.join("\n")
    );
}

const PASSED: &str = "PASS";
const FAILED: &str = "FAIL";

/// By test: how it ended, and what it said.
type Results = BTreeMap<String, (String, String)>;

/// Runs the suite on a node whose pods are run by `handler`.
#[track_caller]
fn results(generation: Generation, handler: Handler) -> Results {
    let node = Node::start(generation, handler);
    let network = node.network();
    let _registry = Registry::start(network);
    let busybox = push_busybox(network);
    node.pull(&busybox);
    let images = node.folder().join("images.toml");
    let names = ["Alpine", "BusyBox", "ResourceConsumer", "VolumeCopyUp", "VolumeOwnership"];
    let list: String = names.iter().map(|name| format!("{name} = \"{busybox}\"\n")).collect();
    fs_err::write(&images, format!("{list}Pause = \"{PAUSE}\"\n")).expect("the list can be written");
    // The suite is 2.1's: what 1.7 doesn't answer yet ends it.
    let unanswered = match generation {
        Generation::Trixie => "|TestContainerEvents|TestLongContainerLog",
        Generation::Forky => "",
    };
    let suite = testbed::part("cri-suite/cri-suite", "cri-suite.sh");
    let mut command = network.command(suite.as_os_str());
    command
        .arg("-test.v")
        .arg(format!("-test.skip=^({}{unanswered})$", SKIPPED.join("|")))
        .arg(format!("-cri-endpoint=unix://{}", node.socket().display()))
        .arg(format!("-runtime-handler={}", handler.name()))
        .arg(format!("-image-list={}", images.display()))
        .current_dir(node.folder());
    if let Ok(chosen) = std::env::var("WHARF_CRI_SUITE") {
        command.arg(format!("-test.run={chosen}"));
    }
    let mut run = Daemon::start("cri-suite", node.folder(), &mut command);
    let ended = wait_for(DEADLINE, || run.has_ended().then_some(()));
    let log = run.log();
    if let Ok(folder) = std::env::var("WHARF_CRI_SUITE_LOGS") {
        let file = std::path::Path::new(&folder).join(format!("{generation:?}-{}.log", handler.name()));
        fs_err::write(file, &log).expect("the log can be kept");
    }
    assert!(ended.is_some(), "the suite does not end\n{log}");
    assert!(!log.contains("\npanic: "), "the suite breaks off\n{log}");
    read(&log)
}

/// Of `go test -v`: each test's lines stand between its `=== RUN` and its `--- PASS`.
fn read(log: &str) -> Results {
    let mut results = Results::new();
    let mut said = String::new();
    for line in log.lines() {
        let verdict = line.trim_start().strip_prefix("--- ").and_then(|rest| rest.split_once(": "));
        if let Some((result, rest)) = verdict {
            let test = rest.split(' ').next().unwrap_or_default().to_owned();
            results.insert(test, (result.to_owned(), said.clone()));
        } else if line.starts_with("=== RUN ") && !line.contains('/') {
            said.clear();
        } else {
            said.push_str(line);
            said.push('\n');
        }
    }
    results
}
