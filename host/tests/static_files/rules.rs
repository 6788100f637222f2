//! `_headers`, `_redirects` and the fallback of a single-page app.

use wharf_app::{Site, parse_headers, parse_redirects};

use crate::server::Served;

fn headers(text: &str) -> impl FnOnce(&mut Site) {
    let rules = parse_headers(text.as_bytes(), "_headers").unwrap();
    |site| site.headers = rules
}

fn redirects(text: &str) -> impl FnOnce(&mut Site) {
    let rules = parse_redirects(text.as_bytes(), "_redirects").unwrap();
    |site| site.redirects = rules
}

#[test]
fn headers_of_all_rules_that_match_are_on_every_static_answer() {
    let files: [(&str, &[u8]); 4] =
        [("index.html", b"1"), ("app.3f2a1b9c.js", b"2"), ("d/index.html", b"3"), ("404.html", b"4")];
    let rules = "/*\n  X-Frame-Options: DENY\n  X-A: 1\n/app.*\n  ! X-Frame-Options\n  X-A: 2\n\
        \x20 Cache-Control: no-store\nhttps://www.example/*\n  X-Host: :splat\n/*.html\n  Content-Type: text/plain\n";
    let served = Served::site(&files, headers(rules));
    for (path, status) in [("/", 200), ("/d", 308), ("/missing", 404)] {
        let response = served.get(path);
        assert_eq!((response.status, response.header("x-frame-options")), (status, Some("DENY")), "{path}");
        assert_eq!(response.header("x-host"), None);
    }
    assert_eq!(served.request("POST", "/", &["content-length: 0"]).header("x-frame-options"), Some("DENY"));
    let app = served.request("GET", "/app.3f2a1b9c.js", &["host: www.example:8080"]);
    assert_eq!((app.header("x-frame-options"), app.header("x-a")), (None, Some("1, 2")));
    assert_eq!(app.header("cache-control"), Some("no-store"));
    assert_eq!(app.header("x-host"), Some("app.3f2a1b9c.js"));
    assert_eq!(app.head.matches("cache-control").count(), 1);
    let tag = format!("if-none-match: {}", app.header("etag").unwrap());
    let known = served.request("GET", "/app.3f2a1b9c.js", &[&tag]);
    assert_eq!((known.status, known.header("cache-control")), (304, Some("no-store")));
    assert_eq!(served.get("/index.html").header("content-type"), Some("text/plain"));
}

#[test]
fn a_type_that_a_rule_sets_is_the_files_in_each_part_and_not_that_of_messages() {
    let files: [(&str, &[u8]); 4] = [
        ("a.foo", b"0123456789"),
        ("b.foo", b"0123456789"),
        ("404.html", b"gone"),
        ("d.foo/index.html", b"d"),
    ];
    let rules = "/*\n  Content-Type: text/x-foo\n  X-A: 1\n/b.foo\n  ! Content-Type\n";
    let served = Served::site(&files, headers(rules));
    let types = |path: &str, range: &str| {
        let response = served.request("GET", path, &[&format!("range: {range}")]);
        let body = String::from_utf8(response.body.clone()).unwrap();
        let of_parts = body.lines().filter_map(|line| line.strip_prefix("Content-Type: ")).map(str::to_owned);
        let length = response.header("content-length").map(|length| length.parse().unwrap());
        assert_eq!(length, Some(response.body.len()));
        assert_eq!(response.header("x-a"), Some("1"));
        (response.status, response.header("content-type").map(str::to_owned), of_parts.collect::<Vec<_>>())
    };
    let foo = || Some("text/x-foo".to_owned());
    assert_eq!(types("/a.foo", "none"), (200, foo(), vec![]));
    assert_eq!(types("/a.foo", "bytes=1-2"), (206, foo(), vec![]));
    assert_eq!(types("/b.foo", "none"), (200, None, vec![]));
    for (path, expected) in [("/a.foo", vec!["text/x-foo".to_owned(); 2]), ("/b.foo", vec![])] {
        let (status, media_type, of_parts) = types(path, "bytes=0-0, 5-6");
        assert_eq!((status, of_parts), (206, expected), "{path}");
        assert!(
            media_type.as_ref().is_some_and(|of| of.starts_with("multipart/byteranges; boundary=")),
            "{media_type:?}"
        );
    }
    let plain = "text/plain; charset=utf-8".to_owned();
    assert_eq!(types("/a.foo", "bytes=10-"), (416, Some(plain.clone()), vec![]));
    assert_eq!(types("/d.foo", "none"), (308, Some(plain.clone()), vec![]));
    assert_eq!(types("/missing.foo", "none"), (404, Some("text/html; charset=utf-8".to_owned()), vec![]));
    let refused = served.request("POST", "/a.foo", &["content-length: 0"]);
    assert_eq!((refused.status, refused.header("content-type")), (405, Some(plain.as_str())));
    let failed = served.request("GET", "/a.foo", &["if-match: \"x\""]);
    assert_eq!((failed.status, failed.header("content-type")), (412, Some(plain.as_str())));
    let known = served.request("GET", "/a.foo", &["if-none-match: *"]);
    assert_eq!((known.status, known.header("content-type"), known.header("x-a")), (304, None, Some("1")));
    let options = served.request("OPTIONS", "/a.foo", &[]);
    assert_eq!((options.status, options.header("content-type")), (204, None));
}

