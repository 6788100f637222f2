//! What can be wrong with a rule, and what to do about it.

use super::LONGEST_LINE;

/// A rule that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {file}, {place}: {problem}")]
pub struct RuleError {
    /// The file, as people call it: `public/_headers`.
    pub file: String,
    /// Where in it: `line 3`.
    pub place: String,
    /// What is wrong, and what was expected.
    pub problem: RuleProblem,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleProblem {
    /// A pattern that is no path and no URL.
    #[error("invalid pattern {0:?}: expected a path such as \"/blog/*\", or https://HOST/PATH")]
    Pattern(String),
    /// More than one `*`.
    #[error("pattern {0:?} has more than one \"*\": expected one at most")]
    Splats(String),
    /// A placeholder with nothing between it and the next one.
    #[error("pattern {0:?} has placeholders side by side: expected text between them")]
    Adjacent(String),
    /// One name for two parts of the path.
    #[error("pattern {pattern:?} has placeholder {name:?} twice: expected each name once")]
    Twice {
        /// The pattern.
        pattern: String,
        /// The name, without its colon.
        name: String,
    },
    /// A port, or a part of a host's label, in the pattern.
    #[error("invalid host {0:?}: expected names and whole placeholders such as :project.example, no port")]
    Host(String),
    /// A header without a pattern before it.
    #[error("header {0:?} has no pattern: expected a line such as \"/*\" before it")]
    NoPattern(String),
    /// A pattern followed by no header.
    #[error("pattern {0:?} has no headers: expected lines such as \"  X-Frame-Options: DENY\" after it")]
    NoHeaders(String),
    /// Neither a pattern nor a header.
    #[error("invalid line {0:?}: expected a pattern, \"Name: value\", or \"! Name\"")]
    Line(String),
    /// A name that HTTP does not allow.
    #[error("invalid header name {0:?}: expected letters, digits and \"-\"")]
    HeaderName(String),
    /// A value that HTTP does not allow.
    #[error("invalid value of header {name:?}: expected text without control characters, found {value:?}")]
    HeaderValue {
        /// The header.
        name: String,
        /// The value as written.
        value: String,
    },
    /// A header that follows from what is sent.
    #[error("header {0:?} can't be set or removed: the server computes it")]
    Owned(String),
    /// Netlify's password protection.
    #[error("Basic-Auth is not supported: expected headers of responses")]
    BasicAuth,
    /// A redirect that isn't `from to [status]`.
    #[error("invalid redirect {0:?}: expected \"FROM TO [STATUS]\"")]
    Redirect(String),
    /// A target that is no path and no URL.
    #[error("invalid target {0:?}: expected a path such as \"/new\", or a URL with http:// or https://")]
    Target(String),
    /// A target with a placeholder that the pattern lacks.
    #[error("target uses {name:?}, which pattern {pattern:?} does not have")]
    UnknownPlaceholder {
        /// The placeholder, with its colon.
        name: String,
        /// The pattern.
        pattern: String,
    },
    /// A status that is no redirect, rewrite or missing page.
    #[error("invalid status {0:?}: expected 200, 301, 302, 303, 307, 308 or 404")]
    Status(String),
    /// A rewrite to elsewhere.
    #[error(
        "status {status} with target {target:?} would be a proxy, which is not supported: expected a path of this site"
    )]
    Proxy {
        /// 200 or 404.
        status: u16,
        /// The target.
        target: String,
    },
    /// A condition of Netlify.
    #[error("condition {0:?} is not supported: expected \"FROM TO [STATUS]\"")]
    Condition(String),
    /// A fragment or a query where no request has one.
    #[error("pattern {0:?} has a query or a fragment: expected a path alone")]
    Query(String),
    /// Longer than any real rule.
    #[error("line has {0} bytes: expected at most {LONGEST_LINE}")]
    TooLong(usize),
    /// More rules than any real site has.
    #[error("more than {0} rules: expected fewer")]
    TooMany(usize),
    /// Not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
}

impl RuleError {
    /// What the user can do about it, if that isn't plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match &self.problem {
            RuleProblem::Condition(_) => {
                "query parameters, Country, Language, Role and Cookie need a worker that decides"
            }
            RuleProblem::Proxy { .. } => "redirect with 301 or 302, or let a worker answer",
            RuleProblem::UnknownPlaceholder { .. } => "the text of * is called :splat",
            RuleProblem::Owned(_) => "remove the line",
            RuleProblem::BasicAuth => "let a worker ask for the password",
            RuleProblem::TooMany(_) => "write one rule with * or :name for many, or let a worker decide",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
