//! What becomes of the connection.

use crate::case::{Case, Check::*};
use crate::client::After;

/// RFC 9112, 9; RFC 9110, 7.8 and 10.1.1; RFC 9113, 3.3.
pub(crate) fn cases() -> Vec<Case> {
    let get = "GET /digits.txt HTTP/1.1\r\nHost: site.test\r\n";
    let raw = |behaviour, clause, text: String, answers| Case::raw(behaviour, clause, text, answers);
    let post = "POST /digits.txt HTTP/1.1\r\nHost: site.test\r\n";
    vec![
        raw("HTTP/1.1 is kept open", "RFC 9112, 9.3", format!("{get}\r\n"), 1)
            .and(Statuses(vec![vec![200]]))
            .and(Connection(After::Kept)),
        raw("`Connection: close`", "RFC 9112, 9.6", format!("{get}Connection: close\r\n\r\n"), 1)
            .and(Statuses(vec![vec![200]]))
            .and(Lists("connection", &["close"]))
            .and(Connection(After::Closed)),
        raw("`close` among others, in another case", "RFC 9110, 7.6.1", format!("{get}Connection: x, CLOSE\r\n\r\n"), 1)
            .and(Connection(After::Closed)),
        raw("HTTP/1.0 is closed", "RFC 9112, 9.3", "GET /digits.txt HTTP/1.0\r\n\r\n".into(), 1)
            .and(Statuses(vec![vec![200]]))
            .and(Content("digits.txt"))
            .and(Connection(After::Closed)),
        raw("HTTP/1.0 needs no `Host`", "RFC 9112, 3.2", "GET /digits.txt HTTP/1.0\r\n\r\n".into(), 1)
            .and(Statuses(vec![vec![200]])),
        raw(
            "HTTP/1.0 gets no chunks",
            "RFC 9112, 6.1",
            "GET /about HTTP/1.0\r\nHost: site.test\r\n\r\n".into(),
            1,
        )
        .and(Lacks("transfer-encoding")),
        raw(
            "HTTP/1.0 with `keep-alive`",
            "RFC 9112, 9.3",
            "GET /digits.txt HTTP/1.0\r\nHost: site.test\r\nConnection: keep-alive\r\n\r\n".into(),
            1,
        )
        .and(Connection(After::Kept)),
        raw("A missing file keeps it open", "RFC 9112, 9.3", "GET /no HTTP/1.1\r\nHost: site.test\r\n\r\n".into(), 1)
            .and(Statuses(vec![vec![404]]))
            .and(Connection(After::Kept)),
        raw("A 304 keeps it open", "RFC 9112, 6.3", format!("{get}If-None-Match: *\r\n\r\n"), 1)
            .and(Connection(After::Kept)),
        raw("Pipelined requests are answered in order", "RFC 9112, 9.3.2", {
            let missing = "GET /no HTTP/1.1\r\nHost: site.test\r\n\r\n";
            format!("{get}\r\n{missing}{get}Range: bytes=2-5\r\n\r\n")
        }, 3)
        .and(Statuses(vec![vec![200, 404, 206]]))
        .and(Bytes(b"2345"))
        .and(Connection(After::Kept)),
        raw("A hundred pipelined requests", "RFC 9112, 9.3.2", format!("{get}\r\n").repeat(100), 100)
            .and(Statuses(vec![vec![200; 100]]))
            .and(Connection(After::Kept)),
        raw("A large file is whole", "RFC 9110, 8.6", "GET /large.bin HTTP/1.1\r\nHost: site.test\r\n\r\n".into(), 1)
            .and(Statuses(vec![vec![200]]))
            .and(Field("content-length", "3145728"))
            .and(Content("large.bin"))
            .and(Connection(After::Kept)),
        raw("Content of a `GET` is read away", "RFC 9110, 9.3.1", format!("{get}Content-Length: 5\r\n\r\nhello"), 1)
            .and(Refused(&[200, 400]))
            .and(NotSmuggled),
        raw(
            "Chunked content of a `GET`, with extensions and trailers",
            "RFC 9112, 7.1.1",
            format!("{get}Transfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d;e\"\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
            1,
        )
        .and(Refused(&[200, 400]))
        .and(NotSmuggled),
        raw(
            "Content of a refused `POST` is no request",
            "RFC 9112, 9.3",
            format!("{post}Content-Length: 52\r\n\r\nGET /smuggled.txt HTTP/1.1\r\nHost: site.test\r\nA: b\r\n\r\n"),
            1,
        )
        .and(Statuses(vec![vec![405]]))
        .and(NotSmuggled),
        raw(
            "`Expect: 100-continue`",
            "RFC 9110, 10.1.1",
            format!("{post}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
            1,
        )
        .and(Statuses(vec![vec![405]]))
        .and(ContinuedOrFinal),
        raw("Another expectation", "RFC 9110, 10.1.1", format!("{get}Expect: wonders\r\n\r\n"), 1)
            .and(Refused(&[200, 417])),
        raw(
            "`Upgrade: websocket` of a file",
            "RFC 9110, 7.8",
            format!(
                "{get}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
            1,
        )
        .and(Refused(&[200, 400, 426, 501]))
        .left_open(),
        raw(
            "`Upgrade: h2c` is not needed",
            "RFC 9113, 3.1",
            format!("{get}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"),
            1,
        )
        .and(Statuses(vec![vec![200], vec![101]])),
        raw("An unknown protocol to upgrade to is ignored", "RFC 9110, 7.8", format!("{get}Connection: Upgrade\r\nUpgrade: tea/1\r\n\r\n"), 1)
            .and(Statuses(vec![vec![200]])),
        raw("Bytes that are no HTTP", "RFC 9112, 2.2", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n".into(), 1)
            .and(Refused(&[400])),
        raw("What follows a request with `close` is not answered", "RFC 9112, 9.6", format!("{get}Connection: close\r\n\r\n{get}\r\n"), 1)
            .and(Statuses(vec![vec![200]]))
            .and(Connection(After::Closed)),
        raw("HTTP/2 by prior knowledge", "RFC 9113, 3.3", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".into(), 1)
            .and(SpeaksHttp2)
            .left_open(),
    ]
}
