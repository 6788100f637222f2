//! Keys in PEM files: cosign's own, and those that OpenSSL makes.
//!
//! Secrets are overwritten when they are done with, as far as they are ours:
//! ring keeps the private key itself for as long as [`PrivateKey`] lives.

use std::fmt;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{Key, KeyInit as _, Nonce, XSalsa20Poly1305};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, UnparsedPublicKey,
};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::Digest;

/// Names of cosign's encrypted keys: since 2.0, and before.
const COSIGN: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
const PKCS8: &str = "PRIVATE KEY";
const SPKI: &str = "PUBLIC KEY";

/// Most memory that deriving a key from a password may take. cosign's own
/// parameters take 64 MiB.
const MOST_SCRYPT_MEMORY: u64 = 512 << 20;
/// Most often that it may be done; cosign's own parameters: once.
const MOST_SCRYPT_ROUNDS: u32 = 8;

/// What a public key of P-256 in DER begins with (RFC 5480): all but the point.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same of Ed25519 (RFC 8410).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// A point of P-256, uncompressed: 4, x, y.
const P256_POINT: usize = 65;
const ED25519_POINT: usize = 32;

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is no PEM.
    #[error("cannot read key: expected one key in PEM")]
    NotPem {
        /// What is wrong with it.
        source: pem::PemError,
    },
    /// The file holds another kind of key.
    #[error("cannot read key: expected {expected}, found {found:?}")]
    OtherKind {
        /// What it should hold.
        expected: &'static str,
        /// The name in its first line.
        found: String,
    },
    /// The algorithm is another one, or the key is damaged.
    #[error("cannot read key: expected an ECDSA key of curve P-256 or an Ed25519 key")]
    Unsupported,
    /// An encrypted key is not of cosign's form.
    #[error("cannot decrypt key: expected {expected}, found {found}")]
    Malformed {
        /// What it should have.
        expected: &'static str,
        /// What it has.
        found: String,
    },
    /// There is no password to be had.
    #[error("cannot decrypt key: no password")]
    NoPassword {
        /// Why not.
        source: io::Error,
    },
    /// The password is another one.
    #[error("cannot decrypt key: wrong password, or a damaged key")]
    WrongPassword,
    /// The system gives no randomness.
    #[error("cannot sign: the system gives no random numbers")]
    NoRandomness,
}

impl KeyError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::OtherKind { found, .. } if found == "EC PRIVATE KEY" => {
                "convert it with: openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW"
            }
            Self::OtherKind { found, .. } if found.ends_with(SPKI) => {
                "sign takes the private key (cosign.key), verify the public one (cosign.pub)"
            }
            Self::OtherKind { expected, .. } if expected.contains("public") => {
                "verify takes the public key (cosign.pub), sign the private one (cosign.key)"
            }
            Self::NotPem { .. } | Self::Unsupported => "make a pair of keys with: cosign generate-key-pair",
            Self::NoPassword { .. } | Self::WrongPassword => "give the key's password in COSIGN_PASSWORD",
            _ => return None,
        };
        Some(text.into())
    }
}

/// The algorithm of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA with the curve P-256 and SHA-256: what `cosign generate-key-pair` makes.
    EcdsaP256,
    /// Ed25519.
    Ed25519,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// A key that verifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    point: Vec<u8>,
}

impl PublicKey {
    /// Reads a `PUBLIC KEY` in PEM: `cosign.pub`, or what `openssl pkey -pubout`
    /// writes.
    ///
    /// # Errors
    ///
    /// It is something else, or of another algorithm.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let pem = pem::parse(text).map_err(|source| KeyError::NotPem { source })?;
        if pem.tag() != SPKI {
            return Err(KeyError::OtherKind { expected: "a public key", found: printable(pem.tag()) });
        }
        let key = |algorithm, point: &[u8]| Self { algorithm, point: point.to_vec() };
        // DER has one spelling of each of these, so that the beginnings are constants.
        match (pem.contents().strip_prefix(&P256_PREFIX), pem.contents().strip_prefix(&ED25519_PREFIX)) {
            (Some(point), _) if point.len() == P256_POINT && point[0] == 4 => {
                Ok(key(Algorithm::EcdsaP256, point))
            }
            (_, Some(point)) if point.len() == ED25519_POINT => Ok(key(Algorithm::Ed25519, point)),
            _ => Err(KeyError::Unsupported),
        }
    }

    /// The algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// SHA-256 of the key in DER, in base64: how bundles hint at their key.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let prefix = match self.algorithm {
            Algorithm::EcdsaP256 => P256_PREFIX.as_slice(),
            Algorithm::Ed25519 => &ED25519_PREFIX,
        };
        STANDARD.encode(Digest::of(&[prefix, &self.point].concat()).as_bytes())
    }

    /// Whether `signature` is of `message` by this key.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn ring::signature::VerificationAlgorithm = match self.algorithm {
            Algorithm::EcdsaP256 => &ECDSA_P256_SHA256_ASN1,
            Algorithm::Ed25519 => &ED25519,
        };
        UnparsedPublicKey::new(algorithm, &self.point).verify(message, signature).is_ok()
    }
}

