//! Which form of a file a client gets: `Accept-Encoding` (RFC 9110, 12.5.3).

use std::cmp::Reverse;

use http::header::{ACCEPT_ENCODING, HeaderMap};
use wharf_app::{Asset, Coding, Encoding};

/// The weight of content as it is where nothing is said of it: acceptable,
/// but less than any coding that the client asks for.
const UNSAID: u16 = 1;

/// What a client accepts: the weight of each coding, in half thousandths so
/// that [`UNSAID`] is less than the least. 0 is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    br: u16,
    zstd: u16,
    gzip: u16,
    identity: u16,
}

impl Accepted {
    /// What `headers` say. Without the field anything would do, but who asks
    /// for nothing seldom can decode; elements that are malformed count as
    /// not there.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let (mut br, mut zstd, mut gzip, mut identity, mut any) = (None, None, None, None, None);
        let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        for (name, weight) in values.flat_map(|value| value.split(',')).filter_map(parse_element) {
            let is = |coding: &str| name.eq_ignore_ascii_case(coding);
            let slot = match name {
                "*" => &mut any,
                _ if is("br") => &mut br,
                _ if is("zstd") => &mut zstd,
                // An old name of the same (RFC 9110, 8.4.1.3).
                _ if is("gzip") || is("x-gzip") => &mut gzip,
                _ if is("identity") => &mut identity,
                _ => continue,
            };
            *slot = Some(weight);
        }
        let listed = |weight: Option<u16>| weight.or(any).unwrap_or(0);
        Self {
            br: listed(br),
            zstd: listed(zstd),
            gzip: listed(gzip),
            identity: identity.or(any).unwrap_or(UNSAID),
        }
    }

    /// The encoded form of `asset` to send, and where it stands in the list;
    /// none for the file as it is.
    ///
    /// Of those with the highest weight it is the shortest. If none is
    /// acceptable the field is disregarded, as 12.4.1 allows.
    pub(crate) fn choose<'a>(&self, asset: &'a Asset) -> Option<(usize, &'a Encoding)> {
        let rank = |(_, form): &(usize, &Encoding)| (self.weight(form.coding), Reverse(form.size));
        let acceptable = asset.encodings.iter().enumerate().filter(|form| rank(form).0 > 0);
        // The first of equals, which a `max` would not be.
        let best = acceptable.min_by_key(|form| Reverse(rank(form)))?;
        (rank(&best) > (self.identity, Reverse(asset.size))).then_some(best)
    }

    /// The coding for content that is encoded as it is sent, if any is asked
    /// for: of those with the highest weight the one that costs the least for
    /// what it saves.
    pub(crate) fn prefer(&self) -> Option<Coding> {
        let codings = [Coding::Zstd, Coding::Br, Coding::Gzip];
        let weights = codings.map(|coding| (coding, self.weight(coding)));
        let best = weights.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
        let found = weights.iter().find(|(_, weight)| *weight == best);
        found.filter(|_| best > 0 && best >= self.identity).map(|(coding, _)| *coding)
    }

    const fn weight(&self, coding: Coding) -> u16 {
        match coding {
            Coding::Br => self.br,
            Coding::Zstd => self.zstd,
            Coding::Gzip => self.gzip,
        }
    }
}

/// `gzip;q=0.5` → `gzip`, 1000.
fn parse_element(element: &str) -> Option<(&str, u16)> {
    let Some((name, parameter)) = element.split_once(';') else {
        return Some((element.trim(), 2000));
    };
    let weight = parameter.trim();
    let weight = weight.strip_prefix("q=").or_else(|| weight.strip_prefix("Q="))?;
    Some((name.trim(), 2 * parse_weight(weight)?))
}

