//! What wharf makes, every tool accepts: skopeo, umoci, buildah, crane, ctr, and
//! the image-spec's own schemas. Docker's part is in `docker`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use wharf_tests::engine::{Containerd, Generation};
use wharf_tests::http::try_get;
use wharf_tests::layout;
use wharf_tests::network::{Host, Namespace, Network};
use wharf_tests::process::{Outcome, run};
use wharf_tests::project::Project;
use wharf_tests::registry::Registry;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

const REFERENCE: &str = "127.0.0.1:5000/hello:1";

/// examples/hello, and names that a tar archive holds in other ways.
fn project() -> Project {
    let deep = format!("public/{}/{}/page.html", "a".repeat(90), "b".repeat(90));
    Project::hello()
        .with("public/täglich/le café.txt", "not ASCII\n")
        .with(&deep, "<p>past 100 bytes, and past 155</p>")
        .with("public/empty.txt", "")
}

#[test]
fn skopeo_copies_every_image_out_and_back_byte_for_byte() {
    let network = Namespace::create();
    let _registry = Registry::start(&network);
    let wharf = Wharf::new();
    let digest = wharf.build(project().path(), REFERENCE);
    wharf.run_in(&network, &["push", REFERENCE]).succeeded();
    let (out, again) = (wharf.scratch().join("out"), wharf.scratch().join("again"));
    let copy = |from: &str, to: &str| copy(&network, &["--all"], from, to);
    copy(&format!("docker://{REFERENCE}"), &format!("oci:{}:1", text(&out)));
    copy(&format!("oci:{}:1", text(&out)), "docker://127.0.0.1:5000/returned:1");
    copy("docker://127.0.0.1:5000/returned:1", &format!("oci:{}:1", text(&again)));

    let made = layout::whole(&wharf.store(), &digest);
    for copied in [&out, &again] {
        assert_eq!(layout::names(copied), BTreeMap::from([("1".to_owned(), digest.clone())]));
        assert_eq!(layout::whole(copied, &digest), made);
        assert_eq!(layout::blobs(copied).len(), made.len(), "skopeo made blobs of its own");
    }
    let raw = |name: &str| {
        let name = format!("docker://127.0.0.1:5000/{name}:1");
        skopeo(&network, &["inspect", "--raw", "--tls-verify=false", &name]).output()
    };
    assert_eq!(raw("hello"), raw("returned"));
}

