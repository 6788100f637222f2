//! Validators and conditional requests.

use crate::case::{Case, Check::*};

const FILE: &str = "/digits.txt";

/// RFC 9110, 8.8 and 13.
pub(crate) fn cases() -> Vec<Case> {
    let get = |behaviour, clause, headers: &[&str], statuses: &[u16]| {
        Case::get(behaviour, clause, FILE, headers, statuses).knowing(FILE, "")
    };
    vec![
        get("A file has a strong `ETag`", "RFC 9110, 8.8.3", &[], &[200])
            .and(Starts("etag", "\""))
            .and(Content("digits.txt")),
        get("`If-None-Match` with the file's tag", "RFC 9110, 13.1.2", &["If-None-Match: {tag}"], &[304])
            .and(Has("etag"))
            .and(Empty),
        get("`If-None-Match` with it as a weak tag", "RFC 9110, 13.1.2", &["If-None-Match: W/{tag}"], &[304])
            .and(Empty),
        get(
            "`If-None-Match` with it among others",
            "RFC 9110, 13.1.2",
            &["If-None-Match: \"a\", {tag},\"b\""],
            &[304],
        ),
        get(
            "`If-None-Match` in two fields",
            "RFC 9110, 5.3",
            &["If-None-Match: \"a\"", "If-None-Match: {tag}"],
            &[304],
        ),
        get("`If-None-Match: *`", "RFC 9110, 13.1.2", &["If-None-Match: *"], &[304]),
        get("`If-None-Match` with another tag", "RFC 9110, 13.1.2", &["If-None-Match: \"a\""], &[200])
            .and(Content("digits.txt")),
        get(
            "A tag with a comma in it is one tag",
            "RFC 9110, 8.8.3",
            &["If-None-Match: \"a,{tag},b\""],
            &[200, 304, 400],
        ),
        Case::method(
            "`If-None-Match` of a `HEAD`",
            "RFC 9110, 13.1.2",
            "HEAD",
            FILE,
            &["If-None-Match: {tag}"],
            &[304],
        )
        .knowing(FILE, ""),
        get(
            "`If-None-Match` wins over `If-Modified-Since`",
            "RFC 9110, 13.1.3",
            &["If-None-Match: \"a\"", "If-Modified-Since: Fri, 31 Dec 2027 00:00:00 GMT"],
            &[200],
        ),
        get(
            "`If-Modified-Since` that is no date is ignored",
            "RFC 9110, 13.1.3",
            &["If-Modified-Since: yesterday"],
            &[200],
        ),
        get("`If-Match` with the file's tag", "RFC 9110, 13.1.1", &["If-Match: {tag}"], &[200]),
        get("`If-Match: *`", "RFC 9110, 13.1.1", &["If-Match: *"], &[200]),
        get("`If-Match` with another tag", "RFC 9110, 13.1.1", &["If-Match: \"a\""], &[412]),
        get("`If-Match` with a weak tag never matches", "RFC 9110, 13.1.1", &["If-Match: W/{tag}"], &[412]),
        get(
            "`If-Match` comes before `If-None-Match`",
            "RFC 9110, 13.2.2",
            &["If-Match: \"a\"", "If-None-Match: {tag}"],
            &[412],
        ),
        get(
            "`If-Match` wins over `If-Unmodified-Since`",
            "RFC 9110, 13.1.4",
            &["If-Match: {tag}", "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"],
            &[200],
        ),
        Case::get(
            "A condition does not change the status of a missing file",
            "RFC 9110, 13.2.1",
            "/no-such-file",
            &["If-None-Match: *"],
            &[404],
        ),
        get("`Last-Modified` is not later than `Date`, or not there", "RFC 9110, 8.8.2.1", &[], &[200])
            .and(NotNewerThanDate),
        get("A response has a `Date`", "RFC 9110, 6.6.1", &[], &[200]).and(Has("date")),
    ]
}
