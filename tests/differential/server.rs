//! The servers: wharf's host as it is in an image, and its peers with the
//! settings that their users have for such a site.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use wharf_tests::process::{Daemon, run};
use wharf_tests::project::Project;
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

use crate::site;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// Debian's nginx.
    Nginx,
    /// Debian's Caddy.
    Caddy,
    /// `wrangler pages dev`: what Cloudflare Pages does, on this machine.
    Wrangler,
    /// `wharf-host`.
    Wharf,
}

impl Name {
    /// The column's head.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Caddy => "Caddy",
            Self::Wrangler => "wrangler",
            Self::Wharf => "wharf",
        }
    }
}

/// A running server that ends with the value.
pub(crate) struct Server {
    pub(crate) name: Name,
    /// As it says itself.
    pub(crate) version: String,
    pub(crate) address: SocketAddr,
    daemon: Daemon,
    _folder: TempDir,
}

impl Server {
    /// Starts one; none if it is wrangler and was not installed.
    pub(crate) fn start(name: Name) -> Option<Self> {
        match name {
            Name::Nginx => Some(nginx()),
            Name::Caddy => Some(caddy()),
            Name::Wrangler => wrangler(),
            Name::Wharf => Some(wharf()),
        }
    }

    /// Fails if the process has ended.
    pub(crate) fn assert_alive(&mut self) {
        let address = self.address;
        self.daemon.wait_until("it was asked whether it lives", |_| TcpStream::connect(address).ok());
    }
}

/// A folder with the site in `site/`, and a link out of it.
fn peer_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("wharf-peer-").tempdir().expect("a folder can be made");
    let site = folder.path().join("site");
    site::write(&site);
    site::add_link(&site);
    folder
}

/// A port that nobody has. nginx can't say which one it got of port 0.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address")
}

fn started(
    name: Name,
    version: String,
    folder: TempDir,
    address: SocketAddr,
    command: &mut Command,
) -> Server {
    let mut daemon = Daemon::start(name.title(), folder.path(), command);
    daemon.wait_until("it listened", |_| TcpStream::connect(address).ok());
    Server { name, version, address, daemon, _folder: folder }
}

/// Where Debian's programs lie, whatever `PATH` is.
fn debian(program: &str) -> PathBuf {
    let found = ["/usr/sbin", "/usr/bin"].map(|folder| Path::new(folder).join(program));
    let found = found.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("cannot find {program}: run tests/testbed/packages.sh tests"))
}

fn nginx() -> Server {
    let (folder, address) = (peer_folder(), free_address());
    site::add_siblings(&folder.path().join("site"));
    let scratch = text(folder.path());
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {scratch}/{kind};\n"))
        .concat();
    let settings = format!(
        "daemon off;\nuser root root;\nworker_processes 1;\npid {scratch}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 256; }}\nhttp {{\n  include /etc/nginx/mime.types;\n  \
         access_log off;\n  sendfile on;\n  gzip_static on;\n  gzip_vary on;\n{temporary}  server {{\n    \
         listen {address};\n    root {scratch}/site;\n    error_page 404 /404.html;\n    \
         location / {{ try_files $uri $uri/ $uri.html =404; }}\n    \
         location ~ /\\.(?!well-known/) {{ return 404; }}\n  }}\n}}\n"
    );
    let file = folder.path().join("nginx.conf");
    fs_err::write(&file, settings).expect("a file can be written");
    let version = run(Command::new(debian("nginx")).arg("-v")).exited(0).stderr;
    let version = version.trim().rsplit('/').next().unwrap_or_default().to_owned();
    let mut command = Command::new(debian("nginx"));
    command.args(["-e", "stderr", "-c", text(&file)]);
    started(Name::Nginx, version, folder, address, &mut command)
}

fn caddy() -> Server {
    let (folder, address) = (peer_folder(), free_address());
    site::add_siblings(&folder.path().join("site"));
    let scratch = text(folder.path());
    let settings = format!(
        "{{\n  admin off\n  auto_https off\n  servers {{\n    protocols h1 h2 h2c\n  }}\n}}\n\
         http://:{} {{\n  bind 127.0.0.1\n  root * {scratch}/site\n  try_files {{path}} {{path}}.html\n  \
         file_server {{\n    precompressed zstd br gzip\n    \
         hide .git .hidden\n  }}\n  handle_errors {{\n    rewrite * /404.html\n    file_server\n  }}\n}}\n",
        address.port()
    );
    let file = folder.path().join("Caddyfile");
    fs_err::write(&file, settings).expect("a file can be written");
    let version = run(Command::new(debian("caddy")).arg("version")).output();
    let version = version.split_whitespace().next().unwrap_or_default().trim_start_matches('v').to_owned();
    let mut command = Command::new(debian("caddy"));
    command.args(["run", "--adapter", "caddyfile", "--config", text(&file)]);
    command.env("XDG_DATA_HOME", folder.path()).env("XDG_CONFIG_HOME", folder.path());
    started(Name::Caddy, version, folder, address, &mut command)
}

fn wrangler() -> Option<Server> {
    let program = testbed::folder().join("wrangler/node_modules/wrangler/bin/wrangler.js");
    if !program.exists() {
        return None;
    }
    let (folder, address) = (peer_folder(), free_address());
    let site = folder.path().join("site");
    let package = program.ancestors().nth(2).expect("a program lies in a package").join("package.json");
    let package = fs_err::read(package).expect("a package has a description");
    let package: serde_json::Value = serde_json::from_slice(&package).expect("package.json is JSON");
    let version = package["version"].as_str().unwrap_or_default().to_owned();
    let mut command = Command::new("node");
    command.arg(program).args(["pages", "dev", text(&site), "--ip", "127.0.0.1"]);
    command.args(["--port", &address.port().to_string(), "--compatibility-date", "2026-01-01"]);
    command.args(["--inspector-port", "0", "--log-level", "warn"]);
    // It asks nobody anything, and keeps what it writes to itself.
    command.env("WRANGLER_SEND_METRICS", "false").env("CI", "1").env("HOME", folder.path());
    command.current_dir(folder.path());
    Some(started(Name::Wrangler, version, folder, address, &mut command))
}

/// `wharf-host` of an image that was built of the site, unpacked by others.
fn wharf() -> Server {
    let wharf = Wharf::new();
    let project = Project::empty();
    site::write(&project.path().join("public"));
    let reference = "example.test/site:1";
    let _ = wharf.build(project.path(), reference);
    let folder = tempfile::Builder::new().prefix("wharf-host-").tempdir().expect("a folder can be made");
    // umoci finds a tag of several platforms ambiguous: skopeo picks one.
    let layout = folder.path().join("layout");
    let source = format!("oci:{}:{reference}", text(&wharf.store()));
    let target = format!("oci:{}:1", text(&layout));
    run(Command::new("skopeo").args(["copy", "--quiet", &source, &target])).succeeded();
    let bundle = folder.path().join("bundle");
    let image = format!("{}:1", text(&layout));
    run(Command::new("umoci").args(["unpack", "--image", &image, text(&bundle)])).succeeded();
    let host = bundle.join("rootfs/wharf-host");
    let version = run(Command::new(&host).arg("--version")).output();
    let version = version.rsplit(' ').next().unwrap_or_default().to_owned();
    let address = free_address();
    let mut command = Command::new(&host);
    command.env("WHARF_APP", bundle.join("rootfs/app/wharf.json")).env("WHARF_ADDR", address.to_string());
    started(Name::Wharf, version, folder, address, &mut command)
}
