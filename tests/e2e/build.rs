//! `wharf build`: what an image holds, that it is always the same, and what is refused.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use wharf_tests::fixture::{self, PYTHON, with_python};
use wharf_tests::http::get;
use wharf_tests::layout;
use wharf_tests::network::Host;
use wharf_tests::process::run;
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

const REFERENCE: &str = "example.test/app:1";

#[test]
fn an_index_holds_plain_linux_images_and_the_wasi_image_last() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let digest = wharf.build(project.path(), REFERENCE);
    let index = layout::json(&wharf.store(), &digest);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert!(index.get("artifactType").is_none(), "{index}");
    let manifests = index["manifests"].as_array().unwrap();
    let platform = |at: usize| {
        let platform = &manifests[at]["platform"];
        format!("{}/{}", platform["os"].as_str().unwrap(), platform["architecture"].as_str().unwrap())
    };
    assert_eq!(platform(0), "linux/amd64");
    assert_eq!(platform(manifests.len() - 1), "wasi/wasm");

    let layers = |at: usize| {
        let manifest = layout::json(&wharf.store(), manifests[at]["digest"].as_str().unwrap());
        assert!(manifest.get("artifactType").is_none(), "{manifest}");
        let layers = manifest["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (linux, wasi) = (layers(0), layers(manifests.len() - 1));
    assert!(linux.len() > wasi.len(), "the native layer is Linux's only");
    assert!(
        wasi.iter().all(|layer| linux.contains(layer)),
        "the app's layers are shared: {linux:?} {wasi:?}"
    );
}

#[test]
fn two_builds_in_two_folders_have_the_same_index_digest() {
    let digests = [(); 2].map(|()| Wharf::new().build(Project::hello().path(), REFERENCE));
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn layers_of_zstd_hold_the_same_and_are_the_same_each_time() {
    let project = Project::hello();
    let build = |flags: &[&str]| {
        let wharf = Wharf::new();
        let digest = wharf.run(&[&["build", text(project.path()), "-t", REFERENCE], flags].concat()).output();
        (wharf, digest)
    };
    let (gzip, _) = build(&[]);
    let (zstd, digest) = build(&["--zstd"]);
    assert_eq!(build(&["--zstd"]).1, digest);
    let parts = |wharf: &Wharf| {
        let index = layout::json(&wharf.store(), &wharf.digest(REFERENCE));
        let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let manifest = layout::json(&wharf.store(), &manifest);
        let config = layout::json(&wharf.store(), manifest["config"]["digest"].as_str().unwrap());
        (manifest["layers"].clone(), config["rootfs"]["diff_ids"].clone())
    };
    let ((layers, diff_ids), (_, expected)) = (parts(&zstd), parts(&gzip));
    assert_eq!(diff_ids, expected, "the same content");
    for layer in layers.as_array().unwrap() {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    }
    // The same store again, by gzip: the layers known as zstd are none of it.
    assert_eq!(zstd.build(project.path(), REFERENCE), gzip.digest(REFERENCE));

    zstd.run(&["build", text(project.path()), "-t", REFERENCE, "--zstd"]).succeeded();
    let server = zstd.serve(REFERENCE);
    assert_eq!(get(&Host, &server.at("/api/hello")).json()["message"], "hello");
    assert_eq!(get(&Host, &server.at("/")).status, 200);
}

#[test]
fn a_single_platform_is_a_plain_manifest_and_works_as_any_image() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let build = ["build", text(project.path()), "-t", REFERENCE, "--single-platform"];
    let digest = wharf.run(&build).output();
    let manifest = layout::json(&wharf.store(), &digest);
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(wharf.digest(REFERENCE), digest);
    let server = wharf.serve(REFERENCE);
    assert_eq!(get(&Host, &server.at("/api/hello")).json()["message"], "hello");

    let archive = wharf.scratch().join("app.tar");
    wharf.run(&["save", REFERENCE, "-o", text(&archive)]).succeeded();
    let other = Wharf::new();
    assert_eq!(other.run(&["load", text(&archive)]).output(), REFERENCE);
    assert_eq!(other.digest(REFERENCE), digest);
    assert!(other.run(&["routes", REFERENCE]).output().contains("/api/hello"));

    let wasi = wharf.run(&[&build[..], &["--platform", "wasi/wasm"]].concat()).output();
    assert_ne!(wasi, digest);
    let config = layout::json(&wharf.store(), &wasi)["config"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(layout::json(&wharf.store(), &config)["os"], "wasi");
    let _ = wharf.serve(REFERENCE);
}

#[test]
fn platforms_that_contradict_each_other_are_a_usage_error() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    for (flags, expected) in [
        (&["--platform", "linux/amd65"][..], "linux/amd64"),
        (&["--platform", "wasi/wasm", "--no-wasi"], "--no-wasi"),
        (&["--platform", "linux/amd64", "--platform", "wasi/wasm", "--single-platform"], "--single-platform"),
        (&["--label", "no-value"], "KEY=VALUE"),
    ] {
        let build = ["build", text(project.path()), "-t", REFERENCE];
        let error = wharf.run(&[&build[..], flags].concat()).exited(2).refusal();
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
    let digest = wharf.run(&["build", text(project.path()), "-t", REFERENCE, "--no-wasi"]).output();
    let index = layout::json(&wharf.store(), &digest);
    let manifests = index["manifests"].as_array().unwrap();
    assert!(manifests.iter().all(|manifest| manifest["platform"]["os"] == "linux"), "{index}");
}

#[test]
fn an_image_tells_where_it_comes_from_and_two_clones_give_the_same_one() {
    let project = Project::hello().with(
        "wharf.toml",
        "[image]\nversion = \"1.2\"\nlicenses = \"Apache-2.0\"\nlabels = { \"test.label\" = \"a\" }\n",
    );
    let git = |folder: &std::path::Path, arguments: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.arg("-C").arg(folder).args(["-c", "user.name=Test", "-c", "user.email=test@example.test"]);
        run(git.args(arguments)).output()
    };
    git(project.path(), &["init", "--quiet"]);
    git(project.path(), &["add", "--force", "."]);
    git(project.path(), &["commit", "--quiet", "--message", "first"]);
    let remote = "https://user:secret@git.example.test/owner/app.git";
    git(project.path(), &["remote", "add", "origin", remote]);
    let head = git(project.path(), &["rev-parse", "HEAD"]);

    let wharf = Wharf::new();
    let digest = wharf.build(project.path(), REFERENCE);
    let index = layout::json(&wharf.store(), &digest);
    let manifest = layout::json(&wharf.store(), index["manifests"][0]["digest"].as_str().unwrap());
    let config = layout::json(&wharf.store(), manifest["config"]["digest"].as_str().unwrap());
    let labels = &config["config"]["Labels"];
    for said in [&index["annotations"], &manifest["annotations"], labels] {
        for (key, value) in [
            ("title", "app"),
            ("version", "1.2"),
            ("licenses", "Apache-2.0"),
            ("source", "https://git.example.test/owner/app"),
            ("revision", head.as_str()),
        ] {
            assert_eq!(said[format!("org.opencontainers.image.{key}")], value, "{said}");
        }
    }
    assert_eq!(labels["test.label"], "a");

    let clone = wharf.scratch().join("clone");
    git(wharf.scratch(), &["clone", "--quiet", text(project.path()), text(&clone)]);
    git(&clone, &["remote", "set-url", "origin", "git@git.example.test:owner/app.git"]);
    assert_eq!(Wharf::new().build(&clone, REFERENCE), digest);

    let with = |flags: &[&str]| {
        let build = ["build", text(&clone), "-t", REFERENCE];
        let digest = wharf.run(&[&build[..], flags].concat()).output();
        layout::json(&wharf.store(), &digest)["annotations"].clone()
    };
    let revision = "org.opencontainers.image.revision";
    assert_eq!(with(&["--no-git"]).get(revision), None);
    assert_eq!(with(&["--annotation", &format!("{revision}=mine")])[revision], "mine");
    fs_err::write(clone.join("public/new.html"), "new").unwrap();
    assert_eq!(with(&[])[revision], format!("{head}-dirty"));
}

/// componentize-py alone gives other bytes each time: wharf keeps what it made
/// of the same sources.
#[test]
fn two_builds_of_a_python_worker_on_one_machine_have_the_same_index_digest() {
    let wharf = fixture::python();
    let digest = wharf.digest(PYTHON);
    assert_eq!(wharf.build(Project::python().path(), "127.0.0.1:5000/python-wasm:again"), digest);
}

#[test]
fn every_blob_of_a_store_is_what_its_name_says() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let _ = wharf.build(project.path(), REFERENCE);
    for (name, content) in layout::blobs(&wharf.store()) {
        assert_eq!(name, content);
    }
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    let error = refuse(&Wharf::new(), "/nowhere/to/be/found");
    assert!(error.contains("/nowhere/to/be/found"), "{error}");
}

