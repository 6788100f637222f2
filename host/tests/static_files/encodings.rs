//! Which form of a file a client gets, and what is said of it.

use wharf_app::{Asset, Coding, Encoding, Manifest, Sha256, Site};
use wharf_host::{AppSource, CodeDir};

use crate::server::{Response, Served, asset, encoded, write};

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
    let source = AppSource::live(folder.path().to_owned(), manifest, vec![folder.path().join("a.js")], code);
    let served = Served::start(source, folder);
    let response = served.request("GET", "/a.js", &["accept-encoding: br"]);
    assert_eq!((response.header("content-encoding"), response.header("vary")), (None, None));
    assert_eq!(response.body, content);
}
