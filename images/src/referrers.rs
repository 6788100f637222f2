//! Referrers in a registry, by pushing and pulling the fallback tag
//! `sha256-HEX` (distribution-spec, "Referrers Tag Schema") as an image.
//!
//! Stands in for the client's own methods of the same names, which know the
//! referrers API as well and take precedence as soon as they exist: then this
//! file goes.

use std::sync::Arc;

use crate::layout::Layout;
use crate::registry::{Client, RegistryError};
use crate::{Artifact, Descriptor, Digest, IndexBuilder, LayoutError, MediaType, Reference};

/// What refers to an image in a registry.
#[allow(async_fn_in_trait, reason = "one implementation, used in this workspace alone")]
pub trait Referrers {
    /// What a name means.
    async fn resolve(&self, reference: &Reference) -> Result<Descriptor, RegistryError>;
    /// Adds an artifact to what refers to `subject`.
    async fn attach(
        &self,
        reference: &Reference,
        subject: &Descriptor,
        artifact: &Artifact,
    ) -> Result<Descriptor, RegistryError>;
    /// What refers to `subject`.
    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError>;
    /// The content of an artifact.
    async fn fetch_artifact(
        &self,
        reference: &Reference,
        manifest: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError>;
}

impl Referrers for Client {
    async fn resolve(&self, reference: &Reference) -> Result<Descriptor, RegistryError> {
        let (_folder, layout) = scratch()?;
        self.pull(&layout, reference, Arc::new(())).await
    }

    async fn attach(
        &self,
        reference: &Reference,
        subject: &Descriptor,
        artifact: &Artifact,
    ) -> Result<Descriptor, RegistryError> {
        let (_folder, layout) = scratch()?;
        let tag = fallback(reference, &subject.digest);
        let listed = match self.pull(&layout, &tag, Arc::new(())).await {
            Ok(index) => layout.read_index(&index)?.manifests,
            Err(RegistryError::NoSuchImage { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        layout.write_blob(MediaType::Empty, crate::artifact::EMPTY_CONFIG)?;
        layout.write_blob(artifact.layer().media_type, &artifact.content)?;
        layout.write_blob(MediaType::Manifest, &artifact.manifest(subject))?;
        let descriptor = artifact.descriptor(subject);
        let mut index = IndexBuilder::new();
        for manifest in listed.into_iter().filter(|listed| listed.digest != descriptor.digest) {
            index = index.manifest(manifest);
        }
        layout.tag(&tag, &index.manifest(descriptor.clone()).write(&layout)?)?;
        self.push(&layout, &tag, Arc::new(())).await?;
        Ok(descriptor)
    }

    async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let (_folder, layout) = scratch()?;
        match self.pull(&layout, &fallback(reference, subject), Arc::new(())).await {
            Ok(index) => {
                let mut found = layout.read_index(&index)?.manifests;
                found.retain(|one| {
                    artifact_type.is_none_or(|kind| one.artifact_type.as_deref() == Some(kind))
                });
                Ok(found)
            }
            Err(RegistryError::NoSuchImage { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn fetch_artifact(
        &self,
        reference: &Reference,
        manifest: &Descriptor,
    ) -> Result<Vec<u8>, RegistryError> {
        let (_folder, layout) = scratch()?;
        let descriptor = self.pull(&layout, &reference.with_digest(manifest.digest), Arc::new(())).await?;
        match layout.read_manifest(&descriptor)?.layers.as_slice() {
            [layer] => Ok(layout.read_blob(layer)?),
            _ => Err(LayoutError::NotAnImage { digest: manifest.digest, found: "no artifact".into() }.into()),
        }
    }
}

fn scratch() -> Result<(tempfile::TempDir, Layout), RegistryError> {
    let folder = tempfile::tempdir().map_err(|source| LayoutError::Write { source })?;
    let layout = Layout::create(folder.path().join("layout"))?;
    Ok((folder, layout))
}

fn fallback(reference: &Reference, subject: &Digest) -> Reference {
    format!("{}/{}:sha256-{}", reference.registry(), reference.repository(), subject.encoded())
        .parse()
        .unwrap_or_else(|_| reference.clone())
}
