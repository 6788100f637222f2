//! One line of the access log.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Uri, Version};
use serde::Serialize;
use time::{Month, OffsetDateTime};

use crate::proxies::Client;
use crate::trace::{RequestId, TraceContext};

/// Bytes of a line's parts at most: all together, escaped, stay below a write.
const LONGEST_METHOD: usize = 32;
const LONGEST_TARGET: usize = 1024;
const LONGEST_REFERER: usize = 512;
const LONGEST_AGENT: usize = 256;
const LONGEST_ROUTE: usize = 128;

/// What a parameter's name has in it whose value is a secret.
const SECRETS: [&str; 13] = [
    "token",
    "key",
    "secret",
    "password",
    "passwd",
    "pwd",
    "auth",
    "signature",
    "sig",
    "session",
    "credential",
    "jwt",
    "code",
];

/// What stands for a value that is not written.
const HIDDEN: &str = "***";

/// A request that ended.
pub(crate) struct Entry<'a> {
    pub(crate) ended: SystemTime,
    pub(crate) client: &'a Client,
    pub(crate) method: &'a Method,
    pub(crate) uri: &'a Uri,
    pub(crate) version: Version,
    pub(crate) status: u16,
    /// Of the response's body, as sent.
    pub(crate) bytes: u64,
    pub(crate) duration: Duration,
    /// Whether the response went out whole.
    pub(crate) is_complete: bool,
    /// The pattern of the worker, or the kind of what answered.
    pub(crate) route: &'a str,
    pub(crate) referer: Option<&'a HeaderValue>,
    pub(crate) user_agent: Option<&'a HeaderValue>,
    pub(crate) request_id: &'a RequestId,
    pub(crate) trace: Option<TraceContext>,
}

/// A line of JSON.
#[derive(Serialize)]
struct Json<'a> {
    time: String,
    client: String,
    method: Cow<'a, str>,
    target: Cow<'a, str>,
    protocol: &'static str,
    status: u16,
    bytes: u64,
    duration_ms: f64,
    complete: bool,
    route: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<Cow<'a, str>>,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
}

impl Entry<'_> {
    /// As nginx's `combined`; then the time in seconds, the route, the
    /// request's id and the trace's.
    pub(super) fn text(&self, line: &mut Vec<u8>) {
        let time = OffsetDateTime::from(self.ended);
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second) = time.to_hms();
        let month = abbreviation(month);
        // Writing to a vector does not fail.
        let _ = write!(
            line,
            "{} - - [{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000] \"",
            self.client
        );
        escape(line, self.method.as_str().as_bytes(), LONGEST_METHOD);
        line.push(b' ');
        escape(line, self.target().as_bytes(), LONGEST_TARGET);
        let _ = write!(line, " {}\" {} {} \"", protocol(self.version), self.status, self.bytes);
        let (referer, agent) = (self.referer(), self.user_agent.map(HeaderValue::as_bytes));
        escape(line, referer.as_deref().map_or(b"-", str::as_bytes), LONGEST_REFERER);
        line.extend_from_slice(b"\" \"");
        escape(line, agent.unwrap_or(b"-"), LONGEST_AGENT);
        let _ = write!(line, "\" {:.6} \"", self.duration.as_secs_f64());
        escape(line, self.route.as_bytes(), LONGEST_ROUTE);
        let _ = write!(line, "\" {} ", self.request_id);
        let _ = match self.trace {
            Some(trace) => write!(line, "{:032x}", trace.trace),
            None => write!(line, "-"),
        };
        line.extend_from_slice(if self.is_complete { b"\n" } else { b" incomplete\n" });
    }

    /// A JSON object.
    pub(super) fn json(&self, line: &mut Vec<u8>) {
        let time = OffsetDateTime::from(self.ended);
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second, milli) = time.to_hms_milli();
        let month = u8::from(month);
        let agent = self.user_agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()));
        let json = Json {
            time: format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"),
            client: self.client.to_string(),
            method: clip(self.method.as_str().into(), LONGEST_METHOD),
            target: clip(harmless(self.target()), LONGEST_TARGET),
            protocol: protocol(self.version),
            status: self.status,
            bytes: self.bytes,
            duration_ms: self.duration.as_micros() as f64 / 1000.0,
            complete: self.is_complete,
            route: clip(harmless(self.route.into()), LONGEST_ROUTE),
            referer: self.referer().map(|referer| clip(harmless(referer), LONGEST_REFERER)),
            user_agent: agent.map(|agent| clip(harmless(agent), LONGEST_AGENT)),
            request_id: self.request_id.as_str(),
            trace_id: self.trace.map(|trace| format!("{:032x}", trace.trace)),
            span_id: self.trace.map(|trace| format!("{:016x}", trace.span)),
        };
        // Strings and numbers become JSON without fail, and so does a write to
        // a vector.
        let _ = serde_json::to_writer(&mut *line, &json);
        line.push(b'\n');
    }

    fn target(&self) -> Cow<'_, str> {
        let target = self.uri.path_and_query().map_or("*", |target| target.as_str());
        redacted(target)
    }

    fn referer(&self) -> Option<Cow<'_, str>> {
        Some(match String::from_utf8_lossy(self.referer?.as_bytes()) {
            Cow::Borrowed(text) => redacted(text),
            Cow::Owned(text) => redacted(&text).into_owned().into(),
        })
    }
}

