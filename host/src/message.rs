//! What a request must be beyond what hyper checks: the rules of RFC 9112 and
//! RFC 9113 for `Host` and `Transfer-Encoding`, by which requests are smuggled
//! past proxies.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{Request, Response, StatusCode, Uri, Version};

use crate::body::Body;

/// Whether the request is to be answered at all; else it gets a [`refusal`].
pub(crate) fn is_sound<B>(request: &Request<B>) -> bool {
    match request.version() {
        // Frames have no codings.
        Version::HTTP_2 => names_one_host(request.uri(), request.headers()),
        version => names_host(request.headers(), version) && has_one_length(request.headers()),
    }
}

/// 400, after which a connection of HTTP/1 ends: where the next request begins
/// is anybody's guess. With HTTP/2 it is not, and hyper leaves the field out.
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

/// RFC 9113, 8.3.1: `:authority` without userinfo, or one valid `Host` in its
/// place; with both, they name the same.
fn names_one_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (uri.authority(), hosts.next(), hosts.next()) {
        (None, None, _) => true,
        (None, Some(host), None) => is_host(host),
        (Some(authority), None, _) => !authority.as_str().contains('@'),
        (Some(authority), Some(host), None) => {
            is_host(host)
                && Authority::try_from(host.as_bytes())
                    .is_ok_and(|host| is_same(uri.scheme_str(), authority, &host))
        }
        (_, Some(_), Some(_)) => false,
    }
}

/// Whether both are one host and port, normalized (RFC 3986, 6.2): names have
/// no case, and the scheme's own port need not be written.
fn is_same(scheme: Option<&str>, one: &Authority, other: &Authority) -> bool {
    let own = if scheme == Some("https") { "443" } else { "80" };
    one.host().eq_ignore_ascii_case(other.host())
        && port_of(one, own).is_some_and(|port| port_of(other, own) == Some(port))
}

/// Its port, or `own`; `None` if it has userinfo.
fn port_of<'a>(authority: &'a Authority, own: &'a str) -> Option<&'a str> {
    let rest = authority.as_str().strip_prefix(authority.host())?;
    Some(rest.strip_prefix(':').filter(|port| !port.is_empty()).unwrap_or(own))
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
    }

    #[test]
    fn http_2_names_one_valid_host_by_its_authority_or_by_a_field_and_never_two() {
        let sound = |address: &str, hosts: &[&str]| {
            let request = Request::builder().version(Version::HTTP_2).uri(address);
            is_sound(
                &hosts.iter().fold(request, |request, host| request.header(HOST, *host)).body(()).unwrap(),
            )
        };
        for (address, hosts) in [
            ("/", &[][..]),
            ("/", &["site.test:8080"]),
            ("http://site.test/", &[]),
            ("http://site.test/", &["site.test"]),
            ("http://site.test/", &["SITE.test:80"]),
            ("https://Site.test:443/", &["site.test:"]),
            ("http://[::1]:8080/", &["[::1]:8080"]),
        ] {
            assert!(sound(address, hosts), "{address} {hosts:?}");
        }
        for (address, hosts) in [
            ("/", &["a b"][..]),
            ("/", &["user@site.test"]),
            ("/", &["site.test", "site.test"]),
            ("http://user@site.test/", &[]),
            ("http://user@site.test/", &["site.test"]),
            ("http://site.test/", &["user@site.test"]),
            ("http://site.test/", &["other.test"]),
            ("http://site.test/", &[""]),
            ("http://site.test/", &["a b"]),
            ("http://site.test/", &["site.test:8080"]),
            ("https://site.test/", &["site.test:80"]),
            ("http://site.test/", &["site.test", "site.test"]),
        ] {
            assert!(!sound(address, hosts), "{address} {hosts:?}");
        }
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