#[test]
fn an_error_is_not_kept_as_long_as_a_rule_says_of_the_file() {
    let rules = "/*\n  Cache-Control: public, max-age=31536000, immutable\n  Expires: Fri, 31 Dec 2027 00:00:00 GMT\n\
        \x20 CDN-Cache-Control: max-age=31536000\n  X-Frame-Options: DENY\n";
    let with_page = Served::site(&[("a.txt", b"abc"), ("404.html", b"gone")], headers(rules));
    let without = Served::site(&[("a.txt", b"abc")], headers(rules));
    for (served, cache_control) in
        [(&with_page, Some("public, max-age=0, must-revalidate")), (&without, None)]
    {
        let file = served.get("/a.txt");
        assert_eq!(file.header("cache-control"), Some("public, max-age=31536000, immutable"));
        assert_eq!(file.header("cdn-cache-control"), Some("max-age=31536000"));
        for (response, status) in [
            (served.get("/missing.js"), 404),
            (served.request("GET", "/a.txt", &["range: bytes=9-"]), 416),
            (served.request("GET", "/a.txt", &["if-match: \"x\""]), 412),
            (served.request("POST", "/a.txt", &["content-length: 0"]), 405),
        ] {
            let expected = if status == 404 { cache_control } else { None };
            assert_eq!((response.status, response.header("cache-control")), (status, expected));
            assert_eq!(
                (response.header("expires"), response.header("cdn-cache-control")),
                (None, None),
                "{status}"
            );
            assert_eq!(response.header("x-frame-options"), Some("DENY"), "{status}");
        }
    }
}

#[test]
fn redirects_come_before_files_and_rewrites_after_them() {
    let files: [(&str, &[u8]); 4] =
        [("a.txt", b"a"), ("app/index.html", b"app"), ("app/x.js", b"x"), ("en/404.html", b"en")];
    let rules = "/a.txt /b.txt 301\n/old/* https://new.example/:splat 308\n/q /a?x=1\n/app/* /app/ 200\n\
        /en/* /en/404.html 404\n/x/* /:splat 302\n";
    let served = Served::site(&files, redirects(rules));
    for (path, status, location) in [
        ("/a.txt", 301, "/b.txt"),
        ("/a.txt?y=2", 301, "/b.txt?y=2"),
        ("/old/a%20b/%C3%A4?y", 308, "https://new.example/a%20b/%C3%A4?y"),
        ("/q?y=2", 302, "/a?x=1"),
        ("/x//evil.example/", 302, "/%2Fevil.example/"),
        ("/x/%0d%0aset-cookie:a=b", 302, "/%0D%0Aset-cookie:a=b"),
    ] {
        let response = served.get(path);
        assert_eq!((response.status, response.header("location")), (status, Some(location)), "{path}");
    }
    assert_eq!(served.get("/app/some/page").body, b"app");
    assert_eq!(served.get("/app/x.js").body, b"x");
    let missing = served.get("/en/nothing");
    assert_eq!((missing.status, missing.body.as_slice()), (404, &b"en"[..]));
    assert_eq!(served.get("/nothing").status, 404);
    assert_eq!(served.request("HEAD", "/a.txt", &[]).header("location"), Some("/b.txt"));
}

#[test]
fn a_single_page_app_answers_navigations_and_nothing_else_by_its_page() {
    let files: [(&str, &[u8]); 3] = [("index.html", b"app"), ("404.html", b"gone"), ("a.js", b"js")];
    let served = Served::site(&files, |site| site.spa = true);
    let page = "accept: text/html,*/*;q=0.8";
    let response = served.request("GET", "/users/john.doe", &[page]);
    assert_eq!((response.status, response.body.as_slice()), (200, &b"app"[..]));
    assert_eq!(response.header("vary"), Some("accept, sec-fetch-mode"));
    assert_eq!(served.get("/users/7").body, b"app");
    assert_eq!(served.get("/a.js").body, b"js");
    for headers in [&["sec-fetch-mode: no-cors", page][..], &["accept: application/json"], &[]] {
        let response = served.request("GET", "/chunk.js", headers);
        assert_eq!((response.status, response.body.as_slice()), (404, &b"gone"[..]), "{headers:?}");
        assert_eq!(response.header("vary"), Some("accept, sec-fetch-mode"));
    }
    assert_eq!(served.request("POST", "/users/7", &["content-length: 0"]).status, 404);
    let head = served.request("HEAD", "/users/7", &[page]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("3")));
}
