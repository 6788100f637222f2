//! The revision of a project, as its git repository has it.

use std::path::Path;
use std::process::{Command, Stdio};

/// Where a project comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The repository, without passwords; none if it is this machine's alone.
    pub repository: Option<String>,
    /// The commit: 40 or 64 hexadecimal digits.
    pub revision: String,
    /// Whether the project has changes that the commit hasn't.
    pub changed: bool,
}

impl Source {
    /// What git says of the folder. None without git, or outside a repository
    /// that has a commit.
    #[must_use]
    pub fn of(project: &Path) -> Option<Self> {
        let revision = git(project, &["rev-parse", "--verify", "HEAD"])?;
        let revision = revision.trim();
        let is_revision =
            matches!(revision.len(), 40 | 64) && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_revision {
            return None;
        }
        let remote = git(project, &["config", "--get", "remote.origin.url"]);
        Some(Self {
            repository: remote.as_deref().map(str::trim).and_then(repository),
            revision: revision.to_owned(),
            // If git can't tell, nobody should rely on the commit.
            changed: git(project, &["status", "--porcelain", "--", "."]).is_none_or(|text| !text.is_empty()),
        })
    }
}

fn git(project: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        // A repository can name a program that `git status` starts.
        .args(["-c", "core.fsmonitor=false"])
        .args(arguments)
        .current_dir(project)
        .env("LC_ALL", "C")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

/// The address of a remote as a URL. Of `https://user:token@host/path` the
/// middle is nobody's business; a path on this machine, too.
fn repository(remote: &str) -> Option<String> {
    if remote.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return None;
    }
    if let Some((scheme, rest)) = remote.split_once("://") {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let known = matches!(scheme, "https" | "http" | "ssh" | "git");
        return (known && !host.is_empty()).then(|| format!("git+{scheme}://{host}/{path}"));
    }
    // user@host:path
    let (host, path) = remote.split_once(':').filter(|(host, _)| !host.contains('/'))?;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    (!host.is_empty()).then(|| format!("git+ssh://{host}/{}", path.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_loses_its_password_and_a_path_of_this_machine_is_none() {
        for (remote, expected) in [
            ("https://git.example/a/b.git", Some("git+https://git.example/a/b.git")),
            ("https://user:secret@git.example/a", Some("git+https://git.example/a")),
            ("https://secret@git.example:8443/a@1", Some("git+https://git.example:8443/a@1")),
            ("git@git.example:a/b.git", Some("git+ssh://git.example/a/b.git")),
            ("ssh://git@git.example/a", Some("git+ssh://git.example/a")),
            ("file:///home/me/a", None),
            ("/home/me/a", None),
            ("../a", None),
            ("", None),
        ] {
            assert_eq!(repository(remote).as_deref(), expected, "{remote}");
        }
    }

    #[test]
    fn a_folder_outside_any_repository_has_no_source() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Source::of(folder.path()), None);
    }

    #[test]
    fn a_commit_is_named_and_a_change_since_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let run = |arguments: &[&str]| {
            let identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"];
            let mut command = Command::new("git");
            let output = command.args(identity).args(arguments).current_dir(folder.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        run(&["init", "--quiet"]);
        assert_eq!(Source::of(folder.path()), None, "there is no commit yet");
        fs_err::write(folder.path().join("a"), "1").unwrap();
        run(&["add", "a"]);
        run(&["commit", "--quiet", "--message", "a"]);
        run(&["remote", "add", "origin", "https://me:secret@git.example/a"]);
        let source = Source::of(folder.path()).unwrap();
        assert_eq!(source.repository.as_deref(), Some("git+https://git.example/a"));
        assert_eq!((source.revision.len(), source.changed), (40, false));
        fs_err::write(folder.path().join("a"), "2").unwrap();
        assert!(Source::of(folder.path()).unwrap().changed);
    }
}
