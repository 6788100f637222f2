//! Header rules: `_headers` of Cloudflare Pages and Netlify, and
//! `[site.headers]` of `wharf.toml`.
//!
//! Owns the text's form and which rules are for a request; a response is the
//! host's. As on Pages, rules are for static answers, not for a worker's own;
//! all that match apply in order, the first value of a name replaces what the
//! server would send, and further ones are joined by ", ". Unlike there, a
//! `Content-Type` is the file's and no message's, and what is told to caches is
//! not for errors.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::rules::{AddressPattern, LONGEST_LINE, RuleError, RuleProblem, Template, encode_part};

/// The name of the file within the site; it isn't served.
pub(crate) const HEADERS_FILE: &str = "_headers";

/// Most rules, all together. Pages takes 100.
const MOST_RULES: usize = 1_000;

/// Headers that follow from what is sent, so that a rule could only make them
/// wrong.
const OWNED: [&str; 20] = [
    "accept-ranges",
    "age",
    "allow",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "etag",
    "host",
    "keep-alive",
    "last-modified",
    "location",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];

/// What a rule does to the responses of the addresses that it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderRule {
    /// The pattern: `/assets/*`, or `https://HOST/PATH`.
    #[serde(rename = "for")]
    pub pattern: String,
    /// Values by name, in lower case. `:name` and `:splat` of the pattern are
    /// filled in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Names, in lower case, of headers that the server or an earlier rule
    /// would have sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// Header rules, ready to be asked.
#[derive(Debug, Default)]
pub struct HeaderRules {
    rules: Vec<Rule>,
    /// Rules of one path of any host, in order.
    exact: HashMap<String, Vec<usize>>,
    /// All others, in order.
    patterns: Vec<usize>,
}

#[derive(Debug)]
struct Rule {
    pattern: AddressPattern,
    remove: Vec<String>,
    set: Vec<(String, Template)>,
}

/// One thing that a rule does to a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderChange<'a> {
    /// The header goes, whoever set it.
    Remove(&'a str),
    /// The header gets this value, the same for every request; `id` is one of
    /// [`HeaderRules::constants`].
    Constant {
        /// The name, in lower case.
        name: &'a str,
        /// Its index there.
        id: usize,
    },
    /// The header gets this value, made for this request.
    Filled {
        /// The name, in lower case.
        name: &'a str,
        /// The value.
        value: String,
    },
}

/// Parses the text of `_headers`; `file` is what people call it.
///
/// # Errors
/// [`RuleError`]: a line is none that has a meaning.
pub fn parse_headers(text: &[u8], file: &str) -> Result<Vec<HeaderRule>, RuleError> {
    let error =
        |line: usize, problem| RuleError { file: file.into(), place: format!("line {line}"), problem };
    let text = str::from_utf8(text).map_err(|at| {
        let line = 1 + text[..at.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        error(line, RuleProblem::NotUtf8)
    })?;
    let mut rules: Vec<HeaderRule> = Vec::new();
    let mut started = 0;
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = parse_line(line, &mut rules).map_err(|problem| error(number, problem))?;
        if parsed == Line::Pattern {
            if let Some(pattern) =
                rules.len().checked_sub(2).map(|at| &rules[at]).filter(|rule| rule.is_idle())
            {
                return Err(error(started, RuleProblem::NoHeaders(pattern.pattern.clone())));
            }
            started = number;
        }
    }
    match rules.last() {
        Some(rule) if rule.is_idle() => Err(error(started, RuleProblem::NoHeaders(rule.pattern.clone()))),
        _ => Ok(rules),
    }
}

#[derive(PartialEq)]
enum Line {
    Pattern,
    Header,
}

fn parse_line(line: &str, rules: &mut Vec<HeaderRule>) -> Result<Line, RuleProblem> {
    if line.len() > LONGEST_LINE {
        return Err(RuleProblem::TooLong(line.len()));
    }
    if line.starts_with('/') || line.starts_with("https://") || line.starts_with("http://") {
        if rules.len() == MOST_RULES {
            return Err(RuleProblem::TooMany(MOST_RULES));
        }
        AddressPattern::parse(line)?;
        rules.push(HeaderRule::new(line));
        return Ok(Line::Pattern);
    }
    let removed = line.strip_prefix('!').map(str::trim);
    let set = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
    let rule = rules.last_mut();
    match (removed, set) {
        (Some(name), _) => rule.ok_or_else(|| RuleProblem::NoPattern(line.to_owned()))?.remove(name)?,
        (None, Some((name, value))) => {
            rule.ok_or_else(|| RuleProblem::NoPattern(line.to_owned()))?.set(name, value)?;
        }
        (None, None) => return Err(RuleProblem::Line(line.to_owned())),
    }
    Ok(Line::Header)
}

