//! Conditional requests: RFC 9110, 13, in the order of precedence of 13.2.2.
//!
//! Owns what the fields mean for a representation whose validators are known;
//! what is sent in the end is `site`'s.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE,
};

/// What tells one state of a representation from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validators<'a> {
    /// Strong, unless it begins with `W/`.
    pub(crate) etag: &'a HeaderValue,
    /// When it was last modified, where that means anything.
    pub(crate) modified: Option<SystemTime>,
}

/// What the conditions of a GET or HEAD come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As if there were none.
    Proceed,
    /// 304: the client has it.
    NotModified,
    /// 412: it isn't what the client expects.
    Failed,
}

/// How two entity tags are compared (RFC 9110, 8.8.3.2).
#[derive(Clone, Copy)]
enum Comparison {
    Strong,
    Weak,
}

/// Evaluates all conditions but `If-Range`.
pub(crate) fn judge(headers: &HeaderMap, validators: Validators<'_>) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !lists(headers, IF_MATCH, validators.etag, Comparison::Strong) {
            return Verdict::Failed;
        }
    } else if let Some((since, modified)) = date(headers, IF_UNMODIFIED_SINCE).zip(validators.modified)
        && whole_seconds(modified) > whole_seconds(since)
    {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if lists(headers, IF_NONE_MATCH, validators.etag, Comparison::Weak) {
            return Verdict::NotModified;
        }
    } else if let Some((since, modified)) = date(headers, IF_MODIFIED_SINCE).zip(validators.modified)
        && whole_seconds(modified) <= whole_seconds(since)
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// `If-Range` (RFC 9110, 13.1.5): unless it names this very state, a range is
/// void. A tag is compared strongly, a date must be the same to the second.
pub(crate) fn may_use_range(headers: &HeaderMap, validators: Validators<'_>) -> bool {
    let Some(condition) = headers.get(IF_RANGE) else { return true };
    if condition.as_bytes().starts_with(b"\"") || condition.as_bytes().starts_with(b"W/") {
        return is_strong(validators.etag.as_bytes()) && condition == validators.etag;
    }
    match date(headers, IF_RANGE).zip(validators.modified) {
        Some((date, modified)) => whole_seconds(date) == whole_seconds(modified),
        None => false,
    }
}

/// Whether the field `name` is `*`, or has a tag in its list that is `etag`.
fn lists(headers: &HeaderMap, name: HeaderName, etag: &HeaderValue, comparison: Comparison) -> bool {
    headers.get_all(name).iter().any(|value| {
        let value = value.as_bytes().trim_ascii();
        value == b"*" || Tags(value).any(|tag| are_equal(tag, etag.as_bytes(), comparison))
    })
}

fn are_equal(tag: &[u8], etag: &[u8], comparison: Comparison) -> bool {
    match comparison {
        Comparison::Strong => is_strong(tag) && tag == etag,
        Comparison::Weak => opaque(tag) == opaque(etag),
    }
}

fn is_strong(tag: &[u8]) -> bool {
    tag.starts_with(b"\"")
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The entity tags of a list; ends at the first thing that is none. A comma
/// within the quotes belongs to the tag.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let skipped = self.0.iter().position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?;
        let list = &self.0[skipped..];
        let quote = if list.starts_with(b"W/") { 2 } else { 0 };
        let text = list.get(quote..)?.strip_prefix(b"\"")?;
        let end = quote + 1 + text.iter().position(|byte| *byte == b'"')? + 1;
        self.0 = &list[end..];
        Some(&list[..end])
    }
}

/// A date; one that is malformed, or one of several, counts as not there.
fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| httpdate::parse_http_date(value).ok())?
}