/// The protocol's name and version, as a request line has them.
const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// A path with its query, without the values of parameters that look like
/// secrets, and a URL without its password and fragment.
pub(crate) fn redacted(target: &str) -> Cow<'_, str> {
    let target = target.split('#').next().unwrap_or_default();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let user = path.split_once("://").and_then(|(scheme, rest)| {
        let authority = rest.split('/').next()?;
        let user = authority.rfind('@')?;
        Some((scheme, &rest[user..]))
    });
    let is_secret = |pair: &&str| {
        let Some((name, _)) = pair.split_once('=') else { return false };
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().to_ascii_lowercase();
        SECRETS.iter().any(|secret| name.contains(secret))
    };
    let has_secret = query.is_some_and(|query| query.split(['&', ';']).any(|pair| is_secret(&pair)));
    if user.is_none() && !has_secret {
        return target.into();
    }
    let mut safe = match user {
        Some((scheme, rest)) => format!("{scheme}://{HIDDEN}{rest}"),
        None => path.to_owned(),
    };
    for (index, pair) in query.into_iter().flat_map(|query| query.split(['&', ';'])).enumerate() {
        safe.push(if index == 0 { '?' } else { '&' });
        match pair.split_once('=').filter(|_| is_secret(&pair)) {
            Some((name, _)) => safe.extend([name, "=", HIDDEN]),
            None => safe.push_str(pair),
        }
    }
    safe.into()
}

/// Adds `text`, with what is not printable ASCII, quotes and backslashes as
/// `\xHH`, as nginx has it; at most `longest` bytes, the last of which then
/// are dots.
fn escape(line: &mut Vec<u8>, text: &[u8], longest: usize) {
    let end = line.len() + longest;
    for byte in text {
        if line.len() + 4 > end {
            line.extend_from_slice(b"...");
            return;
        }
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => _ = write!(line, "\\x{byte:02X}"),
            _ => line.push(*byte),
        }
    }
}

/// `text` with each control character replaced: JSON escapes those below
/// U+0020 alone, and terminals obey U+009B as they do ESC [.
fn harmless(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains(char::is_control) { text.replace(char::is_control, "\u{fffd}").into() } else { text }
}

/// At most `longest` bytes of `text`.
fn clip(text: Cow<'_, str>, longest: usize) -> Cow<'_, str> {
    if text.len() <= longest {
        return text;
    }
    let end = text.floor_char_boundary(longest - 3);
    format!("{}...", &text[..end]).into()
}

const fn abbreviation(month: Month) -> &'static str {
    match month {
        Month::January => "Jan",
        Month::February => "Feb",
        Month::March => "Mar",
        Month::April => "Apr",
        Month::May => "May",
        Month::June => "Jun",
        Month::July => "Jul",
        Month::August => "Aug",
        Month::September => "Sep",
        Month::October => "Oct",
        Month::November => "Nov",
        Month::December => "Dec",
    }
}

#[cfg(test)]
mod tests;
