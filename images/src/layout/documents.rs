//! Indexes, manifests and configurations among the blobs.

use std::io::Read;

use serde::de::DeserializeOwned;

use super::{Layout, LayoutError};
use crate::{Descriptor, ImageConfig, Index, Manifest, Platform};

/// Largest index, manifest or configuration read, in bytes: what registries
/// accept at most (distribution-spec, "Pushing Manifests").
pub const LARGEST_DOCUMENT: u64 = 4 << 20;

impl Layout {
    /// Reads a blob of at most [`LARGEST_DOCUMENT`] bytes and verifies it.
    ///
    /// # Errors
    ///
    /// The blob is missing, too large, or not what the descriptor says.
    pub fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        self.read_document("document", descriptor)
    }

    /// Reads an index.
    ///
    /// # Errors
    ///
    /// The blob is missing, damaged or no index.
    pub fn read_index(&self, descriptor: &Descriptor) -> Result<Index, LayoutError> {
        self.parse("index", descriptor)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// The blob is missing, damaged or no manifest.
    pub fn read_manifest(&self, descriptor: &Descriptor) -> Result<Manifest, LayoutError> {
        self.parse("manifest", descriptor)
    }

    /// Reads the configuration of an image.
    ///
    /// # Errors
    ///
    /// The blob is missing, damaged or no configuration.
    pub fn read_config(&self, manifest: &Manifest) -> Result<ImageConfig, LayoutError> {
        self.parse("configuration", &manifest.config)
    }

    /// The manifests of an index in its order, or the one manifest of a plain image.
    ///
    /// # Errors
    ///
    /// A document is missing or damaged, or the index holds another index.
    pub fn manifests(&self, descriptor: &Descriptor) -> Result<Vec<(Descriptor, Manifest)>, LayoutError> {
        self.manifest_descriptors(descriptor)?
            .into_iter()
            .map(|child| self.read_manifest(&child).map(|manifest| (child, manifest)))
            .collect()
    }

    /// The manifest for the first of `platforms` that the image has. An image
    /// without an index is taken as it is if it does not say its platform.
    ///
    /// # Errors
    ///
    /// The image has none of the platforms, or a document is missing or damaged.
    pub fn select(
        &self,
        descriptor: &Descriptor,
        platforms: &[Platform],
    ) -> Result<(Descriptor, Manifest), LayoutError> {
        let children = self.manifest_descriptors(descriptor)?;
        let accepted = |wanted: &Platform| {
            children.iter().find(|child| {
                child
                    .platform
                    .as_ref()
                    .map_or(!descriptor.media_type.is_index(), |platform| wanted.accepts(platform))
            })
        };
        let Some(child) = platforms.iter().find_map(accepted) else {
            let names = |platforms: Vec<String>| platforms.join(", ");
            return Err(LayoutError::NoSuchPlatform {
                digest: descriptor.digest,
                expected: names(platforms.iter().map(ToString::to_string).collect()),
                found: names(
                    children
                        .iter()
                        .filter_map(|child| child.platform.as_ref())
                        .map(ToString::to_string)
                        .collect(),
                ),
            });
        };
        Ok((child.clone(), self.read_manifest(child)?))
    }

    /// Reads every blob of an image and compares it with its digest and size.
    ///
    /// # Errors
    ///
    /// Names the first blob that is missing or damaged.
    pub fn verify(&self, descriptor: &Descriptor) -> Result<(), LayoutError> {
        for (_, manifest) in self.manifests(descriptor)? {
            for blob in manifest.blobs() {
                self.open_blob(blob)?.verify()?;
            }
        }
        Ok(())
    }

    pub(crate) fn manifest_descriptors(
        &self,
        descriptor: &Descriptor,
    ) -> Result<Vec<Descriptor>, LayoutError> {
        if descriptor.media_type.is_manifest() {
            return Ok(vec![descriptor.clone()]);
        }
        if !descriptor.media_type.is_index() {
            return Err(not_an_image(descriptor));
        }
        let index = self.read_index(descriptor)?;
        match index.manifests.iter().find(|child| !child.media_type.is_manifest()) {
            Some(nested) => Err(not_an_image(nested)),
            None => Ok(index.manifests),
        }
    }

    fn parse<T: DeserializeOwned>(
        &self,
        noun: &'static str,
        descriptor: &Descriptor,
    ) -> Result<T, LayoutError> {
        let content = self.read_document(noun, descriptor)?;
        serde_json::from_slice(&content).map_err(|source| LayoutError::InvalidDocument {
            noun,
            digest: descriptor.digest,
            source,
        })
    }

    fn read_document(&self, noun: &'static str, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        if descriptor.size > LARGEST_DOCUMENT {
            return Err(LayoutError::TooLarge {
                noun,
                digest: descriptor.digest,
                limit: LARGEST_DOCUMENT,
                found: descriptor.size,
            });
        }
        let mut reader = self.open_blob(descriptor)?;
        let mut content = Vec::new();
        (&mut reader)
            .take(descriptor.size)
            .read_to_end(&mut content)
            .map_err(|source| LayoutError::Read { source })?;
        reader.verify()?;
        Ok(content)
    }
}

fn not_an_image(descriptor: &Descriptor) -> LayoutError {
    LayoutError::NotAnImage { digest: descriptor.digest, found: descriptor.media_type.to_string() }
}
