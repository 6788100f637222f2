//! The Dockerfile's second way: images of `wharf` and `wharf-host` from static
//! binaries, built by Docker with no network and no base image.

use wharf_tests::engine::{Docker, Generation, Store};
use wharf_tests::layout;
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::text;

#[test]
fn docker_builds_images_of_the_static_binaries() {
    let docker = Docker::start(Generation::Forky, Store::Containerd);
    let dockerfile = testbed::repository().join("Dockerfile");
    for (stage, image) in [("wharf-binary", "wharf"), ("wharf-host-binary", "wharf-host")] {
        let arguments = ["build", "--target", stage, "--tag", image, "--file", text(&dockerfile)];
        docker.docker(&[&arguments[..], &[text(&testbed::prefix())]].concat()).succeeded();
    }
    let version = docker.docker(&["run", "--rm", "wharf", "--version"]).output();
    assert!(version.starts_with("wharf "), "{version}");
    let help = docker.docker(&["run", "--rm", "wharf-host", "--help"]).output();
    assert!(help.contains("wharf-host"), "{help}");

    // The command's image holds the servers of both architectures.
    let project = Project::hello();
    let mount = format!("{}:/work", text(project.path()));
    let build = ["build", ".", "--output", "/work/layout", "--tag", "hello:1"];
    let built = docker.docker(&[&["run", "--rm", "--volume", &mount, "wharf"][..], &build].concat()).output();
    let index = layout::json(&project.path().join("layout"), built.lines().last().unwrap_or_default());
    assert_eq!(layout::platforms(&index), ["linux/amd64", "linux/arm64", "wasi/wasm"]);
}
