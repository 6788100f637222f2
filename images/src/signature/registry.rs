//! The signatures of an image in a registry, in both of cosign's forms.

use super::bundle::{is_signature, verify};
use super::key::PublicKey;
use super::simple::{SIMPLE_SIGNATURE, SIMPLE_SIGNING, verify_simple};
use super::{Rejection, Verified};
use crate::registry::{Client, RegistryError};
use crate::{Descriptor, Digest, Reference};

/// Most signatures of one image that are looked at in one form.
const MOST: usize = 64;
/// Largest signature, in bytes; real bundles have some 1,000 and payloads of
/// simple signing some 250.
const LARGEST: u64 = 1 << 20;

/// Something that is attached to an image and may be its signature.
#[derive(Debug)]
pub struct Candidate {
    /// What holds it: a bundle's manifest, or a layer of the `.sig` manifest.
    pub digest: Digest,
    /// In which form it came.
    pub form: Form,
    content: Result<Vec<u8>, String>,
    signature: Option<String>,
}

/// cosign's forms of signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A bundle that refers to the image.
    Bundle,
    /// A layer under the tag `sha256-HEX.sig`.
    Simple,
}

impl Candidate {
    /// All of an image: what refers to it, then what lies under the older tag.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached or refuses to list them. One that cannot
    /// be fetched is in the list, and verifies as nothing.
    pub async fn of(
        client: &Client,
        reference: &Reference,
        image: &Descriptor,
    ) -> Result<Vec<Self>, RegistryError> {
        let mut found = Vec::new();
        // Not by type: see `is_signature`.
        let referrers = client.referrers(reference, &image.digest, None).await?;
        for referrer in referrers.into_iter().filter(is_signature).take(MOST) {
            let content = client.fetch_artifact(reference, &referrer, LARGEST).await;
            found.push(Self {
                digest: referrer.digest,
                form: Form::Bundle,
                content: content.map_err(|error| error.to_string()),
                signature: None,
            });
        }
        match simple(client, reference, image).await {
            Ok(candidates) => found.extend(candidates),
            // Whatever lies there does not undo what was found.
            Err(error) if !found.is_empty() => {
                tracing::warn!("cannot read signatures of the older form: {error}");
            }
            Err(error) => return Err(error),
        }
        Ok(found)
    }

    /// Checks that this is a signature of `image` by `key`.
    ///
    /// # Errors
    ///
    /// Says what it is instead.
    pub fn verify(&self, image: &Digest, key: &PublicKey) -> Result<Verified, Rejection> {
        let content = self.content.as_ref().map_err(|error| Rejection::Unreadable(error.clone()))?;
        match &self.signature {
            Some(signature) => verify_simple(content, signature, image, key),
            None => verify(content, image, key),
        }
    }
}

/// The layers under the tag `sha256-HEX.sig`; none if there is no such tag.
async fn simple(
    client: &Client,
    reference: &Reference,
    image: &Descriptor,
) -> Result<Vec<Candidate>, RegistryError> {
    let tag =
        format!("{}/{}:sha256-{}.sig", reference.registry(), reference.repository(), image.digest.encoded());
    let Ok(tag) = tag.parse::<Reference>() else { return Ok(Vec::new()) };
    let layers = client.fetch_layers(&tag, SIMPLE_SIGNING, MOST, LARGEST).await?;
    let candidates = layers.into_iter().map(|(layer, content)| Candidate {
        digest: layer.digest,
        form: Form::Simple,
        content: content.map_err(|error| error.to_string()),
        signature: Some(layer.annotation(SIMPLE_SIGNATURE).unwrap_or_default().to_owned()),
    });
    Ok(candidates.collect())
}
