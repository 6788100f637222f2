//! Methods other than `GET`.

use crate::case::{Case, Check::*};
use crate::client::After;

const FILE: &str = "/digits.txt";

/// RFC 9110, 9.
pub(crate) fn cases() -> Vec<Case> {
    let method = |behaviour, clause, method, statuses: &[u16]| {
        let headers: &[&str] = if method == "POST" || method == "PUT" { &["Content-Length: 0"] } else { &[] };
        Case::method(behaviour, clause, method, FILE, headers, statuses)
    };
    vec![
        method("`HEAD` has the fields of `GET` and no content", "RFC 9110, 9.3.2", "HEAD", &[200])
            .and(Field("content-length", "10"))
            .and(Has("etag"))
            .and(Has("content-type"))
            .and(Connection(After::Kept))
            .left_open(),
        Case::method("`HEAD` of a missing file", "RFC 9110, 9.3.2", "HEAD", "/no-such-file", &[], &[404])
            .and(Connection(After::Kept)),
        method("`OPTIONS` of a file lists its methods", "RFC 9110, 9.3.7", "OPTIONS", &[200, 204])
            .and(Lists("allow", &["get", "head"])),
        Case::method("`OPTIONS *`", "RFC 9110, 9.3.7", "OPTIONS", "*", &[], &[200, 204]).left_open(),
        method("`POST` to a file", "RFC 9110, 15.5.6", "POST", &[405]).left_open(),
        method("`PUT` to a file", "RFC 9110, 15.5.6", "PUT", &[405]).and(Lists("allow", &["get", "head"])),
        method("`DELETE` of a file", "RFC 9110, 15.5.6", "DELETE", &[405])
            .and(Lists("allow", &["get", "head"])),
        method("`TRACE` is not echoed", "RFC 9110, 9.3.8", "TRACE", &[405, 501]).left_open(),
        Case::raw(
            "`CONNECT` makes no tunnel",
            "RFC 9110, 9.3.6",
            "CONNECT site.test:443 HTTP/1.1\r\nHost: site.test:443\r\n\r\n",
            1,
        )
        .and(Refused(&[400, 404, 405, 501]))
        .left_open(),
        method("An unknown method", "RFC 9110, 9.1", "BREW", &[405, 501]),
        method("Methods have a case", "RFC 9110, 9.1", "get", &[400, 405, 501]),
        Case::method(
            "`POST` to a missing file",
            "RFC 9110, 15.5",
            "POST",
            "/no-such-file",
            &["Content-Length: 0"],
            &[404, 405],
        )
        .left_open(),
    ]
}
