//! Static files over a real socket: RFC 9110 as a client sees it.

// Each is a way to fail, in the functions that tests share as in the tests.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use wharf_app::{Asset, Manifest, Sha256, Site, media_type};
use wharf_host::{App, AppSource, CodeDir, HostCode, Runtime, Server};

/// A server of a site with these files, until it is dropped.
struct Served {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    folder: tempfile::TempDir,
}

struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(prefix.as_str()))
    }
}

fn asset(path: &str, content: &[u8]) -> Asset {
    Asset {
        path: path.into(),
        size: content.len() as u64,
        sha256: Sha256::of(content),
        media_type: media_type::of(path),
    }
}

fn write(dir: &Path, path: &str, content: &[u8]) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

impl Served {
    fn sealed(files: &[(&str, &[u8])], isolated: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("site")).unwrap();
        let files = files.iter().map(|(path, content)| {
            write(&folder.path().join("site"), path, content);
            asset(path, content)
        });
        let site = Site { isolated, files: files.collect() };
        write(folder.path(), "wharf.json", &Manifest::new("test".into(), site).to_json());
        let code = HostCode::Image(CodeDir::new(folder.path().join("aot")));
        let source = AppSource::sealed(folder.path(), code).unwrap();
        Self::start(source, folder)
    }

    fn start(source: AppSource, folder: tempfile::TempDir) -> Self {
        let app = Arc::new(App::load(&Runtime::new().unwrap(), source).unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
                ready.send(server.address()).unwrap();
                let stop = async {
                    let _ = stopped.await;
                };
                server.serve(app, stop).await;
            });
        });
        Self { address: address.recv().unwrap(), stop: Some(stop), thread: Some(thread), folder }
    }

    fn request(&self, method: &str, path: &str, headers: &[&str]) -> Response {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Response { status, head, body: bytes[end + 4..].to_vec() }
    }

    fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[])
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_file_comes_with_type_length_and_tag() {
    let served = Served::sealed(&[("index.html", b"<p>hi"), ("a/b.mjs", b"1")], false);
    let response = served.get("/");
    assert_eq!((response.status, response.body.as_slice()), (200, &b"<p>hi"[..]));
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(response.header("content-length"), Some("5"));
    assert_eq!(served.get("/a/b.mjs").header("content-type"), Some("text/javascript; charset=utf-8"));
    let again = served.get("/");
    assert_eq!(again.header("etag"), response.header("etag"));
    assert!(response.header("etag").is_some());
}

#[test]
fn a_known_version_is_not_sent_again() {
    let served = Served::sealed(&[("index.html", b"<p>hi")], false);
    let tag = served.get("/").header("etag").unwrap().to_owned();
    let response = served.request("GET", "/", &[&format!("if-none-match: {tag}")]);
    assert_eq!((response.status, response.body.len()), (304, 0));
    assert_eq!(served.request("GET", "/", &["if-none-match: \"other\""]).status, 200);
}

#[test]
fn ranges_of_small_and_of_large_files_are_the_right_bytes() {
    let large: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let served = Served::sealed(&[("small.txt", b"0123456789"), ("large.bin", &large)], false);
    for (path, content) in [("/small.txt", &b"0123456789"[..]), ("/large.bin", &large)] {
        let size = content.len();
        let whole = served.get(path);
        assert_eq!(whole.body, content);
        let part = served.request("GET", path, &["range: bytes=3-7"]);
        assert_eq!((part.status, part.body.as_slice()), (206, &content[3..8]));
        assert_eq!(part.header("content-range"), Some(format!("bytes 3-7/{size}").as_str()));
        let tail = served.request("GET", path, &["range: bytes=-4"]);
        assert_eq!((tail.status, tail.body.as_slice()), (206, &content[size - 4..]));
        let beyond = served.request("GET", path, &[&format!("range: bytes={size}-")]);
        assert_eq!(beyond.status, 416);
        assert_eq!(beyond.header("content-range"), Some(format!("bytes */{size}").as_str()));
        let changed = served.request("GET", path, &["range: bytes=0-1", "if-range: \"old\""]);
        assert_eq!((changed.status, changed.body.len()), (200, size));
    }
}

#[test]
fn head_has_no_body_and_other_methods_are_refused_with_those_allowed() {
    let served = Served::sealed(&[("a.txt", b"abc")], false);
    let head = served.request("HEAD", "/a.txt", &[]);
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("3"), 0));
    // A range is for GET alone.
    let part = served.request("HEAD", "/a.txt", &["range: bytes=1-1"]);
    assert_eq!((part.status, part.header("content-length")), (200, Some("3")));
    let post = served.request("POST", "/a.txt", &["content-length: 0"]);
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    assert_eq!(served.request("OPTIONS", "/a.txt", &[]).status, 204);
}

#[test]
fn folders_are_redirected_and_what_is_missing_shows_the_sites_own_page() {
    let served = Served::sealed(&[("d/index.html", b"d"), ("404.html", b"gone")], false);
    let redirect = served.get("/d?x=1");
    assert_eq!((redirect.status, redirect.header("location")), (308, Some("/d/?x=1")));
    let missing = served.get("/nothing");
    assert_eq!((missing.status, missing.body.as_slice()), (404, &b"gone"[..]));
}

#[test]
fn paths_out_of_the_site_are_refused_even_by_a_link_within() {
    let served = Served::sealed(&[("secret.txt", b"x")], false);
    let file = served.folder.path().join("site/secret.txt");
    std::fs::remove_file(&file).unwrap();
    // As long as the file that the manifest names: only the link is wrong.
    write(served.folder.path(), "outside", b"y");
    std::os::unix::fs::symlink("../outside", &file).unwrap();
    assert_eq!(served.get("/secret.txt").status, 500);
    for path in ["/../outside", "/%2e%2e/outside", "/a/..%2f..%2foutside", "/%00"] {
        assert_eq!(served.get(path).status, 400, "{path}");
    }
}

#[test]
fn an_isolated_site_says_so_on_every_response() {
    let served = Served::sealed(&[("a.txt", b"abc")], true);
    for path in ["/a.txt", "/missing"] {
        let response = served.get(path);
        assert_eq!(response.header("cross-origin-opener-policy"), Some("same-origin"), "{path}");
        assert_eq!(response.header("cross-origin-embedder-policy"), Some("require-corp"), "{path}");
    }
}

#[test]
fn a_live_file_is_served_as_it_is_now() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.txt", b"old");
    let site = Site { isolated: false, files: vec![asset("a.txt", b"old")] };
    let manifest = Manifest::new("test".into(), site);
    let code = CodeDir::new(folder.path().join("code"));
    let source = AppSource::live(manifest, vec![folder.path().join("a.txt")], code);
    let served = Served::start(source, folder);
    let before = served.get("/a.txt");
    write(served.folder.path(), "a.txt", b"newer");
    let after = served.get("/a.txt");
    assert_eq!(after.body, b"newer");
    assert_ne!(before.header("etag"), after.header("etag"));
    std::fs::remove_file(served.folder.path().join("a.txt")).unwrap();
    assert_eq!(served.get("/a.txt").status, 404);
}
