//! Credentials and TLS: a registry that wants both.

use wharf_tests::network::{Namespace, Network};
use wharf_tests::process::{Outcome, run};
use wharf_tests::project::Project;
use wharf_tests::registry::Registry;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

const REGISTRY: &str = "localhost:5000";
const REFERENCE: &str = "localhost:5000/hello:1";

/// `wharf login` with a password from stdin.
#[track_caller]
fn login(wharf: &Wharf, network: &impl Network, password: &str, ca: &str) -> Outcome {
    let script = "echo \"$1\" | \"$2\" login \"$3\" --username me --password-stdin --ca-cert \"$4\"";
    let program = testbed::prefix().join("bin/wharf");
    let mut command = network.command("sh".as_ref());
    command.args(["-c", script, "sh", password, text(&program), REGISTRY, ca]);
    wharf.configure(&mut command);
    run(&mut command)
}

#[test]
fn a_login_is_checked_kept_used_and_forgotten() {
    let network = Namespace::create();
    let (_registry, certificates) = Registry::start_guarded(&network);
    let ca = certificates.path().join("ca.pem");
    let ca = text(&ca);
    let wharf = Wharf::new();
    let digest = wharf.build(Project::hello().path(), REFERENCE);
    let push = ["push", REFERENCE, "--ca-cert", ca];

    let error = wharf.run_in(&network, &push).exited(1).refusal();
    assert!(error.contains("wants a login") && error.contains("wharf login localhost:5000"), "{error}");
    let error = login(&wharf, &network, "wrong", ca).exited(1).refusal();
    assert!(error.contains("localhost:5000 refuses the user or the password"), "{error}");
    let config = wharf.scratch().join("docker/config.json");
    assert!(!config.exists(), "a refused login was kept");

    login(&wharf, &network, "secret", ca).succeeded();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&config).expect("kept").permissions());
    assert_eq!(mode & 0o777, 0o600);
    wharf.run_in(&network, &push).succeeded();
    let error = wharf.run_in(&network, &["push", REFERENCE, "--ca-cert", "/nowhere.pem"]).exited(1).refusal();
    assert!(error.contains("/nowhere.pem"), "{error}");
    let error = wharf.run_in(&network, &["pull", REFERENCE]).exited(1).refusal();
    // Without TLS, which this registry does not speak.
    assert!(error.contains(REGISTRY), "{error}");

    let other = Wharf::new();
    let folder = text(wharf.scratch()).to_owned() + "/docker";
    let pull = ["pull", REFERENCE, "--ca-cert", ca];
    run(other.command(&network, &pull).env("DOCKER_CONFIG", &folder)).succeeded();
    assert_eq!(other.digest(REFERENCE), digest);

    // What wharf keeps, skopeo finds, as it would what Docker keeps.
    let source = format!("docker://{REFERENCE}");
    let inspect = ["inspect", "--raw", "--tls-verify=false", &source];
    run(network
        .command("skopeo".as_ref())
        .args(inspect)
        .env("DOCKER_CONFIG", &folder)
        .env("REGISTRY_AUTH_FILE", config))
    .succeeded();

    wharf.run_in(&network, &["logout", REGISTRY]).succeeded();
    let error = wharf.run_in(&network, &["pull", REFERENCE, "--ca-cert", ca]).exited(1).refusal();
    assert!(error.contains("wants a login"), "{error}");
}

#[test]
fn podmans_credentials_are_found_and_its_file_can_be_named() {
    let network = Namespace::create();
    let (_registry, certificates) = Registry::start_guarded(&network);
    let ca = certificates.path().join("ca.pem");
    let wharf = Wharf::new();
    let _ = wharf.build(Project::hello().path(), REFERENCE);
    let push = ["push", REFERENCE, "--ca-cert", text(&ca)];
    let auths = |key: &str, login: &str| format!(r#"{{"auths":{{"{key}":{{"auth":"{login}"}}}}}}"#);
    // me:secret and me:wrong.
    let (right, wrong) = ("bWU6c2VjcmV0", "bWU6d3Jvbmc=");
    let folder = wharf.scratch().join("runtime/containers");
    fs_err::create_dir_all(&folder).expect("a folder can be made");
    let file = folder.join("auth.json");
    let runtime = wharf.scratch().join("runtime");

    // Of a repository, which is nearer than the registry.
    let both = format!(
        r#"{{"auths":{{"{REGISTRY}":{{"auth":"{wrong}"}},"{REGISTRY}/hello":{{"auth":"{right}"}}}}}}"#
    );
    fs_err::write(&file, both).expect("the file can be written");
    run(wharf.command(&network, &push).env("XDG_RUNTIME_DIR", &runtime)).succeeded();

    fs_err::write(&file, auths(REGISTRY, wrong)).expect("the file can be written");
    let error = run(wharf.command(&network, &push).env("XDG_RUNTIME_DIR", &runtime)).exited(1).refusal();
    assert!(error.contains("wants a login"), "{error}");
    let named = wharf.scratch().join("named.json");
    fs_err::write(&named, auths(REGISTRY, right)).expect("the file can be written");
    let mut command = wharf.command(&network, &push);
    run(command.env("XDG_RUNTIME_DIR", &runtime).env("REGISTRY_AUTH_FILE", &named)).succeeded();
}
