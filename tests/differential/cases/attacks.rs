//! Paths that try to get out.

use crate::case::{Case, Check::*};

/// RFC 3986, and what has been tried on others.
pub(crate) fn cases() -> Vec<Case> {
    // A normalized path within the site is as good as a refusal.
    let out = &[400, 403, 404, 301, 308][..];
    let of = |behaviour, clause, path: &str, statuses: &[u16]| {
        Case::get(behaviour, clause, path, &[], statuses).and(NotSecret)
    };
    let get = |behaviour, path: &str, statuses: &[u16]| of(behaviour, "design", path, statuses);
    let long = |length: usize| format!("/{}", "a".repeat(length));
    let raw = |behaviour, path: &[u8]| {
        let request = [b"GET ", path, b" HTTP/1.1\r\nHost: site.test\r\n\r\n"].concat();
        Case::raw(behaviour, "RFC 9112, 3.2", request, 1)
    };
    vec![
        of("`..` above the root", "RFC 3986, 5.2.4", "/../outside.txt", out),
        of("`..` within the site", "RFC 3986, 5.2.4", "/docs/../../outside.txt", out),
        of("`%2e%2e`", "RFC 3986, 6.2.2.2", "/%2e%2e/outside.txt", out),
        of("`.%2E`", "RFC 3986, 6.2.2.2", "/docs/.%2E/.%2E/outside.txt", out),
        of("`..%2f`", "RFC 3986, 7.3", "/docs/..%2f..%2foutside.txt", out),
        of("`%252e`: decoded once", "RFC 3986, 2.4", "/%252e%252e/outside.txt", out),
        get("Backslashes", "/..\\outside.txt", out),
        get("`%5c`", "/..%5coutside.txt", out),
        get("A NUL", "/digits.txt%00.html", out),
        of("A slash, encoded", "RFC 3986, 2.2", "/docs%2findex.html", &[200, 308, 400, 404]),
        get("Two slashes at the start name no host", "//evil.test/docs", &[400, 404]),
        get("Two slashes and a folder: no redirect to a host", "//docs", &[200, 301, 308, 400, 404])
            .and(NoForeignLocation),
        get("Two slashes within", "/docs//guide.html", &[200, 301, 308, 400, 404]),
        get("`.` as a segment", "/docs/./guide.html", &[200, 301, 308, 400, 404]),
        get("Bytes that are not UTF-8", "/%ff%fe", &[400, 404]),
        of("Overlong UTF-8 of `.`", "RFC 3629, 10", "/%c0%ae%c0%ae/outside.txt", out),
        of("A percent sign without digits", "RFC 3986, 2.1", "/%zz", &[400, 404]),
        of("A percent sign at the end", "RFC 3986, 2.1", "/digits.txt%", &[400, 404]),
        of(
            "A line break, encoded, splits no field",
            "RFC 9110, 5.5",
            "/docs%0d%0aX-Injected:%201",
            &[400, 404],
        )
        .and(Lacks("x-injected")),
        of(
            "A line break in a redirect splits no field",
            "RFC 9110, 5.5",
            "/wild/%0d%0aX-Injected:%201",
            &[301, 308, 400, 404],
        )
        .and(Lacks("x-injected")),
        get("The hidden file, encoded", "/%2ehidden", &[400, 403, 404]),
        of("A path of 4 KiB", "RFC 9112, 3", &long(4096), &[404]),
        get("A path of 16 KiB", &long(16384), &[414, 431]),
        Case::raw(
            "A path of 1 MiB",
            "RFC 9112, 3",
            format!("GET {} HTTP/1.1\r\nHost: site.test\r\n\r\n", long(1 << 20)),
            1,
        )
        .and(Refused(&[400, 414, 431]))
        .left_open(),
        raw("A byte above 127", b"/t\xe4glich.txt").and(Refused(&[400, 404])),
        raw("A space in the target", b"/with space.txt").and(Refused(&[400])),
        raw("A tab in the target", b"/with\tspace.txt").and(Refused(&[400, 404])),
        raw("A fragment in the target", b"/digits.txt#x").and(Refused(&[200, 400, 404])),
        raw("A target without slash", b"digits.txt").and(Refused(&[400])),
    ]
}
