//! Frameworks as their users know them, with sources that name nothing of wharf's:
//! tests/guests/frameworks.

use std::process::Command;

use serde_json::json;
use wharf_tests::fixture::{Tools, with_tools};
use wharf_tests::http::{get, request};
use wharf_tests::network::Host;
use wharf_tests::process::run;
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::{Server, Wharf, text};

use super::body;

macro_rules! source {
    ($name:literal) => {
        include_str!(concat!("../../guests/frameworks/", $name))
    };
}

/// What its application has beside `/hello/NAME`, `/json` and `/fail`.
#[derive(Clone, Copy, PartialEq)]
enum Has {
    Upload,
    Session,
    Stream,
}

/// Asks the application below `at` for all that it has.
#[track_caller]
fn answers(server: &Server, at: &str, has: &[Has]) {
    let hello = get(&Host, &server.at(&format!("{at}/hello/ada?q=%C3%A4")));
    assert_eq!(hello.json(), json!({"hello": "ada", "q": "ä"}), "{}", server.daemon.log());
    let json = ["-H", "content-type: application/json", "--data", r#"{"a":[1,"ä"]}"#];
    let echoed = request(&Host, &json, &server.at(&format!("{at}/json")));
    assert_eq!((echoed.status, echoed.json()), (201, json!({"a": [1, "ä"]})), "{at}");
    assert_eq!(get(&Host, &server.at(&format!("{at}/none"))).status, 404, "{at}");
    assert_eq!(get(&Host, &server.at(&format!("{at}/fail"))).status, 500, "{at}");
    let folder = tempfile::tempdir().expect("a folder can be made");
    if has.contains(&Has::Upload) {
        // Larger than what frameworks keep in memory before they ask for a temporary
        // file; and no UTF-8, which a reader of text would change in size.
        let file = folder.path().join("a b.bin");
        let bytes: Vec<u8> =
            (0..3_000_000_u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        fs_err::write(&file, bytes).expect("a file can be written");
        let form = ["-F", &format!("file=@{}", text(&file)), "-F", "word=hi"];
        let uploaded = request(&Host, &form, &server.at(&format!("{at}/upload")));
        assert_eq!(uploaded.body, "a b.bin 3000000 hi", "{at}: {}", server.daemon.log());
    }
    if has.contains(&Has::Session) {
        assert_eq!(body(server, &format!("{at}/session")), "nobody");
        let jar = folder.path().join("cookies");
        let with_cookies = ["-c", text(&jar), "-b", text(&jar)];
        let hello = request(&Host, &with_cookies, &server.at(&format!("{at}/hello/eve")));
        assert_eq!(hello.status, 200);
        let remembered = request(&Host, &with_cookies, &server.at(&format!("{at}/session")));
        assert_eq!(remembered.body, "eve");
    }
    if has.contains(&Has::Stream) {
        assert_eq!(body(server, &format!("{at}/stream")), "0;1;2;");
    }
}

#[track_caller]
fn logs(server: &Server, words: &[&str]) {
    let log = server.daemon.log();
    assert!(words.iter().all(|word| log.contains(word)), "{log}");
}

#[test]
fn flask_and_starlette() {
    let project = Project::empty()
        .with("requirements.txt", "flask\nstarlette\npython-multipart\n")
        .with("[...path].py", source!("flask.py"))
        .with("starlette/[...path].py", source!("starlette.py"));
    let wharf = with_tools(Wharf::new(), Tools::Python);
    let server = wharf.serve(text(project.path()));
    answers(&server, "/flask", &[Has::Upload, Has::Session, Has::Stream]);
    answers(&server, "/starlette", &[Has::Upload, Has::Stream]);
    logs(&server, &["asked to", "\"[...path].py\", line 36", "\"starlette/[...path].py\", line 32"]);
}

#[test]
fn hono_and_itty_router() {
    let packages = json!({"private": true, "dependencies": {"hono": "4.13.19", "itty-router": "6.0.0"}});
    let project = Project::empty()
        .with("package.json", packages.to_string())
        .with("[...path].ts", source!("hono.ts"))
        .with("itty/[...path].js", source!("itty.js"));
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(project.path());
    run(&mut npm).succeeded();
    let wharf = with_tools(Wharf::new(), Tools::JavaScript);
    let server = wharf.serve(text(project.path()));
    answers(&server, "/hono", &[Has::Upload, Has::Stream]);
    answers(&server, "/itty", &[]);
    logs(&server, &["asked to", "[...path].ts:22:9", "--> GET /hono/stream"]);
}

#[test]
fn sinatra() {
    let gems = testbed::part("gems/vendor", "gems.sh");
    let project = Project::empty().with("sinatra/config.ru", source!("sinatra.ru"));
    let copied = project.path().join("vendor");
    run(Command::new("cp").args(["-r", text(&gems), text(&copied)])).succeeded();
    let wharf = with_tools(Wharf::new(), Tools::Ruby);
    let server = wharf.serve(text(project.path()));
    answers(&server, "/sinatra", &[Has::Upload, Has::Session, Has::Stream]);
    logs(&server, &["asked to (ArgumentError)", "/sinatra/config.ru:31"]);
}

#[test]
fn axum() {
    let settings = "[workers.axum]\nroute = \"/axum/[...path]\"\n\
        component = \"_axum/target/wasm32-wasip2/release/axum-guest.wasm\"\n\
        build = { command = \"cargo build --locked --release --target wasm32-wasip2\", workdir = \"_axum\" }\n";
    let project = Project::empty()
        .with("_axum/Cargo.toml", source!("axum/Cargo.toml"))
        .with("_axum/Cargo.lock", source!("axum/Cargo.lock"))
        .with("_axum/src/main.rs", source!("axum/src/main.rs"))
        .with("wharf.toml", settings);
    let wharf = Wharf::new();
    let server =
        wharf.serve_by(text(project.path()), &[], |command| _ = testbed::with_wasm_toolchain(command));
    answers(&server, "/axum", &[Has::Stream]);
    logs(&server, &["asked to", "src/main.rs:36"]);
}
