//! What the rules of `_headers` and `_redirects` share: the pattern of the
//! addresses that a rule is for, and text with placeholders.
//!
//! Patterns are matched without backtracking, in time linear in the path, so
//! that no request can make one slow. What a rule does is in `headers.rs` and
//! `redirects.rs`.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

mod problem;

pub use problem::{RuleError, RuleProblem};

/// The name by which the text that `*` stands for is used.
const SPLAT: &str = "splat";

/// Longest line of a rule file, in bytes. Pages takes 2,000 at most.
pub(crate) const LONGEST_LINE: usize = 8 << 10;

/// Which addresses a rule is for: `/blog/*`, `/news/:year/:month`,
/// `https://:project.example/*`.
///
/// `*` is any text, also none and also with slashes; `:name` is a part of a
/// path's segment, or a label of the host, and never empty. The scheme of a
/// URL and the port of a request do not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddressPattern {
    /// The labels of the host, if the pattern has one.
    host: Option<Vec<Piece>>,
    before: Vec<Piece>,
    /// What follows the `*`, if there is one.
    after: Option<Vec<Piece>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Placeholder(String),
}

/// What placeholders stand for in one request: decoded.
pub(crate) type Captures<'a> = Vec<(&'a str, &'a str)>;

impl AddressPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, RuleProblem> {
        let url = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let (host, path) = match url {
            Some(url) => {
                let (host, path) = url.split_at(url.find('/').unwrap_or(url.len()));
                (Some(host), if path.is_empty() { "/" } else { path })
            }
            None => (None, text),
        };
        if !path.starts_with('/') {
            return Err(RuleProblem::Pattern(text.to_owned()));
        }
        if path.contains(['?', '#']) {
            return Err(RuleProblem::Query(text.to_owned()));
        }
        let mut parts = path.split('*');
        let before = pieces(parts.next().unwrap_or_default(), text)?;
        let after = parts.next().map(|part| pieces(part, text)).transpose()?;
        if parts.next().is_some() {
            return Err(RuleProblem::Splats(text.to_owned()));
        }
        let touches = |piece: Option<&Piece>| matches!(piece, Some(Piece::Placeholder(_)));
        if after.as_ref().is_some_and(|after| touches(before.last()) || touches(after.first())) {
            return Err(RuleProblem::Adjacent(text.to_owned()));
        }
        let host = host.map(labels).transpose()?;
        let pattern = Self { host, before, after };
        let mut names = pattern.names();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(RuleProblem::Twice { pattern: text.to_owned(), name: twice[0].to_owned() });
        }
        Ok(pattern)
    }

    /// The path, if it is the only one of any host: decoded.
    pub(crate) fn exact(&self) -> Option<&str> {
        match (&self.host, &self.before[..], &self.after) {
            (None, [Piece::Literal(path)], None) => Some(path),
            _ => None,
        }
    }

    /// The names of what it captures.
    pub(crate) fn names(&self) -> Vec<&str> {
        let pieces = self.host.iter().flatten().chain(&self.before).chain(self.after.iter().flatten());
        let named = pieces.filter_map(|piece| match piece {
            Piece::Placeholder(name) => Some(name.as_str()),
            Piece::Literal(_) => None,
        });
        named.chain(self.after.as_ref().map(|_| SPLAT)).collect()
    }

    /// What the placeholders stand for, if it is for `path` (decoded) of
    /// `host` (perhaps with a port).
    pub(crate) fn captures<'a>(&'a self, host: &'a str, path: &'a str) -> Option<Captures<'a>> {
        let mut captures = Captures::new();
        if let Some(labels) = &self.host {
            match_host(labels, host, &mut captures)?;
        }
        let rest = match_left(&self.before, self.after.is_none(), path, &mut captures)?;
        match &self.after {
            None => rest.is_empty().then_some(captures),
            Some(after) => {
                let splat = match_right(after, rest, &mut captures)?;
                captures.push((SPLAT, splat));
                Some(captures)
            }
        }
    }
}

/// `/a/:b-c` → literals (decoded) and placeholders in turn.
fn pieces(text: &str, pattern: &str) -> Result<Vec<Piece>, RuleProblem> {
    let mut pieces = Vec::new();
    for (literal, name) in placeholders(text) {
        if literal.is_empty() {
            if matches!(pieces.last(), Some(Piece::Placeholder(_))) && name.is_some() {
                return Err(RuleProblem::Adjacent(pattern.to_owned()));
            }
        } else {
            let decoded = percent_decode_str(literal).decode_utf8();
            let decoded = decoded.map_err(|_| RuleProblem::Pattern(pattern.to_owned()))?;
            pieces.push(Piece::Literal(decoded.into_owned()));
        }
        pieces.extend(name.map(|name| Piece::Placeholder(name.to_owned())));
    }
    Ok(pieces)
}

fn labels(host: &str) -> Result<Vec<Piece>, RuleProblem> {
    let error = || RuleProblem::Host(host.to_owned());
    let label = |label: &str| match label.strip_prefix(':') {
        Some(name) if is_name(name) => Ok(Piece::Placeholder(name.to_owned())),
        _ if !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) => {
            Ok(Piece::Literal(label.to_ascii_lowercase()))
        }
        _ => Err(error()),
    };
    host.split('.').map(label).collect()
}

