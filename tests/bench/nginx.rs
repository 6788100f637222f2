//! The peer: Debian's nginx, as a process and as an image of it and its
//! libraries alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use wharf_tests::network::Network;
use wharf_tests::process::{Daemon, run};
use wharf_tests::wharf::text;

/// Where Debian's nginx lies.
pub(crate) const PROGRAM: &str = "/usr/sbin/nginx";

/// What `settings` are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// Speed.
    Off,
    /// To learn what a client asks for: a file `access.log` in the scratch folder,
    /// with a method, a target and a status a line.
    Requests,
}

/// Settings that serve `site` on `address` as fast as nginx does, with the `.gz`
/// files beside it, writing only below `scratch`.
pub(crate) fn settings(site: &str, address: &str, scratch: &str, log: Log) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {scratch}/{kind};\n"))
        .concat();
    let log = match log {
        Log::Off => "access_log off;".to_owned(),
        Log::Requests => format!(
            "log_format requests '$request_method $request_uri $status';\n  access_log {scratch}/access.log requests;"
        ),
    };
    // What nginx's manual has for speed: files stay open, packets leave full, and
    // each process has a listening socket of its own.
    format!(
        "daemon off;\nuser root root;\nworker_processes auto;\npid {scratch}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n  {log}\n  sendfile on;\n  tcp_nopush on;\n  \
         tcp_nodelay on;\n  gzip_static on;\n  gzip_vary on;\n  open_file_cache max=10000 inactive=1h;\n  \
         open_file_cache_valid 1h;\n  keepalive_requests 100000000;\n  default_type application/octet-stream;\n  \
         types {{ text/html html; text/css css; text/javascript js mjs; application/json json; \
         application/wasm wasm; image/svg+xml svg; image/png png; font/woff2 woff2; font/woff woff; }}\n\
         {temporary}  server {{ listen {address} reuseport; root {site}; }}\n}}\n"
    )
}

/// Starts nginx with such settings; its log and its files are in `scratch`.
pub(crate) fn start(network: &impl Network, site: &Path, address: &str, scratch: &Path, log: Log) -> Daemon {
    let file = scratch.join("nginx.conf");
    fs_err::write(&file, settings(text(site), address, text(scratch), log))
        .expect("the configuration can be written");
    let mut nginx = network.command(PROGRAM.as_ref());
    Daemon::start("nginx", scratch, nginx.args(["-e", "stderr", "-c", text(&file)]))
}

/// Makes an OCI archive of nginx that serves `site` on port 8080, named `reference`.
pub(crate) fn image(site: &Path, reference: &str, scratch: &Path) -> PathBuf {
    let rootfs = scratch.join("rootfs");
    for folder in ["etc", "tmp", "usr/sbin", "var/log/nginx", "var/lib/nginx"] {
        fs_err::create_dir_all(rootfs.join(folder)).expect("a folder can be made");
    }
    run(Command::new("cp").args(["-r", text(site), text(&rootfs.join("site"))])).succeeded();
    let libraries = run(Command::new("ldd").arg(PROGRAM)).output();
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/')).collect::<Vec<_>>();
    let mut copy = Command::new("cp");
    copy.args(["--dereference", "--parents", PROGRAM]).args(libraries).arg(&rootfs);
    run(&mut copy).succeeded();
    let write =
        |path: &str, content: &str| fs_err::write(rootfs.join(path), content).expect("a file can be written");
    write("etc/passwd", "root:x:0:0::/:/\n");
    write("etc/group", "root:x:0:\n");
    write("etc/nginx.conf", &settings("/site", "8080", "/tmp", Log::Off));

    let layout = scratch.join("layout");
    let image = format!("{}:1", text(&layout));
    let umoci = |arguments: &[&str]| run(Command::new("umoci").args(arguments)).succeeded();
    umoci(&["init", "--layout", text(&layout)]);
    umoci(&["new", "--image", &image]);
    umoci(&["insert", "--image", &image, text(&rootfs), "/"]);
    let start = ["--config.entrypoint", PROGRAM, "--config.cmd", "-c", "--config.cmd", "/etc/nginx.conf"];
    umoci(&[&["config", "--image", &image][..], &start].concat());
    let archive = scratch.join("nginx.tar");
    let target = format!("oci-archive:{}:{reference}", text(&archive));
    run(Command::new("skopeo").args(["copy", "--quiet", &format!("oci:{image}"), &target])).succeeded();
    archive
}