impl HeaderRule {
    /// A rule for `pattern` that does nothing yet.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self { pattern: pattern.to_owned(), set: BTreeMap::new(), remove: Vec::new() }
    }

    /// Sets a header, or adds to what the rule set before.
    ///
    /// # Errors
    /// [`RuleProblem`]: HTTP has no such header, or it isn't the user's to set.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), RuleProblem> {
        let name = header_name(name)?;
        if value.is_empty() || value.bytes().any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
            return Err(RuleProblem::HeaderValue { name, value: value.to_owned() });
        }
        let joined = self.set.entry(name).or_default();
        if !joined.is_empty() {
            joined.push_str(", ");
        }
        joined.push_str(value);
        Ok(())
    }

    /// Removes a header.
    ///
    /// # Errors
    /// [`RuleProblem`]: HTTP has no such header, or it isn't the user's to remove.
    pub fn remove(&mut self, name: &str) -> Result<(), RuleProblem> {
        let name = header_name(name)?;
        // Without it, caches would give one client what was made for another.
        if name == "vary" {
            return Err(RuleProblem::Owned(name));
        }
        if !self.remove.contains(&name) {
            self.remove.push(name);
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    fn compile(&self) -> Result<Rule, RuleProblem> {
        let pattern = AddressPattern::parse(&self.pattern)?;
        // A manifest may be anyone's: its rules are as those of a file.
        let mut checked = Self::new(&self.pattern);
        self.remove.iter().try_for_each(|name| checked.remove(name))?;
        self.set.iter().try_for_each(|(name, value)| checked.set(name, value))?;
        let names = pattern.names();
        let template = |(name, value): (String, String)| {
            let template = Template::parse(&value, &names);
            (name, template)
        };
        let set = checked.set.into_iter().map(template).collect();
        Ok(Rule { remove: checked.remove, set, pattern })
    }
}

/// `name` in lower case (RFC 9110, 5.6.2: a token).
fn header_name(name: &str) -> Result<String, RuleProblem> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(RuleProblem::HeaderName(name.to_owned()));
    }
    let name = name.to_ascii_lowercase();
    // Netlify's way to ask for a password: sent as it is, it would tell it.
    if name == "basic-auth" {
        return Err(RuleProblem::BasicAuth);
    }
    if OWNED.contains(&name.as_str()) {
        return Err(RuleProblem::Owned(name));
    }
    Ok(name)
}

