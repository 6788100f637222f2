//! What became of a request, and the one place where that becomes a response.

use std::io;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, LOCATION, RETRY_AFTER, VARY,
};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use wharf_app::Coding;

/// The body of a response.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What became of a request.
pub(crate) enum Outcome {
    /// A static file, whole or in part.
    File(File),
    /// The client has this version of the file already.
    NotModified { etag: HeaderValue, form: Form },
    /// No byte of the asked range exists; the form has `size`.
    RangeNotSatisfiable { size: u64, form: Form },
    /// It is elsewhere: this path, and the query of the request.
    Redirect(String),
    /// A worker's answer.
    Worker(Response<Body>),
    /// A worker trapped, or gave no answer.
    WorkerFailed,
    /// A worker's time was over before it answered.
    WorkerTimedOut,
    /// No worker became free in time.
    Busy,
    /// The request's body is larger than the worker takes.
    BodyTooLarge,
    /// The request's body is malformed, or was cut off.
    BadBody,
    /// The path is malformed.
    BadPath,
    /// Static files are read only.
    MethodNotAllowed,
    /// `OPTIONS` on a static file.
    Options,
    /// Nothing is there.
    NotFound,
    /// The file can't be read, though it should be there.
    FileFailed,
}

/// A static file on its way out.
pub(crate) struct File {
    pub(crate) status: StatusCode,
    /// Of the file, in whatever form.
    pub(crate) media_type: HeaderValue,
    pub(crate) form: Form,
    pub(crate) etag: HeaderValue,
    /// First and last byte, of how many, if only a part was asked.
    pub(crate) range: Option<(u64, u64, u64)>,
    pub(crate) length: u64,
    pub(crate) body: Body,
}

/// Which form of a file was chosen for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The only one that there is.
    Only,
    /// The file as it is, though there are encoded forms.
    AsItIs,
    /// An encoded one.
    Encoded(Coding),
}

/// The methods that a static file answers.
const FILE_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

impl Outcome {
    /// The response to send. `query` is the request's, with its `?`.
    pub(crate) fn into_response(self, query: &str, isolated: bool) -> Response<Body> {
        let mut response = match self {
            Self::File(file) => file.into_response(),
            Self::NotModified { etag, form } => {
                let mut response = with(empty(StatusCode::NOT_MODIFIED), ETAG, etag);
                form.add_vary(response.headers_mut());
                response
            }
            Self::RangeNotSatisfiable { size, form } => {
                let mut response = message(StatusCode::RANGE_NOT_SATISFIABLE);
                if let Ok(range) = HeaderValue::try_from(format!("bytes */{size}")) {
                    response.headers_mut().insert(CONTENT_RANGE, range);
                }
                form.add_vary(response.headers_mut());
                response
            }
            Self::Redirect(path) => {
                let location = encode_path(&path) + query;
                match HeaderValue::try_from(location) {
                    Ok(location) => with(message(StatusCode::PERMANENT_REDIRECT), LOCATION, location),
                    Err(_) => message(StatusCode::BAD_REQUEST),
                }
            }
            Self::Worker(response) => response,
            Self::WorkerFailed | Self::FileFailed => message(StatusCode::INTERNAL_SERVER_ERROR),
            Self::WorkerTimedOut => message(StatusCode::GATEWAY_TIMEOUT),
            Self::Busy => {
                with(message(StatusCode::SERVICE_UNAVAILABLE), RETRY_AFTER, HeaderValue::from_static("1"))
            }
            Self::BodyTooLarge => message(StatusCode::PAYLOAD_TOO_LARGE),
            Self::BadPath | Self::BadBody => message(StatusCode::BAD_REQUEST),
            Self::MethodNotAllowed => with(message(StatusCode::METHOD_NOT_ALLOWED), ALLOW, FILE_METHODS),
            Self::Options => with(empty(StatusCode::NO_CONTENT), ALLOW, FILE_METHODS),
            Self::NotFound => message(StatusCode::NOT_FOUND),
        };
        if isolated {
            let headers = response.headers_mut();
            for (name, value) in ISOLATION {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
        }
        response
    }
}

/// Cross-origin isolation (HTML, 7.1.4), for `SharedArrayBuffer`.
const ISOLATION: [(&str, &str); 3] = [
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-embedder-policy", "require-corp"),
    ("cross-origin-resource-policy", "same-origin"),
];

impl Form {
    /// Tells caches what the choice was made by (RFC 9110, 12.5.5).
    fn add_vary(self, headers: &mut HeaderMap) {
        if self != Self::Only {
            headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        }
    }
}

impl File {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.media_type);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.length));
        headers.insert(ETAG, self.etag);
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Form::Encoded(coding) = self.form {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        self.form.add_vary(headers);
        if let Some((first, last, size)) = self.range
            && let Ok(range) = HeaderValue::try_from(format!("bytes {first}-{last}/{size}"))
        {
            headers.insert(CONTENT_RANGE, range);
        }
        response
    }
}

pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// A page of one line, for a person: `404 Not Found`.
fn message(status: StatusCode) -> Response<Body> {
    let text = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let mut response = Response::new(full(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn with(mut response: Response<Body>, name: HeaderName, value: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}

/// `path` as it is spelled in a URL (RFC 3986, 3.3). A second slash at its
/// start would make a host of what follows, so it is encoded.
fn encode_path(path: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const PATH: AsciiSet = NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b'@')
        .remove(b':')
        .remove(b'+')
        .remove(b',')
        .remove(b'=')
        .remove(b'!')
        .remove(b'$')
        .remove(b'(')
        .remove(b')');
    let encoded = utf8_percent_encode(path, &PATH).to_string();
    match encoded.strip_prefix("//") {
        Some(rest) => format!("/%2F{rest}"),
        None => encoded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_keeps_the_query_and_never_names_a_host() {
        let location = |path: &str| {
            let response = Outcome::Redirect(path.into()).into_response("?a=1", false);
            assert_eq!(response.status(), 308);
            response.headers()[LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(location("/dist/"), "/dist/?a=1");
        assert_eq!(location("/ä b/"), "/%C3%A4%20b/?a=1");
        assert_eq!(location("//evil.example/"), "/%2Fevil.example/?a=1");
    }

    #[test]
    fn isolation_is_on_every_response() {
        let response = Outcome::NotFound.into_response("", true);
        assert_eq!(response.headers()["cross-origin-opener-policy"], "same-origin");
        assert_eq!(response.headers()["cross-origin-embedder-policy"], "require-corp");
    }
}
