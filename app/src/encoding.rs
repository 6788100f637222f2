//! Encoded forms of a file: what HTTP calls content codings (RFC 9110, 8.4.1).

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;

/// A content coding, in the order of preference where size and weight are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// Brotli (RFC 7932).
    Br,
    /// Zstandard (RFC 8878), with a window of 8 MiB at most (RFC 9659).
    Zstd,
    /// gzip (RFC 1952).
    Gzip,
}

/// A file's content in a coding; in an app it lies beside the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encoding {
    /// Value of `Content-Encoding`.
    pub coding: Coding,
    /// Length in bytes.
    pub size: u64,
    /// Hash of the encoded content: its strong `ETag`.
    pub sha256: Sha256,
}

impl Coding {
    /// All codings, in order.
    pub const ALL: [Self; 3] = [Self::Br, Self::Zstd, Self::Gzip];

    /// The name in HTTP's registry of content codings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What follows the name of the file, and a dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Br => "br",
            Self::Zstd => "zst",
            Self::Gzip => "gz",
        }
    }

    /// The path of the sibling of the file at `path`: `a/b.js.br`.
    #[must_use]
    pub fn sibling(self, path: &str) -> String {
        format!("{path}.{}", self.extension())
    }
}

#[cfg(test)]
mod tests {
    use super::Coding;

    #[test]
    fn a_coding_is_written_by_its_name_in_http() {
        for coding in Coding::ALL {
            assert_eq!(serde_json::to_string(&coding).unwrap(), format!("{:?}", coding.name()));
        }
        assert_eq!(Coding::Zstd.sibling("a/b.js"), "a/b.js.zst");
    }
}
