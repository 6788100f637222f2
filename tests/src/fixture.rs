//! Images that tests start from.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Once};

use tempfile::TempDir;

use crate::network::Network;
use crate::process::run;
use crate::project::Project;
use crate::registry::ADDRESS;
use crate::testbed;
use crate::wharf::{Wharf, text};

/// The reference of [`python`]'s image.
pub const PYTHON: &str = "127.0.0.1:5000/python-wasm:1";

/// `wharf` with a store that holds examples/python-wasm as [`PYTHON`]: built
/// once, since a Python worker takes a while. Only read it.
///
/// # Panics
/// If it can't be built.
#[must_use]
pub fn python() -> Wharf {
    static DATA: LazyLock<(PathBuf, File)> = LazyLock::new(|| {
        // Not in a temporary folder: nothing drops a static. Another run of the
        // tests waits until this process, and with it the lock, has ended.
        let data = testbed::folder().join("python-image");
        let lock = File::create(data.with_extension("lock")).expect("the testbed can be written");
        lock.lock().expect("the image can be locked");
        if data.exists() {
            fs_err::remove_dir_all(&data).expect("the last run's image can be removed");
        }
        let wharf = with_python(Wharf::with_data(data.clone()));
        let _ = wharf.build(Project::python().path(), PYTHON);
        (data, lock)
    });
    Wharf::with_data(DATA.0.clone())
}

/// The toolchains that tests install.
#[derive(Clone, Copy, Debug)]
pub enum Tools {
    /// componentize-py.
    Python,
    /// componentize-js and esbuild.
    JavaScript,
    /// Go's own.
    Go,
    /// ruby.wasm.
    Ruby,
}

/// The same `wharf`, once the toolchain is installed.
#[must_use]
pub fn with_tools(wharf: Wharf, tools: Tools) -> Wharf {
    static INSTALLED: [Once; 4] = [const { Once::new() }; 4];
    let name = match tools {
        Tools::Python => "python",
        Tools::JavaScript => "javascript",
        Tools::Go => "go",
        Tools::Ruby => "ruby",
    };
    INSTALLED[tools as usize].call_once(|| wharf.run(&["runtimes", "install", name]).succeeded());
    wharf
}

/// The same `wharf`, once the toolchain for Python workers is installed.
#[must_use]
pub fn with_python(wharf: Wharf) -> Wharf {
    with_tools(wharf, Tools::Python)
}

/// Pushes [`python`]'s image to the registry of `network`.
#[track_caller]
pub fn push_python(network: &impl Network) {
    python().run_in(network, &["push", PYTHON]).succeeded();
}

/// Builds examples/hello and pushes it to the registry of `network`: its reference.
#[track_caller]
#[must_use]
pub fn push_hello(network: &impl Network) -> String {
    let reference = format!("{ADDRESS}/hello:1");
    let wharf = Wharf::new();
    let _ = wharf.build(Project::hello().path(), &reference);
    wharf.run_in(network, &["push", &reference]).succeeded();
    reference
}

/// Pushes an ordinary Linux image, busybox with `/bin/sh`, to the registry of
/// `network`: its reference. No part of wharf makes it.
///
/// # Panics
/// If that fails.
#[track_caller]
#[must_use]
pub fn push_busybox(network: &impl Network) -> String {
    let reference = format!("{ADDRESS}/busybox:1");
    let layout = Busybox::make();
    let source = format!("oci:{}:1", text(&layout.path()));
    let target = format!("docker://{reference}");
    let mut skopeo = network.command("skopeo".as_ref());
    run(skopeo.args(["copy", "--quiet", "--dest-tls-verify=false", &source, &target])).succeeded();
    reference
}

/// The reference of the image that holds a pod's namespaces.
pub const PAUSE: &str = "localhost/pause:local";

/// Writes the image [`PAUSE`], with tests/testbed/pause.c in it, as an archive.
///
/// # Panics
/// If that fails.
#[track_caller]
pub fn save_pause(archive: &Path) {
    let layout = Layout::make("pause", &["--config.entrypoint", "/bin/pause"], |programs| {
        fs_err::copy(testbed::cri("pause"), programs.join("pause")).expect("pause can be copied");
    });
    let source = format!("oci:{}:1", text(&layout.path()));
    let target = format!("docker-archive:{}:{PAUSE}", text(archive));
    run(Command::new("skopeo").args(["copy", "--quiet", &source, &target])).succeeded();
}

/// An OCI layout with an ordinary Linux image, busybox, made by umoci.
#[derive(Debug)]
pub struct Busybox(Layout);

impl Busybox {
    /// Makes it.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn make() -> Self {
        let settings = ["--config.cmd", "/bin/sh", "--config.env", "PATH=/bin"];
        Self(Layout::make("busybox", &settings, |programs| {
            let files = programs.with_file_name("etc");
            fs_err::create_dir(&files).expect("a folder can be made");
            fs_err::write(files.join("passwd"), "root:x:0:0:root:/:/bin/sh\n")
                .expect("a file can be written");
            let groups = "root:x:0:\ndaemon:x:1:\nbin:x:2:\nwheel:x:10:root\n";
            fs_err::write(files.join("group"), groups).expect("a file can be written");
            fs_err::copy("/bin/busybox", programs.join("busybox")).expect("busybox-static is installed");
            let applets = run(Command::new("/bin/busybox").arg("--list")).output();
            for applet in applets.lines().filter(|applet| *applet != "busybox") {
                fs_err::os::unix::fs::symlink("busybox", programs.join(applet)).expect("a link can be made");
            }
        }))
    }

    /// The layout's folder.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path()
    }
}

/// An OCI layout with one image, of programs in `/bin` and, if there are any, files
/// in `/etc`.
#[derive(Debug)]
struct Layout(TempDir);

impl Layout {
    fn make(name: &str, settings: &[&str], fill: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("wharf-{name}-")).tempdir();
        let made = Self(folder.expect("a folder can be made"));
        let programs = made.0.path().join("bin");
        fs_err::create_dir(&programs).expect("a folder can be made");
        fill(&programs);
        let layout = made.path();
        let image = format!("{}:1", text(&layout));
        let umoci = |arguments: &[&str]| run(Command::new("umoci").args(arguments)).succeeded();
        umoci(&["init", "--layout", text(&layout)]);
        umoci(&["new", "--image", &image]);
        umoci(&["insert", "--image", &image, text(&programs), "/bin"]);
        let files = programs.with_file_name("etc");
        if files.exists() {
            umoci(&["insert", "--image", &image, text(&files), "/etc"]);
        }
        umoci(&[&["config", "--image", &image], settings].concat());
        made
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("layout")
    }
}
