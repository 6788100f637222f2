//! Images of plain WebAssembly run through the shim as they do through
//! runwasi's: commands and servers, components and core modules, as files and
//! as layers.

use std::time::Duration;

use wharf_tests::engine::{Containerd, Docker, Generation, Store};
use wharf_tests::http::try_get;
use wharf_tests::plain::{Form, archive};
use wharf_tests::process::Outcome;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

use crate::commands::{go, rust};

const RUNTIME: &str = "io.containerd.wasm.v1";

#[test]
fn containerd_1_7_runs_plain_programs() {
    runs_plain_programs(Generation::Trixie);
}

#[test]
fn containerd_2_1_runs_plain_programs() {
    runs_plain_programs(Generation::Forky);
}

fn runs_plain_programs(generation: Generation) {
    let containerd = Containerd::start(generation);
    let wharf = Wharf::new();
    let module = rust(&wharf, "plain", "wasm32-wasip1");
    let component = rust(&wharf, "plain", "wasm32-wasip2");
    assert_ne!(module[..8], component[..8], "one is a core module, one a component");
    let gos = go(&wharf, "cgi");
    let server = fs_err::read(testbed::part("guests/probe.wasm", "guests.sh")).expect("the guest is built");

    let import = |name: &str, form: Form, wasm: &[u8]| {
        let name = format!("example.test/{name}:1");
        let archive = archive(wharf.scratch(), &name, form, wasm);
        containerd.ctr(&["images", "import", "--all-platforms", text(&archive)]).succeeded();
        name
    };
    let start = |platform: &str, options: &[&str], image: &str, arguments: &[&str]| -> Outcome {
        let run = ["run", "--rm", "--runtime", RUNTIME, "--net-host", "--platform", platform];
        containerd.ctr(&[&run[..], options, &[image, "box"], arguments].concat())
    };
    let linux = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };

    // WASI 0.2 itself knows no other exit code than success and failure.
    for (name, wasm, code) in [("module", &module, 42), ("component", &component, 1)] {
        let image = import(name, Form::File, wasm);
        let run = |options: &[&str], arguments: &[&str]| {
            start(linux, options, &image, &[&["/program.wasm"], arguments].concat())
        };
        let told = run(&["--env", "OTHER=x"], &["one", "two words"]);
        let expected = "arguments [\"one\", \"two words\"]\nvariable Some(\"by the image\")\nsecret None\n";
        assert_eq!((told.code, told.stdout.as_str()), (0, expected), "{name}: {}", told.report());
        assert!(told.stderr.contains("and an error"), "{name}: {}", told.report());
        assert_eq!(run(&[], &["exit", "42"]).code, code, "{name}");
        let trapped = run(&[], &["trap"]);
        assert_eq!(trapped.code, 134, "{name}: {}", trapped.report());
        assert!(trapped.stderr.contains("as told"), "{name}: {}", trapped.report());
        // What the container mounts, and no more.
        let volume = tempfile::tempdir().expect("a folder can be made");
        let mount = format!("type=bind,src={},dst=/data,options=rbind:rw", text(volume.path()));
        assert_eq!(run(&["--mount", &mount], &["write", "/data/file"]).code, 0, "{name}");
        assert_eq!(fs_err::read_to_string(volume.path().join("file")).expect("it was written"), "written");
        let read = run(&["--mount", &mount], &["read", "/data/file"]);
        assert!(read.stdout.starts_with("written"), "{name}: {}", read.report());
        let read_only = format!("type=bind,src={},dst=/data,options=rbind:ro", text(volume.path()));
        assert_ne!(run(&["--mount", &read_only], &["write", "/data/file"]).code, 0, "{name}");
        assert_ne!(run(&[], &["read", "/etc/hostname"]).code, 0, "{name}: the node's files are not its");
        // One that computes for ever hears of its end.
        let arguments = ["run", "--rm", "--runtime", RUNTIME, &image, "spins", "/program.wasm", "spin"];
        let mut spins = containerd.start_ctr("spins", &arguments);
        let _ = containerd.init_of("spins");
        std::thread::sleep(Duration::from_millis(500));
        containerd.ctr(&["task", "kill", "--signal", "SIGTERM", "spins"]).succeeded();
        assert_eq!(spins.ended().0, Some(143), "{name}: {}", spins.log());
    }

    let image = import("function", Form::File, &module);
    let other = start(linux, &[], &image, &["/program.wasm#other"]);
    assert!(other.stdout.contains("the other function"), "{}", other.report());
    let missing = start(linux, &[], &image, &["/program.wasm#nothing"]);
    assert!(
        missing.code != 0 && missing.stderr.contains("exports no function \"nothing\""),
        "{}",
        missing.report()
    );

    // Go's own runtime, which needs its memory for itself.
    let image = import("go", Form::File, &gos);
    let request = ["--env", "REQUEST_METHOD=GET", "--env", "SERVER_PROTOCOL=HTTP/1.1"];
    let answered = start(linux, &request, &image, &["/program.wasm"]);
    assert!(answered.stdout.to_lowercase().contains("content-type:"), "{}", answered.report());

    // Images without any file.
    for (name, media_type) in [
        ("layer", "application/wasm"),
        ("artifact", "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"),
    ] {
        let image = import(name, Form::Layer(media_type), &component);
        let told = start("wasi/wasm", &[], &image, &[]);
        assert!(told.stdout.contains("arguments []"), "{name}: {}", told.report());
    }

    let image = import("server", Form::File, &server);
    let arguments = ["run", "--rm", "--runtime", RUNTIME, "--net-host", &image, "serves"];
    let mut serves = containerd.start_ctr("serves", &arguments);
    let network = containerd.network();
    let answer = serves.wait_until("it answered", |_| try_get(network, "http://127.0.0.1:8080/any/path"));
    assert!(answer.status < 500, "{answer:?}");
    containerd.ctr(&["task", "kill", "--signal", "SIGTERM", "serves"]).succeeded();
    assert_eq!(serves.ended().0, Some(0), "{}", serves.log());
}

#[test]
fn docker_runs_a_plain_program() {
    let docker = Docker::start(Generation::Forky, Store::Containerd);
    let wharf = Wharf::new();
    let name = "example.test/plain:1";
    let image = archive(wharf.scratch(), name, Form::File, &rust(&wharf, "plain", "wasm32-wasip1"));
    docker.docker(&["load", "--input", text(&image)]).succeeded();
    let run = ["run", "--rm", "--interactive", "--runtime=io.containerd.wasm", name, "input"];
    let told = docker.docker_with_input(&run, "typed").output();
    assert!(told.contains("arguments [\"input\"]") && told.contains("input \"typed\""), "{told}");
}