#[test]
fn an_empty_project_is_refused_with_a_hint() {
    let project = Project::empty();
    let error = refuse(&Wharf::new(), text(project.path()));
    assert!(error.contains("hint: "), "{error}");
    assert!(error.contains("public"), "expected what a project holds: {error}");
}

#[test]
fn a_broken_wasm_file_is_named_and_nothing_is_half_written() {
    let project = Project::hello().with("api/broken.wasm", b"\0asm\x0d\0\x01\0 and no more of it");
    let error = refuse(&Wharf::new(), text(project.path()));
    assert!(error.contains("api/broken.wasm"), "{error}");
}

#[test]
fn a_python_syntax_error_is_shown_with_its_file_and_line() {
    let project =
        Project::empty().with("api/greet.py", "def worker(request):\n    x = 1\n    return Response(\n");
    let error = refuse(&with_python(Wharf::new()), text(project.path()));
    assert!(error.contains("api/greet.py"), "{error}");
    assert!(error.contains(":3") || error.contains("line 3"), "expected line 3: {error}");
}

#[test]
fn a_project_of_100_000_small_files_is_built_and_served() {
    let project = Project::empty();
    for folder in 0..100 {
        let folder = project.path().join(format!("public/{folder:02}"));
        fs_err::create_dir_all(&folder).unwrap();
        for file in 0..1000 {
            fs_err::write(folder.join(format!("{file:03}.txt")), format!("{file}\n")).unwrap();
        }
    }
    let wharf = Wharf::new();
    let built = wharf.run(&["build", text(project.path()), "-t", REFERENCE]);
    assert!(built.took < Duration::from_secs(120), "took {:?}", built.took);
    built.succeeded();
    let server = wharf.serve(REFERENCE);
    assert_eq!(get(&Host, &server.at("/99/999.txt")).body, "999\n");
}

