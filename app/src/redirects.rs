//! Redirects and rewrites: `_redirects` of Cloudflare Pages and Netlify, and
//! `[[site.redirects]]` of `wharf.toml`.
//!
//! Owns the text's form, and which rule is for a request. The first rule that
//! matches wins, in the order of the file, as on both. Where they differ:
//!
//! - A redirect (3xx) comes before files and workers, as on Pages; Netlify lets
//!   a file win unless the status has a `!`, which is taken, and changes nothing.
//! - A rewrite (200) and a page for what is missing (404) give way to a file or
//!   a worker unless forced by `!`, as on Netlify, so that `/* /index.html 200`
//!   serves the files of a single-page app.
//! - Without a status it is 302, as on Pages; Netlify's 301 would be kept by
//!   browsers for good.
//! - The query of the request is kept unless the target has its own.
//! - A path with a slash at its end is also looked up without, as on Netlify. A
//!   redirect to the very path of the request is passed over: it would never end.

use std::collections::HashMap;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use crate::rules::{
    AddressPattern, Captures, LONGEST_LINE, RuleError, RuleProblem, Template, encode_part, encode_path,
    encode_query_value, encode_written, unknown_placeholder,
};

/// The name of the file within the site; it isn't served.
pub(crate) const REDIRECTS_FILE: &str = "_redirects";

/// Most rules, all together. Pages takes 2,100.
const MOST_RULES: usize = 20_000;

/// Most rules with placeholders or `*`, each of which a request may have to be
/// compared with. Pages takes 100.
const MOST_PATTERNS: usize = 1_000;

/// The status where none is given.
const DEFAULT_STATUS: u16 = 302;

/// Names of Netlify's conditions, in lower case.
const CONDITIONS: [&str; 4] = ["country", "language", "role", "cookie"];

/// One rule: requests for `from` are answered by `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// The pattern: `/old/*`, `/news/:year`, `https://HOST/PATH`.
    pub from: String,
    /// A path of this site or, unless it is a rewrite, a URL.
    pub to: String,
    /// 301, 302, 303, 307 or 308; 200 is a rewrite, and 404 a page for what is
    /// missing. Default 302.
    #[serde(default = "default_status")]
    pub status: u16,
    /// Whether a rewrite comes before a file or a worker at the same path.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

const fn default_status() -> u16 {
    DEFAULT_STATUS
}

/// Redirects and rewrites, ready to be asked.
#[derive(Debug, Default)]
pub(crate) struct Redirects {
    rules: Vec<Rule>,
    /// The first rule of a path of any host.
    exact: HashMap<String, usize>,
    /// All that are no exact ones, in order.
    patterns: Vec<usize>,
}

#[derive(Debug)]
struct Rule {
    pattern: AddressPattern,
    target: Template,
    status: u16,
    force: bool,
}

/// What a rule makes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// A redirect with this status. `location` is a URL; the request's query
    /// belongs to it if it has none of its own.
    Elsewhere { status: u16, location: String },
    /// The path (decoded) whose answer this is, with its own query if any.
    Here { path: String, query: Option<String>, missing: bool, force: bool },
}

/// Parses the text of `_redirects`; `file` is what people call it.
///
/// # Errors
/// [`RuleError`]: a line is none that has a meaning.
pub fn parse_redirects(text: &[u8], file: &str) -> Result<Vec<Redirect>, RuleError> {
    let error =
        |line: usize, problem| RuleError { file: file.into(), place: format!("line {line}"), problem };
    let text = str::from_utf8(text).map_err(|at| {
        let line = 1 + text[..at.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        error(line, RuleProblem::NotUtf8)
    })?;
    let (mut rules, mut patterns) = (Vec::new(), 0);
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let rule = Redirect::parse(line).map_err(|problem| error(number, problem))?;
        patterns += usize::from(rule.from.contains(['*', ':']));
        rules.push(rule);
        if rules.len() > MOST_RULES {
            return Err(error(number, RuleProblem::TooMany(MOST_RULES)));
        }
        if patterns > MOST_PATTERNS {
            return Err(error(number, RuleProblem::TooMany(MOST_PATTERNS)));
        }
    }
    Ok(rules)
}

impl Redirect {
    /// One line: `FROM TO [STATUS]`, perhaps with a comment behind it.
    fn parse(line: &str) -> Result<Self, RuleProblem> {
        if line.len() > LONGEST_LINE {
            return Err(RuleProblem::TooLong(line.len()));
        }
        let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let words: Vec<&str> = words.collect();
        if let Some(condition) = words.iter().skip(1).find(|word| is_condition(word)) {
            return Err(RuleProblem::Condition((*condition).to_owned()));
        }
        let (from, to, status) = match words[..] {
            [from, to] => (from, to, None),
            [from, to, status] => (from, to, Some(status)),
            _ => return Err(RuleProblem::Redirect(line.to_owned())),
        };
        let (status, force) = match status.map(|status| (status, status.strip_suffix('!'))) {
            None => (DEFAULT_STATUS, false),
            Some((text, forced)) => {
                let number = forced.unwrap_or(text).parse();
                (number.map_err(|_| RuleProblem::Status(text.to_owned()))?, forced.is_some())
            }
        };
        let rule = Self { from: from.to_owned(), to: to.to_owned(), status, force };
        rule.check()?;
        Ok(rule)
    }

