//! Signatures of images, as cosign makes and checks them with keys in files.
//!
//! Owns what is signed and how: keys, envelopes, bundles. A signature says "the
//! holder of this key vouches for this digest" and nothing of when: no
//! transparency log is asked. Certificates and keyless signing are not here.
//!
//! | what | module |
//! | --- | --- |
//! | PEM → a key that signs or verifies | [`PrivateKey`], [`PublicKey`] |
//! | what DSSE signs, and its envelope | `dsse` |
//! | a digest → a bundle, and back | [`sign`], [`verify`] |
//! | the older form, under a tag `sha256-….sig` | [`verify_simple`] |
//! | the signatures of an image in a registry | [`Candidate`] |

mod bundle;
mod dsse;
mod key;
mod registry;
mod simple;

use std::collections::BTreeMap;

use crate::Digest;

pub use bundle::{BUNDLE, is_signature, sign, verify};
pub use key::{Algorithm, KeyError, PrivateKey, PublicKey};
pub use registry::{Candidate, Form};
pub use simple::{SIMPLE_SIGNATURE, SIMPLE_SIGNING, verify_simple};

/// What a signature that holds says besides the digest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Annotations that the signer added (`cosign sign -a`).
    pub annotations: BTreeMap<String, serde_json::Value>,
}

/// Why something is no signature of the image by the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It can't be fetched or read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It is of another form than cosign's signatures.
    #[error("expected {expected}, found {found}")]
    Malformed {
        /// What a signature has there.
        expected: &'static str,
        /// What this has.
        found: String,
    },
    /// Another key made it, or it was changed since.
    #[error("it is by another key{}", .hint.as_ref().map(|hint| format!(", {hint}")).unwrap_or_default())]
    OtherKey {
        /// The fingerprint that it gives for its key: unproven.
        hint: Option<String>,
    },
    /// It names the key and does not match: it was changed, or made in another
    /// way. cosign 3.1 signs with Ed25519ph, which it doesn't verify either.
    #[error("it names this key, and does not match it")]
    Mismatch,
    /// The key signed another image, and somebody has attached that to this one.
    #[error("it is by this key, for another image: expected {expected}, found {found}")]
    OtherImage {
        /// The image.
        expected: Digest,
        /// What was signed.
        found: String,
    },
}

impl Rejection {
    /// What was found comes from whoever could push: it gets one line at most.
    fn malformed(expected: &'static str, found: &str) -> Self {
        Self::Malformed { expected, found: found.chars().filter(|c| !c.is_control()).take(160).collect() }
    }
}

#[cfg(test)]
mod tests;
