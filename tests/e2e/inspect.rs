//! `wharf inspect`: what an image says of itself; and `wharf prune`: what is no
//! longer needed.

use std::path::Path;

use serde_json::Value;
use wharf_tests::fixture::Busybox;
use wharf_tests::http::get;
use wharf_tests::layout;
use wharf_tests::network::Host;
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

const REFERENCE: &str = "example.test/app:1";

#[track_caller]
fn inspect(wharf: &Wharf, target: &str) -> Value {
    serde_json::from_str(&wharf.run(&["inspect", target, "--json"]).output()).unwrap()
}

#[test]
fn an_image_is_described_the_same_by_name_layout_and_archive() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let digest = wharf.build(project.path(), REFERENCE);
    let found = inspect(&wharf, REFERENCE);
    assert_eq!(found["digest"], digest);
    assert_eq!(found["mediaType"], "application/vnd.oci.image.index.v1+json");
    let index = layout::json(&wharf.store(), &digest);
    assert_eq!(found["annotations"], index["annotations"]);
    let manifests = index["manifests"].as_array().unwrap();
    let platforms = found["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), manifests.len());
    for (platform, manifest) in platforms.iter().zip(manifests) {
        assert_eq!(platform["digest"], manifest["digest"]);
        let manifest = layout::json(&wharf.store(), manifest["digest"].as_str().unwrap());
        let layers = platform["layers"].as_array().unwrap();
        assert_eq!(layers.len(), manifest["layers"].as_array().unwrap().len());
        for (layer, expected) in layers.iter().zip(manifest["layers"].as_array().unwrap()) {
            for key in ["digest", "size", "mediaType"] {
                assert_eq!(layer[key], expected[key]);
            }
            let blob = layout::blob(&wharf.store(), layer["digest"].as_str().unwrap());
            assert_eq!(layer["uncompressedSize"].as_u64().unwrap(), unpacked_size(&blob), "{layer}");
            assert!(layer["createdBy"].as_str().unwrap().starts_with("wharf build: "), "{layer}");
        }
    }
    let app = &found["app"];
    let routes: Value = serde_json::from_str(&wharf.run(&["routes", REFERENCE, "--json"]).output()).unwrap();
    assert_eq!(app["routes"], routes);
    let worker = &app["workers"][0];
    assert_eq!((&worker["name"], &worker["pattern"]), (&"api/hello".into(), &"/api/hello".into()));
    assert!(worker["limits"]["memory"].as_u64().unwrap() > 0, "{worker}");
    let names =
        |key: &str| worker[key].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>();
    assert!(names("imports").iter().any(|name| name.starts_with("wasi:http/types@0.2")), "{worker}");
    assert!(
        names("exports").iter().any(|name| name.starts_with("wasi:http/incoming-handler@0.2")),
        "{worker}"
    );

    let (archive, folder) = (wharf.scratch().join("app.tar"), wharf.scratch().join("layout"));
    wharf.run(&["save", REFERENCE, "-o", text(&archive)]).succeeded();
    assert_eq!(inspect(&wharf, text(&archive)), found);
    wharf.run(&["build", text(project.path()), "-t", REFERENCE, "-o", text(&folder)]).succeeded();
    assert_eq!(inspect(&wharf, text(&folder)), found);

    let shown = wharf.run(&["inspect", REFERENCE]).output();
    for text in
        [&digest, "linux/amd64", "wasi/wasm", "wharf build: site", "/api/hello", "wasi:http/types@0.2"]
    {
        assert!(shown.contains(text), "expected {text} in\n{shown}");
    }
}

/// By another decompressor than wharf's.
fn unpacked_size(blob: &Path) -> u64 {
    let mut gunzip = std::process::Command::new("sh");
    let output = gunzip.args(["-c", "gzip -dc \"$1\" | wc -c", "sh"]).arg(blob).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn an_image_by_another_tool_is_described_without_an_app() {
    let busybox = Busybox::make();
    let found = inspect(&Wharf::new(), text(&busybox.path()));
    assert_eq!(found["app"], Value::Null);
    let image = &found["platforms"][0];
    assert_eq!(image["platform"], "linux/amd64");
    assert_eq!(image["cmd"], serde_json::json!(["/bin/sh"]));
    assert!(image["layers"][0]["uncompressedSize"].as_u64() > image["layers"][0]["size"].as_u64(), "{image}");
    Wharf::new().run(&["inspect", text(&busybox.path())]).succeeded();
}

#[test]
fn what_is_no_image_is_refused() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let error = wharf.run(&["inspect", text(project.path())]).exited(1).refusal();
    assert!(error.contains("is a project folder"), "{error}");
    let error = wharf.run(&["inspect", "example.test/nothing:1"]).exited(1).refusal();
    assert!(error.contains("example.test/nothing:1"), "{error}");
}