    /// Whether it has a meaning.
    ///
    /// # Errors
    /// [`RuleProblem`]: what is wrong.
    pub fn check(&self) -> Result<(), RuleProblem> {
        self.compile().map(drop)
    }

    fn compile(&self) -> Result<Rule, RuleProblem> {
        let pattern = AddressPattern::parse(&self.from)?;
        let names = pattern.names();
        let Self { ref to, status, force, .. } = *self;
        let url = to.strip_prefix("https://").or_else(|| to.strip_prefix("http://"));
        match (status, url) {
            (301 | 302 | 303 | 307 | 308, _) | (200 | 404, None) => {}
            (200 | 404, Some(_)) => return Err(RuleProblem::Proxy { status, target: to.clone() }),
            _ => return Err(RuleProblem::Status(status.to_string())),
        }
        let authority = url.map(|url| url.split(['/', '?', '#']).next().unwrap_or_default());
        // A placeholder there would let a request name the host.
        let foreign = |name: &str| Template::parse(name, &names).constant().is_none();
        let valid = match authority {
            Some(authority) => !authority.is_empty() && !foreign(authority),
            // `//host` is a URL to a browser.
            None => to.starts_with('/') && !to.starts_with("//"),
        };
        if !valid || to.contains(char::is_control) {
            return Err(RuleProblem::Target(to.clone()));
        }
        if let Some(name) = unknown_placeholder(to, &names) {
            return Err(RuleProblem::UnknownPlaceholder {
                name: format!(":{name}"),
                pattern: self.from.clone(),
            });
        }
        let is_rewrite = matches!(status, 200 | 404);
        let written = if is_rewrite { to.split('#').next().unwrap_or_default() } else { to };
        let target = Template::parse(&encode_written(written), &names);
        Ok(Rule { target, status, force, pattern })
    }
}

/// `Country=de`, or a query parameter: no target, which begins with a slash
/// or a scheme, and no status.
fn is_condition(word: &str) -> bool {
    !word.starts_with(['/', '?'])
        && word.split_once('=').is_some_and(|(name, _)| {
            let name = name.to_ascii_lowercase();
            CONDITIONS.contains(&name.as_str()) || !name.contains(['/', ':'])
        })
}

impl Redirects {
    /// Makes `rules` ready.
    ///
    /// # Errors
    /// The pattern of a rule, and what is wrong with the rule.
    pub(crate) fn new(rules: &[Redirect]) -> Result<Self, (String, RuleProblem)> {
        let mut ready = Self::default();
        for (index, redirect) in rules.iter().enumerate() {
            let rule = redirect.compile().map_err(|problem| (redirect.from.clone(), problem))?;
            match rule.pattern.exact() {
                Some(path) => _ = ready.exact.entry(path.to_owned()).or_insert(index),
                None => ready.patterns.push(index),
            }
            ready.rules.push(rule);
        }
        Ok(ready)
    }

    /// What becomes of a request for `path` (decoded) of `host`; `None`
    /// without a rule for it.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Rewritten> {
        if self.rules.is_empty() {
            return None;
        }
        let without_slash = path.strip_suffix('/').filter(|path| !path.is_empty());
        self.find_exactly(host, path, path)
            .or_else(|| without_slash.and_then(|shorter| self.find_exactly(host, shorter, path)))
    }

    /// The same, for a rule that matches `path` as it is; `asked` is the path
    /// of the request.
    fn find_exactly(&self, host: &str, path: &str, asked: &str) -> Option<Rewritten> {
        let mut exact = self.exact.get(path).copied();
        let mut patterns = self.patterns.iter().copied().peekable();
        loop {
            let index = match patterns.peek() {
                Some(pattern) if exact.is_none_or(|exact| *pattern < exact) => patterns.next()?,
                _ => exact.take()?,
            };
            let rule = &self.rules[index];
            let Some(captures) = rule.pattern.captures(host, path) else { continue };
            let rewritten = rule.apply(&captures);
            if rewritten.leads_to(asked) {
                continue;
            }
            return Some(rewritten);
        }
    }
}

impl Rule {
    fn apply(&self, captures: &Captures<'_>) -> Rewritten {
        let target = self.target.fill(captures, |before, value| {
            if before.contains(['?', '#']) { encode_query_value(value) } else { encode_part(value) }
        });
        if !matches!(self.status, 200 | 404) {
            // A path may now begin with two slashes, which would name a host.
            let location = match target.strip_prefix("//") {
                Some(rest) => format!("/%2F{rest}"),
                None => target,
            };
            return Rewritten::Elsewhere { status: self.status, location };
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target.as_str(), None),
        };
        let path = percent_decode_str(path).decode_utf8_lossy().into_owned();
        Rewritten::Here { path, query, missing: self.status == 404, force: self.force }
    }
}

