//! Referrers: manifests whose `subject` is an image of the layout.
//!
//! They are listed in `referrers.json`, an image index like `index.json`. In
//! `index.json` itself they are understood (oras lists them there, without a
//! name) and never written: of a layout with several entries, named or not,
//! skopeo and podman copy none unless told which.

use std::collections::HashSet;

use super::{INDEX, Layout, LayoutError};
use crate::artifact::EMPTY_CONFIG;
use crate::{Artifact, Descriptor, Digest, Index, Manifest, MediaType};

/// The list of referrers, beside `index.json`.
pub(crate) const REFERRERS: &str = "referrers.json";

impl Layout {
    /// Keeps an artifact that refers to `subject`. It stays as long as that
    /// does; to attach it again changes nothing.
    ///
    /// # Errors
    ///
    /// The subject is not in the layout, or the layout cannot be written.
    pub fn attach(&self, subject: &Descriptor, artifact: &Artifact) -> Result<Descriptor, LayoutError> {
        self.open_blob(subject)?;
        let (descriptor, _) = self.write_artifact(subject, artifact)?;
        self.refer(&descriptor)?;
        Ok(descriptor)
    }

    /// Writes an artifact's blobs, listed nowhere.
    pub(crate) fn write_artifact(
        &self,
        subject: &Descriptor,
        artifact: &Artifact,
    ) -> Result<(Descriptor, Manifest), LayoutError> {
        self.write_blob(MediaType::Empty, EMPTY_CONFIG)?;
        self.write_blob(artifact.layer().media_type, &artifact.content)?;
        self.write_blob(MediaType::Manifest, &artifact.manifest(subject))?;
        let descriptor = artifact.descriptor(subject);
        let manifest = self.read_manifest(&descriptor)?;
        Ok((descriptor, manifest))
    }

    /// What refers to `subject`, in the order in which it came, each with its
    /// manifest.
    ///
    /// # Errors
    ///
    /// A list is damaged.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<(Descriptor, Manifest)>, LayoutError> {
        let mut found: Vec<(Descriptor, Manifest)> = Vec::new();
        for descriptor in self.index()?.manifests.into_iter().filter(may_refer).chain(self.attached()?) {
            // One that is damaged refers to nothing, and is no one else's trouble.
            let Some(manifest) = self.referrer(&descriptor) else { continue };
            let refers = manifest.subject.as_ref().is_some_and(|of| of.digest == *subject);
            if refers && found.iter().all(|(other, _)| other.digest != descriptor.digest) {
                found.push((descriptor, manifest));
            }
        }
        Ok(found)
    }

    /// The list of referrers; empty if nothing was ever attached.
    pub(super) fn attached(&self) -> Result<Vec<Descriptor>, LayoutError> {
        match self.list_of(REFERRERS) {
            Ok(index) => Ok(index.manifests),
            Err(LayoutError::Read { source }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// The manifest of an entry, if it refers to another one. One that cannot be
    /// read is told of, and refers to nothing.
    pub(crate) fn referrer(&self, descriptor: &Descriptor) -> Option<Manifest> {
        match self.read_manifest(descriptor) {
            Ok(manifest) => manifest.subject.is_some().then_some(manifest),
            Err(error) => {
                tracing::warn!("cannot read what {} refers to: {error}", descriptor.digest);
                None
            }
        }
    }

    /// The same of an entry of `index.json`, where most are images.
    pub(crate) fn referrer_of_index(&self, descriptor: &Descriptor) -> Option<Manifest> {
        if may_refer(descriptor) { self.referrer(descriptor) } else { None }
    }

    /// Lists a referrer, once.
    pub(crate) fn refer(&self, descriptor: &Descriptor) -> Result<(), LayoutError> {
        self.use_blobs()?;
        let _alone = self.alone()?;
        let mut attached = self.attached()?;
        if attached.iter().any(|other| other.digest == descriptor.digest) {
            return Ok(());
        }
        attached.push(descriptor.clone());
        self.replace(REFERRERS, &Index::new(attached))
    }

    /// Takes the referrers that `gone` holds out of both lists. For `prune`,
    /// which has the blobs to itself already.
    pub(super) fn drop_referrers(&self, gone: &HashSet<Digest>) -> Result<(), LayoutError> {
        if gone.is_empty() {
            return Ok(());
        }
        let _alone = self.alone()?;
        let (mut index, mut attached) = (self.index()?, self.attached()?);
        let listed = (index.manifests.len(), attached.len());
        index.manifests.retain(|other| !(may_refer(other) && gone.contains(&other.digest)));
        attached.retain(|other| !gone.contains(&other.digest));
        if index.manifests.len() < listed.0 {
            self.replace(INDEX, &index)?;
        }
        if attached.len() < listed.1 {
            self.replace(REFERRERS, &Index::new(attached))?;
        }
        Ok(())
    }
}

/// Whether an entry of `index.json` can be a referrer: the manifest of an
/// artifact, without a name. Its manifest tells whether it is one.
fn may_refer(descriptor: &Descriptor) -> bool {
    descriptor.media_type.is_manifest()
        && descriptor.artifact_type.is_some()
        && super::Entry::new(descriptor.clone()).name.is_none()
}