/// umoci finds a tag of several platforms ambiguous: skopeo picks one.
#[test]
fn umoci_unpacks_the_linux_image_with_the_right_owners_modes_and_times() {
    let (wharf, project) = (Wharf::new(), project());
    let _ = wharf.build(project.path(), REFERENCE);
    let layout = wharf.scratch().join("layout");
    let source = format!("oci:{}:{REFERENCE}", text(&wharf.store()));
    let target = format!("oci:{}:1", text(&layout));
    copy(&Host, &[], &source, &target);

    let bundle = wharf.scratch().join("bundle");
    let image = format!("{}:1", text(&layout));
    run(Command::new("umoci").args(["unpack", "--image", &image, text(&bundle)])).succeeded();
    let spec: serde_json::Value =
        serde_json::from_slice(&fs_err::read(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(spec["process"]["args"][0], "/wharf-host");
    assert_eq!(spec["process"]["user"]["uid"], 65532);
    check(&bundle.join("rootfs"), &project);
    // Static: it starts with nothing else in its root.
    let libraries = run(Command::new("ldd").arg(bundle.join("rootfs/wharf-host")));
    let said = format!("{}{}", libraries.stdout, libraries.stderr);
    assert!(said.contains("statically linked") || said.contains("not a dynamic executable"), "{said}");
}

#[test]
fn buildah_takes_the_image_from_a_registry_and_from_an_archive() {
    let network = Namespace::create();
    let _registry = Registry::start(&network);
    let (wharf, project) = (Wharf::new(), project());
    let _ = wharf.build(project.path(), REFERENCE);
    wharf.run_in(&network, &["push", REFERENCE]).succeeded();
    let archive = wharf.scratch().join("hello.tar");
    wharf.run(&["save", REFERENCE, "-o", text(&archive)]).succeeded();

    let storage = wharf.scratch().join("buildah");
    let buildah = |arguments: &[&str]| {
        let mut command = network.command("buildah".as_ref());
        command.args(["--root", text(&storage.join("root")), "--runroot", text(&storage.join("run"))]);
        run(command.args(["--storage-driver", "vfs"]).args(arguments)).output()
    };
    for source in [format!("docker://{REFERENCE}"), format!("oci-archive:{}", text(&archive))] {
        let container = buildah(&["from", "--quiet", "--tls-verify=false", &source]);
        let described = buildah(&["inspect", "--format", "{{.OCIv1.Config.Entrypoint}}", &container]);
        assert_eq!(described, "[/wharf-host]", "{source}");
        check(Path::new(&buildah(&["mount", &container])), &project);
        let _ = buildah(&["rm", &container]);
        let _ = buildah(&["rmi", "--all", "--force"]);
    }
}

#[test]
fn crane_finds_every_image_valid_in_the_registry_and_in_the_archive() {
    let network = Namespace::create();
    let _registry = Registry::start(&network);
    let wharf = Wharf::new();
    let digest = wharf.build(project().path(), REFERENCE);
    wharf.run_in(&network, &["push", REFERENCE]).succeeded();
    let archive = wharf.scratch().join("hello.tar");
    wharf.run(&["save", REFERENCE, "-o", text(&archive)]).succeeded();

    let crane = |arguments: &[&str]| {
        let mut command = network.command(testbed::oci_tool("crane").as_os_str());
        run(command.args(arguments).env("DOCKER_CONFIG", wharf.scratch()))
    };
    let passed = |subject: &str, arguments: &[&str]| {
        let said = crane(&[&["validate"], arguments].concat()).output();
        assert_eq!(said, format!("PASS: {subject}"));
    };
    assert_eq!(crane(&["digest", REFERENCE]).output(), digest);
    passed(REFERENCE, &["--remote", REFERENCE]);
    let index = layout::json(&wharf.store(), &digest);
    for image in index["manifests"].as_array().unwrap() {
        let image = format!("127.0.0.1:5000/hello@{}", image["digest"].as_str().unwrap());
        passed(&image, &["--remote", &image]);
    }
    passed(text(&archive), &["--tarball", text(&archive)]);
}

#[test]
fn crane_finds_a_truncated_layer_invalid() {
    let wharf = Wharf::new();
    let digest = wharf.build(project().path(), REFERENCE);
    let archive = wharf.scratch().join("hello.tar");
    wharf.run(&["save", REFERENCE, "-o", text(&archive)]).succeeded();
    let unpacked = wharf.scratch().join("unpacked");
    fs_err::create_dir(&unpacked).unwrap();
    run(Command::new("tar").args(["-xf", text(&archive), "-C", text(&unpacked)])).succeeded();
    layout::truncate(&unpacked, &layout::largest_layer(&unpacked, &digest));
    let damaged = wharf.scratch().join("damaged.tar");
    run(Command::new("tar").args(["-cf", text(&damaged), "-C", text(&unpacked), "."])).succeeded();
    let crane = run(Command::new(testbed::oci_tool("crane")).args(["validate", "--tarball", text(&damaged)]));
    assert_ne!(crane.code, 0, "{}", crane.report());
}

#[test]
fn the_image_specs_schemas_accept_every_document() {
    let wharf = Wharf::new();
    let digest = wharf.build(project().path(), REFERENCE);
    let (store, layout) = (wharf.store(), wharf.scratch().join("layout"));
    let _ = wharf.run(&["build", text(project().path()), "-t", REFERENCE, "-o", text(&layout)]).output();
    let archive = wharf.scratch().join("hello.tar");
    wharf.run(&["save", REFERENCE, "-o", text(&archive)]).succeeded();
    let unpacked = wharf.scratch().join("unpacked");
    fs_err::create_dir(&unpacked).unwrap();
    run(Command::new("tar").args(["-xf", text(&archive), "-C", text(&unpacked)])).succeeded();

    let index = layout::json(&store, &digest);
    let images = index["manifests"].as_array().unwrap().len();
    for layout in [&store, &layout, &unpacked] {
        let judged = schema(layout);
        assert!(!judged.stdout.contains("warning"), "{}", judged.report());
        let judged = judged.output();
        // The index, and of each image the manifest and the configuration.
        assert_eq!(judged.lines().count(), 1 + 2 * images, "{judged}");
        assert!(judged.contains(&digest), "{judged}");
    }
}

#[test]
fn the_image_specs_schemas_refuse_a_document_without_its_version() {
    let wharf = Wharf::new();
    let _ = wharf.build(project().path(), REFERENCE);
    let index = wharf.store().join("index.json");
    let document = fs_err::read_to_string(&index).unwrap();
    fs_err::write(&index, document.replace("\"schemaVersion\":2,", "")).unwrap();
    let judged = schema(&wharf.store()).exited(1);
    assert!(judged.stderr.contains("schemaVersion"), "{}", judged.report());
}

#[test]
fn containerd_1_7_imports_an_archive_with_all_platforms_and_runs_it_by_runc() {
    imports_and_runs(Generation::Trixie);
}

#[test]
fn containerd_2_1_imports_an_archive_with_all_platforms_and_runs_it_by_runc() {
    imports_and_runs(Generation::Forky);
}

fn imports_and_runs(generation: Generation) {
    let containerd = Containerd::start(generation);
    let (wharf, reference) = (Wharf::new(), "example.test/hello:1");
    let digest = wharf.build(project().path(), reference);
    let archive = wharf.scratch().join("hello.tar");
    wharf.run(&["save", reference, "-o", text(&archive)]).succeeded();
    containerd.ctr(&["images", "import", "--all-platforms", text(&archive)]).succeeded();
    let listed = containerd.ctr(&["images", "list"]).output();
    let ours = listed.lines().find(|line| line.starts_with(reference)).unwrap_or_default();
    assert!(ours.contains(&digest) && ours.contains("wasi/wasm"), "{listed}");

    let exported = wharf.scratch().join("exported");
    fs_err::create_dir(&exported).expect("a folder can be made");
    let tar = wharf.scratch().join("exported.tar");
    containerd.ctr(&["images", "export", "--all-platforms", text(&tar), reference]).succeeded();
    run(Command::new("tar").args(["-xf", text(&tar), "-C", text(&exported)])).succeeded();
    assert_eq!(layout::whole(&exported, &digest), layout::whole(&wharf.store(), &digest));

    // The engine's own runtime: no part of wharf but the image.
    let run = ["run", "--rm", "--runtime", "io.containerd.runc.v2", "--net-host", reference, "app"];
    let mut app = containerd.start_ctr("app", &run);
    let url = "http://127.0.0.1:8080/t%C3%A4glich/le%20caf%C3%A9.txt";
    let page = app.wait_until("it answered", |_| try_get(containerd.network(), url));
    assert_eq!((page.status, page.body.as_str()), (200, "not ASCII\n"));
    containerd.ctr(&["task", "kill", "--signal", "SIGTERM", "app"]).succeeded();
    assert_eq!(app.ended().0, Some(0), "{}", app.log());
}

/// Checks everything in an image's root: what is there and of what kind, whose
/// it is, its mode and time, and that the site is the project's.
#[track_caller]
fn check(rootfs: &Path, project: &Project) {
    let public = project.path().join("public");
    let site: BTreeSet<PathBuf> = files(&public);
    let mut missing = site.clone();
    for file in files(rootfs) {
        let path = rootfs.join(&file);
        let (of, shown) = (path.symlink_metadata().expect("the file is there"), file.display());
        assert!(of.is_file(), "/{shown} is no ordinary file");
        let mode = if file == Path::new("wharf-host") { 0o755 } else { 0o644 };
        assert_eq!(of.mode() & 0o7777, mode, "/{shown}");
        assert_eq!((of.uid(), of.gid(), of.mtime(), of.nlink()), (0, 0, 0, 1), "/{shown}");
        if let Ok(page) = file.strip_prefix("app/site") {
            // A precompressed page lies beside the page.
            let encoded = ["br", "gz", "zst"].into_iter().find(|end| page.extension() == Some(end.as_ref()));
            let known = site.contains(page) || encoded.is_some() && site.contains(&page.with_extension(""));
            assert!(known, "/{shown} is not of the site");
            if missing.remove(page) {
                let bytes = |path: &Path| fs_err::read(path).expect("the file can be read");
                assert_eq!(bytes(&path), bytes(&public.join(page)), "/{shown}");
            }
        } else {
            let known = ["wharf-host", "app/wharf.json", "app/workers", "app/aot"];
            assert!(known.iter().any(|known| file.starts_with(known)), "/{shown} is nothing of an app");
        }
    }
    assert!(missing.is_empty(), "not in the image: {missing:?}");
    for folder in ["app", "app/site", "app/site/täglich", "app/workers/api"] {
        let of = rootfs.join(folder).symlink_metadata().expect("the file is there");
        assert_eq!((of.mode() & 0o7777, of.uid(), of.gid()), (0o755, 0, 0), "/{folder}");
    }
}

/// Everything below `folder` that is no folder, as paths below it.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(here) = open.pop() {
        for entry in fs_err::read_dir(here).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.symlink_metadata().expect("the file is there").is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).expect("it lies below").to_owned());
            }
        }
    }
    found
}

fn schema(layout: &Path) -> Outcome {
    run(Command::new(testbed::oci_tool("oci-schema")).arg(layout))
}

#[track_caller]
fn copy(network: &impl Network, arguments: &[&str], from: &str, to: &str) {
    let plain = ["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(network, &[&plain, arguments, &[from, to]].concat()).succeeded();
}

fn skopeo(network: &impl Network, arguments: &[&str]) -> Outcome {
    run(network.command("skopeo".as_ref()).args(arguments))
}
