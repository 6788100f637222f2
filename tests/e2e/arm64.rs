//! The linux/arm64 image, run for real: by an emulator of the CPU where this
//! machine has another.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use wharf_tests::http::{get, request};
use wharf_tests::layout;
use wharf_tests::network::Host;
use wharf_tests::process::{Daemon, run};
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

const REFERENCE: &str = "example.test/hello:1";

/// `e_machine` of an ELF file (elf.h).
const X86_64: u16 = 62;
const AARCH64: u16 = 183;

#[test]
fn an_image_is_for_both_architectures_and_wasi_without_being_asked() {
    let wharf = built();
    let source = format!("oci:{}:{REFERENCE}", text(&wharf.store()));
    let raw = run(Command::new("skopeo").args(["inspect", "--raw", &source])).output();
    let index: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(layout::platforms(&index), ["linux/amd64", "linux/arm64", "wasi/wasm"]);
}

/// The image's `wharf-host` has no compiler in it, so whatever a worker answers
/// was computed by the machine code of the image.
#[test]
fn the_arm64_image_serves_its_site_and_its_worker() {
    let wharf = built();
    let rootfs = unpack(&wharf, "arm64");
    assert_eq!(machine(&rootfs.join("wharf-host")), AARCH64);
    assert_eq!(machine(&machine_code(&rootfs)), AARCH64);

    let server = Arm64Host::start(&wharf, &rootfs);
    let page = get(&Host, &server.at("/"));
    assert_eq!(page.status, 200);
    assert_eq!(page.body, fs_err::read_to_string(rootfs.join("app/site/index.html")).unwrap());
    let greeting = get(&Host, &server.at("/api/hello?name=Ada%20L."));
    assert_eq!(greeting.status, 200);
    assert_eq!(greeting.json()["name"], "Ada L.");
    let echo = request(&Host, &["--data-binary", "from afar"], &server.at("/api/hello"));
    assert_eq!((echo.status, echo.body.as_str()), (200, "from afar"));
}

/// Traps are signals of the CPU; a deadline is a check in the machine code.
#[test]
fn a_trap_and_a_deadline_end_a_worker_on_arm64_and_nothing_else() {
    let wharf = built();
    let rootfs = unpack(&wharf, "arm64");
    let server = Arm64Host::start(&wharf, &rootfs);
    assert_eq!(get(&Host, &server.at("/api/hello?trap=1")).status, 500);
    assert_eq!(get(&Host, &server.at("/api/hello?spin=1")).status, 504);
    assert_eq!(get(&Host, &server.at("/api/hello")).status, 200);
}

#[test]
fn the_arm64_host_refuses_machine_code_of_amd64() {
    let wharf = built();
    let (rootfs, other) = (unpack(&wharf, "arm64"), unpack(&wharf, "amd64"));
    let foreign = machine_code(&other);
    assert_eq!(machine(&foreign), X86_64);
    fs_err::copy(foreign, machine_code(&rootfs)).unwrap();

    let refusal = run(&mut host(&rootfs)).exited(1).refusal();
    assert!(refusal.contains(text(&machine_code(&rootfs))), "expected the file to be named: {refusal}");
}

#[test]
fn an_installation_for_one_architecture_builds_for_it_and_says_how_to_have_the_other() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let prefix = wharf.scratch().join("prefix");
    for file in ["bin/wharf", "libexec/wharf/wharf-host"] {
        fs_err::create_dir_all(prefix.join(file).parent().unwrap()).unwrap();
        fs_err::copy(testbed::prefix().join(file), prefix.join(file)).unwrap();
    }
    let (here, other) = if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
    let build = |arguments: &[&str]| {
        let mut command = Command::new(prefix.join("bin/wharf"));
        command.args(["build", text(project.path()), "-t", REFERENCE]).args(arguments);
        wharf.configure(&mut command);
        run(&mut command)
    };

    let digest = build(&[]).output();
    let index = layout::json(&wharf.store(), digest.lines().last().unwrap());
    assert_eq!(layout::platforms(&index), [format!("linux/{here}"), "wasi/wasm".into()]);
    let refusal = build(&["--platform", &format!("linux/{other}")]).exited(1).refusal();
    assert!(refusal.contains(&format!("wharf-host-linux-{other}")), "{refusal}");
    assert!(refusal.contains("hint: ") && refusal.contains("make install ARCHES="), "{refusal}");
}

fn built() -> Wharf {
    let foreign = testbed::prefix().join("libexec/wharf/wharf-host-linux-arm64");
    assert!(
        foreign.is_file() || cfg!(target_arch = "aarch64"),
        "cannot find {}: run `make stage`",
        foreign.display()
    );
    let wharf = Wharf::new();
    let _ = wharf.build(Project::hello().path(), REFERENCE);
    wharf
}

/// The root file system of one image of the index, as other tools make it.
fn unpack(wharf: &Wharf, architecture: &str) -> PathBuf {
    let layout = wharf.scratch().join(format!("layout-{architecture}"));
    let source = format!("oci:{}:{REFERENCE}", text(&wharf.store()));
    let target = format!("oci:{}:1", text(&layout));
    let platform = ["--override-os", "linux", "--override-arch", architecture];
    run(Command::new("skopeo").args(platform).args(["copy", "--quiet", &source, &target])).succeeded();
    let bundle = wharf.scratch().join(format!("bundle-{architecture}"));
    let image = format!("{}:1", text(&layout));
    run(Command::new("umoci").args(["unpack", "--image", &image, text(&bundle)])).succeeded();
    bundle.join("rootfs")
}

/// The image's server, to be run by the emulator.
fn host(rootfs: &Path) -> Command {
    let mut command = Command::new(testbed::part("qemu/qemu-aarch64", "qemu.sh"));
    command.arg(rootfs.join("wharf-host"));
    command.env("WHARF_APP", rootfs.join("app/wharf.json")).env("WHARF_ADDR", "127.0.0.1:0");
    command
}

struct Arm64Host {
    _daemon: Daemon,
    address: String,
}

impl Arm64Host {
    fn start(wharf: &Wharf, rootfs: &Path) -> Self {
        let mut daemon = Daemon::start("wharf-host-arm64", wharf.scratch(), &mut host(rootfs));
        let address = daemon.wait_until("it listened", |daemon| {
            let log = daemon.log();
            // With what follows, or the port may be cut.
            let (_, rest) = log.split_once("address=")?;
            Some(rest.split_once(' ')?.0.to_owned())
        });
        Self { _daemon: daemon, address }
    }

    fn at(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// The one file of machine code in an image.
fn machine_code(rootfs: &Path) -> PathBuf {
    let mut files = fs_err::read_dir(rootfs.join("app/aot")).expect("the image holds machine code");
    let code = files.next().expect("hello has a worker").expect("the folder can be read").path();
    assert!(files.next().is_none(), "hello has one worker");
    code
}

/// Which CPU an ELF file is for: `e_machine`, at 18 in the header.
fn machine(file: &Path) -> u16 {
    let bytes = fs_err::read(file).expect("the file can be read");
    assert_eq!(bytes.get(..4), Some(&b"\x7fELF"[..]), "{} is no ELF file", file.display());
    u16::from_le_bytes([bytes[18], bytes[19]])
}
