//! Several ranges in one request: RFC 9110, 14.

use crate::server::{Response, Served};

/// The parts of a `multipart/byteranges` body: head and content.
fn parts(response: &Response) -> Vec<(String, Vec<u8>)> {
    let media_type = response.header("content-type").unwrap();
    let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").expect(media_type);
    let (mut rest, mut parts) = (response.body.clone(), Vec::new());
    rest.splice(0..0, *b"\r\n");
    let line = format!("\r\n--{boundary}");
    let find = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).position(|window| window == text);
    while let Some(start) = find(&rest, line.as_bytes()) {
        assert_eq!(start, 0, "nothing is between the parts");
        rest.drain(..line.len());
        if rest == b"--\r\n" {
            return parts;
        }
        let head = find(&rest, b"\r\n\r\n").unwrap();
        let end = find(&rest, line.as_bytes()).unwrap();
        parts.push((String::from_utf8(rest[2..head].to_vec()).unwrap(), rest[head + 4..end].to_vec()));
        rest.drain(..end);
    }
    panic!("no end: {rest:?}");
}

#[test]
fn several_ranges_are_parts_with_their_own_type_and_place() {
    let large: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let served = Served::sealed(&[("small.txt", &large[..1000]), ("large.txt", &large)], false);
    for (path, size) in [("/small.txt", 1000), ("/large.txt", 1_000_000)] {
        let last = size - 1;
        let response = served.request("GET", path, &["range: bytes=500-999, 0-0, -1"]);
        assert_eq!(response.status, 206);
        assert_eq!(response.header("content-range"), None);
        assert_eq!(response.header("content-length"), Some(response.body.len().to_string().as_str()));
        let expected: &[(usize, usize)] =
            if size == 1000 { &[(0, 0), (500, 999)] } else { &[(500, 999), (0, 0), (last, last)] };
        let parts = parts(&response);
        assert_eq!(parts.len(), expected.len());
        for ((head, content), (first, last)) in parts.iter().zip(expected) {
            let range = format!("Content-Range: bytes {first}-{last}/{size}");
            assert_eq!(head, &format!("Content-Type: text/plain; charset=utf-8\r\n{range}"));
            assert!(content == &large[*first..=*last]);
        }
    }
}

#[test]
fn sets_that_ask_for_too_much_or_for_nothing_sensible() {
    let served = Served::sealed(&[("a.txt", b"0123456789")], false);
    let get = |range: &str| served.request("GET", "/a.txt", &[&format!("range: {range}")]);
    let joined = get("bytes=0-5, 3-7, 8-");
    assert_eq!((joined.status, joined.header("content-range")), (206, Some("bytes 0-9/10")));
    let one = get("bytes=20-30, 4-5");
    assert_eq!((one.status, one.body.as_slice()), (206, &b"45"[..]));
    let none = get("bytes=20-, 30-40");
    assert_eq!((none.status, none.header("content-range")), (416, Some("bytes */10")));
    for ignored in ["bytes=0-1, 5-3", "bytes=0-1; 3-4", "pages=1-2", "bytes=", "bytes=x-"] {
        let response = get(ignored);
        assert_eq!((response.status, response.body.len()), (200, 10), "{ignored}");
    }
    let many: Vec<String> = (0..1000).map(|_| "0-0,2-2".to_owned()).collect();
    assert_eq!(get(&format!("bytes={}", many.join(","))).status, 200);
    let two = served.request("GET", "/a.txt", &["range: bytes=0-0", "range: bytes=2-2"]);
    assert_eq!((two.status, two.body.len()), (200, 10));
    let head = served.request("HEAD", "/a.txt", &["range: bytes=0-0,2-2"]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
}
