//! Parts of a file.

use crate::case::{Case, Check::*};

const FILE: &str = "/digits.txt";

/// RFC 9110, 14; the file has ten bytes.
pub(crate) fn cases() -> Vec<Case> {
    let get = |behaviour, clause, headers: &[&str], statuses: &[u16]| {
        Case::get(behaviour, clause, FILE, headers, statuses).knowing(FILE, "")
    };
    // A server may ignore ranges (14.2).
    let part = |behaviour, clause, headers: &[&str], statuses: &[u16]| {
        get(behaviour, clause, headers, statuses).left_open()
    };
    vec![
        part("A file says that ranges are taken", "RFC 9110, 14.3", &[], &[200])
            .and(Field("accept-ranges", "bytes")),
        part("First to last", "RFC 9110, 14.1.2", &["Range: bytes=2-5"], &[206])
            .and(Field("content-range", "bytes 2-5/10"))
            .and(Field("content-length", "4"))
            .and(Has("etag"))
            .and(Bytes(b"2345")),
        part("From a byte on", "RFC 9110, 14.1.2", &["Range: bytes=7-"], &[206])
            .and(Field("content-range", "bytes 7-9/10"))
            .and(Bytes(b"789")),
        part("Past the end is to the end", "RFC 9110, 14.1.2", &["Range: bytes=7-99"], &[206])
            .and(Field("content-range", "bytes 7-9/10"))
            .and(Bytes(b"789")),
        part("The last bytes", "RFC 9110, 14.1.2", &["Range: bytes=-3"], &[206])
            .and(Field("content-range", "bytes 7-9/10"))
            .and(Bytes(b"789")),
        part("More last bytes than there are", "RFC 9110, 14.1.2", &["Range: bytes=-99"], &[206])
            .and(Field("content-range", "bytes 0-9/10"))
            .and(Bytes(b"0123456789")),
        part("The unit in another case", "RFC 9110, 14.1", &["Range: BYTES=2-5"], &[206]).and(Bytes(b"2345")),
        part("Begins past the end", "RFC 9110, 15.5.17", &["Range: bytes=10-"], &[416])
            .and(Field("content-range", "bytes */10")),
        part("The last zero bytes", "RFC 9110, 14.1.2", &["Range: bytes=-0"], &[416])
            .and(Field("content-range", "bytes */10")),
        get("A number above 2⁶⁴", "RFC 9110, 14.1.2", &["Range: bytes=99999999999999999999-"], &[200, 416]),
        get("Last before first is no range", "RFC 9110, 14.1.1", &["Range: bytes=5-2"], &[200, 416]),
        get("Another unit is ignored", "RFC 9110, 14.2", &["Range: lines=1-2"], &[200])
            .and(Content("digits.txt")),
        get("Text that is no range", "RFC 9110, 14.2", &["Range: bytes=a-b"], &[200, 416]),
        part("Two ranges", "RFC 9110, 14.6", &["Range: bytes=0-1,7-8"], &[206])
            .and(Lacks("content-range"))
            .and(Parts("digits.txt", &[(0, 1), (7, 8)])),
        part(
            "Two ranges with spaces and an empty element",
            "RFC 9110, 5.6.1.2",
            &["Range: bytes=0-1, , -1"],
            &[206],
        )
        .and(Parts("digits.txt", &[(0, 1), (9, 9)])),
        part(
            "Two ranges of which one is past the end",
            "RFC 9110, 14.2",
            &["Range: bytes=0-1,50-60"],
            &[206],
        )
        .and(OnePart("digits.txt", (0, 1))),
        part("Two ranges, both past the end", "RFC 9110, 15.5.17", &["Range: bytes=50-60,70-"], &[416])
            .and(Field("content-range", "bytes */10")),
        get(
            "Overlapping ranges are not sent twice",
            "RFC 9110, 14.2",
            &["Range: bytes=0-5,2-7"],
            &[200, 206],
        )
        .and(AtMost(700)),
        get(
            "Thousands of ranges cost no more than the file",
            "RFC 9110, 17.15",
            &[&format!("Range: bytes={}", vec!["0-"; 900].join(","))],
            &[200, 206, 400, 416, 431],
        )
        .and(AtMost(2000)),
        part(
            "`If-Range` with the file's tag",
            "RFC 9110, 13.1.5",
            &["Range: bytes=2-5", "If-Range: {tag}"],
            &[206],
        )
        .and(Bytes(b"2345")),
        get(
            "`If-Range` with another tag",
            "RFC 9110, 13.1.5",
            &["Range: bytes=2-5", "If-Range: \"a\""],
            &[200],
        )
        .and(Content("digits.txt")),
        get(
            "`If-Range` with a weak tag",
            "RFC 9110, 13.1.5",
            &["Range: bytes=2-5", "If-Range: W/{tag}"],
            &[200],
        )
        .and(Content("digits.txt")),
        get(
            "`If-Range` with another tag, and a range past the end",
            "RFC 9110, 13.1.5",
            &["Range: bytes=50-", "If-Range: \"a\""],
            &[200],
        ),
        get(
            "`If-Range` with a date before the file's",
            "RFC 9110, 13.1.5",
            &["Range: bytes=2-5", "If-Range: Thu, 01 Jan 1970 00:00:00 GMT"],
            &[200],
        ),
        part(
            "`If-None-Match` comes before `Range`",
            "RFC 9110, 13.2.2",
            &["Range: bytes=2-5", "If-None-Match: {tag}"],
            &[304],
        ),
        Case::method(
            "A range of a `HEAD` is ignored",
            "RFC 9110, 14.2",
            "HEAD",
            FILE,
            &["Range: bytes=2-5"],
            &[200],
        )
        .and(Lacks("content-range")),
        Case::get(
            "A range of an empty file",
            "RFC 9110, 15.5.17",
            "/empty.txt",
            &["Range: bytes=0-"],
            &[200, 416],
        ),
        Case::get(
            "A range deep in a large file",
            "RFC 9110, 14.1.2",
            "/large.bin",
            &["Range: bytes=3000000-3000009"],
            &[206],
        )
        .and(Field("content-range", "bytes 3000000-3000009/3145728"))
        .and(Slice("large.bin", (3_000_000, 3_000_009)))
        .left_open(),
        Case::get(
            "A range of a missing file",
            "RFC 9110, 14.2",
            "/no-such-file",
            &["Range: bytes=0-1"],
            &[404],
        ),
    ]
}
