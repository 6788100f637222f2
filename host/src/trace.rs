//! Request ids and trace contexts (W3C Trace Context, level 1), and who exports
//! spans.
//!
//! Without an exporter the host is no part of a trace: a valid `traceparent`
//! goes on to the guest as it came. With one ([`Exporter`]), the host's own
//! span stands between the caller's and the guest's.

mod export;
mod otlp;
mod sampler;
mod settings;

use std::cell::Cell;
use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use export::{Exporter, Span};
pub(crate) use sampler::Sampler;
pub use settings::{TraceSettings, TraceSettingsError};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id of a request that a trusted proxy may give, in bytes.
const LONGEST_ID: usize = 64;

/// What names a request in the log, on error pages and in `X-Request-Id`: 128
/// random bits as 32 hex digits, or what a trusted proxy gave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId {
    text: [u8; LONGEST_ID],
    length: u8,
}

/// A position in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace: u128,
    /// The caller's span; of a trace that begins here, none.
    pub(crate) parent: Option<u64>,
    /// The span of this request.
    pub(crate) span: u64,
    /// The flags of `traceparent`, of which bit 0 is "sampled".
    pub(crate) flags: u8,
}

thread_local! {
    static RANDOM: Cell<Option<fastrand::Rng>> = const { Cell::new(None) };
}

/// 64 random bits. Ids are no secrets, so a fast generator will do; but two
/// processes must not give the same ones, so the kernel seeds each thread's.
fn random() -> u64 {
    RANDOM.with(|cell| {
        let mut random = cell.take().unwrap_or_else(|| {
            let mut seed = [0; 8];
            match rustls::crypto::ring::default_provider().secure_random.fill(&mut seed) {
                Ok(()) => fastrand::Rng::with_seed(u64::from_ne_bytes(seed)),
                Err(_) => fastrand::Rng::new(),
            }
        });
        let number = random.u64(..);
        cell.set(Some(random));
        number
    })
}

/// As [`random`], but never zero, which no id of a trace may be.
fn random_id() -> u64 {
    random().max(1)
}

impl RequestId {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut id = Self { text: [0; LONGEST_ID], length: 32 };
        hex(random(), &mut id.text[..16]);
        hex(random(), &mut id.text[16..32]);
        id
    }

    /// The one in `headers`, if it is one that is safe to repeat anywhere.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let given = headers.get(X_REQUEST_ID)?.as_bytes();
        let is_safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if given.is_empty() || given.len() > LONGEST_ID || !given.iter().all(is_safe) {
            return None;
        }
        let mut id = Self { text: [0; LONGEST_ID], length: given.len() as u8 };
        id.text[..given.len()].copy_from_slice(given);
        Some(id)
    }

    pub(crate) fn as_str(&self) -> &str {
        // All of it is ASCII.
        std::str::from_utf8(&self.text[..self.length.into()]).unwrap_or_default()
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(self.as_str()).unwrap_or(HeaderValue::from_static("-"))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TraceContext {
    /// The context of a request that came with `headers`: its caller's trace,
    /// or a new one where there is none or the header is malformed.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self::continued(headers).unwrap_or_else(|| Self {
            trace: (u128::from(random()) << 64) | u128::from(random_id()),
            parent: None,
            span: random_id(),
            flags: 0,
        })
    }

    /// The caller's trace, if it sent exactly one valid `traceparent`.
    pub(crate) fn continued(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let (trace, parent, flags) = parse(given.next()?.as_bytes())?;
        if given.next().is_some() {
            return None;
        }
        Some(Self { trace, parent: Some(parent), span: random_id(), flags })
    }

    pub(crate) const fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// The same, sampled or not.
    pub(crate) const fn sampled(self, sampled: bool) -> Self {
        Self { flags: (self.flags & !1) | sampled as u8, ..self }
    }

    /// `traceparent` for whom this request calls (3.2).
    pub(crate) fn header(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hex((self.trace >> 64) as u64, &mut text[3..19]);
        hex(self.trace as u64, &mut text[19..35]);
        hex(self.span, &mut text[36..52]);
        // The flags that are known: sampled, and the trace's id is random.
        text[54] = b'0' + (self.flags & 3);
        // Hex digits and dashes are a valid value.
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Trace, parent and flags of a `traceparent` (3.2.2). Of a version that is
/// not known yet, what the known one has in common with it.
fn parse(text: &[u8]) -> Option<(u128, u64, u8)> {
    let (head, rest) = text.split_at_checked(55)?;
    let version = unhex(&head[..2])?;
    let rest_is_fine =
        if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|byte| *byte == b'-') };
    if version == 0xff || !rest_is_fine || head[2] != b'-' || head[35] != b'-' || head[52] != b'-' {
        return None;
    }
    let trace = (u128::from(unhex(&head[3..19])?) << 64) | u128::from(unhex(&head[19..35])?);
    let (parent, flags) = (unhex(&head[36..52])?, unhex(&head[53..])?);
    (trace != 0 && parent != 0).then_some((trace, parent, flags as u8))
}

/// Hex digits, lower case alone as the standard has it.
fn unhex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

fn hex(mut number: u64, into: &mut [u8]) {
    for digit in into.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn with(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    #[test]
    fn a_trace_goes_on_with_a_span_of_its_own() {
        let context = TraceContext::of(&with("traceparent", &[GIVEN]));
        assert_eq!(context.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(context.parent, Some(0x00f0_67aa_0ba9_02b7));
        assert!(context.is_sampled());
        let header = context.header();
        let header = header.to_str().unwrap();
        assert_eq!(header[..36], GIVEN[..36]);
        assert_ne!(header[36..52], GIVEN[36..52]);
        assert_eq!(header[52..], GIVEN[52..]);
        assert_eq!(parse(header.as_bytes()).unwrap().0, context.trace);
    }

    #[test]
    fn a_malformed_context_begins_a_new_trace() {
        let long = format!("{GIVEN}-00");
        let malformed = [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            &long,
        ];
        for text in malformed {
            let context = TraceContext::of(&with("traceparent", &[text]));
            assert_eq!((context.parent, context.is_sampled()), (None, false), "{text}");
            assert_ne!(context.trace, 0);
        }
        let twice = TraceContext::of(&with("traceparent", &[GIVEN, GIVEN]));
        assert_eq!(twice.parent, None);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes";
        let context = TraceContext::of(&with("traceparent", &[later]));
        assert_eq!(context.parent, Some(0x00f0_67aa_0ba9_02b7));
        assert!(context.header().to_str().unwrap().starts_with("00-"));
    }

    #[test]
    fn request_ids_are_32_hex_digits_and_differ() {
        let (one, two) = (RequestId::new(), RequestId::new());
        assert!(one.as_str().len() == 32 && one.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(one != two);
    }

    #[test]
    fn a_request_id_that_could_harm_a_log_is_not_taken() {
        let given = |text: &str| RequestId::of(&with("x-request-id", &[text])).map(|id| id.to_string());
        assert_eq!(given("f81d4fae-7dec-11d0_A.1").as_deref(), Some("f81d4fae-7dec-11d0_A.1"));
        for text in ["", "a b", "a\"b", "a\tb", &"x".repeat(65)] {
            assert_eq!(given(text), None, "{text}");
        }
    }
}
