//! Small things that belong to an image without being part of it: an SBOM, a
//! provenance, a signature. Each has a manifest whose `subject` is the image
//! (image-spec, manifest.md, "Guidelines for Artifact Usage").
//!
//! Owns the form of such a manifest. Where it is kept belongs to
//! [`crate::layout`] and [`crate::registry`].

use std::collections::BTreeMap;

use crate::{Descriptor, Digest, Manifest, MediaType};

/// The configuration of an artifact, which needs none (image-spec, manifest.md,
/// "Guidance for an Empty Descriptor").
pub const EMPTY_CONFIG: &[u8] = b"{}";

/// A small artifact that refers to an image.
///
/// Its manifest has the image as `subject`, the empty configuration and one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// What kind of thing it is, as a media type.
    pub artifact_type: String,
    /// The media type of the content.
    pub media_type: String,
    /// The content: the one layer.
    pub content: Vec<u8>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// An artifact without annotations whose content has the type of the whole.
    #[must_use]
    pub fn new(artifact_type: impl Into<String>, content: Vec<u8>) -> Self {
        let artifact_type = artifact_type.into();
        Self { media_type: artifact_type.clone(), artifact_type, content, annotations: BTreeMap::new() }
    }

    /// The one layer.
    #[must_use]
    pub fn layer(&self) -> Descriptor {
        let media_type = MediaType::from(self.media_type.clone());
        Descriptor::new(media_type, Digest::of(&self.content), self.content.len() as u64)
    }

    /// The manifest: the same bytes for the same artifact and subject.
    #[must_use]
    pub fn manifest(&self, subject: &Descriptor) -> Vec<u8> {
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MediaType::Manifest),
            artifact_type: Some(self.artifact_type.clone()),
            config: Self::config(),
            layers: vec![self.layer()],
            // Name and platform are of the list that it was found in, not of the image.
            subject: Some(Descriptor::new(subject.media_type.clone(), subject.digest, subject.size)),
            annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
        };
        // Nothing in it but strings and numbers: this can't fail.
        serde_json::to_vec(&manifest).unwrap_or_default()
    }

    /// The manifest's descriptor, with type and annotations as a list of
    /// referrers has them (distribution-spec, "Listing Referrers").
    #[must_use]
    pub fn descriptor(&self, subject: &Descriptor) -> Descriptor {
        let manifest = self.manifest(subject);
        Descriptor {
            artifact_type: Some(self.artifact_type.clone()),
            annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
            ..Descriptor::new(MediaType::Manifest, Digest::of(&manifest), manifest.len() as u64)
        }
    }

    /// The descriptor of [`EMPTY_CONFIG`].
    #[must_use]
    pub fn config() -> Descriptor {
        Descriptor::new(MediaType::Empty, Digest::of(EMPTY_CONFIG), EMPTY_CONFIG.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_artifact_of_one_image_has_one_manifest() {
        let subject = Descriptor::new(MediaType::Index, Digest::of(b"index"), 5);
        let mut artifact = Artifact::new("application/x", b"hello".to_vec());
        artifact.annotations.insert("b".into(), "2".into());
        artifact.annotations.insert("a".into(), "1".into());
        let named = Descriptor { annotations: Some(BTreeMap::new()), ..subject.clone() };
        assert_eq!(artifact.manifest(&subject), artifact.manifest(&named));
        assert_eq!(
            String::from_utf8(artifact.manifest(&subject)).unwrap(),
            concat!(
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""artifactType":"application/x","config":{"mediaType":"application/vnd.oci.empty.v1+json","#,
                r#""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"#,
                r#""layers":[{"mediaType":"application/x","#,
                r#""digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824","size":5}],"#,
                r#""subject":{"mediaType":"application/vnd.oci.image.index.v1+json","#,
                r#""digest":"sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6","size":5},"#,
                r#""annotations":{"a":"1","b":"2"}}"#
            )
        );
        let descriptor = artifact.descriptor(&subject);
        assert_eq!(descriptor.digest, Digest::of(&artifact.manifest(&subject)));
        assert_eq!(descriptor.artifact_type.as_deref(), Some("application/x"));
    }
}
