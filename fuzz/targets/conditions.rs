//! `Range`, `If-*` and `Accept-Encoding`: what is sent is the form that the
//! answer says, and the part of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_fuzz::site::{self, CODINGS, Response, Site};

const FIELDS: [&str; 8] = [
    "range",
    "if-range",
    "if-none-match",
    "if-match",
    "accept-encoding",
    "if-modified-since",
    "if-unmodified-since",
    "range",
];

fuzz_target!(|input: &[u8]| {
    let Some((choice, values)) = input.split_first() else { return };
    let path = ["small.js", "large.js", "empty.txt", "about.html"][usize::from(choice & 3)];
    let method = if choice & 4 == 0 { "GET" } else { "HEAD" };
    let mut request = format!("{method} /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n").into_bytes();
    for (name, value) in FIELDS.iter().zip(values.split(|byte| *byte == b'\n')) {
        if value.is_empty() || value.iter().any(|byte| *byte < b' ' && *byte != b'\t' || *byte == 0x7f) {
            continue;
        }
        request.extend_from_slice(name.as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    // hyper's own limit of the head, which is not what is looked for.
    if request.len() > 100_000 {
        return;
    }
    site::with(|site| {
        let response = site.ask(method, &request);
        let form = form(site, path, &response);
        match response.status {
            200 if method == "HEAD" => {
                assert_eq!(response.header("content-length"), Some(form.len().to_string().as_str()));
            }
            200 => assert!(response.body == form, "{response:?}"),
            206 => part(&response, form, method),
            416 => {
                let expected = format!("bytes */{}", form.len());
                // The form is not told, so any one's length is right.
                let range = response.header("content-range").expect("a 416 tells the length");
                let known =
                    CODINGS.iter().filter_map(|(_, suffix)| site.files.get(&format!("{path}.{suffix}")));
                let mut lengths = known.map(|form| format!("bytes */{}", form.len()));
                assert!(range == expected || lengths.any(|length| length == range), "{response:?}");
            }
            304 => assert!(response.header("etag").is_some()),
            406 | 412 | 431 => {}
            status => panic!("{status}: {}", String::from_utf8_lossy(&request)),
        }
    });
});

/// The form of the file that the answer has.
fn form<'a>(site: &'a Site, path: &str, response: &Response) -> &'a [u8] {
    let suffix = response.header("content-encoding").map(|coding| {
        let known = CODINGS.iter().find(|(name, _)| *name == coding);
        known.unwrap_or_else(|| panic!("unknown coding {coding:?}")).1
    });
    let path = suffix.map_or_else(|| path.to_owned(), |suffix| format!("{path}.{suffix}"));
    &site.files[&path]
}

fn part(response: &Response, form: &[u8], method: &str) {
    assert_eq!(method, "GET", "a range is for GET alone");
    let Some(range) = response.header("content-range") else {
        let media_type = response.header("content-type").unwrap_or_default();
        assert!(media_type.starts_with("multipart/byteranges"), "{response:?}");
        // Each part has a head, and there are not more parts than are worth it.
        assert!(response.body.len() <= 2 * form.len() + 64 * 1024, "{} bytes", response.body.len());
        return;
    };
    let (range, size) =
        range.strip_prefix("bytes ").and_then(|range| range.split_once('/')).expect("a range");
    assert_eq!(size.parse(), Ok(form.len()));
    let (first, last) = range.split_once('-').expect("a range");
    let (first, last): (usize, usize) = (first.parse().expect("a number"), last.parse().expect("a number"));
    assert!(response.body == form[first..=last], "{first}-{last}");
}
