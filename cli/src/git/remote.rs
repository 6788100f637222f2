//! Projects in git repositories elsewhere: `https://…/repository.git#REF:FOLDER`,
//! as Docker writes build contexts.

use std::path::{Component, Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::LOCAL_VARIABLES;
use crate::places::Places;

/// What git may speak, file systems among it: never `ext`, which runs commands.
const PROTOCOLS: &str = "https:http:ssh:git:file";

/// What a URL of a repository begins with.
const SCHEMES: [&str; 5] = ["https://", "http://", "ssh://", "git://", "file://"];

/// A project in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    url: String,
    /// A branch, a tag or a commit's full id. Default: the repository's own branch.
    reference: Option<String>,
    /// The project's folder in it.
    folder: PathBuf,
}

/// A copy of a repository at one commit, which goes when this does.
pub(crate) struct Clone {
    root: TempDir,
    folder: PathBuf,
}

impl Remote {
    /// What `text` names, if it is a URL and no name of an image or folder.
    ///
    /// # Errors
    /// It is one, and what is behind `#` leads nowhere.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>> {
        let is_scp_like = text.starts_with("git@") && text.contains(':');
        if !is_scp_like && !SCHEMES.iter().any(|scheme| text.starts_with(scheme)) {
            return Ok(None);
        }
        let (url, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        let folder = PathBuf::from(folder.trim_matches('/'));
        let is_below = folder.components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(is_below, "cannot use the folder {folder:?} of {url}: expected one of the repository");
        ensure!(!reference.starts_with('-'), "{reference:?} is no branch, tag or commit");
        let reference = (!reference.is_empty()).then(|| reference.to_owned());
        Ok(Some(Self { url: url.to_owned(), reference, folder }))
    }

    /// Fetches the commit, and none of its history.
    ///
    /// # Errors
    /// There is no git, or it can't reach the repository or finds no such commit.
    pub(crate) fn fetch(&self) -> Result<Clone> {
        let root = tempfile::Builder::new().prefix("wharf-git-").tempdir();
        let root = root.context("cannot make a temporary folder")?;
        let failed = |output: &Output| {
            let words = String::from_utf8_lossy(&output.stderr);
            let reference = self.reference.as_deref().unwrap_or("its own branch");
            anyhow::anyhow!("git cannot fetch {reference} of {}\n{}", self.url, words.trim())
        };
        let run = |arguments: &[&str]| -> Result<Output> {
            git(root.path()).args(arguments).output().context("cannot run git; is it installed?")
        };
        for arguments in [&["init", "--quiet"][..], &["remote", "add", "origin", &self.url]] {
            let output = run(arguments)?;
            if !output.status.success() {
                return Err(failed(&output));
            }
        }
        // A branch, a tag and a commit alike.
        let wanted = self.reference.as_deref().unwrap_or("HEAD");
        let fetched = run(&["fetch", "--quiet", "--depth=1", "--no-tags", "origin", wanted])?;
        if !fetched.status.success() {
            return Err(failed(&fetched));
        }
        let checked_out = run(&["checkout", "--quiet", "--detach", "FETCH_HEAD"])?;
        if !checked_out.status.success() {
            return Err(failed(&checked_out));
        }
        let clone = Clone { folder: root.path().join(&self.folder), root };
        let inside = fs_err::canonicalize(&clone.folder)
            .and_then(|folder| Ok(folder.starts_with(fs_err::canonicalize(clone.root.path())?)));
        match inside {
            Ok(true) => {}
            Ok(false) | Err(_) => bail!("there is no folder {} in {}", self.folder.display(), self.url),
        }
        Ok(clone)
    }
}

impl Clone {
    /// The project's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Has npm install what a project of JavaScript needs, if the user trusts it: by its
    /// settings (`.npmrc`) and by packages from git, a project can run programs even
    /// without the packages' scripts.
    ///
    /// # Errors
    /// There is no npm, or it fails.
    pub(crate) fn install_packages(&self, places: &Places) -> Result<()> {
        let has = |name: &str| self.folder.join(name).exists();
        if !places.trusts_all() || !has("package.json") || has("node_modules") {
            return Ok(());
        }
        let install = if has("package-lock.json") { "ci" } else { "install" };
        let npm = Command::new("npm")
            .args([install, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .context("cannot run npm, which the project's package.json needs; is it installed?")?;
        ensure!(
            npm.status.success(),
            "npm {install} failed for the project's package.json\n{}",
            String::from_utf8_lossy(&npm.stderr).trim()
        );
        Ok(())
    }
}

fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(folder)
        .args(["-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false"])
        .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    for variable in LOCAL_VARIABLES {
        command.env_remove(variable);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, Option<String>, String)> {
        let remote = Remote::parse(text).unwrap()?;
        Some((remote.url, remote.reference, remote.folder.display().to_string()))
    }

    #[test]
    fn urls_of_repositories_are_told_from_images_and_folders() {
        let of = |url: &str, reference: Option<&str>, folder: &str| {
            Some((url.to_owned(), reference.map(ToOwned::to_owned), folder.to_owned()))
        };
        let url = "https://git.example/a/b.git";
        assert_eq!(parsed(url), of(url, None, ""));
        assert_eq!(parsed(&format!("{url}#main:examples/hello/")), of(url, Some("main"), "examples/hello"));
        assert_eq!(parsed(&format!("{url}#:sub")), of(url, None, "sub"));
        assert_eq!(parsed("git@git.example:a/b#v1"), of("git@git.example:a/b", Some("v1"), ""));
        for text in ["registry.example/a/b:1", "examples/hello", ".", "localhost:5000/a", "git"] {
            assert_eq!(parsed(text), None, "{text}");
        }
        for text in ["https://git.example/a#main:../..", "https://git.example/a#--upload-pack=x"] {
            assert!(Remote::parse(text).is_err(), "{text}");
        }
    }

    fn repository() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let run = |arguments: &[&str]| {
            let mut command = git(folder.path());
            command.args(["-c", "user.name=Test", "-c", "user.email=test@example.test"]).args(arguments);
            assert!(command.status().unwrap().success(), "{arguments:?}");
        };
        fs_err::create_dir_all(folder.path().join("app/public")).unwrap();
        let page = folder.path().join("app/public/index.html");
        run(&["init", "--quiet", "--initial-branch", "main"]);
        fs_err::write(&page, "one").unwrap();
        run(&["add", "."]);
        run(&["commit", "--quiet", "--message", "one"]);
        run(&["tag", "v1"]);
        fs_err::write(&page, "two").unwrap();
        run(&["commit", "--quiet", "--all", "--message", "two"]);
        folder
    }

    #[test]
    fn a_branch_and_a_tag_are_fetched_and_what_is_missing_is_said() {
        let repository = repository();
        let fetch = |fragment: &str| {
            let text = format!("file://{}#{fragment}", repository.path().display());
            Remote::parse(&text).unwrap().unwrap().fetch()
        };
        let page = |fragment: &str| {
            let clone = fetch(fragment).unwrap();
            fs_err::read_to_string(clone.folder().join("public/index.html")).unwrap()
        };
        assert_eq!(
            (page(":app"), page("v1:app"), page("main:app")),
            ("two".into(), "one".into(), "two".into())
        );
        let error = |fragment: &str| fetch(fragment).err().unwrap().to_string();
        assert!(error("v2:app").starts_with("git cannot fetch v2 of file://"), "{}", error("v2:app"));
        assert!(error(":none").starts_with("there is no folder none in"), "{}", error(":none"));
    }
}
