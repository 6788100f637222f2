use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};
use wharf_app::{BuiltApp, Project, Sha256, Workshop};

use super::*;
use crate::package::{Licence, Package};

/// A custom section of WebAssembly, of less than 128 bytes or of any length.
fn section(name: &str, content: &[u8]) -> Vec<u8> {
    let body = [&leb(name.len()), name.as_bytes(), content].concat();
    [&[0][..], &leb(body.len()), &body].concat()
}

/// LEB128, as lengths are written.
fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn text(text: &str) -> Vec<u8> {
    [&leb(text.len()), text.as_bytes()].concat()
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn producers() -> Vec<u8> {
    let field = |name: &str, values: &[(&str, &str)]| {
        let values = values.iter().map(|(name, version)| [text(name), text(version)].concat());
        [text(name), leb(values.len()), values.collect::<Vec<_>>().concat()].concat()
    };
    let fields = [field("language", &[("Rust", "")]), field("processed-by", &[("rustc", "1.95.0")])];
    section("producers", &[leb(2), fields.concat()].concat())
}

fn crates() -> Value {
    json!({"packages": [
        {"name": "worker", "version": "0.1.0", "source": "local", "dependencies": [1, 2, 99], "root": true},
        {"name": "serde", "version": "1.0.0", "source": "crates.io"},
        {"name": "cc", "version": "1.2.0", "source": "crates.io", "kind": "build"}
    ]})
}

/// A component that answers HTTP, by its name, with a module in it that has
/// these sections.
fn component(sections: &[Vec<u8>]) -> Vec<u8> {
    let module = [b"\0asm\x01\0\0\0".as_slice(), &sections.concat()].concat();
    let module = [&[1][..], &leb(module.len()), &module].concat();
    // An instance of no exports, exported (component model, Binary.md).
    let name = text("wasi:http/incoming-handler@0.2.0");
    let export = [&[1, 0][..], &name, &[5, 0, 0]].concat();
    let exported = [&[5, 3, 1, 1, 0, 11][..], &leb(export.len()), &export].concat();
    [b"\0asm\x0d\0\x01\0".as_slice(), &module, &exported].concat()
}

fn wheel(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

const METADATA: &[u8] =
    b"Metadata-Version: 2.4\nName: Zope.Interface_x\nVersion: 7.1+local\nLicense-Expression: MIT\n\nName: no\n";

fn project(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Project) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }
    let project = Project::open(folder.path()).unwrap();
    (folder, project)
}

fn built(project: &Project) -> BuiltApp {
    let workshop = Workshop::new("/nonexistent".into(), "/nonexistent".into());
    BuiltApp::build(project, &workshop, &|_| {}).unwrap()
}

/// The SBOM and the provenance of a project with these files.
fn documents(files: &[(&str, &[u8])]) -> (Vec<u8>, Vec<u8>) {
    let (_folder, project) = project(files);
    let app = built(&project);
    let hosts = [NativeHost { platform: "linux/amd64".into(), sha256: Sha256::of(b"host") }];
    let inputs = Inputs {
        project: &project,
        app: &app,
        image: Sha256::of(b"index"),
        hosts: &hosts,
        version: "1.2.3",
        created: None,
    };
    let source =
        Source { repository: Some("https://git.test/a".into()), revision: "0".repeat(40), changed: true };
    let parameters = Parameters {
        app: "app".into(),
        platforms: vec!["linux/amd64".into(), "wasi/wasm".into()],
        compression: "zstd",
        single_platform: false,
        precompress: true,
        annotations: [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into(),
        labels: [("c".to_owned(), "3".to_owned())].into(),
        sbom: true,
    };
    let told = Provenance { parameters: &parameters, source: Some(&source) };
    (cyclonedx(&inputs), provenance(&inputs, &told))
}

fn bom(files: &[(&str, &[u8])]) -> Value {
    serde_json::from_slice(&documents(files).0).unwrap()
}

fn references(bom: &Value) -> BTreeSet<&str> {
    let components = bom["components"].as_array().unwrap();
    components.iter().map(|component| component["bom-ref"].as_str().unwrap()).collect()
}

fn component_of<'a>(bom: &'a Value, reference: &str) -> &'a Value {
    let mut components = bom["components"].as_array().unwrap().iter();
    components.find(|component| component["bom-ref"] == reference).unwrap()
}

