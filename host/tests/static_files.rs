//! Static files over a real socket: RFC 9110 as a client sees it.

// Each is a way to fail, in the functions that tests share as in the tests.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use wharf_app::{Asset, Coding, Encoding, Manifest, Sha256, Site, media_type};
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
        encodings: Vec::new(),
    }
}

/// What stands for `content` in a coding: the host sends it as it finds it.
fn encoded(coding: Coding, content: &[u8]) -> Vec<u8> {
    let mark = format!("<{}>", coding.name());
    // Brotli's is the shortest but for zstd's, as of a large file.
    let length = content.len() * [6, 5, 8][coding as usize] / 10;
    mark.bytes().chain(content.iter().copied()).take(length).collect()
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
        let site = Site { isolated, files: files.collect(), ..Site::default() };
        write(folder.path(), "wharf.json", &Manifest::new("test".into(), site).to_json());
        let code = HostCode::Image(CodeDir::new(folder.path().join("aot")));
        let source = AppSource::sealed(folder.path(), code).unwrap();
        Self::start(source, folder)
    }

    /// A site of these files, all of which have all encoded forms.
    fn encoded(files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let site = folder.path().join("site");
        let files = files.iter().map(|(path, content)| {
            write(&site, path, content);
            let encodings = Coding::ALL.map(|coding| {
                let encoded = encoded(coding, content);
                write(&site, &coding.sibling(path), &encoded);
                Encoding { coding, size: encoded.len() as u64, sha256: Sha256::of(&encoded) }
            });
            Asset { encodings: encodings.into(), ..asset(path, content) }
        });
        let site = Site { files: files.collect(), ..Site::default() };
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
    let site = Site { files: vec![asset("a.txt", b"old")], ..Site::default() };
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

/// A file that is kept in memory, and one that is streamed, in all forms.
fn small_and_large() -> [(&'static str, Vec<u8>); 2] {
    let content = |length: u32| (0..length).map(|n| b'a' + (n % 23) as u8).collect::<Vec<u8>>();
    [("small.js", content(1_000)), ("large.js", content(500_000))]
}

fn served_encoded(files: &[(&str, Vec<u8>)]) -> Served {
    Served::encoded(&files.iter().map(|(path, content)| (*path, content.as_slice())).collect::<Vec<_>>())
}

#[test]
fn a_client_gets_the_form_that_it_prefers_with_the_files_type() {
    let files = small_and_large();
    let served = served_encoded(&files);
    for (path, content) in &files {
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, deflate, br", Some(Coding::Br)),
            ("gzip", Some(Coding::Gzip)),
            ("gzip;q=1, br;q=0.9, zstd;q=0", Some(Coding::Gzip)),
            ("identity;q=0, BR", Some(Coding::Br)),
            ("identity, gzip;q=0.5", None),
            ("deflate", None),
        ] {
            let expected = coding.map_or_else(|| content.clone(), |coding| encoded(coding, content));
            // From the folder, and from memory.
            for _ in 0..2 {
                let header = format!("accept-encoding: {accept}");
                let response = served.request("GET", &format!("/{path}"), &[&header]);
                assert_eq!(response.status, 200);
                assert_eq!(response.header("content-encoding"), coding.map(Coding::name), "{path} {accept}");
                assert_eq!(response.header("vary"), Some("accept-encoding"), "{path} {accept}");
                assert_eq!(response.header("content-type"), Some("text/javascript; charset=utf-8"));
                assert_eq!(response.header("content-length"), Some(expected.len().to_string().as_str()));
                assert!(response.body == expected, "{path} {accept}");
                let head = served.request("HEAD", &format!("/{path}"), &[&header]);
                let but_the_date = |response: &Response| {
                    response
                        .head
                        .lines()
                        .filter(|line| !line.starts_with("date: "))
                        .collect::<Vec<_>>()
                        .join("\n")
                };
                assert_eq!(but_the_date(&head), but_the_date(&response));
                assert_eq!(head.body.len(), 0);
            }
        }
        let plain = served.get(&format!("/{path}"));
        assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
        assert!(&plain.body == content);
    }
}

#[test]
fn a_file_without_encoded_forms_does_not_vary() {
    let served = Served::sealed(&[("a.txt", b"abc")], false);
    let response = served.request("GET", "/a.txt", &["accept-encoding: gzip, br"]);
    assert_eq!((response.header("content-encoding"), response.header("vary")), (None, None));
    assert_eq!(response.body, b"abc");
}

#[test]
fn each_form_has_a_tag_of_its_own_and_is_known_by_no_other() {
    let files = small_and_large();
    let served = served_encoded(&files);
    for (path, _) in &files {
        let path = format!("/{path}");
        let accepts = ["identity", "br", "zstd", "gzip"].map(|coding| format!("accept-encoding: {coding}"));
        let tags = accepts
            .each_ref()
            .map(|accept| served.request("GET", &path, &[accept]).header("etag").unwrap().to_owned());
        for (accept, own) in accepts.iter().zip(&tags) {
            assert!(own.starts_with('"'), "strong: {own}");
            for tag in &tags {
                let condition = format!("if-none-match: {tag}");
                for method in ["GET", "HEAD"] {
                    let response = served.request(method, &path, &[accept, &condition]);
                    assert_eq!(response.status, if tag == own { 304 } else { 200 }, "{accept} {condition}");
                    assert_eq!(response.header("vary"), Some("accept-encoding"));
                    assert_eq!(response.header("etag"), Some(own.as_str()));
                }
            }
        }
        let distinct: std::collections::HashSet<_> = tags.iter().collect();
        assert_eq!(distinct.len(), tags.len());
    }
}

/// RFC 9110, 14.2: a range is of the selected representation's bytes, so that
/// an interrupted download goes on with what it began.
#[test]
fn a_range_is_of_the_form_that_is_sent() {
    let files = small_and_large();
    let served = served_encoded(&files);
    for (path, content) in &files {
        let path = format!("/{path}");
        let brotli = encoded(Coding::Br, content);
        let size = brotli.len();
        let part = served.request("GET", &path, &["accept-encoding: br", "range: bytes=2-9"]);
        assert_eq!((part.status, part.body.as_slice()), (206, &brotli[2..10]));
        assert_eq!(part.header("content-range"), Some(format!("bytes 2-9/{size}").as_str()));
        assert_eq!(part.header("content-encoding"), Some("br"));
        assert_eq!(part.header("vary"), Some("accept-encoding"));
        // What browsers ask for with a range.
        let plain = served.request("GET", &path, &["accept-encoding: identity", "range: bytes=2-9"]);
        assert_eq!((plain.status, plain.body.as_slice()), (206, &content[2..10]));
        assert_eq!(plain.header("content-encoding"), None);
        let beyond = format!("range: bytes={size}-");
        let refused = served.request("GET", &path, &["accept-encoding: br", &beyond]);
        assert_eq!((refused.status, refused.header("vary")), (416, Some("accept-encoding")));
        assert_eq!(refused.header("content-range"), Some(format!("bytes */{size}").as_str()));
        assert_eq!(served.request("GET", &path, &[&beyond]).status, 206, "it is within the file as it is");
        // A tag of one form is no condition for a part of another.
        let tag = format!("if-range: {}", part.header("etag").unwrap());
        let range = "range: bytes=2-9";
        assert_eq!(served.request("GET", &path, &["accept-encoding: br", range, &tag]).status, 206);
        assert_eq!(served.request("GET", &path, &["accept-encoding: gzip", range, &tag]).status, 200);
        assert_eq!(served.request("GET", &path, &[range, &tag]).status, 200);
    }
}

#[test]
fn a_sibling_has_no_address_of_its_own_unless_the_user_shipped_it() {
    let served = Served::encoded(&[("a.js", b"0123456789"), ("b.js.br", b"the user's own")]);
    for path in ["/a.js.br", "/a.js.zst", "/a.js.gz"] {
        assert_eq!(served.request("GET", path, &["accept-encoding: br, zstd, gzip"]).status, 404, "{path}");
    }
    assert_eq!(served.get("/b.js.br").body, b"the user's own");
}

#[test]
fn the_page_of_what_is_missing_is_negotiated_too() {
    let page = b"0123456789".repeat(10);
    let served = Served::encoded(&[("404.html", &page)]);
    let response = served.request("GET", "/nothing", &["accept-encoding: br", "range: bytes=0-1"]);
    assert_eq!((response.status, response.header("content-encoding")), (404, Some("br")));
    assert_eq!(response.header("vary"), Some("accept-encoding"));
    assert_eq!(response.body, encoded(Coding::Br, &page));
    assert_eq!(served.get("/nothing").body, page);
}

#[test]
fn a_projects_files_are_sent_as_they_are_now_in_no_other_form() {
    let folder = tempfile::tempdir().unwrap();
    let content = b"0123456789".repeat(10);
    write(folder.path(), "a.js", &content);
    write(folder.path(), "a.js.br", b"old");
    let encoding = Encoding { coding: Coding::Br, size: 3, sha256: Sha256::of(b"old") };
    let file = Asset { encodings: vec![encoding], ..asset("a.js", &content) };
    let manifest = Manifest::new("test".into(), Site { files: vec![file], ..Site::default() });
    let code = CodeDir::new(folder.path().join("code"));
    let source = AppSource::live(manifest, vec![folder.path().join("a.js")], code);
    let served = Served::start(source, folder);
    let response = served.request("GET", "/a.js", &["accept-encoding: br"]);
    assert_eq!((response.header("content-encoding"), response.header("vary")), (None, None));
    assert_eq!(response.body, content);
}
