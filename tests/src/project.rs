//! Project folders: copies of the examples, and small ones made up.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::run;
use crate::testbed;

/// A project in a temporary folder.
#[derive(Debug)]
pub struct Project {
    folder: TempDir,
}

impl Project {
    /// An empty folder.
    ///
    /// # Panics
    /// If the folder can't be made.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            folder: tempfile::Builder::new()
                .prefix("wharf-project-")
                .tempdir()
                .expect("a folder can be made"),
        }
    }

    /// A copy of examples/hello: a page, and a worker at `/api/hello`.
    ///
    /// # Panics
    /// If its worker was not built.
    #[track_caller]
    #[must_use]
    pub fn hello() -> Self {
        Self::example("hello", &["public", "api"], "api/hello.wasm", "examples/hello/build.sh")
    }

    /// A copy of examples/python-wasm: JupyterLite, and a Python worker at `/`.
    ///
    /// # Panics
    /// If its site was not built.
    #[track_caller]
    #[must_use]
    pub fn python() -> Self {
        Self::example(
            "python-wasm",
            &["public", "index.py"],
            "public/dist/index.html",
            "examples/python-wasm/build-site.sh",
        )
    }

    /// A copy of all of `examples/NAME` that is kept in git.
    ///
    /// # Panics
    /// If there is no such example.
    #[track_caller]
    #[must_use]
    pub fn copied(name: &str) -> Self {
        let example = testbed::repository().join("examples").join(name);
        let listed = run(Command::new("git").arg("-C").arg(&example).args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
        ]));
        let project = Self::empty();
        for path in listed.output().lines() {
            copy(&example.join(path), &project.path().join(path));
        }
        project
    }

    fn example(name: &str, parts: &[&str], built: &str, script: &str) -> Self {
        let example = testbed::repository().join("examples").join(name);
        assert!(example.join(built).exists(), "cannot find {built} of the example: run {script}");
        let project = Self::empty();
        for part in parts {
            copy(&example.join(part), &project.path().join(part));
        }
        let settings = example.join("wharf.toml");
        if settings.exists() {
            copy(&settings, &project.path().join("wharf.toml"));
        }
        project
    }

    /// The same project with one more file.
    ///
    /// # Panics
    /// If the file can't be written.
    #[must_use]
    pub fn with(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let file = self.path().join(path);
        fs_err::create_dir_all(file.parent().expect("a file lies in a folder"))
            .expect("a folder can be made");
        fs_err::write(file, content).expect("a file can be written");
        self
    }

    /// The project's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn copy(from: &Path, to: &PathBuf) {
    if from.is_dir() {
        fs_err::create_dir_all(to).expect("a folder can be made");
        for entry in fs_err::read_dir(from).expect("the folder can be read") {
            let entry = entry.expect("the folder can be read");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs_err::create_dir_all(to.parent().expect("a file lies in a folder")).expect("a folder can be made");
        fs_err::copy(from, to).expect("the file can be copied");
    }
}
