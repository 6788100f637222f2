//! A package: its name and version, and what is known of it.

use std::io::{self, Read as _};
use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use wharf_app::Sha256;

/// Longest name or version, in bytes: npm's limit is 214.
const LONGEST: usize = 256;
/// What a package URL leaves as it is (purl-spec, "Character encoding").
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A package that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) purl: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) licence: Option<Licence>,
    pub(crate) sha256: Option<Sha256>,
    /// Needed to build alone.
    pub(crate) build_only: bool,
}

/// A package's licence, in its author's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Licence {
    /// An SPDX expression.
    Expression(String),
    /// Anything else.
    Name(String),
}

impl Package {
    /// A package of the Python index, if both are names that can be.
    pub(crate) fn pypi(name: &str, version: &str) -> Option<Self> {
        // PEP 503: runs of - _ . are one -, and case says nothing.
        let mut normal = String::new();
        for c in name.chars() {
            match c {
                '-' | '_' | '.' if normal.ends_with('-') => {}
                '-' | '_' | '.' => normal.push('-'),
                c => normal.extend(c.to_lowercase()),
            }
        }
        Self::new("pypi", &[&normal], name, version)
    }

    /// A package of the npm registry, with its scope if it has one.
    pub(crate) fn npm(name: &str, version: &str) -> Option<Self> {
        let parts: Vec<&str> = name.splitn(2, '/').collect();
        Self::new("npm", &parts, name, version)
    }

    /// A gem.
    pub(crate) fn gem(name: &str, version: &str) -> Option<Self> {
        Self::new("gem", &[name], name, version)
    }

    /// A crate.
    pub(crate) fn cargo(name: &str, version: &str) -> Option<Self> {
        Self::new("cargo", &[name], name, version)
    }

    fn new(kind: &str, path: &[&str], name: &str, version: &str) -> Option<Self> {
        let bearable = |text: &str| {
            !text.is_empty()
                && text.len() <= LONGEST
                && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        if !bearable(name) || !bearable(version) || path.iter().any(|part| part.is_empty()) {
            return None;
        }
        let encoded = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
        let path: Vec<String> = path.iter().copied().map(encoded).collect();
        Some(Self {
            purl: format!("pkg:{kind}/{}@{}", path.join("/"), encoded(version)),
            name: name.to_owned(),
            version: version.to_owned(),
            licence: None,
            sha256: None,
            build_only: false,
        })
    }
}

impl Licence {
    pub(crate) fn expression(text: &str) -> Option<Self> {
        Self::line(text).map(Self::Expression)
    }

    pub(crate) fn name(text: &str) -> Option<Self> {
        Self::line(text).map(Self::Name)
    }

    /// Some put the licence's whole text here, which is no name.
    fn line(text: &str) -> Option<String> {
        let text = text.trim();
        let fits = !text.is_empty()
            && text != "UNKNOWN"
            && text.len() <= LONGEST
            && !text.contains(char::is_control);
        fits.then(|| text.to_owned())
    }
}

/// All of a file that has at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_all(fs_err::File::open(path)?, limit)
}

/// All that `reader` yields, if that is at most `limit` bytes.
pub(crate) fn read_all(reader: impl io::Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    reader.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        let text = format!("expected at most {limit} bytes, found more");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(content)
}
