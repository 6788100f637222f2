//! Conditional requests and caching: RFC 9110, 13, and RFC 9111.

use crate::server::Served;

#[test]
fn what_a_client_expects_to_be_there_must_be_there() {
    let served = Served::sealed(&[("a.txt", b"abc")], false);
    let tag = served.get("/a.txt").header("etag").unwrap().to_owned();
    for (condition, status) in [
        (format!("if-match: {tag}"), 200),
        ("if-match: *".into(), 200),
        (format!("if-match: \"x\", {tag}"), 200),
        ("if-match: \"x\"".into(), 412),
        (format!("if-match: W/{tag}"), 412),
        (format!("if-none-match: W/{tag}"), 304),
        ("if-none-match: *".into(), 304),
        // A sealed file has no date, so conditions on it are void.
        ("if-modified-since: Fri, 01 Jan 2100 00:00:00 GMT".into(), 200),
        ("if-unmodified-since: Thu, 01 Jan 1970 00:00:00 GMT".into(), 200),
    ] {
        for method in ["GET", "HEAD"] {
            assert_eq!(
                served.request(method, "/a.txt", &[&condition]).status,
                status,
                "{method} {condition}"
            );
        }
    }
    // The conditions are those of what is there: nothing is.
    assert_eq!(served.request("GET", "/missing", &["if-match: *"]).status, 404);
}

#[test]
fn a_sealed_file_has_no_date_and_a_live_one_has() {
    let sealed = Served::sealed(&[("a.txt", b"abc")], false);
    assert_eq!(sealed.get("/a.txt").header("last-modified"), None);
    let live = Served::live("a.txt", b"abc");
    let response = live.get("/a.txt");
    let modified = response.header("last-modified").unwrap().to_owned();
    let (old, now) = ("Thu, 01 Jan 1970 00:00:00 GMT", modified.as_str());
    for (condition, status) in [
        (format!("if-modified-since: {now}"), 304),
        (format!("if-modified-since: {old}"), 200),
        (format!("if-unmodified-since: {now}"), 200),
        (format!("if-unmodified-since: {old}"), 412),
    ] {
        assert_eq!(live.request("GET", "/a.txt", &[&condition]).status, status, "{condition}");
    }
    let range = "range: bytes=1-1";
    let same = live.request("GET", "/a.txt", &[range, &format!("if-range: {now}")]);
    assert_eq!((same.status, same.body.as_slice()), (206, &b"b"[..]));
    assert_eq!(live.request("GET", "/a.txt", &[range, &format!("if-range: {old}")]).status, 200);
    let unchanged = live.request("GET", "/a.txt", &[&format!("if-modified-since: {now}")]);
    assert_eq!(unchanged.header("last-modified"), Some(now));
}

#[test]
fn only_names_made_of_the_content_are_kept_for_good_and_nothing_of_a_live_project() {
    let files: [(&str, &[u8]); 4] =
        [("index.html", b"1"), ("app.3f2a1b9c.js", b"2"), ("jquery-3.7.1.min.js", b"3"), ("404.html", b"4")];
    let served = Served::sealed(&files, false);
    let revalidated = Some("public, max-age=0, must-revalidate");
    for (path, expected) in [
        ("/", revalidated),
        ("/app.3f2a1b9c.js", Some("public, max-age=31536000, immutable")),
        ("/jquery-3.7.1.min.js", revalidated),
        ("/missing", revalidated),
    ] {
        let response = served.get(path);
        assert_eq!(response.header("cache-control"), expected, "{path}");
        let tag = format!("if-none-match: {}", response.header("etag").unwrap());
        let known = served.request("GET", path, &[&tag]);
        assert_eq!(known.header("cache-control"), expected, "{path}");
    }
    let live = Served::live("app.3f2a1b9c.js", b"1");
    assert_eq!(live.get("/app.3f2a1b9c.js").header("cache-control"), Some("no-cache"));
}
