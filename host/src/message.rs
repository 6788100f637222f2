//! What a request must be beyond what hyper checks: RFC 9112's rules for `Host`
//! and `Transfer-Encoding`, by which requests are smuggled past proxies.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{Request, Response, StatusCode, Version};

use crate::body::Body;

/// Whether the request is to be answered at all; else it gets a [`refusal`].
pub(crate) fn is_sound<B>(request: &Request<B>) -> bool {
    match request.version() {
        // Frames have no codings, and `:authority` was parsed with the address.
        Version::HTTP_2 => true,
        version => names_host(request.headers(), version) && has_one_length(request.headers()),
    }
}

/// 400, after which the connection ends: where the next request begins is
/// anybody's guess.
pub(crate) fn refusal() -> Response<Body> {
    let mut response = Response::new(Body::Whole(Bytes::from_static(b"400 Bad Request\n")));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// RFC 9112, 3.2: one `Host`, valid or empty; HTTP/1.0 may have none.
fn names_host(headers: &HeaderMap, version: Version) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host),
        (None, None) => version < Version::HTTP_11,
        (_, Some(_)) => false,
    }
}

/// `uri-host [ ":" port ]` (RFC 9110, 7.2): an authority without userinfo.
fn is_host(host: &HeaderValue) -> bool {
    let bytes = host.as_bytes();
    bytes.is_empty() || !bytes.contains(&b'@') && Authority::try_from(bytes).is_ok()
}

/// RFC 9112, 6.1: `chunked` once, and nothing else. hyper reads the last coding
/// alone, others might read the first.
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(version: Version, fields: &[(&str, &str)]) -> bool {
        let request = Request::builder().version(version);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        is_sound(&request.body(()).unwrap())
    }

    #[test]
    fn http_1_1_names_one_valid_host_and_http_1_0_may_name_none() {
        for host in ["site.test", "site.test:8080", "127.0.0.1", "[::1]:80", "x", "", "a_b.test"] {
            assert!(sound(Version::HTTP_11, &[("host", host)]), "{host}");
        }
        for host in ["a b", "a/b", "a@b", "a:b:c", "a\"", "[::1", "\u{e4}.test", "a?b", "a#b"] {
            assert!(!sound(Version::HTTP_11, &[("host", host)]), "{host}");
        }
        assert!(!sound(Version::HTTP_11, &[]));
        assert!(!sound(Version::HTTP_11, &[("host", "a"), ("host", "a")]));
        assert!(sound(Version::HTTP_10, &[]));
        assert!(!sound(Version::HTTP_10, &[("host", "a"), ("host", "b")]));
        assert!(sound(Version::HTTP_2, &[]));
    }

    #[test]
    fn the_only_coding_is_chunked_and_once() {
        let host = ("host", "a");
        assert!(sound(Version::HTTP_11, &[host, ("transfer-encoding", " Chunked")]));
        for coding in ["chunked, chunked", "gzip, chunked", "identity", ""] {
            assert!(!sound(Version::HTTP_11, &[host, ("transfer-encoding", coding)]), "{coding}");
        }
        let twice = [host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert!(!sound(Version::HTTP_11, &twice));
    }
}