/// A `qvalue` (RFC 9110, 12.4.2) in thousandths: three decimals at most.
fn parse_weight(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths = decimals.bytes().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        * [1000, 100, 10, 1][decimals.len()];
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use wharf_app::Sha256;

    use super::*;

    /// A file of 100 bytes with forms of these lengths.
    fn asset(forms: &[(Coding, u64)]) -> Asset {
        let form = |&(coding, size)| Encoding { coding, size, sha256: Sha256::of(b"") };
        Asset {
            path: "a.js".into(),
            size: 100,
            sha256: Sha256::of(b""),
            media_type: "text/javascript".into(),
            encodings: forms.iter().map(form).collect(),
        }
    }

    fn chosen(asset: &Asset, values: &[&str]) -> &'static str {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        let form = Accepted::of(&headers).choose(asset);
        form.inspect(|(at, form)| assert_eq!(asset.encodings[*at], **form))
            .map_or("identity", |(_, form)| form.coding.name())
    }

    #[test]
    fn the_highest_weight_wins_then_the_shortest_form_then_the_order_of_codings() {
        let equal = asset(&[(Coding::Br, 50), (Coding::Zstd, 50), (Coding::Gzip, 50)]);
        let zstd_least = asset(&[(Coding::Br, 50), (Coding::Zstd, 40), (Coding::Gzip, 60)]);
        for (accept, of_equal, of_least) in [
            ("gzip, deflate, br, zstd", "br", "zstd"),
            ("gzip, deflate, br", "br", "br"),
            ("gzip, zstd", "zstd", "zstd"),
            ("gzip, deflate", "gzip", "gzip"),
            ("GZIP", "gzip", "gzip"),
            ("x-gzip", "gzip", "gzip"),
            ("Br;Q=0.5 , gzip ; q=0.4", "br", "br"),
            ("gzip;q=1.0, br;q=0.999, zstd;q=0.9", "gzip", "gzip"),
            ("gzip;q=0.001", "gzip", "gzip"),
            ("*", "br", "zstd"),
            ("*;q=0.1, zstd;q=0", "br", "br"),
            ("br;q=0, *", "zstd", "zstd"),
            ("identity;q=0, *", "br", "zstd"),
            ("identity;q=0, gzip", "gzip", "gzip"),
            ("*;q=0, gzip", "gzip", "gzip"),
            ("identity, gzip;q=0.5", "identity", "identity"),
            ("identity;q=0.5, gzip;q=0.5", "gzip", "gzip"),
            ("identity", "identity", "identity"),
            ("", "identity", "identity"),
            (",, ,", "identity", "identity"),
            ("deflate, compress", "identity", "identity"),
            ("br;q=0, zstd;q=0.0, gzip;q=0.000", "identity", "identity"),
            // Nothing is acceptable: as if not asked.
            ("identity;q=0", "identity", "identity"),
            ("*;q=0", "identity", "identity"),
            // Malformed elements, and one that isn't.
            ("br;q=1.1, gzip", "gzip", "gzip"),
            ("br;q=-1, gzip;q=0.5", "gzip", "gzip"),
            ("br;q=0.1234, zstd;q=., gzip;q=", "identity", "identity"),
            ("br;q=1;x=y, zstd;level=3, gzip", "gzip", "gzip"),
            ("bro, brr, gzip-9", "identity", "identity"),
        ] {
            assert_eq!(chosen(&equal, &[accept]), of_equal, "{accept:?}");
            assert_eq!(chosen(&zstd_least, &[accept]), of_least, "{accept:?}");
        }
    }

    #[test]
    fn content_made_for_a_request_is_encoded_if_the_client_asks_for_it() {
        for (accept, expected) in [
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip, deflate, br", Some(Coding::Br)),
            ("gzip", Some(Coding::Gzip)),
            ("gzip;q=0.5, zstd;q=0.4", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("identity, gzip;q=0.5", None),
            ("identity", None),
            ("deflate", None),
            ("gzip;q=0", None),
            ("identity;q=0", None),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(accept))]);
            assert_eq!(Accepted::of(&headers).prefer(), expected, "{accept}");
        }
        assert_eq!(Accepted::of(&HeaderMap::new()).prefer(), None);
    }

    #[test]
    fn no_field_is_the_file_as_it_is_and_several_fields_are_one_list() {
        let asset = asset(&[(Coding::Br, 50), (Coding::Gzip, 60)]);
        assert_eq!(chosen(&asset, &[]), "identity");
        assert_eq!(chosen(&asset, &["gzip;q=0.5", "br;q=0.1"]), "gzip");
        assert_eq!(chosen(&asset, &["zstd", "gzip"]), "gzip");
    }

    #[test]
    fn a_coding_that_the_file_does_not_have_is_never_chosen() {
        let gzip = asset(&[(Coding::Gzip, 60)]);
        assert_eq!(chosen(&gzip, &["br, zstd, gzip;q=0.1"]), "gzip");
        assert_eq!(chosen(&gzip, &["br, zstd"]), "identity");
        assert_eq!(chosen(&asset(&[]), &["br, zstd, gzip"]), "identity");
    }

    #[test]
    fn a_field_that_is_not_text_counts_as_not_there() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT_ENCODING, HeaderValue::from_bytes(b"br, \xff").unwrap());
        assert_eq!(Accepted::of(&headers), Accepted::of(&HeaderMap::new()));
    }
}
