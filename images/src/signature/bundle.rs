//! Sigstore's bundle, version 0.3: an envelope with an in-toto statement about
//! the image (protobuf-specs, sigstore_bundle.proto), as cosign 3 attaches it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dsse::Envelope;
use super::key::{KeyError, PrivateKey, PublicKey};
use super::{Rejection, Verified};
use crate::media_type::MediaType;
use crate::{Artifact, Descriptor, Digest};

/// The media type of a bundle, and the artifact type of its manifest.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The predicate of a plain signature: `{}`.
const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    #[serde(default)]
    verification_material: Material,
    #[serde(skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<Envelope>,
}

/// Which key to try. What else may stand here (certificates, entries of a
/// transparency log) is not looked at: the key is given by who verifies.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<KeyHint>,
}

#[derive(Serialize, Deserialize)]
struct KeyHint {
    #[serde(default)]
    hint: String,
}

#[derive(Serialize, Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Value,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
    /// Go writes `null` for none.
    #[serde(default)]
    annotations: Option<BTreeMap<String, Value>>,
}

/// Signs an image: the bundle, ready to be attached to it.
///
/// # Errors
///
/// The system gives no randomness.
pub fn sign(image: &Digest, key: &PrivateKey) -> Result<Artifact, KeyError> {
    let statement = Statement {
        kind: STATEMENT.into(),
        subject: vec![Subject {
            digest: BTreeMap::from([("sha256".into(), image.encoded())]),
            annotations: Some(BTreeMap::new()),
        }],
        predicate_type: SIGNATURE.into(),
        predicate: Value::Object(serde_json::Map::new()),
    };
    // Nothing in either but strings: this can't fail.
    let statement = serde_json::to_vec(&statement).unwrap_or_default();
    let bundle = Bundle {
        media_type: BUNDLE.into(),
        verification_material: Material {
            public_key: Some(KeyHint { hint: key.public_key().fingerprint() }),
        },
        dsse_envelope: Some(Envelope::sign(&statement, key)?),
    };
    let mut artifact = Artifact::new(BUNDLE, serde_json::to_vec(&bundle).unwrap_or_default());
    // As cosign has them: tools tell a signature from an attestation by these.
    artifact.annotations = BTreeMap::from([
        ("dev.sigstore.bundle.content".into(), "dsse-envelope".into()),
        ("dev.sigstore.bundle.predicateType".into(), SIGNATURE.into()),
    ]);
    Ok(artifact)
}

/// Checks that a bundle is a signature of `image` by `key`.
///
/// # Errors
///
/// Says what it is instead.
pub fn verify(bundle: &[u8], image: &Digest, key: &PublicKey) -> Result<Verified, Rejection> {
    let malformed = |expected, found: &str| Rejection::malformed(expected, &format!("{found:?}"));
    let parsed: Bundle = parse("a bundle in JSON", bundle)?;
    if parsed.media_type != BUNDLE {
        return Err(malformed(
            "a bundle of media type application/vnd.dev.sigstore.bundle.v0.3+json",
            &parsed.media_type,
        ));
    }
    let Some(envelope) = parsed.dsse_envelope else {
        return Err(Rejection::Malformed { expected: "a DSSE envelope", found: "none".into() });
    };
    let hint =
        parsed.verification_material.public_key.map(|key| key.hint).filter(|hint| is_fingerprint(hint));
    // What it claims is read only after it is known who claims it.
    let statement: Statement = parse("an in-toto statement in JSON", &envelope.open(key, hint)?)?;
    if statement.kind != STATEMENT {
        return Err(malformed("a statement of type https://in-toto.io/Statement/v1", &statement.kind));
    }
    if statement.predicate_type != SIGNATURE {
        return Err(malformed(
            "the predicate https://sigstore.dev/cosign/sign/v1",
            &statement.predicate_type,
        ));
    }
    let digests = || statement.subject.iter().filter_map(|subject| subject.digest.get("sha256"));
    let expected = image.encoded();
    match statement.subject.iter().find(|subject| subject.digest.get("sha256") == Some(&expected)) {
        Some(subject) => Ok(Verified { annotations: subject.annotations.clone().unwrap_or_default() }),
        None => Err(Rejection::OtherImage {
            expected: *image,
            found: digests()
                .map(|digest| format!("sha256:{}", printable(digest)))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

/// Whether a referrer may be a signature. cosign's own entries under a fallback
/// tag say nothing but the type of the empty configuration (cosign 3.1).
#[must_use]
pub fn is_signature(referrer: &Descriptor) -> bool {
    match referrer.artifact_type.as_deref() {
        None => true,
        Some(kind) => kind == BUNDLE || kind == MediaType::Empty.as_str(),
    }
}

pub(super) fn parse<T: for<'de> Deserialize<'de>>(
    expected: &'static str,
    json: &[u8],
) -> Result<T, Rejection> {
    serde_json::from_slice(json).map_err(|error| Rejection::malformed(expected, &error.to_string()))
}

/// Whether a hint may be printed: it comes from whoever could push.
fn is_fingerprint(hint: &str) -> bool {
    !hint.is_empty() && hint.len() <= 64 && hint.bytes().all(|byte| byte.is_ascii_graphic())
}

fn printable(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(64).collect()
}