#[track_caller]
fn prune(wharf: &Wharf, flags: &[&str]) -> Value {
    let arguments = [&["prune", "--json"], flags].concat();
    serde_json::from_str(&wharf.run(&arguments).output()).unwrap()
}

/// Bytes of all files below a folder but the lock.
fn bytes(folder: &Path) -> u64 {
    let entries = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.is_dir() {
            true => bytes(&path),
            false => path.metadata().unwrap().len(),
        })
        .sum()
}

#[test]
fn prune_removes_what_no_image_needs_and_says_how_much() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let kept = wharf.build(project.path(), REFERENCE);
    let blobs = layout::blobs(&wharf.store());
    let project = project.with("public/more.html", "more");
    let _ = wharf.build(project.path(), "example.test/app:2");
    let more = bytes(&wharf.store().join("blobs"));
    wharf.run(&["rm", "example.test/app:2"]).succeeded();

    let counted = prune(&wharf, &["--dry-run"]);
    assert_eq!(counted["dryRun"], true);
    assert_eq!(bytes(&wharf.store().join("blobs")), more, "only counted");
    let freed = prune(&wharf, &[]);
    assert_eq!(freed["store"], counted["store"]);
    assert_eq!(freed["store"]["bytes"].as_u64().unwrap(), more - bytes(&wharf.store().join("blobs")));
    assert!(freed["store"]["files"].as_u64().unwrap() >= 3, "layers, manifests, index: {freed}");
    assert!(freed["caches"]["files"].as_u64().unwrap() >= 1, "the record of a layer: {freed}");
    assert_eq!(layout::blobs(&wharf.store()), blobs);
    assert_eq!(prune(&wharf, &[])["bytes"], 0);
    // What is left is whole, and what went is made again.
    assert_eq!(wharf.run(&["inspect", REFERENCE, "--json"]).output().matches(&kept).count(), 1);
    let _ = wharf.build(project.path(), "example.test/app:2");
}

#[test]
fn prune_all_empties_the_caches_but_keeps_what_is_being_served() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let _ = wharf.build(project.path(), REFERENCE);
    let server = wharf.serve(REFERENCE);
    let cache = wharf.store().parent().unwrap().join("cache");
    assert_eq!(prune(&wharf, &[])["bytes"], 0, "all of it was used just now");

    let before = bytes(&cache);
    let freed = prune(&wharf, &["--all"]);
    assert_eq!(freed["caches"]["bytes"].as_u64().unwrap(), before - bytes(&cache));
    assert!(!cache.join("code").exists(), "machine code is gone");
    assert_eq!(get(&Host, &server.at("/")).status, 200);
    assert_eq!(get(&Host, &server.at("/api/hello")).json()["message"], "hello");
    drop(server);
    prune(&wharf, &["--all"]);
    assert!(!cache.join("unpacked").exists(), "nobody serves it any more");
    let server = wharf.serve(REFERENCE);
    assert_eq!(get(&Host, &server.at("/api/hello")).json()["message"], "hello");
}

#[test]
fn prune_beside_builds_breaks_none() {
    let (wharf, project) = (Wharf::new(), Project::hello());
    let builds: Vec<_> = (0..3)
        .map(|number| {
            let reference = format!("example.test/app:{number}");
            let arguments = ["build", text(project.path()), "-t", &reference];
            let mut command = wharf.command(&Host, &arguments);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for _ in 0..5 {
        prune(&wharf, &["--all"]);
    }
    for build in builds {
        let output = build.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for number in 0..3 {
        wharf.run(&["inspect", &format!("example.test/app:{number}")]).succeeded();
    }
}
