//! Static files over a real socket: RFC 9110 as a client sees it.

// Each is a way to fail, in the functions that tests share as in the tests.
#![allow(clippy::unwrap_used)]

mod conditions;
mod encodings;
mod ranges;
mod rules;
mod server;

use crate::server::{Served, write};

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
    let served = Served::live("a.txt", b"old");
    let before = served.get("/a.txt");
    write(served.folder.path(), "public/a.txt", b"newer");
    let after = served.get("/a.txt");
    assert_eq!(after.body, b"newer");
    assert_ne!(before.header("etag"), after.header("etag"));
    std::fs::remove_file(served.folder.path().join("public/a.txt")).unwrap();
    assert_eq!(served.get("/a.txt").status, 404);
}

#[test]
fn a_live_file_that_became_a_link_out_of_the_project_is_refused() {
    let served = Served::live("a.txt", b"old");
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "secret", b"secret");
    let file = served.folder.path().join("public/a.txt");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), &file).unwrap();
    assert_eq!(served.get("/a.txt").status, 500);
    // A link within the project is its author's way to arrange things.
    write(served.folder.path(), "shared.txt", b"shared");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("../shared.txt", &file).unwrap();
    assert_eq!(served.get("/a.txt").body, b"shared");
}

#[test]
fn paths_are_decoded_once_and_those_that_are_too_long_are_refused() {
    let served = Served::sealed(&[("a b.txt", b"1"), ("%61.txt", b"2"), ("d/\u{e4}.txt", b"3")], false);
    assert_eq!(served.get("/a%20b.txt").body, b"1");
    assert_eq!(served.get("/%2561.txt").body, b"2");
    assert_eq!(served.get("/d%2f%C3%A4.txt").body, b"3");
    for path in ["/a%5Cb", "/%c3", "/%c0%ae%c0%ae/x", "/d/%2e/x", "/d/.%2e/a"] {
        assert_eq!(served.get(path).status, 400, "{path}");
    }
    assert_eq!(served.get("/%252e%252e/x").status, 404);
    assert_eq!(served.get(&format!("/{}", "a".repeat(8191))).status, 404);
    assert_eq!(served.get(&format!("/{}", "a".repeat(8192))).status, 414);
    assert_eq!(served.request("OPTIONS", "*", &[]).header("allow"), Some("GET, HEAD, OPTIONS"));
}

#[test]
fn hidden_files_are_not_served_even_if_the_manifest_has_them() {
    let files: [(&str, &[u8]); 4] =
        [(".env", b"x"), ("a/.git/config", b"x"), (".well-known/security.txt", b"ok"), ("_headers", b"x")];
    let served = Served::sealed(&files, false);
    for path in ["/.env", "/%2eenv", "/a/.git/config", "/_headers"] {
        assert_eq!(served.get(path).status, 404, "{path}");
    }
    assert_eq!(served.get("/.well-known/security.txt").body, b"ok");
}
