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
