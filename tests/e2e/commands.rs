//! Commands as workers, made by the compilers that people use.

use std::process::Command;

use wharf_tests::http::request;
use wharf_tests::network::Host;
use wharf_tests::process::run;
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

/// A program of tests/e2e/guests in Go, for WASI preview 1.
pub(crate) fn go(wharf: &Wharf, name: &str) -> Vec<u8> {
    let source = testbed::repository().join("tests/e2e/guests").join(format!("{name}.go"));
    let made = wharf.scratch().join(format!("{name}.wasm"));
    let mut go = Command::new("go");
    go.args(["build", "-o", text(&made), text(&source)]);
    go.envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("GO111MODULE", "off")]);
    run(&mut go).succeeded();
    fs_err::read(made).expect("the guest was built")
}

/// The same in Rust, for a target of WASI.
pub(crate) fn rust(wharf: &Wharf, name: &str, target: &str) -> Vec<u8> {
    let script = testbed::repository().join("tests/testbed/wasm-toolchain.sh");
    let toolchain = run(&mut Command::new(script)).output();
    let source = testbed::repository().join("tests/e2e/guests").join(format!("{name}.rs"));
    let made = wharf.scratch().join(format!("{name}-{target}.wasm"));
    let target = format!("--target={target}");
    let mut rustc = Command::new(format!("{toolchain}/bin/rustc"));
    // cargo's LD_LIBRARY_PATH has it load the other toolchain's libraries, and
    // by their place it would look for std there.
    rustc.arg(format!("--sysroot={toolchain}"));
    rustc.args(["--edition=2024", &target, "-O", "-o", text(&made), text(&source)]);
    run(&mut rustc).succeeded();
    fs_err::read(made).expect("the guest was built")
}

#[test]
fn a_program_by_gos_own_compiler_answers_by_cgi() {
    let wharf = Wharf::new();
    let project = Project::empty().with("api/[...path].wasm", go(&wharf, "cgi"));
    let server = wharf.serve(text(project.path()));
    for _ in 0..2 {
        let answer = request(&Host, &["--data", "body"], &server.at("/api/a?q=1"));
        assert_eq!((answer.status, answer.header("x-made-by")), (202, "go"), "{answer:?}");
        assert!(answer.body.ends_with(": body\n"), "{answer:?}");
    }
}

#[test]
fn a_rust_program_answers_by_the_wws_protocol() {
    let wharf = Wharf::new();
    let project = Project::empty()
        .with("[id].wasm", rust(&wharf, "wws", "wasm32-wasip1"))
        .with("wharf.toml", "[workers.\"[id]\"]\nabi = \"wws\"\n");
    let server = wharf.serve(text(project.path()));
    let answer = request(&Host, &["--data", "\"quoted\""], &server.at("/7?q=1"));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let document = answer.json();
    assert_eq!(document["url"], server.at("/7?q=1"));
    assert_eq!(document["method"], "POST");
    assert_eq!(document["body"], "\"quoted\"");
    assert_eq!(document["params"]["id"], "7");
}

#[test]
fn what_is_no_worker_is_refused_by_name_with_a_hint() {
    let wharf = Wharf::new();
    let project = Project::empty().with("api/library.wasm", b"\0asm\x01\0\0\0");
    let refused = wharf.run(&["build", text(project.path()), "-t", "example.test/no:1"]).exited(1);
    assert!(refused.stderr.contains("api/library.wasm"), "{}", refused.stderr);
    assert!(refused.stderr.contains("_start") && refused.stderr.contains("hint: "), "{}", refused.stderr);
}
