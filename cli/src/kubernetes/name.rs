//! Names of objects.

use std::fmt;
use std::str::FromStr;

/// Longest label of DNS, and longest value of a label there.
const LONGEST: usize = 63;

/// A name that every kind of object may have: a label of DNS that begins with a
/// letter (RFC 1035, 2.3.1), as services need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that is nearest to a repository's last part.
    pub(crate) fn of_repository(repository: &str) -> Self {
        let last = repository.rsplit('/').next().unwrap_or_default();
        let mut name: String = last
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .collect();
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            name.insert_str(0, "app-");
        }
        name.truncate(LONGEST);
        Self(name.trim_end_matches('-').to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = (1..=LONGEST).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(inside)
            && !text.ends_with('-');
        is_name.then(|| Self(text.to_owned())).ok_or_else(|| {
            format!("expected at most {LONGEST} of a-z, 0-9 and -, a letter first and no - last")
        })
    }
}

/// Whether a label may have this value.
pub(crate) fn is_label_value(text: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.len() <= LONGEST
        && text.starts_with(ends)
        && text.ends_with(ends)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_a_repository() {
        for (repository, expected) in
            [("shop", "shop"), ("team/web__shop.v2", "web--shop-v2"), ("team/2048", "app-2048")]
        {
            let name = Name::of_repository(repository);
            assert_eq!(name.as_str(), expected);
            assert_eq!(expected.parse(), Ok(name));
        }
        let long = Name::of_repository(&format!("{}-{}", "a".repeat(62), "b"));
        assert_eq!(long.as_str(), "a".repeat(62));
    }

    #[test]
    fn what_kubernetes_would_refuse_is_refused() {
        for text in ["", "Shop", "2048", "-a", "a-", "a.b", "a_b", &"a".repeat(64)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        assert!(is_label_value("1.2_x-Y") && !is_label_value("") && !is_label_value("1."));
    }
}
