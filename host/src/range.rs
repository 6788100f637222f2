//! Which bytes a request asks for: `Range` (RFC 9110, 14).

use http::header::{HeaderMap, RANGE};

/// Ranges that are looked at in one request; a client that asks for more gets
/// the whole (RFC 9110, 14.2: many small ranges are a mistake or an attack).
const MOST_RANGES: usize = 64;

/// Bytes of a file: those from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// What of a file is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of it, or by something that we don't know.
    Whole,
    /// One range.
    One(ByteRange),
    /// Two and more, no two of which touch, in the order asked.
    Several(Vec<ByteRange>),
    /// No byte that there is.
    Unsatisfiable,
}

impl ByteRange {
    pub(crate) const fn length(self) -> u64 {
        self.last - self.first + 1
    }
}

/// What `headers` ask of a file of `size` bytes.
///
/// Anything malformed, in whatever range of the set, makes the field count as
/// not there (14.2), and so do two fields.
pub(crate) fn select(headers: &HeaderMap, size: u64) -> Selection {
    let mut values = headers.get_all(RANGE).iter();
    let Some(value) = values.next() else { return Selection::Whole };
    if values.next().is_some() {
        return Selection::Whole;
    }
    value.to_str().ok().and_then(|text| parse(text, size)).unwrap_or(Selection::Whole)
}

/// `None`: malformed, or of another unit.
fn parse(text: &str, size: u64) -> Option<Selection> {
    let (unit, set) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (mut asked, mut count) = (Vec::new(), 0);
    for spec in set.split(',').map(str::trim) {
        // A list may have empty elements (5.6.1.2).
        if spec.is_empty() {
            continue;
        }
        count += 1;
        if count > MOST_RANGES {
            return None;
        }
        asked.extend(parse_spec(spec, size)?);
    }
    let asked = coalesce(asked);
    Some(match asked[..] {
        [] if count == 0 => return None,
        [] => Selection::Unsatisfiable,
        [one] => Selection::One(one),
        _ => Selection::Several(asked),
    })
}

/// `first-last`, `first-` or `-length`. The outer `None`: malformed; the inner:
/// it holds no byte of the file.
#[allow(clippy::option_option)]
fn parse_spec(spec: &str, size: u64) -> Option<Option<ByteRange>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let length = parse_number(last)?.min(size);
        return Some((length > 0).then(|| ByteRange { first: size - length, last: size - 1 }));
    }
    let first = parse_number(first)?;
    let last = if last.is_empty() { u64::MAX } else { parse_number(last)? };
    if last < first {
        return None;
    }
    Some((first < size).then(|| ByteRange { first, last: last.min(size - 1) }))
}

/// Digits alone, which `parse` of the standard library does not insist on. More
/// than fit are more than any file has.
fn parse_number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// Makes one of those that overlap or follow each other, so that no byte is sent
/// twice; they are in ascending order then.
fn coalesce(ranges: Vec<ByteRange>) -> Vec<ByteRange> {
    let mut sorted = ranges.clone();
    sorted.sort_by_key(|range| range.first);
    let mut joined: Vec<ByteRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => joined.push(range),
        }
    }
    if joined.len() == ranges.len() { ranges } else { joined }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn selected(text: &'static str, size: u64) -> Selection {
        let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static(text))]);
        select(&headers, size)
    }

    fn range(first: u64, last: u64) -> ByteRange {
        ByteRange { first, last }
    }

    #[test]
    fn ranges_are_first_last_open_and_suffix() {
        for (text, first, last) in [
            ("bytes=0-3", 0, 3),
            ("bytes=5-", 5, 9),
            ("bytes=-3", 7, 9),
            ("bytes=-30", 0, 9),
            ("bytes=3-100", 3, 9),
            ("Bytes= 9-9 ", 9, 9),
            ("bytes=0-99999999999999999999999", 0, 9),
            ("bytes=,1-2,,", 1, 2),
            ("bytes=20-30, 1-2", 1, 2),
        ] {
            assert_eq!(selected(text, 10), Selection::One(range(first, last)), "{text}");
        }
    }

    #[test]
    fn a_set_without_a_byte_of_the_file_is_not_satisfiable_and_a_malformed_one_is_ignored() {
        for text in ["bytes=10-", "bytes=-0", "bytes=10-12, 99999999999999999999-"] {
            assert_eq!(selected(text, 10), Selection::Unsatisfiable, "{text}");
        }
        assert_eq!(selected("bytes=0-", 0), Selection::Unsatisfiable);
        assert_eq!(selected("bytes=-5", 0), Selection::Unsatisfiable);
        for text in [
            "bytes=3-1",
            "bytes=a-b",
            "bytes=0-1, 3-1",
            "bytes=0-1;2-3",
            "lines=1-2",
            "bytes=",
            "bytes=-",
            "bytes=,",
            "bytes=+1-2",
            "bytes=1",
            "bytes 1-2",
            "1-2",
        ] {
            assert_eq!(selected(text, 10), Selection::Whole, "{text}");
        }
        let field = (RANGE, HeaderValue::from_static("bytes=0-1"));
        let mut two = HeaderMap::from_iter([field.clone()]);
        two.append(field.0, field.1);
        assert_eq!(select(&two, 10), Selection::Whole);
    }

    #[test]
    fn ranges_that_touch_become_one_and_others_stay_in_their_order() {
        assert_eq!(selected("bytes=6-7, 0-1", 10), Selection::Several(vec![range(6, 7), range(0, 1)]));
        assert_eq!(selected("bytes=4-7, 0-1, 5-", 10), Selection::Several(vec![range(0, 1), range(4, 9)]));
        assert_eq!(selected("bytes=2-3, 0-1", 10), Selection::One(range(0, 3)));
        assert_eq!(selected("bytes=0-, 0-, 0-", 10), Selection::One(range(0, 9)));
        assert_eq!(selected("bytes=0-0, 2-2, 20-", 10), Selection::Several(vec![range(0, 0), range(2, 2)]));
    }

    #[test]
    fn a_set_of_absurdly_many_is_ignored() {
        let set = |count: usize| {
            let specs: Vec<String> = (0..count).map(|n| format!("{0}-{0}", 2 * n)).collect();
            let value = HeaderValue::try_from(format!("bytes={}", specs.join(","))).unwrap();
            select(&HeaderMap::from_iter([(RANGE, value)]), 1_000_000)
        };
        assert!(matches!(set(MOST_RANGES), Selection::Several(ranges) if ranges.len() == MOST_RANGES));
        assert_eq!(set(MOST_RANGES + 1), Selection::Whole);
    }
}
