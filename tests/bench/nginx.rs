//! The peer: Debian's nginx, as a process and as an image of it and its
//! libraries alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use wharf_tests::process::run;
use wharf_tests::wharf::text;

/// Where Debian's nginx lies.
pub(crate) const PROGRAM: &str = "/usr/sbin/nginx";

/// Settings that serve `site` on `address`, writing only below `scratch`.
pub(crate) fn settings(site: &str, address: &str, scratch: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {scratch}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nuser root root;\nworker_processes auto;\npid {scratch}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 512; }}\nhttp {{\n  access_log off;\n  sendfile on;\n  \
         open_file_cache max=1000;\n  keepalive_requests 1000000;\n  \
         types {{ text/html html; text/css css; text/javascript js mjs; application/wasm wasm; }}\n\
         {temporary}  server {{ listen {address}; root {site}; }}\n}}\n"
    )
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
    write("etc/nginx.conf", &settings("/site", "8080", "/tmp"));

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