impl HeaderRules {
    /// Makes `rules` ready.
    ///
    /// # Errors
    /// The pattern of a rule, and what is wrong with the rule.
    pub fn new(rules: &[HeaderRule]) -> Result<Self, (String, RuleProblem)> {
        let mut ready = Self::default();
        for (index, rule) in rules.iter().enumerate() {
            let rule = rule.compile().map_err(|problem| (rule.pattern.clone(), problem))?;
            match rule.pattern.exact() {
                Some(path) => ready.exact.entry(path.to_owned()).or_default().push(index),
                None => ready.patterns.push(index),
            }
            ready.rules.push(rule);
        }
        Ok(ready)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// All values that are the same for every request: name and value, in the
    /// order of their ids.
    pub fn constants(&self) -> impl Iterator<Item = (&str, &str)> {
        let set = self.rules.iter().flat_map(|rule| &rule.set);
        // A place for each, so that an id is found by counting.
        set.map(|(name, template)| (name.as_str(), template.constant().unwrap_or_default()))
    }

    /// Tells `apply` what becomes of the headers of a static answer to a
    /// request for `path` (decoded) of `host`, in order.
    pub fn apply(&self, host: &str, path: &str, mut apply: impl FnMut(HeaderChange<'_>)) {
        let exact = self.exact.get(path).map_or(&[][..], Vec::as_slice);
        let (mut exact, mut patterns) = (exact.iter().peekable(), self.patterns.iter().peekable());
        let mut first_id = Ids::default();
        // The two lists, merged in the order of the rules.
        loop {
            let index = match (exact.peek(), patterns.peek()) {
                (Some(a), Some(b)) if a < b => exact.next(),
                (_, Some(_)) => patterns.next(),
                (_, None) => exact.next(),
            };
            let Some(&index) = index else { return };
            let rule = &self.rules[index];
            let Some(captures) = rule.pattern.captures(host, path) else { continue };
            rule.remove.iter().for_each(|name| apply(HeaderChange::Remove(name)));
            let first = first_id.of(&self.rules, index);
            for (id, (name, template)) in (first..).zip(&rule.set) {
                apply(if template.constant().is_some() {
                    HeaderChange::Constant { name, id }
                } else {
                    // Encoded, as Pages has it: nothing in a path can end a line.
                    let value = template.fill(&captures, |_, value| encode_part(value));
                    HeaderChange::Filled { name, value }
                });
            }
        }
    }
}

/// The id of a rule's first value: the number of those of the rules before.
#[derive(Default)]
struct Ids {
    rule: usize,
    values: usize,
}

impl Ids {
    /// Asked in the order of the rules.
    fn of(&mut self, rules: &[Rule], index: usize) -> usize {
        self.values += rules[self.rule..index].iter().map(|rule| rule.set.len()).sum::<usize>();
        self.rule = index;
        self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<HeaderRule>, RuleError> {
        parse_headers(text.as_bytes(), "public/_headers")
    }

    /// What a response gets, in order.
    fn applied(text: &str, path: &str) -> Vec<String> {
        let rules = HeaderRules::new(&parse(text).unwrap()).unwrap();
        let constants: Vec<_> = rules.constants().collect();
        let mut changes = Vec::new();
        rules.apply("x.example", path, |change| {
            changes.push(match change {
                HeaderChange::Remove(name) => format!("-{name}"),
                HeaderChange::Constant { name, id } => {
                    assert_eq!(constants[id].0, name);
                    format!("{name}: {}", constants[id].1)
                }
                HeaderChange::Filled { name, value } => format!("{name}: {value}"),
            });
        });
        changes
    }

    const FILE: &str = "\u{feff}# all\n/*\n  X-A: 1\n  X-B: b\r\n\n/secret/:id\n\tX-A: 2\n  X-A: 3\n  ! X-B\n  \
        Link: </i/:id.css>; rel=preload\n/exact\n  Content-Security-Policy: default-src 'self' data:\n\
        https://x.example/*\n  X-Host: :splat\nhttps://y.example/*\n  X-Host: no\n";

    #[test]
    fn all_rules_that_match_apply_in_the_order_of_the_file() {
        assert_eq!(applied(FILE, "/"), ["x-a: 1", "x-b: b", "x-host: "]);
        assert_eq!(
            applied(FILE, "/secret/a b"),
            [
                "x-a: 1",
                "x-b: b",
                "-x-b",
                "link: </i/a%20b.css>; rel=preload",
                "x-a: 2, 3",
                "x-host: secret/a%20b"
            ]
        );
        assert_eq!(
            applied(FILE, "/exact"),
            ["x-a: 1", "x-b: b", "content-security-policy: default-src 'self' data:", "x-host: exact"]
        );
    }

    #[test]
    fn a_value_can_not_be_ended_by_what_a_path_holds() {
        let changes = applied("/:a\n  x: :a", "/a\r\nset-cookie: b");
        assert_eq!(changes, ["x: a%0D%0Aset-cookie:%20b"]);
    }

    #[test]
    fn a_line_without_meaning_is_named_with_its_number() {
        for (text, expected) in [
            ("X-A: 1", "line 1: header \"X-A: 1\" has no pattern"),
            ("/*\n  x-a 1", "line 2: invalid line \"x-a 1\""),
            ("\n/*\n\n/b\n x: 1", "line 2: pattern \"/*\" has no headers"),
            ("/*\n x: 1\n/b", "line 3: pattern \"/b\" has no headers"),
            ("/*\n x y: 1", "line 2: invalid header name \"x y\""),
            ("/*\n x:", "line 2: invalid value of header \"x\""),
            ("/*\n x: a\x07b", "line 2: invalid value of header \"x\""),
            ("/*\n Content-Length: 1", "line 2: header \"content-length\" can't be set"),
            ("/*\n ! vary", "line 2: header \"vary\" can't be set or removed"),
            ("/*\n Basic-Auth: a:b", "line 2: Basic-Auth is not supported"),
            ("/*/*\n x: 1", "line 1: pattern \"/*/*\" has more than one"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.starts_with("cannot read public/_headers, line "), "{error}");
        }
        let error = parse_headers(b"/*\n x: \xff", "f").unwrap_err();
        assert_eq!((error.place.as_str(), error.problem), ("line 2", RuleProblem::NotUtf8));
        let many = "/a\n x: 1\n".repeat(MOST_RULES + 1);
        assert!(matches!(parse(&many).unwrap_err().problem, RuleProblem::TooMany(_)));
        let long = format!("/a\n x: {}", "1".repeat(LONGEST_LINE));
        assert!(matches!(parse(&long).unwrap_err().problem, RuleProblem::TooLong(_)));
    }

    #[test]
    fn rules_of_a_manifest_are_checked_as_those_of_a_file() {
        let mut rule = HeaderRule::new("/*");
        rule.set.insert("Content-Length".into(), "1".into());
        assert!(HeaderRules::new(&[rule]).is_err());
        let mut rule = HeaderRule::new("/*");
        rule.set.insert("x".into(), "a\r\nb: c".into());
        assert!(HeaderRules::new(&[rule]).is_err());
    }
}
