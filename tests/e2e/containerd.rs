//! containerd 1.7 and 2.1 run our images through the shim, by `ctr` alone.

use std::path::Path;
use std::time::Duration;

use wharf_tests::engine::{Containerd, Generation};
use wharf_tests::fixture::{PYTHON, push_busybox, push_hello, push_python};
use wharf_tests::http::{get, try_get};
use wharf_tests::process::wait_for;
use wharf_tests::registry::Registry;

const RUNTIME: &str = "io.containerd.wasm.v1";
const URL: &str = "http://127.0.0.1:8080";

macro_rules! on {
    ($module:ident, $generation:expr) => {
        mod $module {
            use super::Generation;

            #[test]
            fn pulls_an_app_from_a_registry_runs_and_stops_it() {
                super::pulls_runs_and_stops($generation);
            }

            #[test]
            fn runs_the_wasi_image_of_an_app() {
                super::runs_the_wasi_image($generation);
            }

            #[test]
            fn runs_native_programs_through_the_same_runtime() {
                super::runs_native_programs($generation);
            }

            #[test]
            fn a_killed_app_leaves_no_process_and_its_name_is_free_again() {
                super::leaves_nothing($generation);
            }
        }
    };
}

on!(v1_7, Generation::Trixie);
on!(v2_1, Generation::Forky);

fn pulls_runs_and_stops(generation: Generation) {
    let containerd = Containerd::start(generation);
    let network = containerd.network();
    let _registry = Registry::start(network);
    push_python(network);
    containerd.ctr(&["images", "pull", "--plain-http", PYTHON]).succeeded();

    let mut app =
        containerd.start_ctr("app", &["run", "--rm", "--runtime", RUNTIME, "--net-host", PYTHON, "app"]);
    let page = app.wait_until("it answered", |_| try_get(network, URL));
    assert_eq!(page.status, 200);
    assert!(page.body.contains("href=\"/dist/\""), "expected the worker's page: {page:?}");
    let redirect = get(network, &format!("{URL}/dist"));
    assert_eq!(redirect.status, 308);
    assert!(redirect.header("location").ends_with("/dist/"), "{redirect:?}");
    assert_eq!(get(network, &format!("{URL}/dist/")).status, 200);
    assert_eq!(get(network, &format!("{URL}/dist/lab/index.html")).status, 200);
    let init = containerd.init_of("app");
    assert!(Path::new(&format!("/proc/{init}/ns/net")).exists(), "expected a real process, not {init}");

    containerd.ctr(&["task", "kill", "--signal", "SIGTERM", "app"]).succeeded();
    let (code, took) = app.ended();
    assert_eq!(code, Some(0), "{}", app.log());
    assert!(took < Duration::from_secs(2), "took {took:?}");
}

fn runs_the_wasi_image(generation: Generation) {
    let containerd = Containerd::start(generation);
    let network = containerd.network();
    let _registry = Registry::start(network);
    let reference = push_hello(network);
    containerd.ctr(&["images", "pull", "--plain-http", "--platform", "wasi/wasm", &reference]).succeeded();
    let run =
        ["run", "--rm", "--platform", "wasi/wasm", "--runtime", RUNTIME, "--net-host", &reference, "app"];
    let mut app = containerd.start_ctr("app", &run);
    assert_eq!(app.wait_until("it answered", |_| try_get(network, URL)).status, 200);
    assert_eq!(get(network, &format!("{URL}/api/hello?name=wasi")).json()["name"], "wasi");
}

fn runs_native_programs(generation: Generation) {
    let containerd = Containerd::start(generation);
    let network = containerd.network();
    let _registry = Registry::start(network);
    let reference = push_busybox(network);
    containerd.ctr(&["images", "pull", "--plain-http", &reference]).succeeded();
    let run = ["run", "--rm", "--runtime", RUNTIME, &reference];
    let script = ["speaks", "/bin/sh", "-c", "echo out; echo err >&2; exit 7"];
    let spoke = containerd.ctr(&[&run[..], &script].concat()).exited(7);
    assert_eq!(spoke.stdout, "out\n");
    assert!(spoke.stderr.contains("err"), "{}", spoke.report());

    let mut sleeper = containerd.start_ctr("sleeps", &[&run[..], &["sleeps", "/bin/sleep", "1000"]].concat());
    let _ = containerd.init_of("sleeps");
    containerd.ctr(&["task", "kill", "--signal", "SIGKILL", "sleeps"]).succeeded();
    assert_eq!(sleeper.ended().0, Some(137), "{}", sleeper.log());
}

fn leaves_nothing(generation: Generation) {
    let containerd = Containerd::start(generation);
    let network = containerd.network();
    let _registry = Registry::start(network);
    let reference = push_hello(network);
    containerd.ctr(&["images", "pull", "--plain-http", &reference]).succeeded();
    for round in 0..2 {
        let run = ["run", "--rm", "--runtime", RUNTIME, "--net-host", &reference, "app"];
        let mut app = containerd.start_ctr("app", &run);
        assert_eq!(app.wait_until("it answered", |_| try_get(network, URL)).status, 200, "round {round}");
        let init = containerd.init_of("app");
        containerd.ctr(&["task", "kill", "--signal", "SIGKILL", "app"]).succeeded();
        assert_eq!(app.ended().0, Some(137), "round {round}: {}", app.log());
        assert!(!Path::new(&format!("/proc/{init}")).exists(), "process {init} was left");
        wait_for(Duration::from_secs(5), || containerd.shims().is_empty().then_some(()))
            .unwrap_or_else(|| panic!("shims {:?} were left", containerd.shims()));
    }
}
