//! `wharf runtimes`: what it installs by the user's own tools, and what a project keeps of it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use wharf_tests::network::Host;
use wharf_tests::process::{Outcome, run};
use wharf_tests::project::Project;
use wharf_tests::wharf::{Wharf, text};

/// `wharf runtimes` in the folder `project`, with a folder for them that is its own.
fn runtimes(wharf: &Wharf, project: &Path, arguments: &[&str]) -> Outcome {
    let mut command: Command = wharf.command(&Host, &[&["runtimes"], arguments].concat());
    command.current_dir(project).env("WHARF_RUNTIMES", wharf.scratch().join("runtimes"));
    run(&mut command)
}

#[track_caller]
fn ruby(wharf: &Wharf, project: &Path) -> Value {
    let listed = runtimes(wharf, project, &["list", "--json"]).output();
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let mut rows = listed.as_array().expect("a list").iter();
    rows.find(|row| row["name"] == "ruby").expect("a row of Ruby").clone()
}

#[test]
fn a_toolchain_is_installed_pinned_listed_and_removed() {
    let project = Project::empty().with("index.rb", "def worker(request) = Response.new(\"hello\")\n");
    let wharf = Wharf::new();
    let missing = ruby(&wharf, project.path());
    assert_eq!(missing["path"], Value::Null);
    assert_eq!(missing["install"], "wharf runtimes install ruby");

    let refused = runtimes(&wharf, project.path(), &["install", "ruby", "0.0.1"]).refusal();
    assert!(refused.contains("cannot install @ruby/4.0-wasm-wasi 0.0.1"), "{refused}");
    assert!(!project.path().join("wharf.lock").exists());
    runtimes(&wharf, project.path(), &["install", "ruby", "latest"]).succeeded();
    let installed = ruby(&wharf, project.path());
    let path = installed["path"].as_str().expect("a path");
    assert!(path.starts_with(text(wharf.scratch())), "{installed}");
    let lock = fs_err::read_to_string(project.path().join("wharf.lock")).unwrap();
    let version = installed["version"].as_str().expect("a version");
    assert!(lock.contains(version), "{version}: {lock}");

    runtimes(&wharf, project.path(), &["remove", "ruby"]).succeeded();
    let removed = ruby(&wharf, project.path());
    assert_eq!(removed["path"], Value::Null);
    assert_eq!(removed["install"], format!("wharf runtimes install ruby {version}"), "the project's own");
}
