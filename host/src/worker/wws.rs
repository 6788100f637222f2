//! The protocol of Wasm Workers Server: a JSON document in, another one out.
//!
//! As its server speaks it (crates `wws-worker` and `wws-server`, 1.7), so that
//! its language kits run unchanged, but for what would be silent there: a
//! malformed status or header is an error and not another response. A header of
//! several values is a list of texts. `kv` is the worker's `default` store, and
//! what comes back its new state; without a store it is empty, and what comes
//! back is ignored.
//!
//! Nothing of the host is needed here: `make fuzz` builds this file alone.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

/// Largest document that a worker may answer with, in bytes: 32 MiB.
pub(crate) const LARGEST_OUTPUT: usize = 32 << 20;

/// Fields that only a server may send; the body's length it counts itself.
const OF_THE_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What a key-value store holds, all of it.
pub(crate) type State = BTreeMap<String, String>;

/// What a worker reads from its stdin.
#[derive(Debug, Serialize)]
pub(crate) struct Input<'a> {
    /// With scheme and authority.
    pub(crate) url: String,
    pub(crate) method: &'a str,
    /// One value each.
    pub(crate) headers: BTreeMap<&'a str, String>,
    /// Empty where it is no UTF-8: the protocol has no bytes.
    pub(crate) body: &'a str,
    /// What the worker's store holds; of none, nothing.
    pub(crate) kv: &'a State,
    /// Of the route.
    pub(crate) params: BTreeMap<&'a str, &'a str>,
}

/// What a worker writes to its stdout.
#[derive(Debug, Deserialize)]
struct Output {
    data: String,
    #[serde(default)]
    headers: BTreeMap<String, Values>,
    status: u16,
    kv: Option<State>,
    /// Whether `data` is base64 of the body.
    #[serde(default)]
    base64: bool,
}

/// One value of a header, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Several(Vec<String>),
}

/// What a program answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Bytes>,
    /// The new state of its store; none: it stays as it is.
    pub(crate) state: Option<State>,
}

/// Why the output of a program is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// More than the limit.
    #[error("the output has more than {LARGEST_OUTPUT} bytes")]
    TooLarge,
    /// The program wrote nothing.
    #[error("there is no output: expected a JSON document with data, headers and status")]
    Empty,
    /// Not JSON of this form.
    #[error("malformed output: expected a JSON document with data, headers and status")]
    Json(#[source] serde_json::Error),
    #[error("malformed status {0}: expected one from 200 to 599")]
    Status(u16),
    #[error("malformed header {0:?}")]
    Header(String),
    #[error("malformed data: expected base64, as \"base64\": true says")]
    Base64(#[source] base64::DecodeError),
}

impl Input<'_> {
    /// As the program reads it.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Strings, and maps of them: this can't fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What a program wrote.
///
/// # Errors
/// [`OutputError`]: it is no response.
pub(crate) fn answer(output: &[u8]) -> Result<Answer, OutputError> {
    if output.is_empty() {
        return Err(OutputError::Empty);
    }
    let output: Output = serde_json::from_slice(output).map_err(OutputError::Json)?;
    let status = StatusCode::from_u16(output.status).ok();
    let status = status.filter(|status| (200..600).contains(&status.as_u16()));
    let body = if output.base64 {
        STANDARD.decode(&output.data).map_err(OutputError::Base64)?.into()
    } else {
        Bytes::from(output.data)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status.ok_or(OutputError::Status(output.status))?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    for (name, values) in output.headers {
        // Some kits can't have a `-` in their language's names.
        let parsed = HeaderName::try_from(name.replace('_', "-"));
        let header = parsed.map_err(|_| OutputError::Header(name.clone()))?;
        if OF_THE_CONNECTION.contains(&header) {
            continue;
        }
        let values = match values {
            Values::One(value) => vec![value],
            Values::Several(values) => values,
        };
        for (index, value) in values.into_iter().enumerate() {
            let value = HeaderValue::try_from(value).map_err(|_| OutputError::Header(name.clone()))?;
            if index == 0 {
                headers.insert(header.clone(), value);
            } else {
                headers.append(header.clone(), value);
            }
        }
    }
    // Its Rust kit says so of a handler that failed, and means nothing by it.
    let has_failed = response.status().is_server_error();
    let state = output.kv.filter(|state| !(has_failed && state.is_empty()));
    Ok(Answer { response, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_the_status_the_headers_and_the_body_of_the_document() {
        let json = r#"{"data": "ä", "headers": {"content_type": "text/plain", "x-a": "1", "Content-Length": "99"},
            "status": 201, "kv": {"a": "b"}, "more": [1]}"#;
        let Answer { response, state } = answer(json.as_bytes()).unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(response.headers()["x-a"], "1");
        assert!(!response.headers().contains_key("content-length"));
        assert_eq!(response.body().as_ref(), "ä".as_bytes());
        assert_eq!(state.unwrap(), State::from([("a".into(), "b".into())]));
    }

    #[test]
    fn a_body_of_bytes_comes_as_base64_and_html_is_the_default() {
        let output = br#"{"data": "AP8=", "headers": {}, "status": 200, "kv": {}, "base64": true}"#;
        let response = answer(output).unwrap().response;
        assert_eq!(response.body().as_ref(), [0, 255]);
        assert_eq!(response.headers()["content-type"], "text/html");
    }

    #[test]
    fn a_header_may_have_several_values() {
        let output = br#"{"data": "", "status": 200, "headers": {"Set-Cookie": ["a=1", "b=2"], "x": []}}"#;
        let response = answer(output).unwrap().response;
        let cookies: Vec<_> = response.headers().get_all("set-cookie").into_iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        assert!(!response.headers().contains_key("x"));
    }

    #[test]
    fn a_store_is_emptied_by_an_answer_and_not_by_a_failure() {
        let state = |status: u16, kv: &str| {
            let output = format!(r#"{{"data": "", "status": {status}{kv}}}"#);
            answer(output.as_bytes()).unwrap().state
        };
        assert_eq!(state(200, r#", "kv": {}"#), Some(State::new()));
        assert_eq!(state(500, r#", "kv": {}"#), None);
        assert_eq!(state(500, r#", "kv": {"a": "b"}"#), Some(State::from([("a".into(), "b".into())])));
        assert_eq!(state(200, ""), None);
    }

    #[test]
    fn what_is_no_response_is_said() {
        for (json, expected) in [
            ("", "there is no output"),
            ("hello", "malformed output"),
            (r#"{"data": "x", "status": 200} trailing"#, "malformed output"),
            (r#"{"data": "x"}"#, "malformed output"),
            (r#"{"data": "x", "status": 70000}"#, "malformed output"),
            (r#"{"data": "x", "status": 101}"#, "malformed status 101"),
            (r#"{"data": "x", "status": 0}"#, "malformed status 0"),
            (r#"{"data": "*", "status": 200, "base64": true}"#, "malformed data"),
            (r#"{"data": "", "status": 200, "headers": {"a b": "c"}}"#, "malformed header \"a b\""),
            (
                "{\"data\": \"\", \"status\": 200, \"headers\": {\"a\": \"b\\r\\nc\"}}",
                "malformed header \"a\"",
            ),
        ] {
            let error = answer(json.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }
}