fn needs<'a>(bom: &'a Value, reference: &str) -> &'a Value {
    let mut dependencies = bom["dependencies"].as_array().unwrap().iter();
    &dependencies.find(|dependency| dependency["ref"] == reference).unwrap()["dependsOn"]
}

#[test]
fn packages_of_a_site_are_found_each_once() {
    let lock = json!({"packages": {
        "numpy": {"name": "numpy", "version": "2.0", "file_name": "numpy.zip"},
        "absent": {"name": "absent", "version": "1", "file_name": "absent.zip"}
    }});
    let licences = json!({"packages": [
        {"name": "react", "versionInfo": "18.3.1", "licenseId": "MIT"}, {"name": "nameless"}
    ]});
    let wheel = wheel(&[("zope/x.py", b""), ("zope-7.1.dist-info/METADATA", METADATA)]);
    let bom = bom(&[
        ("public/index.html", b"<p>"),
        ("public/a/package.json", br#"{"name": "@scope/pkg", "version": "1.0.0", "license": "ISC"}"#),
        ("public/b/package.json", br#"{"name": "@scope/pkg", "version": "1.0.0"}"#),
        ("public/c/package.json", br#"{"type": "module"}"#),
        ("public/py/zope-7.1-py3-none-any.whl", &wheel),
        ("public/py/pyodide-lock.json", lock.to_string().as_bytes()),
        ("public/py/numpy.zip", b"zip"),
        ("public/third-party-licenses.json", licences.to_string().as_bytes()),
        ("public/y-1.dist-info/METADATA", b"Name: y\nVersion: 1\nLicense: BSD\n\n"),
    ]);
    let expected = [
        "pkg:npm/%40scope/pkg@1.0.0",
        "pkg:npm/react@18.3.1",
        "pkg:pypi/numpy@2.0",
        "pkg:pypi/y@1",
        "pkg:pypi/zope-interface-x@7.1%2Blocal",
        "wharf-host:linux/amd64",
    ];
    assert_eq!(references(&bom), expected.into());
    assert_eq!(needs(&bom, "app"), &json!(expected));
    let zope = component_of(&bom, "pkg:pypi/zope-interface-x@7.1%2Blocal");
    assert_eq!(zope["licenses"], json!([{"expression": "MIT"}]));
    assert_eq!(zope["hashes"][0]["content"], Sha256::of(&wheel).to_string());
    assert_eq!(zope["name"], "Zope.Interface_x");
    let scoped = component_of(&bom, "pkg:npm/%40scope/pkg@1.0.0");
    assert_eq!(scoped["licenses"], json!([{"license": {"name": "ISC"}}]));
    assert_eq!(component_of(&bom, "wharf-host:linux/amd64")["version"], "1.2.3");
}

#[test]
fn a_component_tells_its_crates_and_its_compilers() {
    let wasm = component(&[producers(), section(".dep-v0", &zlib(crates().to_string().as_bytes()))]);
    let bom = bom(&[("api.wasm", &wasm)]);
    let worker = "worker:workers/api.wasm";
    assert_eq!(component_of(&bom, worker)["hashes"][0]["content"], Sha256::of(&wasm).to_string());
    assert_eq!(
        component_of(&bom, worker)["properties"],
        json!([
            {"name": "dev.wharf.wasm.producers.language", "value": "Rust"},
            {"name": "dev.wharf.wasm.producers.processed-by", "value": "rustc 1.95.0"}
        ])
    );
    let root = "pkg:cargo/worker@0.1.0?source=local";
    assert_eq!(needs(&bom, worker), &json!([root]));
    assert_eq!(needs(&bom, root), &json!(["pkg:cargo/cc@1.2.0", "pkg:cargo/serde@1.0.0"]));
    assert_eq!(component_of(&bom, "pkg:cargo/cc@1.2.0")["scope"], "excluded");
}

#[test]
fn hostile_files_are_left_out() {
    let bomb = zlib(&vec![b' '; 17 << 20]);
    let damaged = crates().to_string().replace("\"0.1.0\"", "\"a b\"");
    let large = wheel(&[("x-1.dist-info/METADATA", &vec![b'x'; 5 << 20])]);
    for wasm in [
        component(&[section(".dep-v0", &bomb)]),
        component(&[section(".dep-v0", b"no zlib")]),
        component(&[section(".dep-v0", &zlib(damaged.as_bytes()))]),
        component(&[section(".dep-v0", &zlib(b"[]"))]),
        component(&[section("producers", &[0xff; 9])]),
    ] {
        let bom = bom(&[
            ("api.wasm", &wasm),
            ("public/a.whl", b"no zip"),
            ("public/b.whl", &large),
            ("public/c.whl", &wheel(&[("deep/x.dist-info/METADATA", METADATA)])),
            ("public/a/package.json", b"{"),
            ("public/b/package.json", br#"{"name": "a\nb", "version": "1"}"#),
            ("public/c/package.json", br#"{"name": "/", "version": "1"}"#),
            ("public/pyodide-lock.json", b"[]"),
            ("public/third-party-licenses.json", b"1"),
            ("public/x.dist-info/METADATA", b"\xff\xfe"),
        ]);
        assert_eq!(references(&bom), ["worker:workers/api.wasm", "wharf-host:linux/amd64"].into());
    }
}

#[test]
fn of_a_truncated_component_what_is_lost_is_left_out() {
    let mut truncated = component(&[producers(), producers()]);
    let whole = wasm::contents(&truncated);
    truncated.truncate(truncated.len() - 60);
    assert_eq!(wasm::contents(&truncated), whole, "of two equal sections one is left");
    truncated.truncate(24);
    assert_eq!(wasm::contents(&truncated), wasm::Contents::default());
}

#[test]
fn the_same_project_in_another_folder_has_the_same_documents() {
    let wasm = component(&[producers()]);
    let files: [(&str, &[u8]); 2] = [("api.wasm", &wasm), ("public/index.html", b"<p>")];
    let (first, second) = (documents(&files), documents(&files));
    assert_eq!(first, second);
    let other = documents(&[("public/index.html", b"<p>")]);
    let serial = |document: &[u8]| {
        let bom: Value = serde_json::from_slice(document).unwrap();
        bom["serialNumber"].as_str().unwrap().to_owned()
    };
    assert_ne!(serial(&first.0), serial(&other.0));
    let uuid = serial(&first.0);
    let parts: Vec<usize> = uuid.strip_prefix("urn:uuid:").unwrap().split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12], "{uuid}");
    assert_eq!(&uuid[23..24], "8", "{uuid}");
}

#[test]
fn the_provenance_names_image_platforms_and_sources() {
    let statement: Value = serde_json::from_slice(&documents(&[("public/index.html", b"<p>")]).1).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(
        statement["subject"],
        json!([{"name": "app", "digest": {"sha256": Sha256::of(b"index").to_string()}}])
    );
    let definition = &statement["predicate"]["buildDefinition"];
    assert_eq!(definition["buildType"], BUILD_TYPE);
    assert_eq!(
        definition["externalParameters"],
        json!({
            "app": "app",
            "platforms": ["linux/amd64", "wasi/wasm"],
            "compression": "zstd",
            "singlePlatform": false,
            "precompress": true,
            "annotations": {"a": "1", "b": "2"},
            "labels": {"c": "3"},
            "sbom": true
        })
    );
    assert_eq!(
        definition["resolvedDependencies"],
        json!([
            {
                "uri": "git+https://git.test/a",
                "digest": {"gitCommit": "0".repeat(40)},
                "annotations": {"dev.wharf.changed": "true"}
            },
            {
                "name": "wharf-host",
                "digest": {"sha256": Sha256::of(b"host").to_string()},
                "annotations": {"dev.wharf.platform": "linux/amd64"}
            }
        ])
    );
    assert_eq!(statement["predicate"]["runDetails"]["builder"]["id"], BUILDER);
    assert!(statement["predicate"]["runDetails"].get("metadata").is_none());
}

#[test]
fn packages_beside_python_sources_are_found_and_those_of_others_are_not() {
    let (folder, _project) = project(&[
        ("index.py", b"def worker(request): pass"),
        ("zope-7.1.dist-info/METADATA", METADATA),
        ("_vendor/y-1.dist-info/METADATA", b"Name: y\nVersion: 1\n"),
        (".venv/z-1.dist-info/METADATA", b"Name: z\nVersion: 1\n"),
        ("node_modules/z-1.dist-info/METADATA", b"Name: z\nVersion: 1\n"),
        ("public/z-1.dist-info/METADATA", b"Name: z\nVersion: 1\n"),
    ]);
    let purls: Vec<String> =
        python::vendored(folder.path()).into_iter().map(|package| package.purl).collect();
    assert_eq!(purls, ["pkg:pypi/y@1", "pkg:pypi/zope-interface-x@7.1%2Blocal"]);
}

#[test]
fn what_is_no_package_has_no_url_and_a_whole_licence_is_no_name() {
    assert_eq!(Package::pypi("", "1"), None);
    assert_eq!(Package::pypi("a", "1 2"), None);
    assert_eq!(Package::npm("@scope/", "1"), None);
    assert_eq!(Package::npm(&"a".repeat(300), "1"), None);
    assert_eq!(Package::npm("a?b#c", "1").unwrap().purl, "pkg:npm/a%3Fb%23c@1");
    assert_eq!(Licence::name(&"x".repeat(300)), None);
    assert_eq!(Licence::name("UNKNOWN"), None);
    assert!(python::installed(Path::new("/nonexistent")).is_none());
}

#[test]
fn what_workers_can_import_is_found_by_npms_and_bundlers_own_lists() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    };
    assert!(npm::installed(folder.path()).is_empty() && ruby::vendored(folder.path()).is_empty());
    let list = json!({"lockfileVersion": 3, "packages": {
        "node_modules/hono": {"version": "4.6.0", "license": "MIT"},
        "node_modules/a/node_modules/@b/c": {"version": "1.0.0"},
        "node_modules/typescript": {"version": "5.0.0", "dev": true},
        "node_modules/linked": {"link": true}
    }});
    write("node_modules/.package-lock.json", &list.to_string());
    let packages = npm::installed(folder.path());
    let urls: Vec<&str> = packages.iter().map(|package| package.purl.as_str()).collect();
    assert_eq!(urls, ["pkg:npm/%40b/c@1.0.0", "pkg:npm/hono@4.6.0"]);
    assert_eq!(packages[1].licence, Some(Licence::Name("MIT".into())));

    let stub =
        "# -*- encoding: utf-8 -*-\n# stub: rack 3.1.8 ruby lib\n\nGem::Specification.new do |s|\nend\n";
    write("vendor/bundle/ruby/3.4.0/specifications/rack-3.1.8.gemspec", stub);
    write("vendor/bundle/ruby/3.4.0/gems/rack-3.1.8/rack.gemspec", stub);
    write("vendor/bundle/specifications/odd-1.gemspec", "Gem::Specification.new\n");
    let gems = ruby::vendored(folder.path());
    assert_eq!(gems.iter().map(|gem| gem.purl.as_str()).collect::<Vec<_>>(), ["pkg:gem/rack@3.1.8"]);
}