/// HTTP's dates have no fractions.
fn whole_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// The value of `Last-Modified`; none for a time to come (RFC 9110, 8.8.2.1).
pub(crate) fn last_modified(modified: SystemTime) -> Option<HeaderValue> {
    let past = modified >= UNIX_EPOCH && modified <= SystemTime::now();
    // The formatter's years have four digits; the clock's are fewer than that.
    past.then(|| HeaderValue::try_from(httpdate::fmt_http_date(modified)).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: HeaderValue = HeaderValue::from_static("\"abc\"");
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut headers = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            headers.append(name, value);
        }
        headers
    }

    /// 0.7 seconds after [`THEN`].
    fn modified() -> Option<SystemTime> {
        Some(httpdate::parse_http_date(THEN).unwrap() + Duration::from_millis(700))
    }

    fn judged(fields: &[(&'static str, &'static str)], modified: Option<SystemTime>) -> Verdict {
        judge(&headers(fields), Validators { etag: &OURS, modified })
    }

    #[test]
    fn a_tag_is_found_among_others_weakly_or_strongly_as_the_field_asks() {
        for (value, known, matches) in [
            ("\"abc\"", true, true),
            ("W/\"abc\"", true, false),
            ("\"x\", \"abc\"", true, true),
            ("\"x\" ,,\t\"abc\"", true, true),
            ("*", true, true),
            (" * ", true, true),
            ("\"abcd\"", false, false),
            ("\"a,\"abc\"", false, false),
            ("\"x,\"", false, false),
            ("abc", false, false),
            ("", false, false),
            ("\"", false, false),
            ("W/", false, false),
            ("\"x\", *", false, false),
        ] {
            let expected = if known { Verdict::NotModified } else { Verdict::Proceed };
            assert_eq!(judged(&[("if-none-match", value)], None), expected, "{value}");
            let expected = if matches { Verdict::Proceed } else { Verdict::Failed };
            assert_eq!(judged(&[("if-match", value)], None), expected, "{value}");
        }
        let two = [("if-none-match", "\"x\""), ("if-none-match", "\"abc\"")];
        assert_eq!(judged(&two, None), Verdict::NotModified);
    }

    #[test]
    fn dates_count_to_the_second_and_only_where_there_is_one() {
        for (since, unmodified, changed) in [
            (BEFORE, Verdict::Failed, Verdict::Proceed),
            (THEN, Verdict::Proceed, Verdict::NotModified),
            (AFTER, Verdict::Proceed, Verdict::NotModified),
            ("yesterday", Verdict::Proceed, Verdict::Proceed),
        ] {
            assert_eq!(judged(&[("if-unmodified-since", since)], modified()), unmodified, "{since}");
            assert_eq!(judged(&[("if-modified-since", since)], modified()), changed, "{since}");
            assert_eq!(judged(&[("if-unmodified-since", since)], None), Verdict::Proceed, "{since}");
            assert_eq!(judged(&[("if-modified-since", since)], None), Verdict::Proceed, "{since}");
        }
        let two = [("if-modified-since", AFTER), ("if-modified-since", AFTER)];
        assert_eq!(judged(&two, modified()), Verdict::Proceed);
    }

    #[test]
    fn tags_come_before_dates_and_what_must_match_before_what_must_not() {
        let (good, bad) = ("\"abc\"", "\"x\"");
        for (fields, expected) in [
            (&[("if-match", good), ("if-unmodified-since", BEFORE)][..], Verdict::Proceed),
            (&[("if-match", bad), ("if-none-match", good)], Verdict::Failed),
            (&[("if-match", good), ("if-none-match", good)], Verdict::NotModified),
            (&[("if-none-match", bad), ("if-modified-since", AFTER)], Verdict::Proceed),
            (&[("if-unmodified-since", BEFORE), ("if-none-match", good)], Verdict::Failed),
            (&[("if-unmodified-since", AFTER), ("if-modified-since", AFTER)], Verdict::NotModified),
        ] {
            assert_eq!(judged(fields, modified()), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_range_needs_the_same_strong_tag_or_the_same_date() {
        let may = |value, etag: &HeaderValue, modified| {
            may_use_range(&headers(&[("if-range", value)]), Validators { etag, modified })
        };
        assert!(may("\"abc\"", &OURS, None));
        assert!(!may("\"x\"", &OURS, None));
        assert!(!may("W/\"abc\"", &OURS, None));
        let weak = HeaderValue::from_static("W/\"abc\"");
        assert!(!may("W/\"abc\"", &weak, None));
        assert!(may(THEN, &OURS, modified()));
        assert!(!may(BEFORE, &OURS, modified()));
        assert!(!may(AFTER, &OURS, modified()));
        assert!(!may(THEN, &OURS, None));
        assert!(!may("abc", &OURS, modified()));
        assert!(may_use_range(&HeaderMap::new(), Validators { etag: &OURS, modified: None }));
    }

    #[test]
    fn a_time_to_come_is_not_told() {
        assert_eq!(last_modified(modified().unwrap()).unwrap(), THEN);
        assert_eq!(last_modified(SystemTime::now() + Duration::from_secs(3600)), None);
    }
}