/// A key that signs.
#[derive(Debug)]
pub struct PrivateKey(Pair);

/// Neither prints its secret: ring's `Debug` shows the public half.
#[derive(Debug)]
enum Pair {
    EcdsaP256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl PrivateKey {
    /// Reads a private key in PEM: cosign's own (`cosign.key`), for which
    /// `password` is asked, or PKCS#8 without encryption.
    ///
    /// # Errors
    ///
    /// It is something else, of another algorithm, or the password is wrong.
    pub fn from_pem(
        text: &[u8],
        password: impl FnOnce() -> io::Result<Zeroizing<String>>,
    ) -> Result<Self, KeyError> {
        let pem = pem::parse(text).map_err(|source| KeyError::NotPem { source })?;
        let tag = pem.tag().to_owned();
        let contents = Zeroizing::new(pem.into_contents());
        if tag == PKCS8 {
            return Self::from_pkcs8(&contents);
        }
        if COSIGN.contains(&tag.as_str()) {
            let encrypted = Encrypted::parse(&contents)?;
            let password = password().map_err(|source| KeyError::NoPassword { source })?;
            return Self::from_pkcs8(&encrypted.decrypt(&password)?);
        }
        Err(KeyError::OtherKind {
            expected: "a private key, by cosign or in PKCS#8 without encryption",
            found: printable(&tag),
        })
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &random) {
            return Ok(Self(Pair::EcdsaP256(pair)));
        }
        // "Maybe unchecked": OpenSSL and Go write version 1, without the public
        // half, so that there is nothing to check it against.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(|pair| Self(Pair::Ed25519(pair)))
            .map_err(|_| KeyError::Unsupported)
    }

    /// The half that verifies.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        match &self.0 {
            Pair::EcdsaP256(pair) => {
                PublicKey { algorithm: Algorithm::EcdsaP256, point: pair.public_key().as_ref().to_vec() }
            }
            Pair::Ed25519(pair) => {
                PublicKey { algorithm: Algorithm::Ed25519, point: pair.public_key().as_ref().to_vec() }
            }
        }
    }

    /// Signs a message: ASN.1 for ECDSA, 64 bytes for Ed25519.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.0 {
            Pair::EcdsaP256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| KeyError::NoRandomness),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// cosign's encrypted key (secure-systems-lab/go-securesystemslib, encrypted):
/// scrypt makes a key of the password, NaCl's secretbox opens the rest.
#[derive(Deserialize)]
struct Encrypted {
    kdf: Derivation,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Derivation {
    name: String,
    params: Parameters,
    salt: String,
}

#[derive(Deserialize)]
struct Parameters {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

impl Encrypted {
    fn parse(json: &[u8]) -> Result<Self, KeyError> {
        serde_json::from_slice(json)
            .map_err(|error| KeyError::Malformed { expected: "cosign's JSON", found: error.to_string() })
    }

    /// The key in PKCS#8.
    fn decrypt(&self, password: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let malformed = |expected, found: String| KeyError::Malformed { expected, found };
        let decode =
            |text: &str| STANDARD.decode(text).map_err(|error| malformed("base64", error.to_string()));
        if self.kdf.name != "scrypt" {
            return Err(malformed("key derivation by scrypt", printable(&self.kdf.name)));
        }
        if self.cipher.name != "nacl/secretbox" {
            return Err(malformed("the cipher nacl/secretbox", printable(&self.cipher.name)));
        }
        let Parameters { n, r, p } = self.kdf.params;
        let memory = n.saturating_mul(u64::from(r)).saturating_mul(128);
        if !n.is_power_of_two() || memory > MOST_SCRYPT_MEMORY || p > MOST_SCRYPT_ROUNDS {
            return Err(malformed("bearable parameters of scrypt", format!("N={n}, r={r}, p={p}")));
        }
        let parameters = u8::try_from(n.ilog2())
            .ok()
            .and_then(|log| scrypt::Params::new(log, r, p).ok())
            .ok_or_else(|| malformed("parameters of scrypt", format!("N={n}, r={r}, p={p}")))?;
        let nonce: [u8; 24] = decode(&self.cipher.nonce)?
            .try_into()
            .map_err(|nonce: Vec<u8>| malformed("a nonce of 24 bytes", format!("{} bytes", nonce.len())))?;
        let (salt, ciphertext) = (decode(&self.kdf.salt)?, decode(&self.ciphertext)?);
        let mut key = Zeroizing::new([0; 32]);
        scrypt::scrypt(password.as_bytes(), &salt, &parameters, key.as_mut_slice())
            .map_err(|error| malformed("a key of 32 bytes", error.to_string()))?;
        XSalsa20Poly1305::new(Key::from_slice(key.as_slice()))
            .decrypt(Nonce::from_slice(&nonce), ciphertext.as_slice())
            .map(Zeroizing::new)
            .map_err(|_| KeyError::WrongPassword)
    }
}

/// At most as much of a foreign text as fits into a line.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}
