//! The pattern of a worker's route.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Which request paths a worker answers: `/api/[id]`, `/docs/[...rest]`.
///
/// Patterns are ordered by precedence, the more specific first: those without a rest
/// before those with one, and then, segment by segment, a literal before a parameter.
/// Patterns that match the same paths are equal, whatever their parameters'
/// names.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Vec<Segment>);

#[derive(Clone, Debug)]
enum Segment {
    Literal(String),
    Param(String),
    Rest(String),
}

/// Parameters of a match, in the order of the pattern: name and value.
pub type Params = Vec<(String, String)>;

/// Text that is not a pattern.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// A parameter without a name, or with more than letters, digits, `_`, `-`.
    #[error("invalid parameter {0:?}: expected [name] or [...name]")]
    Param(String),
    /// `[...rest]` that isn't at the end.
    #[error("[...{0}] is followed by more: expected it to be the last segment")]
    RestNotLast(String),
    /// The same parameter twice.
    #[error("parameter {0:?} occurs twice: expected each name once")]
    Twice(String),
    /// No slash in front.
    #[error("invalid pattern {0:?}: expected a \"/\" in front")]
    NotAbsolute(String),
}

impl Pattern {
    /// Whether the pattern has no parameters, and so is one path.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.0.iter().all(|segment| matches!(segment, Segment::Literal(_)))
    }

    /// Whether it ends in `[...rest]`.
    #[must_use]
    pub fn is_catch_all(&self) -> bool {
        matches!(self.0.last(), Some(Segment::Rest(_)))
    }

    /// The parameters, if `path` (decoded, with its leading slash) matches.
    ///
    /// One trailing slash is ignored. A parameter matches one segment that is
    /// not empty, a rest matches any number, also none.
    #[must_use]
    pub fn matches(&self, path: &str) -> Option<Params> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut parts = path.split('/').filter(|part| !(path.is_empty() && part.is_empty()));
        let mut params = Params::new();
        for segment in &self.0 {
            match segment {
                Segment::Literal(literal) => {
                    if parts.next()? != literal {
                        return None;
                    }
                }
                Segment::Param(name) => {
                    let part = parts.next().filter(|part| !part.is_empty())?;
                    params.push((name.clone(), part.to_owned()));
                }
                Segment::Rest(name) => {
                    let rest: Vec<&str> = parts.by_ref().collect();
                    params.push((name.clone(), rest.join("/")));
                }
            }
        }
        parts.next().is_none().then_some(params)
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.strip_prefix('/').ok_or_else(|| InvalidPattern::NotAbsolute(text.to_owned()))?;
        let mut segments: Vec<Segment> = Vec::new();
        for part in path.split('/').filter(|_| !path.is_empty()) {
            if let Some(Segment::Rest(name)) = segments.last() {
                return Err(InvalidPattern::RestNotLast(name.clone()));
            }
            segments.push(Segment::parse(part)?);
            let name = segments.last().and_then(Segment::name);
            let earlier = &segments[..segments.len() - 1];
            if let Some(name) = name
                && earlier.iter().any(|segment| segment.name() == Some(name))
            {
                return Err(InvalidPattern::Twice(name.to_owned()));
            }
        }
        Ok(Self(segments))
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Segment {
    fn parse(part: &str) -> Result<Self, InvalidPattern> {
        let Some(inner) = part.strip_prefix('[').and_then(|part| part.strip_suffix(']')) else {
            if part.contains(['[', ']']) {
                return Err(InvalidPattern::Param(part.to_owned()));
            }
            return Ok(Self::Literal(part.to_owned()));
        };
        let (rest, name) = match inner.strip_prefix("...") {
            Some(name) => (true, name),
            None => (false, inner),
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(valid) {
            return Err(InvalidPattern::Param(part.to_owned()));
        }
        let name = name.to_owned();
        Ok(if rest { Self::Rest(name) } else { Self::Param(name) })
    }

    fn rank(&self) -> (u8, &str) {
        match self {
            Self::Literal(literal) => (0, literal),
            Self::Param(_) => (1, ""),
            Self::Rest(_) => (2, ""),
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Param(name) | Self::Rest(name) => Some(name),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|segment| match segment {
            Segment::Literal(literal) => write!(f, "/{literal}"),
            Segment::Param(name) => write!(f, "/[{name}]"),
            Segment::Rest(name) => write!(f, "/[...{name}]"),
        })
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_segment = self.0.iter().zip(&other.0).map(|(a, b)| a.rank().cmp(&b.rank()));
        let by_segment = by_segment.into_iter().find(|order| order.is_ne());
        self.is_catch_all()
            .cmp(&other.is_catch_all())
            // `/a/b/[...rest]` before `/a/[...rest]`: the longer is the more specific.
            .then(by_segment.unwrap_or_else(|| other.0.len().cmp(&self.0.len())))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn literals_come_before_parameters_and_parameters_before_rests() {
        let mut patterns = ["/[...all]", "/a/[id]", "/a/[...rest]", "/[x]/b", "/a/b", "/"].map(pattern);
        patterns.sort();
        let sorted = patterns.map(|pattern| pattern.to_string());
        assert_eq!(sorted, ["/a/b", "/a/[id]", "/[x]/b", "/", "/a/[...rest]", "/[...all]"]);
    }

    #[test]
    fn parameters_take_one_segment_and_rests_take_all() {
        let id = |value: &str| Some(vec![("id".to_owned(), value.to_owned())]);
        assert_eq!(pattern("/a/[id]").matches("/a/7"), id("7"));
        assert_eq!(pattern("/a/[id]").matches("/a/7/"), id("7"));
        assert_eq!(pattern("/a/[id]").matches("/a/"), None);
        assert_eq!(pattern("/a/[id]").matches("/a/7/8"), None);
        assert_eq!(pattern("/a/[...id]").matches("/a/7/8"), id("7/8"));
        assert_eq!(pattern("/a/[...id]").matches("/a"), id(""));
        assert_eq!(pattern("/[...id]").matches("/"), id(""));
        assert_eq!(pattern("/").matches("/"), Some(vec![]));
        assert_eq!(pattern("/").matches("/a"), None);
        assert_eq!(pattern("/a").matches("//a"), None);
    }

    #[test]
    fn malformed_patterns_are_refused() {
        assert!(matches!("a".parse::<Pattern>(), Err(InvalidPattern::NotAbsolute(_))));
        assert!(matches!("/[]".parse::<Pattern>(), Err(InvalidPattern::Param(_))));
        assert!(matches!("/x[id]".parse::<Pattern>(), Err(InvalidPattern::Param(_))));
        assert!(matches!("/[...a]/b".parse::<Pattern>(), Err(InvalidPattern::RestNotLast(_))));
        assert!(matches!("/[a]/[a]".parse::<Pattern>(), Err(InvalidPattern::Twice(_))));
    }
}