impl Rewritten {
    /// Whether a client that follows it asks the same again.
    fn leads_to(&self, asked: &str) -> bool {
        match self {
            Self::Elsewhere { location, .. } => {
                let path = location.split(['?', '#']).next().unwrap_or_default();
                path == encode_path(asked) || path == asked
            }
            Self::Here { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Redirect>, RuleError> {
        parse_redirects(text.as_bytes(), "public/_redirects")
    }

    fn found(text: &str, path: &str) -> String {
        let rules = Redirects::new(&parse(text).unwrap()).unwrap();
        match rules.find("www.example", path) {
            None => "none".into(),
            Some(Rewritten::Elsewhere { status, location }) => format!("{status} {location}"),
            Some(Rewritten::Here { path, query, missing, force }) => {
                let status = if missing { 404 } else { 200 };
                let force = if force { "!" } else { "" };
                format!("{status}{force} {path} {}", query.unwrap_or_default())
            }
        }
    }

    const FILE: &str = "# moved\n/home / 301  # the start\n/old /new\n/blog/* /weblog/:splat 308\n/blog/x /never\n\
        /news/:year/:month /archive?y=:year&m=:month 303\n/out/* https://o.example/a/:splat?b#c 307\n\
        /app/* /app/index.html 200\n/api/* /worker?p=:splat 200!\n/en/* /en/404.html 404\n\
        https://www.example/host /this-host\nhttps://other.example/host2 /other-host\n/ä /%C3%B6 301\n";

    #[test]
    fn the_first_rule_that_matches_wins_in_the_order_of_the_file() {
        for (path, expected) in [
            ("/home", "301 /"),
            ("/home/", "301 /"),
            ("/old", "302 /new"),
            ("/blog/x", "308 /weblog/x"),
            ("/blog/a b/c?", "308 /weblog/a%20b/c%3F"),
            ("/news/2024/a&b", "303 /archive?y=2024&m=a%26b"),
            ("/out/x", "307 https://o.example/a/x?b#c"),
            ("/app/x/y", "200 /app/index.html "),
            ("/api/a/b", "200! /worker p=a/b"),
            ("/en/x", "404 /en/404.html "),
            ("/host", "302 /this-host"),
            ("/host2", "none"),
            ("/ä", "301 /%C3%B6"),
            ("/other", "none"),
            ("/", "none"),
        ] {
            assert_eq!(found(FILE, path), expected, "{path}");
        }
        assert_eq!(found("/a /1\n/:x /2\n/a /3", "/a"), "302 /1");
        assert_eq!(found("/:x /2\n/a /1", "/a"), "302 /2");
    }

    #[test]
    fn a_redirect_never_leads_to_itself_nor_to_a_host_that_the_request_names() {
        assert_eq!(found("/blog /blog/ 301", "/blog"), "301 /blog/");
        assert_eq!(found("/blog /blog/ 301", "/blog/"), "none");
        assert_eq!(found("/* /:splat 301", "/a"), "none");
        assert_eq!(found("/x/* /:splat 301", "/x//evil.example"), "301 /%2Fevil.example");
        assert_eq!(found("/x/* /:splat 301", "/x/\\evil.example"), "301 /%5Cevil.example");
        assert_eq!(found("/x/* /:splat 301", "/x/a\r\nb"), "301 /a%0D%0Ab");
        for to in ["https://:splat.example/", "https://x.example:splat/", "https://:splat", "//x.example"] {
            assert!(
                matches!(parse(&format!("/* {to}")).unwrap_err().problem, RuleProblem::Target(_)),
                "{to}"
            );
        }
    }

    #[test]
    fn what_is_not_supported_is_said_with_its_line() {
        for (line, expected) in [
            ("/a", "expected \"FROM TO [STATUS]\""),
            ("/a /b 301 x", "expected \"FROM TO [STATUS]\""),
            ("/a /b Country=de", "condition \"Country=de\" is not supported"),
            ("/a /b 302 Language=de,fr", "condition \"Language=de,fr\" is not supported"),
            ("/a id=:id /b/:id 301", "condition \"id=:id\" is not supported"),
            ("/a /b 418", "invalid status \"418\""),
            ("/a /b 2OO", "invalid status \"2OO\""),
            ("/a b", "invalid target \"b\""),
            ("/a https://x.example/ 200", "would be a proxy"),
            ("a /b", "invalid pattern \"a\""),
            ("/a#b /b", "has a query or a fragment"),
            ("/a?x=1 /b", "has a query or a fragment"),
            ("/a/:year /b/:yaer", "target uses \":yaer\""),
            ("/a /b/:splat", "target uses \":splat\""),
        ] {
            let error = parse(&format!("# c\n{line}\n")).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("_redirects, line 2: "), "{error}");
        }
        assert_eq!(parse("/w/:a /wiki/Special:Search").unwrap().len(), 1, "a colon may be a colon");
        assert_eq!(parse("/a /b?c=d 301").unwrap()[0].to, "/b?c=d");
        let many = "/a/* /b\n".repeat(MOST_PATTERNS + 1);
        assert!(matches!(parse(&many).unwrap_err().problem, RuleProblem::TooMany(_)));
    }
}
