//! "Simple signing", cosign's form before version 3: a manifest under the tag
//! `sha256-HEX.sig`, a layer a signature, which stands in an annotation
//! (cosign, specs/SIGNATURE_SPEC.md). Verified, never written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::bundle::parse;
use super::dsse::decode;
use super::key::PublicKey;
use super::{Rejection, Verified};
use crate::Digest;

/// The media type of the layers.
pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of a layer that holds the signature of its bytes, in base64.
pub const SIMPLE_SIGNATURE: &str = "dev.cosignproject.cosign/signature";

const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
    #[serde(default)]
    optional: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

/// Checks that `payload` with `signature` (base64) is a signature of `image` by
/// `key`. The repository that the payload names is not compared: the same image
/// may lie in others.
///
/// # Errors
///
/// Says what it is instead.
pub fn verify_simple(
    payload: &[u8],
    signature: &str,
    image: &Digest,
    key: &PublicKey,
) -> Result<Verified, Rejection> {
    if !key.verify(payload, &decode("a signature in base64", signature)?) {
        return Err(Rejection::OtherKey { hint: None });
    }
    let payload: Payload = parse("a payload in JSON", payload)?;
    if payload.critical.kind != TYPE {
        let found = format!("{:?}", payload.critical.kind);
        return Err(Rejection::malformed("the type \"cosign container image signature\"", &found));
    }
    let found = payload.critical.image.docker_manifest_digest;
    match found.parse::<Digest>() {
        Ok(digest) if digest == *image => Ok(Verified { annotations: payload.optional.unwrap_or_default() }),
        _ => Err(Rejection::OtherImage {
            expected: *image,
            found: found.chars().filter(|c| !c.is_control()).take(80).collect(),
        }),
    }
}
