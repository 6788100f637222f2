//! One line of the table: a request, and what is to come of it.

use crate::client::{After, Observation, Other, Response, SMUGGLED_ANSWER, find};
use crate::site;

/// A behaviour and how it is seen.
pub(crate) struct Case {
    /// What is asked, for people: the first column.
    pub(crate) behaviour: &'static str,
    /// Where it is laid down: `RFC 9110, 13.1.2`; else whose custom it is.
    pub(crate) clause: &'static str,
    /// All bytes that are sent, with `{tag}` and `{date}` for what `known` gives.
    pub(crate) bytes: Vec<u8>,
    /// The methods of the answers that are to come.
    pub(crate) methods: Vec<&'static str>,
    /// A path and an `Accept-Encoding`: what was said of it is in the request.
    pub(crate) known: Option<(&'static str, &'static str)>,
    /// What must be so.
    pub(crate) checks: Vec<Check>,
    /// Whether the clause lets a server do otherwise.
    left_open: bool,
}

/// One thing that must be so, of the last answer if it is of an answer.
pub(crate) enum Check {
    /// The status codes of all answers, one of these lists.
    Statuses(Vec<Vec<u16>>),
    /// A field has this value, compared as the list that it may be.
    Field(&'static str, &'static str),
    /// A field names these members, perhaps others, in any case.
    Lists(&'static str, &'static [&'static str]),
    /// A field is as it was in what the request knew, or not there as it was not.
    Same(&'static str),
    /// A field is there.
    Has(&'static str),
    /// A field is not there.
    Lacks(&'static str),
    /// A field that starts with this.
    Starts(&'static str, &'static str),
    /// The content, decoded, is that of this file of the site.
    Content(&'static str),
    /// The content is these bytes.
    Bytes(&'static [u8]),
    /// The content is these parts of a file, as `multipart/byteranges`.
    Parts(&'static str, &'static [(usize, usize)]),
    /// There is no content.
    Empty,
    /// `100 Continue` came first, or the final status at once.
    ContinuedOrFinal,
    /// What becomes of the connection.
    Connection(After),
    /// No request was seen that was only in another one's content.
    NotSmuggled,
    /// No answer at all, or one of these refusals.
    Refused(&'static [u16]),
    /// A field that ends in this.
    EndsIn(&'static str, &'static str),
    /// The content is this part of a file, inclusive.
    Slice(&'static str, (usize, usize)),
    /// The content is this part of a file, alone or as the only one of a multipart.
    OnePart(&'static str, (usize, usize)),
    /// The content is no longer than this.
    AtMost(usize),
    /// Nothing says that the answer will never change.
    NotImmutable,
    /// The tag is not the one that the request knew.
    OtherTag,
    /// `Last-Modified` is not there, or not later than `Date`.
    NotNewerThanDate,
    /// Nothing of what is not the site's.
    NotSecret,
    /// A redirect, if it is one, stays with this host.
    NoForeignLocation,
    /// The connection ends, and nothing was smuggled.
    EndsUnsmuggled,
    /// The server answers with frames of HTTP/2.
    SpeaksHttp2,
}

/// A request for `path`.
pub(crate) fn request(method: &'static str, path: &str, headers: &[&str]) -> (Vec<u8>, Vec<&'static str>) {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    (format!("{method} {path} HTTP/1.1\r\nHost: site.test\r\n{headers}\r\n").into_bytes(), vec![method])
}

impl Case {
    /// `GET path` with `headers` gets a status of `statuses`.
    pub(crate) fn get(
        behaviour: &'static str,
        clause: &'static str,
        path: &str,
        headers: &[&str],
        statuses: &[u16],
    ) -> Self {
        Self::method(behaviour, clause, "GET", path, headers, statuses)
    }

    /// The same with another method.
    pub(crate) fn method(
        behaviour: &'static str,
        clause: &'static str,
        method: &'static str,
        path: &str,
        headers: &[&str],
        statuses: &[u16],
    ) -> Self {
        let (bytes, methods) = request(method, path, headers);
        let statuses = statuses.iter().map(|status| vec![*status]).collect();
        Self {
            behaviour,
            clause,
            bytes,
            methods,
            known: None,
            checks: vec![Check::Statuses(statuses)],
            left_open: false,
        }
    }

    /// Bytes that are one request or more, and how many answers are to come.
    pub(crate) fn raw(
        behaviour: &'static str,
        clause: &'static str,
        bytes: impl AsRef<[u8]>,
        answers: usize,
    ) -> Self {
        let bytes = bytes.as_ref().to_vec();
        Self {
            behaviour,
            clause,
            bytes,
            methods: vec!["GET"; answers],
            known: None,
            checks: Vec::new(),
            left_open: false,
        }
    }

    /// `{tag}` and `{date}` are those of `path` for a client that accepts `codings`.
    pub(crate) fn knowing(mut self, path: &'static str, codings: &'static str) -> Self {
        self.known = Some((path, codings));
        self
    }

    /// The clause lets a server do otherwise, too.
    pub(crate) fn left_open(mut self) -> Self {
        self.left_open = true;
        self
    }

    /// And this must be so.
    pub(crate) fn and(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// The request with what the server said of the file that it is about.
    pub(crate) fn bytes_for(&self, known: Option<&Response>) -> Vec<u8> {
        let Some(known) = known else { return self.bytes.clone() };
        let text = String::from_utf8(self.bytes.clone()).expect("a request with a tag is text");
        let tag = known.header("etag").unwrap_or_else(|| "\"there-is-none\"".into());
        let date = known.header("last-modified").unwrap_or_else(|| "Thu, 01 Jan 1970 00:00:00 GMT".into());
        let opaque = tag.trim_start_matches("W/");
        text.replace("{tag}", opaque).replace("{date}", &date).into_bytes()
    }

    /// What is not as it must be, in a few words each; empty if all is well.
    pub(crate) fn differences(&self, seen: &Observation, known: Option<&Response>) -> Vec<String> {
        self.checks.iter().filter_map(|check| check.difference(seen, known)).collect()
    }

    /// Whether an RFC asks for it (MUST or SHOULD); else it is custom.
    pub(crate) fn is_laid_down(&self) -> bool {
        self.clause.starts_with("RFC ") && !self.left_open
    }

    /// The status codes that are right: `304`, `200 or 206`; none if any is.
    pub(crate) fn expected(&self) -> Option<String> {
        self.checks.iter().find_map(|check| match check {
            Check::Statuses(lists) => Some(either(lists)),
            Check::Refused(statuses) => {
                Some(either(&statuses.iter().map(|status| vec![*status]).collect::<Vec<_>>()))
            }
            Check::SpeaksHttp2 => Some("frames".to_owned()),
            _ => None,
        })
    }
}

impl Check {
    fn difference(&self, seen: &Observation, known: Option<&Response>) -> Option<String> {
        match self {
            Self::Statuses(expected) => {
                let statuses: Vec<u16> = seen.responses.iter().map(|response| response.status).collect();
                let right = seen.other.is_none() && expected.contains(&statuses);
                (!right).then(|| format!("expected {}", either(expected)))
            }
            Self::Refused(statuses) => {
                let silent = seen.responses.is_empty() && seen.other == Some(Other::Silence);
                let refused = seen.responses.first().is_some_and(|first| statuses.contains(&first.status));
                let lists: Vec<_> = statuses.iter().map(|status| vec![*status]).collect();
                (!silent && !refused).then(|| format!("expected {}", either(&lists)))
            }
            Self::Connection(expected) => {
                // A connection that ends without a word is closed, too.
                let after = seen.after.or((seen.other == Some(Other::Silence)).then_some(After::Closed));
                (after != Some(*expected)).then(|| after.map_or("no end", After::words).to_owned())
            }
            Self::NotSmuggled => smuggled(seen).then(|| "smuggled".to_owned()),
            Self::EndsUnsmuggled if smuggled(seen) => Some("smuggled".to_owned()),
            Self::EndsUnsmuggled => Self::Connection(After::Closed).difference(seen, known),
            Self::SpeaksHttp2 => (seen.other != Some(Other::Http2)).then(|| "expected frames".to_owned()),
            of_a_response => {
                let Some(last) = seen.responses.last() else { return Some("no answer".into()) };
                of_a_response.difference_of(last, known)
            }
        }
    }

    fn difference_of(&self, response: &Response, known: Option<&Response>) -> Option<String> {
        let value = |name: &str| response.header(name);
        match self {
            Self::Field(name, expected) => {
                let found = value(name);
                let same = found.as_deref().is_some_and(|found| members(found) == members(expected));
                (!same).then(|| shown(name, found))
            }
            Self::Lists(name, expected) => {
                let found = value(name);
                let listed = found.as_deref().map(members).unwrap_or_default();
                let all = expected.iter().all(|member| listed.contains(&member.to_ascii_lowercase()));
                (!all).then(|| shown(name, found))
            }
            Self::Same(name) => {
                let (found, before) = (value(name), known.and_then(|known| known.header(name)));
                (found != before).then(|| shown(name, found))
            }
            Self::Has(name) => value(name).is_none().then(|| format!("no `{name}`")),
            Self::Lacks(name) => value(name).map(|found| shown(name, Some(found))),
            Self::Starts(name, start) => {
                let found = value(name);
                let starts = found.as_deref().is_some_and(|found| found.starts_with(start));
                (!starts).then(|| shown(name, found))
            }
            Self::Content(file) => {
                let right = decoded(response).is_some_and(|body| body == site::content(file));
                (!right).then(|| "other content".to_owned())
            }
            Self::Bytes(bytes) => (response.body != *bytes).then(|| "other content".to_owned()),
            Self::Parts(file, ranges) => {
                let right = parts(response).is_some_and(|parts| parts_are(&parts, file, ranges));
                (!right).then(|| "other parts".to_owned())
            }
            Self::Empty => (!response.body.is_empty()).then(|| "with content".to_owned()),
            Self::ContinuedOrFinal => {
                let right = response.interim.iter().all(|status| *status == 100);
                (!right).then(|| format!("{:?} first", response.interim))
            }
            Self::EndsIn(name, end) => {
                let found = value(name);
                let ends = found.as_deref().is_some_and(|found| found.ends_with(end));
                (!ends).then(|| shown(name, found))
            }
            Self::Slice(file, (first, last)) => {
                let right = response.body == site::content(file)[*first..=*last];
                (!right).then(|| "other content".to_owned())
            }
            Self::OnePart(file, range) => {
                let (first, last) = *range;
                let alone =
                    value("content-range").is_some() && response.body == site::content(file)[first..=last];
                let right = alone || parts(response).is_some_and(|parts| parts_are(&parts, file, &[*range]));
                (!right).then(|| "other parts".to_owned())
            }
            Self::AtMost(length) => {
                let found = response.body.len();
                (found > *length).then(|| format!("{found} bytes"))
            }
            Self::NotImmutable => {
                let found = value("cache-control");
                let forever = found.as_deref().is_some_and(|found| found.contains("immutable"));
                forever.then(|| shown("cache-control", found))
            }
            Self::OtherTag => {
                let same = value("etag") == known.and_then(|known| known.header("etag"));
                same.then(|| "the same `etag`".to_owned())
            }
            Self::NotNewerThanDate => {
                let date = |name| value(name).and_then(|date| httpdate::parse_http_date(&date).ok());
                let newer = date("last-modified") > date("date");
                newer.then(|| "newer than `date`".to_owned())
            }
            Self::NotSecret => {
                let secret = site::SECRETS.iter().any(|secret| response.body == *secret);
                secret.then(|| "served".to_owned())
            }
            Self::NoForeignLocation => {
                let found = value("location").unwrap_or_default();
                let foreign =
                    found.starts_with("//") || found.contains("://") && !found.contains("//site.test");
                foreign.then(|| shown("location", Some(found)))
            }
            Self::Statuses(_)
            | Self::Refused(_)
            | Self::Connection(_)
            | Self::NotSmuggled
            | Self::EndsUnsmuggled
            | Self::SpeaksHttp2 => None,
        }
    }
}

/// Whether a request was seen that was only in another one's content.
fn smuggled(seen: &Observation) -> bool {
    let answered = seen.responses.iter().any(|response| response.body == SMUGGLED_ANSWER);
    answered || seen.after == Some(After::Confused)
}

impl After {
    /// For people.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Kept => "kept open",
            Self::Closed => "closed",
            Self::Hung => "hangs",
            Self::Confused => "answers out of step",
        }
    }
}

fn either(lists: &[Vec<u16>]) -> String {
    let lists: Vec<String> =
        lists.iter().map(|list| list.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")).collect();
    lists.join(" or ")
}

fn shown(name: &str, value: Option<String>) -> String {
    match value {
        None => format!("no `{name}`"),
        // Another one each day: the file's time is in it.
        Some(value) if name == "etag" && value.starts_with("W/") => "a weak `etag`".to_owned(),
        Some(value) => format!("`{name}: {value}`"),
    }
}

/// A list's members in lower case, sorted: a field's order and case mean nothing
/// in those that are compared.
fn members(value: &str) -> Vec<String> {
    let mut members: Vec<String> =
        value.split(',').map(|member| member.trim().to_ascii_lowercase()).collect();
    members.sort();
    members
}

/// The content without its coding; none if it can't be decoded.
fn decoded(response: &Response) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let body = response.body.as_slice();
    let done = match response.header("content-encoding").as_deref() {
        None => return Some(body.to_vec()),
        Some("gzip") => std::io::copy(&mut flate2::read::GzDecoder::new(body), &mut decoded),
        Some("zstd") => zstd::stream::copy_decode(body, &mut decoded).map(|()| 0),
        Some("br") => std::io::copy(&mut brotli::Decompressor::new(body, 4096), &mut decoded),
        Some(_) => return None,
    };
    done.ok().map(|_| decoded)
}

/// The parts of `multipart/byteranges` (RFC 9110, 14.6): `Content-Range` and bytes.
fn parts(response: &Response) -> Option<Vec<(String, Vec<u8>)>> {
    let media_type = response.header("content-type")?;
    let boundary = media_type.strip_prefix("multipart/byteranges")?.split_once("boundary=")?.1;
    let delimiter = format!("--{}", boundary.trim_matches('"')).into_bytes();
    let mut rest = &response.body[find(&response.body, &delimiter)? + delimiter.len()..];
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        let end = find(rest, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
        let range = head.lines().find_map(|line| line.strip_prefix("content-range:"))?.trim().to_owned();
        rest = &rest[end + 4..];
        let next = find(rest, &delimiter)?;
        parts.push((range, rest[..next].strip_suffix(b"\r\n")?.to_vec()));
        rest = &rest[next + delimiter.len()..];
    }
    Some(parts)
}

fn parts_are(parts: &[(String, Vec<u8>)], file: &str, ranges: &[(usize, usize)]) -> bool {
    let content = site::content(file);
    let expected = ranges.iter().map(|&(first, last)| {
        (format!("bytes {first}-{last}/{}", content.len()), content[first..=last].to_vec())
    });
    expected.eq(parts.iter().cloned())
}
