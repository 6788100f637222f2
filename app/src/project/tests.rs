use super::*;

fn project(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = folder.path().join(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, "").unwrap();
    }
    folder
}

#[test]
fn sources_outside_public_are_workers_and_private_names_are_not() {
    let folder = project(&[
        "public/index.html",
        "public/app.js",
        "public/.git/config",
        "public/.well-known/security.txt",
        "index.py",
        "api/[id].py",
        "api/hello.wasm",
        "_lib.py",
        "site/pages/__init__.py",
        "site/pages/views.py",
        "_worker/target/x.wasm",
        "node_modules/a/index.js",
        ".venv/x.py",
        "README.md",
    ]);
    let project = Project::open(folder.path()).unwrap();
    let site: Vec<&str> = project.site().iter().map(|file| file.path.as_str()).collect();
    assert_eq!(site, [".well-known/security.txt", "app.js", "index.html"]);
    let workers: Vec<String> =
        project.workers().iter().map(|w| format!("{} {}", w.pattern, w.name)).collect();
    assert_eq!(workers, ["/api/hello api/hello", "/api/[id] api/[id]", "/ index"]);
    assert_eq!(
        project.files(),
        [
            "README.md",
            "_lib.py",
            "api/[id].py",
            "api/hello.wasm",
            "index.py",
            "site/pages/__init__.py",
            "site/pages/views.py"
        ]
    );
}

#[test]
fn a_rule_without_meaning_is_said_with_its_file_and_line() {
    let folder = project(&["public/index.html"]);
    fs_err::write(folder.path().join("public/_redirects"), "/a /b\n/c /d Country=de\n").unwrap();
    let error = Project::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("public/_redirects, line 2: condition"), "{error}");
    assert!(error.hint().is_some());
    fs_err::remove_file(folder.path().join("public/_redirects")).unwrap();
    fs_err::write(folder.path().join("public/_headers"), "/*\n  Date: 1\n").unwrap();
    let error = Project::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("public/_headers, line 2: header \"date\""), "{error}");
}

#[test]
fn what_is_no_project_is_said_with_a_hint() {
    let folder = project(&["README.md"]);
    let empty = Project::open(folder.path()).unwrap_err();
    assert!(matches!(empty, ProjectError::Empty(_)));
    assert!(empty.hint().is_some());
    let missing = Project::open(&folder.path().join("no")).unwrap_err();
    assert!(matches!(missing, ProjectError::NoFolder(_)));
    let file = Project::open(&folder.path().join("README.md")).unwrap_err();
    assert!(matches!(file, ProjectError::NotAFolder(_)));
}

#[test]
fn what_workers_write_is_no_source() {
    let folder =
        project(&["index.py", "data/kv/kv.sqlite", "data/kv/x.py", "data2/x.py", "up/a.js", "up/b/c.txt"]);
    let settings = "[workers.index]\nkv = { default = \"./data/kv\", other = \"/data2\" }\n\
        mounts = [{ host = \"up\", guest = \"/up\", write = true }, { host = \".\", guest = \"/all\" }]\n";
    fs_err::write(folder.path().join("wharf.toml"), settings).unwrap();
    let project = Project::open(folder.path()).unwrap();
    let workers: Vec<&str> = project.workers().iter().map(|worker| worker.name.as_str()).collect();
    assert_eq!(workers, ["data2/x", "index"]);
    assert_eq!(project.files(), ["data2/x.py", "index.py", "wharf.toml"]);
}

#[test]
fn a_link_out_of_the_project_is_refused() {
    let folder = project(&["public/index.html"]);
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join("public/x")).unwrap();
    let error = Project::open(folder.path()).unwrap_err();
    assert!(matches!(error, ProjectError::EscapingLink { .. }), "{error}");
}

#[test]
fn a_rack_application_answers_for_its_folder() {
    let folder =
        project(&["api/config.ru", "api/app.rb", "api/lib/x.rb", "hello.rb", "vendor/bundle/gems/a/a.rb"]);
    let project = Project::open(folder.path()).unwrap();
    let workers: Vec<String> =
        project.workers().iter().map(|w| format!("{} {}", w.pattern, w.name)).collect();
    assert_eq!(workers, ["/hello hello", "/api/[...path] api/config"]);
}

#[test]
fn settings_for_a_worker_that_does_not_exist_are_refused() {
    let folder = project(&["index.py"]);
    fs_err::write(folder.path().join("wharf.toml"), "[workers.other]\ntimeout = \"1s\"").unwrap();
    let error = Project::open(folder.path()).unwrap_err();
    assert!(matches!(error, ProjectError::UnknownWorker { .. }), "{error}");
}
