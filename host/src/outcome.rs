//! What became of a request, and the one place where that becomes a response.

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED, LOCATION, RETRY_AFTER, VARY,
};
use http::{Response, StatusCode};
use wharf_app::{Coding, encode_path};

use crate::body::Body;
use crate::contents::{Contents, Multipart};
use crate::range::ByteRange;

/// What became of a request.
pub(crate) enum Outcome {
    /// A static file, whole or in part.
    File(File),
    /// The client has this version of the file already.
    NotModified(Representation),
    /// The file isn't what the client expects it to be.
    PreconditionFailed(Form),
    /// No byte of the asked range exists; the form has `size`.
    RangeNotSatisfiable { size: u64, form: Form },
    /// It is elsewhere: this path, and the query of the request.
    Redirect(String),
    /// It is elsewhere, as a rule of the user's says: a URL, to which the query
    /// of the request belongs if it has none of its own.
    Elsewhere { status: u16, location: String },
    /// What answers here depends on whether the request is a navigation.
    OfNavigation(Box<Self>),
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
    /// The path is longer than any that we serve.
    PathTooLong,
    /// Static files are read only.
    MethodNotAllowed,
    /// `OPTIONS` on a static file.
    Options,
    /// Nothing is there.
    NotFound,
    /// The file can't be read, though it should be there.
    FileFailed,
    /// This program has a defect.
    HostFailed,
}

/// A static file on its way out.
pub(crate) struct File {
    pub(crate) status: StatusCode,
    /// Of the file, in whatever form; `None` if the user wants none told.
    pub(crate) media_type: Option<HeaderValue>,
    pub(crate) representation: Representation,
    /// Of the form, in bytes.
    pub(crate) size: u64,
    pub(crate) part: Part,
    /// All of the form.
    pub(crate) contents: Contents,
}

/// What is said of a file's form with its content and without (RFC 9110, 15.4.5).
pub(crate) struct Representation {
    pub(crate) form: Form,
    pub(crate) etag: HeaderValue,
    /// `Last-Modified`, where that means anything.
    pub(crate) modified: Option<HeaderValue>,
    pub(crate) cache_control: HeaderValue,
}

/// How much of the form the body is.
pub(crate) enum Part {
    /// All of it; its size, as it is sent.
    Whole { length: HeaderValue },
    /// This range.
    One(ByteRange),
    /// Several, each as a part with its own head.
    Several(Vec<ByteRange>),
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

/// Headers of a static file, with room for a few of a rule: one allocation.
const HEADERS: usize = 12;

/// The methods that a static file answers.
const FILE_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

impl Outcome {
    /// The file that it sends, if it does.
    pub(crate) fn file_mut(&mut self) -> Option<&mut File> {
        match self {
            Self::File(file) => Some(file),
            Self::OfNavigation(outcome) => outcome.file_mut(),
            _ => None,
        }
    }