/// Splits `text` before and after each `:name`: a literal, and the name that
/// follows it. The last literal is followed by none.
fn placeholders(text: &str) -> Vec<(&str, Option<&str>)> {
    let mut found = Vec::new();
    let (mut start, mut from) = (0, 0);
    while let Some(colon) = text[from..].find(':').map(|at| from + at) {
        let name = &text[colon + 1..];
        let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(name.len());
        let name = &name[..end];
        from = colon + 1 + end;
        if is_name(name) {
            found.push((&text[start..colon], Some(name)));
            start = from;
        }
    }
    found.push((&text[start..], None));
    found
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn match_host<'a>(labels: &'a [Piece], host: &'a str, captures: &mut Captures<'a>) -> Option<()> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let mut parts = name.split('.');
    for label in labels {
        let part = parts.next().filter(|part| !part.is_empty())?;
        match label {
            Piece::Literal(literal) if part.eq_ignore_ascii_case(literal) => {}
            Piece::Literal(_) => return None,
            Piece::Placeholder(name) => captures.push((name, part)),
        }
    }
    parts.next().is_none().then_some(())
}

/// Matches from the left; gives what is left over. `whole`: nothing may be.
fn match_left<'a>(
    pieces: &'a [Piece],
    whole: bool,
    text: &'a str,
    captures: &mut Captures<'a>,
) -> Option<&'a str> {
    let mut rest = text;
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Literal(literal) => rest = rest.strip_prefix(literal.as_str())?,
            Piece::Placeholder(name) => {
                let segment = rest.split('/').next().unwrap_or_default();
                let value = match pieces.get(at + 1) {
                    Some(Piece::Literal(next)) => {
                        let head = next.split('/').next().unwrap_or_default();
                        if head.len() < next.len() || (whole && at + 2 == pieces.len()) {
                            segment.strip_suffix(head)?
                        } else {
                            // Not empty: not before its first character.
                            let first = segment.chars().next()?.len_utf8();
                            &segment[..first + segment[first..].find(head)?]
                        }
                    }
                    _ => segment,
                };
                if value.is_empty() {
                    return None;
                }
                captures.push((name, value));
                rest = &rest[value.len()..];
            }
        }
    }
    Some(rest)
}

/// The same from the right, so that the `*` on its left takes all it can.
fn match_right<'a>(pieces: &'a [Piece], text: &'a str, captures: &mut Captures<'a>) -> Option<&'a str> {
    let mut rest = text;
    for (at, piece) in pieces.iter().enumerate().rev() {
        match piece {
            Piece::Literal(literal) => rest = rest.strip_suffix(literal.as_str())?,
            Piece::Placeholder(name) => {
                let segment = rest.rsplit('/').next().unwrap_or_default();
                let value = match at.checked_sub(1).map(|at| &pieces[at]) {
                    Some(Piece::Literal(before)) => {
                        let tail = before.rsplit('/').next().unwrap_or_default();
                        if tail.len() < before.len() {
                            segment.strip_prefix(tail)?
                        } else {
                            let last = segment.chars().next_back()?.len_utf8();
                            &segment[segment[..segment.len() - last].rfind(tail)? + tail.len()..]
                        }
                    }
                    _ => segment,
                };
                if value.is_empty() {
                    return None;
                }
                captures.push((name, value));
                rest = &rest[..rest.len() - value.len()];
            }
        }
    }
    Some(rest)
}

/// Text with placeholders of a pattern: a header's value, a redirect's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

impl Template {
    /// `text` with those of `names` that follow a colon in it; a colon before
    /// anything else is a colon.
    pub(crate) fn parse(text: &str, names: &[&str]) -> Self {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        for (before, name) in placeholders(text) {
            literal.push_str(before);
            match name {
                Some(name) if names.contains(&name) => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Placeholder(name.to_owned()));
                }
                Some(name) => {
                    literal.push(':');
                    literal.push_str(name);
                }
                None => {}
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Self(pieces)
    }

    /// The text, if it is the same for all requests.
    pub(crate) fn constant(&self) -> Option<&str> {
        match &self.0[..] {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for one request, what each placeholder stands for as `encode`
    /// has it; that knows the text so far.
    pub(crate) fn fill(&self, captures: &Captures<'_>, encode: impl Fn(&str, &str) -> String) -> String {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(literal) => filled.push_str(literal),
                Piece::Placeholder(name) => {
                    let value = captures.iter().find(|(captured, _)| captured == name);
                    let value = encode(&filled, value.map_or("", |(_, value)| value));
                    filled.push_str(&value);
                }
            }
        }
        filled
    }
}

/// The placeholder at the start of a segment of `target` that `names` lack.
pub(crate) fn unknown_placeholder<'a>(target: &'a str, names: &[&str]) -> Option<&'a str> {
    let known = |name: &str| names.contains(&name);
    let found = placeholders(target).into_iter();
    found.filter_map(|(before, name)| Some((before, name?))).find_map(|(before, name)| {
        let starts_segment = before.ends_with('/') || before.ends_with('=');
        (starts_segment && !known(name)).then_some(name)
    })
}

/// `path` (decoded) as it is spelled in a URL (RFC 3986, 3.3).
///
/// A second slash at its start would make a host of what follows, so it is
/// encoded.
#[must_use]
pub fn encode_path(path: &str) -> String {
    let encoded = encode_part(path);
    match encoded.strip_prefix("//") {
        Some(rest) => format!("/%2F{rest}"),
        None => encoded,
    }
}

/// A part of a path that isn't its start.
pub(crate) fn encode_part(part: &str) -> String {
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
    utf8_percent_encode(part, &PATH).to_string()
}

/// A value within a query (RFC 3986, 3.4) or a fragment.
pub(crate) fn encode_query_value(value: &str) -> String {
    const VALUE: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    utf8_percent_encode(value, &VALUE).to_string()
}

/// A URL as its author wrote it, with what no URL may have encoded.
pub(crate) fn encode_written(url: &str) -> String {
    const FORBIDDEN: AsciiSet = CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'<')
        .add(b'>')
        .add(b'\\')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');
    utf8_percent_encode(url, &FORBIDDEN).to_string()
}

#[cfg(test)]
mod tests;
