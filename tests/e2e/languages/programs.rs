//! Programs that others make: by a command of the project, or in a registry.

use std::process::Command;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use wharf_tests::http::get;
use wharf_tests::network::{Host, Namespace, Network as _};
use wharf_tests::process::run;
use wharf_tests::project::Project;
use wharf_tests::registry::{ADDRESS, Registry};
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

use super::body;

/// The component of examples/hello.
fn hello() -> Vec<u8> {
    fs_err::read(testbed::repository().join("examples/hello/api/hello.wasm")).expect("the example is built")
}

#[test]
fn a_command_of_the_project_makes_a_worker_and_its_route_is_chosen() {
    let project = Project::empty().with("_src/hello.bin", hello()).with(
        "wharf.toml",
        "[workers.greeting]\nroute = \"/hello/[name]\"\ncomponent = \"out/hello.wasm\"\n\
         build = { command = \"mkdir -p ../out && cp hello.bin ../out/hello.wasm\", workdir = \"_src\" }\n",
    );
    let wharf = Wharf::new();
    let server = wharf.serve(text(project.path()));
    assert!(body(&server, "/hello/ada").contains("hello"));
    assert_eq!(get(&Host, &server.at("/greeting")).status, 404);
    fs_err::write(
        project.path().join("wharf.toml"),
        "[workers.x]\ncomponent = \"x.wasm\"\nbuild = \"echo no compiler >&2; exit 7\"\n",
    )
    .unwrap();
    let error = wharf.run(&["serve", text(project.path())]).refusal();
    assert!(error.contains("build command of worker \"x\" failed (exit status: 7)"), "{error}");
    assert!(error.contains("no compiler"), "{error}");
}

#[test]
fn assembly_script_by_npms_own_compiler_speaks_cgi() {
    let packages = json!({"private": true, "devDependencies": {
        "assemblyscript": "0.28.20", "@assemblyscript/wasi-shim": "0.1.0"
    }});
    let source = "const query = process.env.get(\"QUERY_STRING\");\n\
        process.stdout.write(\"content-type: text/plain\\r\\n\\r\\nhello \" + query + \"\\n\");\n";
    let build = "npm install --no-audit --no-fund --loglevel=error && npx asc hello.ts \
        --config node_modules/@assemblyscript/wasi-shim/asconfig.json -O -o hello.wasm";
    let project =
        Project::empty().with("_hello/package.json", packages.to_string()).with("_hello/hello.ts", source).with(
            "wharf.toml",
            format!("[workers.hello]\ncomponent = \"_hello/hello.wasm\"\nbuild = {{ command = \"{build}\", workdir = \"_hello\" }}\n"),
        );
    let wharf = Wharf::new();
    let server = wharf.serve(text(project.path()));
    assert_eq!(body(&server, "/hello?ada"), "hello ada\n");
}

#[test]
fn a_project_in_a_git_repository_is_served_and_runs_no_command_unasked() {
    let repository = Project::empty()
        .with("sites/a/public/index.html", "from git")
        .with("sites/b/_src/hello.bin", hello())
        .with(
            "sites/b/wharf.toml",
            "[workers.index]\ncomponent = \"x.wasm\"\nbuild = \"cp _src/hello.bin x.wasm\"\n",
        );
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(repository.path()).args(["-c", "user.name=T", "-c", "user.email=t@example.test"]);
        run(git.args(arguments)).succeeded();
    };
    git(&["init", "--quiet", "--initial-branch", "main"]);
    git(&["add", "--force", "."]);
    git(&["commit", "--quiet", "--message", "one"]);
    let wharf = Wharf::new();
    let url = format!("file://{}", text(repository.path()));
    let server = wharf.serve(&format!("{url}#main:sites/a"));
    assert_eq!(body(&server, "/"), "from git");
    let other = format!("{url}#:sites/b");
    let error = wharf.run(&["serve", &other]).refusal();
    assert!(error.contains("projects from elsewhere run none: cp _src/hello.bin x.wasm"), "{error}");
    assert!(error.contains("hint: read it, and if you trust it give --trust"), "{error}");
    let server = wharf.serve_with(&other, &["--trust"]);
    assert!(body(&server, "/").contains("hello"));
    let error = wharf.run(&["build", &format!("{url}#none"), "-t", "localhost/x"]).refusal();
    assert!(error.contains("git cannot fetch none of file://"), "{error}");
}

#[test]
fn a_component_in_a_registry_is_a_worker_and_its_digest_is_kept() {
    let network = Namespace::create();
    let _registry = Registry::start(&network);
    let folder = tempfile::tempdir().unwrap();
    let push = |wasm: &[u8], tag: &str| {
        // The layout of CNCF's Wasm artifacts (tag-runtime.cncf.io, "Wasm OCI Artifact layout").
        let layout = folder.path().join(tag);
        let blobs = layout.join("blobs/sha256");
        fs_err::create_dir_all(&blobs).unwrap();
        let blob = |kind: &str, content: &[u8]| {
            let hex = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            fs_err::write(blobs.join(&hex), content).unwrap();
            json!({ "mediaType": kind, "digest": format!("sha256:{hex}"), "size": content.len() })
        };
        let config = json!({ "created": "2026-01-01T00:00:00Z", "architecture": "wasm", "os": "wasip2" });
        let config = blob("application/vnd.wasm.config.v0+json", config.to_string().as_bytes());
        let layer = blob("application/wasm", wasm);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer] }).to_string();
        let manifest = blob(kind, manifest.as_bytes());
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        fs_err::write(layout.join("index.json"), index.to_string()).unwrap();
        fs_err::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
        let target = format!("docker://{}/component:{tag}", ADDRESS);
        let mut skopeo = network.command("skopeo".as_ref());
        skopeo.args([
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &format!("oci:{}", text(&layout)),
            &target,
        ]);
        run(&mut skopeo).succeeded();
    };
    push(&hello(), "1");
    let reference = format!("{}/component:1", ADDRESS);
    let project =
        Project::empty().with("wharf.toml", format!("[workers.index]\ncomponent = \"{reference}\"\n"));
    let wharf = Wharf::new();
    let build = |tag: &str| {
        let arguments = ["build", text(project.path()), "-t", tag];
        wharf.run_in(&network, &arguments)
    };
    let first = build("localhost/x:1").output();
    let lock = fs_err::read_to_string(project.path().join("wharf.lock")).unwrap();
    assert!(lock.contains(&reference) && lock.contains("sha256:"), "{lock}");
    // Another one of that name changes nothing, on this machine and on others.
    push(&fs_err::read(testbed::part("guests/probe.wasm", "guests.sh")).unwrap(), "1");
    assert_eq!(build("localhost/x:2").output(), first);
    let arguments = ["build", text(project.path()), "-t", "localhost/x:3"];
    assert_eq!(Wharf::new().run_in(&network, &arguments).output(), first);
    fs_err::write(
        project.path().join("wharf.toml"),
        format!("[workers.index]\ncomponent = \"{}/nothing:1\"\n", ADDRESS),
    )
    .unwrap();
    let error = build("localhost/x:4").refusal();
    assert!(error.contains("cannot fetch component") && error.contains("of worker \"index\""), "{error}");
}
