//! A project that anyone may have written, built.

use std::error::Error;
use std::fs;

use wharf_app::{BuiltApp, Manifest, Project, Routes, Workshop};

/// Builds a project of these files: an app that reads as it was written, or a
/// reason that fits on a screen.
pub fn build(files: &[(&str, &[u8])]) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for (path, content) in files {
        let path = folder.path().join("project").join(path);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder can be made");
        fs::write(path, content).expect("a file can be written");
    }
    let project = match Project::open(&folder.path().join("project")) {
        Ok(project) => project,
        Err(error) => {
            let _ = error.hint();
            return check(&error);
        }
    };
    let workshop = Workshop::new(folder.path().join("cache"), folder.path().join("runtimes"));
    let built = match BuiltApp::build(&project, &workshop, &|_| {}) {
        Ok(built) => built,
        Err(error) => {
            let _ = error.hint();
            return check(&error);
        }
    };
    let written = built.manifest.to_json();
    // It may be longer than a host takes: that is a reason, too.
    let Ok(read) = Manifest::parse(&written) else { return };
    assert_eq!(read, built.manifest);
    let routes = Routes::new(&read).expect("routes that were built agree");
    assert!(!routes.lines(&read).is_empty());
    for path in ["/", "/docs", "/docs/", "/a/b/c", "//", "/_headers"] {
        let _ = routes.resolve(path);
    }
}

fn check(error: &dyn Error) {
    let mut cause = Some(error);
    while let Some(error) = cause {
        assert!(!error.to_string().is_empty());
        cause = error.source();
    }
}
