//! What git knows of a project: which commit it is, and where that is at home.
//!
//! The folder may be anybody's, so nothing that its repository configures may
//! run. Commands that git could be made to run, and what keeps each away:
//!
//! - a file system monitor and hooks: both are switched off on the command line;
//! - filters (`filter.NAME.clean`), which git runs over files to compare them:
//!   nothing is compared in a repository that configures one itself, or an
//!   extension of git-lfs (`lfs.extension.NAME.clean`), which git-lfs runs. Filters
//!   of the user's own settings, as git-lfs has them, are the user's;
//! - fetching objects that a partial clone lacks: no protocol is allowed;
//! - repositories within submodules: git is told not to look into them;
//! - a repository of another user, or a bare one among a project's files: git
//!   refuses the former by itself (`safe.directory`) and the latter when asked to.
//!
//! Whatever goes wrong, the answer is that git knows nothing: no build fails for it.

mod remote;

use std::ffi::{OsStr, OsString};
use std::path::{self, Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use url::Url;
use wharf_app::SITE_FOLDER;
use wharf_sbom::Source;

pub(crate) use self::remote::{Clone, Remote};

/// Appended to the revision of a folder that differs from it.
const DIRTY: &str = "-dirty";

/// Variables by which git, when it runs wharf from a hook, would be told of
/// another repository than the project's, or of its settings
/// (`git rev-parse --local-env-vars`).
const LOCAL_VARIABLES: [&str; 17] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// Where a project comes from, as far as git knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The address of the remote `origin`, for a browser.
    pub(crate) source: Option<String>,
    /// The commit's full id, with `-dirty` if the project's folder has changes
    /// or files that are neither in it nor ignored.
    pub(crate) revision: Option<String>,
}

impl Origin {
    /// The same for a provenance: none of a folder whose revision is not known.
    pub(crate) fn for_provenance(&self) -> Option<Source> {
        let revision = self.revision.as_deref()?;
        let commit = revision.strip_suffix(DIRTY);
        Some(Source {
            repository: self.source.clone(),
            revision: commit.unwrap_or(revision).to_owned(),
            changed: commit.is_some(),
        })
    }

    /// Asks git about `project`: nothing without git, outside of a work tree,
    /// and for a folder that the commit does not have. What is built into the
    /// layout `output` is no change of the project.
    pub(crate) fn of(project: &Path, output: Option<&Path>) -> Self {
        thread::scope(|scope| {
            let settings = scope.spawn(|| Settings::read(project));
            let commit = commit(project);
            let settings = settings.join().ok().flatten();
            let (Some(commit), Some(settings)) = (commit, settings) else { return Self::default() };
            Self {
                source: settings.origin.as_deref().and_then(web_address),
                revision: match settings.has_filters {
                    true => {
                        tracing::warn!("revision not recorded: the repository configures a filter");
                        None
                    }
                    false => {
                        is_clean(project, output).map(|clean| if clean { commit } else { commit + DIRTY })
                    }
                },
            }
        })
    }
}

/// What matters here of git's configuration.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    origin: Option<String>,
    /// Whether the repository itself has filters, or extensions of git-lfs's.
    has_filters: bool,
}

impl Settings {
    fn read(project: &Path) -> Option<Self> {
        let pattern = r"^(remote\.origin\.url|filter\..*|lfs\..*)$";
        let mut command = git(project, &["config", "--show-scope", "--null", "--get-regexp", pattern]);
        let output = command.output().ok()?;
        match output.status.code() {
            Some(0) => Self::parse(&String::from_utf8_lossy(&output.stdout)),
            // There are none of these settings.
            Some(1) => Some(Self::default()),
            _ => None,
        }
    }

    /// Reads `SCOPE NUL KEY NEWLINE VALUE NUL`, again and again.
    fn parse(text: &str) -> Option<Self> {
        let mut settings = Self::default();
        let mut parts = text.split_terminator('\0');
        while let Some(scope) = parts.next() {
            let (key, value) = parts.next()?.split_once('\n').unwrap_or_default();
            if key == "remote.origin.url" {
                settings.origin = Some(value.to_owned());
            } else if !matches!(scope, "system" | "global" | "command") {
                // git keeps the case of the middle part, and git-lfs ignores it.
                let key = key.to_ascii_lowercase();
                settings.has_filters |= key.starts_with("filter.") || key.starts_with("lfs.extension.");
            }
        }
        Some(settings)
    }
}