#[test]
fn a_truncated_layer_is_refused_by_its_digest() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let index = wharf.build(project.path(), REFERENCE);
    let digest = layout::largest_layer(&wharf.store(), &index);
    layout::truncate(&wharf.store(), &digest);

    let archive = wharf.scratch().join("app.tar");
    let store = wharf.store();
    for command in [
        &["save", REFERENCE, "-o", text(&archive)][..],
        &["serve", REFERENCE, "--addr", "127.0.0.1:0"],
        &["serve", text(&store), "--addr", "127.0.0.1:0"],
    ] {
        let error = wharf.run(command).refusal();
        assert!(error.contains(&digest), "expected {digest} to be named by {command:?}: {error}");
    }
    assert!(!archive.exists(), "a half archive was left");
}

/// Refuses to build `project` and leaves nothing behind: its message.
#[track_caller]
fn refuse(wharf: &Wharf, project: &str) -> String {
    let layout = wharf.scratch().join("layout");
    let error = wharf.run(&["build", project, "-t", REFERENCE, "-o", text(&layout)]).refusal();
    assert!(!layout.exists(), "a half layout was left");
    let _ = wharf.run(&["build", project, "-t", REFERENCE]).refusal();
    let images = wharf.run(&["images"]).output();
    assert!(!images.contains("example.test/app"), "a half image was left: {images}");
    error
}

/// componentize-py asks the `python3` on PATH for its packages unless it is
/// kept from it: an image must not hold what its builder happens to have.
#[test]
fn packages_of_the_machine_that_builds_do_not_get_into_a_python_worker() {
    let wharf = with_python(Wharf::new());
    let packages = wharf.scratch().join("packages");
    let programs = wharf.scratch().join("programs");
    fs_err::create_dir_all(&packages).unwrap();
    fs_err::create_dir_all(&programs).unwrap();
    fs_err::write(packages.join("only_here.py"), "").unwrap();
    let python = programs.join("python3");
    fs_err::write(&python, format!("#!/bin/sh\necho {}\n", text(&packages))).unwrap();
    fs_err::set_permissions(&python, PermissionsExt::from_mode(0o755)).unwrap();
    let source = "import only_here\n\ndef worker(request):\n    return Response('')\n";
    let project = Project::empty().with("index.py", source);

    let mut build = wharf.command(&Host, &["build", text(project.path()), "-t", REFERENCE]);
    let path = std::env::var("PATH").unwrap();
    build.env("PATH", format!("{}:{path}", text(&programs)));
    let error = run(&mut build).exited(1).refusal();
    assert!(error.contains("no module named 'only_here'"), "{error}");
}
