//! Referrers: manifests whose `subject` is an image of the layout.
//!
//! They stand in `index.json` without a name, as oras writes and reads them.

use std::collections::HashSet;

use super::{Layout, LayoutError};
use crate::artifact::EMPTY_CONFIG;
use crate::{Artifact, Descriptor, Digest, Manifest, MediaType};

impl Layout {
    /// Keeps an artifact that refers to `subject`. It stays as long as that
    /// does; to attach it again changes nothing.
    ///
    /// # Errors
    ///
    /// The subject is not in the layout, or the layout cannot be written.
    pub fn attach(&self, subject: &Descriptor, artifact: &Artifact) -> Result<Descriptor, LayoutError> {
        self.open_blob(subject)?;
        self.write_blob(MediaType::Empty, EMPTY_CONFIG)?;
        self.write_blob(artifact.layer().media_type, &artifact.content)?;
        self.write_blob(MediaType::Manifest, &artifact.manifest(subject))?;
        let descriptor = artifact.descriptor(subject);
        self.refer(&descriptor)?;
        Ok(descriptor)
    }

    /// What refers to `subject`, in the order in which it came, each with its
    /// manifest.
    ///
    /// # Errors
    ///
    /// `index.json` or the manifest of a referrer is missing or damaged.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<(Descriptor, Manifest)>, LayoutError> {
        let mut found = Vec::new();
        for descriptor in self.index()?.manifests {
            if let Some(manifest) = self.referrer(&descriptor)?
                && manifest.subject.as_ref().is_some_and(|of| of.digest == *subject)
            {
                found.push((descriptor, manifest));
            }
        }
        Ok(found)
    }

    /// The manifest of a listed descriptor, if it only refers to another one.
    pub(super) fn referrer(&self, descriptor: &Descriptor) -> Result<Option<Manifest>, LayoutError> {
        if !may_refer(descriptor) {
            return Ok(None);
        }
        let manifest = self.read_manifest(descriptor)?;
        Ok(manifest.subject.is_some().then_some(manifest))
    }

    /// Lists a referrer, once.
    pub(crate) fn refer(&self, descriptor: &Descriptor) -> Result<(), LayoutError> {
        self.update(|manifests| {
            if !manifests.iter().any(|other| other.digest == descriptor.digest && may_refer(other)) {
                manifests.push(descriptor.clone());
            }
            Ok(())
        })
    }

    /// Takes those referrers out of `index.json` that `gone` holds. For
    /// `prune`, which has the blobs to itself already.
    pub(super) fn drop_referrers(&self, gone: &HashSet<Digest>) -> Result<(), LayoutError> {
        if gone.is_empty() {
            return Ok(());
        }
        self.update_in_use(|manifests| {
            manifests.retain(|other| !(gone.contains(&other.digest) && may_refer(other)));
            Ok(())
        })
    }
}

/// Whether a descriptor of `index.json` can be a referrer's: the manifest of an
/// artifact, without a name. Its manifest tells whether it is one.
pub(crate) fn may_refer(descriptor: &Descriptor) -> bool {
    descriptor.media_type.is_manifest()
        && descriptor.artifact_type.is_some()
        && super::Entry::new(descriptor.clone()).name.is_none()
}