    /// The response to send. `query` is the request's, without its `?`.
    pub(crate) fn into_response(self, query: Option<&str>, isolated: bool) -> Response<Body> {
        let mut response = match self {
            Self::File(file) => file.into_response(),
            Self::NotModified(representation) => {
                let mut response = empty(StatusCode::NOT_MODIFIED);
                representation.describe(response.headers_mut());
                response
            }
            Self::PreconditionFailed(form) => {
                let mut response = message(StatusCode::PRECONDITION_FAILED);
                form.add_vary(response.headers_mut());
                response
            }
            Self::OfNavigation(outcome) => {
                let mut response = outcome.into_response(query, false);
                response.headers_mut().append(VARY, NAVIGATION);
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
            Self::Redirect(path) => redirect(StatusCode::PERMANENT_REDIRECT, &encode_path(&path), query),
            Self::Elsewhere { status, location } => {
                redirect(StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND), &location, query)
            }
            Self::Worker(response) => response,
            Self::WorkerFailed | Self::FileFailed | Self::HostFailed => {
                message(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Self::WorkerTimedOut => message(StatusCode::GATEWAY_TIMEOUT),
            Self::Busy => {
                with(message(StatusCode::SERVICE_UNAVAILABLE), RETRY_AFTER, HeaderValue::from_static("1"))
            }
            Self::BodyTooLarge => message(StatusCode::PAYLOAD_TOO_LARGE),
            Self::BadPath | Self::BadBody => message(StatusCode::BAD_REQUEST),
            Self::PathTooLong => message(StatusCode::URI_TOO_LONG),
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

/// What tells a navigation from other requests.
const NAVIGATION: HeaderValue = HeaderValue::from_static("accept, sec-fetch-mode");

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

impl Representation {
    fn describe(self, headers: &mut HeaderMap) {
        headers.insert(ETAG, self.etag);
        headers.insert(CACHE_CONTROL, self.cache_control);
        if let Some(modified) = self.modified {
            headers.insert(LAST_MODIFIED, modified);
        }
        self.form.add_vary(headers);
    }
}

impl File {
    fn into_response(self) -> Response<Body> {
        let Self { status, media_type, representation, size, part, contents } = self;
        let mut content_range = None;
        let (length, media_type, body) = match part {
            Part::Whole { length } => (length, media_type, contents.part(0, size)),
            Part::One(range) => {
                let ByteRange { first, last } = range;
                content_range = HeaderValue::try_from(format!("bytes {first}-{last}/{size}")).ok();
                (range.length().into(), media_type, contents.part(first, range.length()))
            }
            Part::Several(ranges) => {
                let of_parts = media_type.as_ref().map(HeaderValue::as_bytes);
                let Multipart { boundary, length, body } = contents.parts(&ranges, of_parts, size);
                let of_all = format!("multipart/byteranges; boundary={boundary}");
                (length.into(), HeaderValue::try_from(of_all).ok(), body)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.reserve(HEADERS);
        headers.insert(CONTENT_LENGTH, length);
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Form::Encoded(coding) = representation.form {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        representation.describe(headers);
        if let Some(content_range) = content_range {
            headers.insert(CONTENT_RANGE, content_range);
        }
        if let Some(media_type) = media_type {
            headers.insert(CONTENT_TYPE, media_type);
        }
        response
    }
}

/// A redirect to `location`, an encoded URL. The request's query comes after its
/// path, before its fragment.
fn redirect(status: StatusCode, location: &str, query: Option<&str>) -> Response<Body> {
    let (address, fragment) = location.find('#').map_or((location, ""), |at| location.split_at(at));
    let location = match query {
        Some(query) if !address.contains('?') => {
            HeaderValue::try_from(format!("{address}?{query}{fragment}"))
        }
        _ => HeaderValue::try_from(location),
    };
    match location {
        Ok(location) => with(message(status), LOCATION, location),
        Err(_) => message(StatusCode::BAD_REQUEST),
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// A page of one line, for a person: `404 Not Found`.
fn message(status: StatusCode) -> Response<Body> {
    let text = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let mut response = Response::new(Body::Whole(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn with(mut response: Response<Body>, name: HeaderName, value: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_keeps_the_query_and_never_names_a_host() {
        let location = |path: &str| {
            let response = Outcome::Redirect(path.into()).into_response(Some("a=1"), false);
            assert_eq!(response.status(), 308);
            response.headers()[LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(location("/dist/"), "/dist/?a=1");
        assert_eq!(location("/ä b/"), "/%C3%A4%20b/?a=1");
        assert_eq!(location("//evil.example/"), "/%2Fevil.example/?a=1");
    }

    #[test]
    fn a_redirect_of_the_users_keeps_the_query_unless_it_has_its_own() {
        let location = |location: &str, query| {
            let outcome = Outcome::Elsewhere { status: 301, location: location.into() };
            let response = outcome.into_response(query, false);
            assert_eq!(response.status(), 301);
            response.headers()[LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(location("/new", Some("a=1")), "/new?a=1");
        assert_eq!(location("/new#c", Some("a=1")), "/new?a=1#c");
        assert_eq!(location("https://x.example/?b#c", Some("a=1")), "https://x.example/?b#c");
        assert_eq!(location("/new#c?d", None), "/new#c?d");
    }

    #[test]
    fn isolation_is_on_every_response() {
        let response = Outcome::NotFound.into_response(None, true);
        assert_eq!(response.headers()["cross-origin-opener-policy"], "same-origin");
        assert_eq!(response.headers()["cross-origin-embedder-policy"], "require-corp");
    }
}
