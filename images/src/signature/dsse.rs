//! DSSE: a signed payload with its type (secure-systems-lab/dsse, protocol.md).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Rejection;
use super::key::{KeyError, PrivateKey, PublicKey};

/// The payload type of in-toto statements.
pub(super) const IN_TOTO: &str = "application/vnd.in-toto+json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Signature {
    sig: String,
}

impl Envelope {
    pub(super) fn sign(payload: &[u8], key: &PrivateKey) -> Result<Self, KeyError> {
        let sig = STANDARD.encode(key.sign(&encoding(IN_TOTO, payload))?);
        let payload = STANDARD.encode(payload);
        Ok(Self { payload, payload_type: IN_TOTO.into(), signatures: vec![Signature { sig }] })
    }

    /// The payload, if it is an in-toto statement that `key` signed.
    pub(super) fn open(&self, key: &PublicKey, hint: Option<String>) -> Result<Vec<u8>, Rejection> {
        if self.payload_type != IN_TOTO {
            let found = format!("{:?}", self.payload_type);
            return Err(Rejection::malformed("a payload of type application/vnd.in-toto+json", &found));
        }
        // A bundle has one (sigstore_bundle.proto, `dsse_envelope`).
        let [signature] = self.signatures.as_slice() else {
            let found = self.signatures.len().to_string();
            return Err(Rejection::Malformed { expected: "one signature", found });
        };
        let payload = decode("a payload in base64", &self.payload)?;
        let signature = decode("a signature in base64", &signature.sig)?;
        match key.verify(&encoding(IN_TOTO, &payload), &signature) {
            true => Ok(payload),
            false if hint.as_ref() == Some(&key.fingerprint()) => Err(Rejection::Mismatch),
            false => Err(Rejection::OtherKey { hint }),
        }
    }
}

/// What is signed: PAE, the "pre-authentication encoding".
fn encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

pub(super) fn decode(expected: &'static str, text: &str) -> Result<Vec<u8>, Rejection> {
    STANDARD.decode(text).map_err(|error| Rejection::malformed(expected, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_is_encoded_as_there() {
        let encoded = encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }
}
