//! How messages are framed, and what must not be taken for one.

use crate::case::{Case, Check::*};
use crate::client::After;

const SMUGGLED: &str = "GET /smuggled.txt HTTP/1.1\r\nHost: site.test\r\n\r\n";

/// RFC 9112.
pub(crate) fn cases() -> Vec<Case> {
    let head = |line: &str, rest: &str| format!("{line}\r\n{rest}\r\n");
    let raw = |behaviour, clause, line: &str, rest: &str| Case::raw(behaviour, clause, head(line, rest), 1);
    let get = "GET /digits.txt HTTP/1.1";
    let post = "POST /digits.txt HTTP/1.1";
    let host = "Host: site.test\r\n";
    let with = |fields: &str| format!("{host}{fields}");
    let length = SMUGGLED.len();
    let mut cases = vec![
        raw("No `Host`", "RFC 9112, 3.2", get, "").and(Refused(&[400])),
        raw("Two `Host`s", "RFC 9112, 3.2", get, "Host: a.test\r\nHost: b.test\r\n").and(Refused(&[400])),
        raw("An invalid `Host`", "RFC 9112, 3.2", get, "Host: a b/c\r\n").and(Refused(&[400])),
        raw("An empty `Host`", "RFC 9112, 3.2", get, "Host:\r\n").and(Refused(&[200, 400])),
        raw("Absolute form", "RFC 9112, 3.2.2", "GET http://site.test/digits.txt HTTP/1.1", host)
            .and(Statuses(vec![vec![200]]))
            .and(Content("digits.txt")),
        raw(
            "Absolute form names the host, whatever `Host` says",
            "RFC 9112, 3.2.2",
            "GET http://site.test/digits.txt HTTP/1.1",
            "Host: other.test\r\n",
        )
        .and(Refused(&[200, 400])),
        raw("No version", "RFC 9112, 3", "GET /digits.txt", host).and(Refused(&[400])).left_open(),
        raw("A version that is none", "RFC 9112, 2.3", "GET /digits.txt HTTP/x.1", host)
            .and(Refused(&[400, 505])),
        raw("HTTP/2.0 in a line of HTTP/1", "RFC 9112, 2.3", "GET /digits.txt HTTP/2.0", host)
            .and(Refused(&[400, 426, 505])),
        raw("HTTP/1.2 is answered as 1.1", "RFC 9110, 6.2", "GET /digits.txt HTTP/1.2", host)
            .and(Refused(&[200, 505])),
        Case::raw("An empty line before the request", "RFC 9112, 2.2", format!("\r\n{}", head(get, host)), 1)
            .and(Statuses(vec![vec![200]])),
        Case::raw(
            "Lines that end in LF alone",
            "RFC 9112, 2.2",
            "GET /digits.txt HTTP/1.1\nHost: site.test\n\n",
            1,
        )
        .and(Refused(&[200, 400])),
        raw("A space before the colon", "RFC 9112, 5.1", get, &with("X-A : b\r\n")).and(Refused(&[400])),
        raw("A folded field", "RFC 9112, 5.2", get, &with("X-A: b\r\n c\r\n")).and(Refused(&[200, 400])),
        raw("A space before the first field", "RFC 9112, 2.2", get, " X-A: b\r\nHost: site.test\r\n")
            .and(Refused(&[200, 400])),
        raw("A field without a name", "RFC 9110, 5.1", get, &with(": b\r\n")).and(Refused(&[400])),
        raw("A field without a colon", "RFC 9112, 5", get, &with("nonsense\r\n")).and(Refused(&[400])),
        raw("A NUL in a field", "RFC 9110, 5.5", get, &with("X-A: b\0c\r\n")).and(Refused(&[400])),
        raw("A CR alone in a field", "RFC 9112, 2.2", get, &with("X-A: b\rc\r\n")).and(Refused(&[200, 400])),
        raw("Fields of 8 KiB", "RFC 9110, 5.4", get, &with(&format!("X-A: {}\r\n", "b".repeat(8000 - 100))))
            .and(Statuses(vec![vec![200]])),
        raw("Fields of 1 MiB", "RFC 6585, 5", get, &with(&format!("X-A: {}\r\n", "b".repeat(1 << 20))))
            .and(Refused(&[400, 413, 431]))
            .left_open(),
        raw("Ten thousand fields", "RFC 6585, 5", get, &with(&"X-A: b\r\n".repeat(10_000)))
            .and(Refused(&[400, 413, 431]))
            .left_open(),
    ];
    // What is content to one server and a request to another is how requests are
    // smuggled: it is refused, or the connection ends after the answer.
    let smuggling = [
        (
            "`Content-Length` and `Transfer-Encoding`",
            "RFC 9112, 6.3",
            format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", length + 5),
            format!("0\r\n\r\n{SMUGGLED}"),
        ),
        (
            "Two lengths that differ",
            "RFC 9112, 6.3",
            format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
            SMUGGLED.to_owned(),
        ),
        (
            "A list of two lengths",
            "RFC 9112, 6.3",
            format!("Content-Length: 0, {length}\r\n"),
            SMUGGLED.to_owned(),
        ),
        (
            "A length with a sign",
            "RFC 9110, 8.6",
            format!("Content-Length: +{length}\r\n"),
            SMUGGLED.to_owned(),
        ),
        ("A length in hex", "RFC 9110, 8.6", "Content-Length: 0x10\r\n".to_owned(), SMUGGLED.to_owned()),
        (
            "A length above 2⁶⁴",
            "RFC 9110, 8.6",
            "Content-Length: 18446744073709551617\r\n".to_owned(),
            SMUGGLED.to_owned(),
        ),
        ("A negative length", "RFC 9110, 8.6", "Content-Length: -1\r\n".to_owned(), SMUGGLED.to_owned()),
        (
            "A space before the length's colon",
            "RFC 9112, 5.1",
            format!("Content-Length : {length}\r\n"),
            SMUGGLED.to_owned(),
        ),
        (
            "A coding that is not `chunked` at the end",
            "RFC 9112, 6.3",
            "Transfer-Encoding: chunked, identity\r\n".to_owned(),
            format!("0\r\n\r\n{SMUGGLED}"),
        ),
        (
            "A coding that nobody knows",
            "RFC 9112, 6.1",
            "Transfer-Encoding: xchunked\r\n".to_owned(),
            format!("0\r\n\r\n{SMUGGLED}"),
        ),
        (
            "`chunked` twice",
            "RFC 9112, 6.1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".to_owned(),
            format!("0\r\n\r\n{SMUGGLED}"),
        ),
        (
            "A chunk's size that is none",
            "RFC 9112, 7.1",
            "Transfer-Encoding: chunked\r\n".to_owned(),
            format!("zz\r\n{SMUGGLED}"),
        ),
        (
            "A chunk's size above 2⁶⁴",
            "RFC 9112, 7.1",
            "Transfer-Encoding: chunked\r\n".to_owned(),
            format!("10000000000000000\r\n{SMUGGLED}"),
        ),
        (
            "A chunk that ends in LF alone",
            "RFC 9112, 7.1",
            "Transfer-Encoding: chunked\r\n".to_owned(),
            format!("1\nx\n0\n\n{SMUGGLED}"),
        ),
    ];
    for (behaviour, clause, fields, content) in smuggling {
        let request = format!("{}{content}", head(post, &with(&fields)));
        cases.push(
            Case::raw(behaviour, clause, request, 1)
                .and(Refused(&[400, 405, 411, 413, 501]))
                .and(EndsUnsmuggled),
        );
    }
    cases.push(
        Case::raw(
            "`Transfer-Encoding` of HTTP/1.0 ends the connection",
            "RFC 9112, 6.1",
            format!("POST /digits.txt HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n0\r\n\r\n"),
            1,
        )
        .and(Refused(&[400, 405, 411, 501]))
        .and(Connection(After::Closed)),
    );
    cases
}
