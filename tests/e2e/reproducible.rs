//! One project, built by other people on other machines: one digest.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;
use wharf_tests::layout;
use wharf_tests::process::run;
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::text;

const REFERENCE: &str = "example.test/app:1";
/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// Who builds, and how their machine is set up.
#[derive(Clone, Copy, Debug)]
struct Builder {
    user: u32,
    umask: &'static str,
    zone: &'static str,
    locale: &'static str,
    /// Whether it may use all processors that we may, or the first of them.
    all_cores: bool,
    /// Files are made last name first.
    backwards: bool,
    /// What the files' times are, in seconds since 1970.
    time: u64,
    /// The project's folder, below the builder's own.
    folder: &'static str,
    /// Everything lies in memory: another file system, another order of names.
    in_memory: bool,
}

const USUAL: Builder = Builder {
    user: 0,
    umask: "022",
    zone: "UTC",
    locale: "C.UTF-8",
    all_cores: false,
    backwards: false,
    time: 1_000_000_000,
    folder: "app",
    in_memory: false,
};

#[test]
fn other_users_umasks_zones_locales_orders_file_systems_and_cores_make_one_digest() {
    let project = Project::hello()
        .with("public/Zebra.html", "upper case sorts first in C, and last elsewhere")
        .with("public/ähnlich.html", "so does what is not ASCII")
        .with("public/many.txt", "text to compress, in more than one block of it\n".repeat(100_000))
        .with("public/a/b.html", "a folder, and a file that sorts before its slash")
        .with("public/a-b.html", "");
    let expected = USUAL.build(&project);
    let differing = [
        Builder { user: NOBODY, ..USUAL },
        Builder { umask: "077", ..USUAL },
        Builder { zone: "Pacific/Kiritimati", ..USUAL },
        Builder { locale: "tr_TR.UTF-8", ..USUAL },
        Builder { all_cores: true, ..USUAL },
        Builder { backwards: true, time: 1_700_000_000, ..USUAL },
        Builder { folder: "another folder/weiter östlich", ..USUAL },
        Builder { in_memory: true, ..USUAL },
        // All at once, and none of the defaults.
        Builder {
            user: NOBODY,
            umask: "077",
            zone: "America/St_Johns",
            locale: "de_DE.UTF-8",
            all_cores: true,
            backwards: true,
            time: 2_000_000_000,
            folder: "z",
            in_memory: true,
        },
    ];
    for builder in differing {
        assert_eq!(builder.build(&project), expected, "{builder:?}, unlike {USUAL:?}");
    }
}

#[test]
fn a_changed_byte_makes_another_digest() {
    let digest = |page: &str| USUAL.build(&Project::hello().with("public/page.html", page));
    assert_ne!(digest("one"), digest("two"));
}

impl Builder {
    /// Makes the project's files as this builder, then the image with an own
    /// home, store and cache: its digest.
    fn build(self, project: &Project) -> String {
        let home = Home::make(self);
        let prefix = home.install();
        let folder = home.path().join(self.folder);
        self.run(&home, "mkdir", &["-p", text(&folder)]);
        for file in self.files(project.path()) {
            let target = folder.join(&file);
            self.run(&home, "mkdir", &["-p", text(target.parent().expect("a file lies in a folder"))]);
            // Through a pipe: a file of the builder's own, with what its umask leaves.
            let copy = format!("cat > {}", quoted(&target));
            let source = project.path().join(&file);
            let mut command = self.command(&home, "sh", &["-c", &copy]);
            command.stdin(fs_err::File::open(source).expect("the file is there").into_parts().0);
            assert!(command.status().expect("the command can be run").success(), "cannot {copy}");
            self.run(&home, "touch", &["--date", &format!("@{}", self.time), text(&target)]);
            let made = target.metadata().expect("the file was made");
            let umask = u32::from_str_radix(self.umask, 8).expect("a umask is octal");
            assert_eq!((made.uid(), made.mode() & 0o777), (self.user, 0o666 & !umask));
        }
        let wharf = prefix.join("bin/wharf");
        let digest = self.run(&home, text(&wharf), &["build", text(&folder), "-t", REFERENCE]);
        let digest = digest.lines().last().expect("the digest is printed").to_owned();
        // The store too is the builder's, and it holds what was said.
        let store = home.path().join("store");
        assert_eq!(store.metadata().expect("the store was made").uid(), self.user);
        assert!(layout::whole(&store, &digest).len() > 4);
        digest
    }

    fn run(self, home: &Home, program: &str, arguments: &[&str]) -> String {
        run(&mut self.command(home, program, arguments)).output()
    }

    /// As taskset(1) lists them.
    fn processors(self) -> String {
        let status = fs_err::read_to_string("/proc/self/status").expect("Linux has /proc");
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let list = list.expect("the kernel says where we may run").trim();
        if self.all_cores { list.into() } else { list.split([',', '-']).next().unwrap_or(list).into() }
    }

    fn command(self, home: &Home, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        let (user, group) = (format!("--reuid={}", self.user), format!("--regid={}", self.user));
        let masked = format!("umask {}; exec \"$@\"", self.umask);
        command
            .args([&user, &group, "--clear-groups", "--", "taskset", "--cpu-list", &self.processors()])
            .args(["sh", "-c", &masked, "sh", program])
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home.path())
            .env("TZ", self.zone)
            .env("LC_ALL", self.locale)
            .env("WHARF_STORE", home.path().join("store"))
            .env("WHARF_CACHE", home.path().join("cache"))
            .current_dir(home.path());
        command
    }

    /// In the order in which this builder makes them.
    fn files(self, project: &Path) -> Vec<PathBuf> {
        let (mut files, mut open) = (Vec::new(), vec![project.to_owned()]);
        while let Some(folder) = open.pop() {
            for entry in fs_err::read_dir(folder).expect("the folder can be read") {
                let path = entry.expect("the folder can be read").path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    files.push(path.strip_prefix(project).expect("it lies below").to_owned());
                }
            }
        }
        files.sort();
        if self.backwards {
            files.reverse();
        }
        files
    }
}

/// A builder's own folder, which ends with the value.
struct Home {
    folder: TempDir,
    in_memory: bool,
}

impl Home {
    fn make(builder: Builder) -> Self {
        let folder = tempfile::Builder::new().prefix("wharf-home-").tempdir().expect("a folder can be made");
        let in_memory = builder.in_memory;
        if in_memory {
            let none: Option<&str> = None;
            mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), none)
                .expect("a tmpfs can be mounted");
        }
        chown(folder.path(), Some(builder.user), Some(builder.user)).expect("the folder can be given away");
        Self { folder, in_memory }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The binaries under test, where anybody may run them.
    fn install(&self) -> PathBuf {
        let prefix = self.path().join("prefix");
        for file in ["bin/wharf", "libexec/wharf"] {
            let (from, to) = (testbed::prefix().join(file), prefix.join(file));
            let parent = to.parent().expect("a program lies in a folder");
            fs_err::create_dir_all(parent).expect("a folder can be made");
            run(Command::new("cp").args(["-r", text(&from), text(&to)])).succeeded();
            for open in [&prefix, parent] {
                fs_err::set_permissions(open, PermissionsExt::from_mode(0o755)).expect("it can be opened");
            }
        }
        prefix
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.in_memory {
            let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
        }
    }
}

/// A path as a word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", text(path).replace('\'', "'\\''"))
}