/// The commit's id, if the commit has the project's folder at all: not so a
/// folder that is ignored, or new.
fn commit(project: &Path) -> Option<String> {
    let output = git(project, &["rev-parse", "HEAD", "HEAD:./"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let id = text.lines().next()?;
    let is_id = matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    (output.status.success() && is_id).then(|| id.to_owned())
}

fn is_clean(project: &Path, output: Option<&Path>) -> Option<bool> {
    let arguments = [
        "status",
        "--porcelain",
        "--no-renames",
        "--untracked-files=normal",
        "--ignore-submodules=dirty",
        "--",
        ".",
    ];
    let mut command = git(project, &arguments);
    if let Some(output) = output.and_then(|output| below(project, output)) {
        let mut besides = OsString::from(":(exclude,literal)");
        besides.push(output);
        command.arg(besides);
    }
    let output = command.output().ok()?;
    output.status.success().then_some(output.stdout.is_empty())
}

/// Where `output` lies in the project, whether or not it is there yet. None
/// outside of it, and in its site: there it is a part of what is built.
fn below(project: &Path, output: &Path) -> Option<PathBuf> {
    let project = project.canonicalize().ok()?;
    let output = path::absolute(output).ok()?;
    let (there, real) = output.ancestors().find_map(|there| Some((there, there.canonicalize().ok()?)))?;
    let missing = output.strip_prefix(there).ok()?;
    if missing.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let below = real.join(missing).strip_prefix(project).ok()?.to_owned();
    (below != Path::new("") && !below.starts_with(SITE_FOLDER)).then_some(below)
}

fn git(project: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(project)
        // Empty, since older versions take `false` for the name of a program.
        .args(["-c", "core.fsmonitor="])
        .args(["-c", "core.hooksPath=/dev/null", "-c", "safe.bareRepository=explicit"])
        .args(arguments.iter().map(OsStr::new))
        .env("GIT_ALLOW_PROTOCOL", "none")
        .env("GIT_LITERAL_PATHSPECS", "0")
        .env("GIT_NO_LAZY_FETCH", "1")
        // The index is not refreshed on disk: a build changes nothing.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    for variable in LOCAL_VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// The address of a remote as a browser takes it, without user, password and
/// `.git`. None for what is no address but a folder of this machine.
fn web_address(remote: &str) -> Option<String> {
    let scp_like = remote.split_once(':').filter(|(host, path)| {
        !host.contains('/') && !path.starts_with("//") && !path.starts_with(':') && !host.is_empty()
    });
    let remote = match scp_like {
        Some((host, path)) => format!("ssh://{host}/{}", path.trim_start_matches('/')),
        None => remote.to_owned(),
    };
    let url = Url::parse(&remote).ok()?;
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let (scheme, port) = match url.scheme() {
        web @ ("http" | "https") => (web, url.port()),
        // Their ports answer no browser.
        "ssh" | "git" | "git+ssh" | "ssh+git" => ("https", None),
        _ => return None,
    };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    Some(format!("{scheme}://{host}{port}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with one commit, made with none of this machine's settings.
    struct Repository(tempfile::TempDir);

    impl Repository {
        fn new() -> Self {
            let repository = Self(tempfile::tempdir().unwrap());
            repository.git(&["init", "--quiet", "--initial-branch", "main"]);
            repository.write("app/public/index.html", "hello");
            repository.write("other/file", "other");
            repository.write(".gitignore", "ignored/\n");
            repository.git(&["add", "."]);
            repository.git(&["commit", "--quiet", "--message", "first"]);
            repository
        }

        fn project(&self) -> PathBuf {
            self.0.path().join("app")
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }

        fn git(&self, arguments: &[&str]) -> String {
            let output = Command::new("git")
                .current_dir(self.0.path())
                .args(["-c", "user.name=Test", "-c", "user.email=test@example.test"])
                .args(arguments)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("GIT_CONFIG_SYSTEM", "/dev/null")
                .output()
                .unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        }
    }

    #[test]
    fn a_clean_folder_has_the_revision_of_its_commit() {
        let repository = Repository::new();
        repository.git(&["remote", "add", "origin", "git@git.example.test:owner/repo.git"]);
        let head = repository.git(&["rev-parse", "HEAD"]);
        let expected = Origin {
            source: Some("https://git.example.test/owner/repo".into()),
            revision: Some(head.clone()),
        };
        assert_eq!(Origin::of(&repository.project(), None), expected);
        let source = Source { repository: expected.source.clone(), revision: head, changed: false };
        assert_eq!(expected.for_provenance(), Some(source));
        // What lies beside the project, and what is ignored, is not the project.
        repository.write("other/file", "changed");
        repository.write("app/ignored/file", "new");
        assert_eq!(Origin::of(&repository.project(), None), expected);
    }

    #[test]
    fn a_change_or_a_new_file_makes_the_revision_dirty() {
        let head = |repository: &Repository| repository.git(&["rev-parse", "HEAD"]);
        let dirty = |repository: &Repository| Some(format!("{}-dirty", head(repository)));
        let repository = Repository::new();
        repository.write("app/public/index.html", "hullo");
        let origin = Origin::of(&repository.project(), None);
        assert_eq!(origin.revision, dirty(&repository));
        let source = Source { repository: None, revision: head(&repository), changed: true };
        assert_eq!(origin.for_provenance(), Some(source));
        repository.write("app/public/index.html", "hello");
        assert_eq!(Origin::of(&repository.project(), None).revision, Some(head(&repository)), "touched only");
        repository.write("app/public/new.html", "new");
        assert_eq!(Origin::of(&repository.project(), None).revision, dirty(&repository));
        repository.git(&["add", "."]);
        assert_eq!(Origin::of(&repository.project(), None).revision, dirty(&repository));
    }

    #[test]
    fn the_layout_that_a_build_writes_to_is_no_change_of_the_project() {
        let repository = Repository::new();
        let head = Some(repository.git(&["rev-parse", "HEAD"]));
        let dirty = head.as_ref().map(|head| format!("{head}-dirty"));
        let project = repository.project();
        let revision = |output: &Path| Origin::of(&project, Some(output)).revision;
        for output in ["dist/o*t", "out"] {
            let folder = project.join(output);
            assert_eq!(revision(&folder), head, "{output} is not there yet");
            repository.write(&format!("app/{output}/index.json"), "{}");
            assert_eq!(revision(&folder), head, "{output}");
            // It is no pattern, and hides nothing beside it.
            repository.write("app/dist/out/index.json", "{}");
            assert_eq!(revision(&folder), dirty, "{output}");
            std::fs::remove_dir_all(project.join("dist")).unwrap();
        }
        assert_eq!(revision(&project.join("out")), head);
        assert_eq!(revision(&project.join("../app/out")), head);
        assert_eq!(revision(&project.join("out/below")), dirty);
        assert_eq!(revision(&repository.0.path().join("elsewhere")), dirty);
        // There it would be a part of the site.
        std::fs::rename(project.join("out"), project.join("public/out")).unwrap();
        assert_eq!(revision(&project.join("public/out")), dirty);
        // Nor does it hide the whole.
        assert_eq!(revision(&project), dirty);
    }

    #[test]
    fn a_folder_outside_of_a_commit_has_no_origin() {
        let outside = tempfile::tempdir().unwrap();
        assert_eq!(Origin::of(outside.path(), None), Origin::default());
        assert_eq!(Origin::of(&outside.path().join("missing"), None), Origin::default());
        let repository = Repository::new();
        for folder in ["ignored/app", "new"] {
            repository.write(&format!("{folder}/index.html"), "x");
            assert_eq!(Origin::of(&repository.0.path().join(folder), None), Origin::default(), "{folder}");
        }
        let empty = tempfile::tempdir().unwrap();
        assert!(Command::new("git").arg("init").arg("-q").arg(empty.path()).status().unwrap().success());
        assert_eq!(Origin::of(empty.path(), None), Origin::default(), "no commit yet");
    }

    /// Each would leave a file behind if git ran it.
    #[test]
    fn nothing_that_a_repository_configures_is_run() {
        let repository = Repository::new();
        let marker = repository.0.path().join(".git/ran");
        let program = repository.0.path().join(".git/program");
        let script = format!("#!/bin/sh\ntouch {}\ncat\n", marker.display());
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let program = program.to_str().unwrap();
        let head = repository.git(&["rev-parse", "HEAD"]);

        repository.git(&["config", "core.fsmonitor", program]);
        let hooks = repository.0.path().join(".git/hooks");
        std::fs::create_dir_all(&hooks).unwrap();
        std::fs::copy(program, hooks.join("post-index-change")).unwrap();
        // Of another time and the same size, so that git must look into it.
        repository.write("app/public/index.html", "hello");
        assert_eq!(Origin::of(&repository.project(), None).revision.as_ref(), Some(&head));
        assert!(!marker.exists(), "a file system monitor or hook was run");

        repository.write(".gitattributes", "* filter=evil\n");
        repository.git(&["config", "filter.evil.clean", program]);
        repository.write("app/public/index.html", "hullo");
        assert_eq!(Origin::of(&repository.project(), None), Origin::default());
        assert_eq!(Origin::default().for_provenance(), None);
        assert!(!marker.exists(), "a filter was run");

        // The same commands as another program gives them: they would be run.
        repository.git(&["status"]);
        assert!(marker.exists(), "the test shows nothing");
    }

    #[test]
    fn filters_of_the_user_are_none_of_the_repository() {
        let text =
            "global\0filter.lfs.clean\ngit-lfs clean -- %f\0local\0remote.origin.url\nhttps://a.test/b\0";
        let expected = Settings { origin: Some("https://a.test/b".into()), has_filters: false };
        assert_eq!(Settings::parse(text), Some(expected));
        for scope in ["local", "worktree", "unknown"] {
            for key in ["filter.x.process", "lfs.extension.x.clean", "lfs.Extension.x.clean"] {
                let text = format!("{scope}\0{key}\nrun\0");
                assert!(Settings::parse(&text).unwrap().has_filters, "{scope} {key}");
            }
            let text = format!("{scope}\0lfs.repositoryformatversion\n0\0");
            assert!(!Settings::parse(&text).unwrap().has_filters, "{scope}");
        }
    }

    #[test]
    fn an_extension_of_git_lfs_counts_as_a_filter() {
        let repository = Repository::new();
        repository.git(&["config", "lfs.repositoryFormatVersion", "0"]);
        assert!(Origin::of(&repository.project(), None).revision.is_some());
        repository.git(&["config", "lfs.extension.evil.clean", "evil"]);
        assert_eq!(Origin::of(&repository.project(), None).revision, None);
    }

    #[test]
    fn git_is_told_of_no_repository_but_the_projects() {
        let repository = Repository::new();
        let listed = repository.git(&["rev-parse", "--local-env-vars"]);
        for variable in listed.lines() {
            assert!(LOCAL_VARIABLES.contains(&variable), "{variable}");
        }
    }

    #[test]
    fn a_remote_becomes_an_address_without_credentials() {
        for (remote, expected) in [
            ("git@git.example.test:owner/repo.git", "https://git.example.test/owner/repo"),
            ("git.example.test:owner/repo", "https://git.example.test/owner/repo"),
            ("git@git.example.test:/owner/repo.git/", "https://git.example.test/owner/repo"),
            ("ssh://git@git.example.test:2222/owner/repo.git", "https://git.example.test/owner/repo"),
            ("git://git.example.test/repo.git", "https://git.example.test/repo"),
            ("https://user:secret@git.example.test/owner/repo.git", "https://git.example.test/owner/repo"),
            ("https://secret@git.example.test/owner/repo", "https://git.example.test/owner/repo"),
            ("https://git.example.test/repo?token=secret#x", "https://git.example.test/repo"),
            ("git@git.example.test:repo?token=secret#x", "https://git.example.test/repo"),
            ("http://127.0.0.1:3000/repo.git", "http://127.0.0.1:3000/repo"),
        ] {
            assert_eq!(web_address(remote).as_deref(), Some(expected), "{remote}");
        }
        for folder in
            ["/srv/git/repo.git", "../repo", "file:///srv/repo", "ext::sh -c touch% /tmp/x", "", ":", "a b"]
        {
            assert_eq!(web_address(folder), None, "{folder}");
        }
    }
}
