//! Images and indexes of them, made of finished layers.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::layout::{Layout, LayoutError};
use crate::{
    ContainerConfig, Descriptor, History, ImageConfig, Index, Layer, Manifest, MediaType, Platform, RootFs,
    Timestamp,
};

/// One image: how it is started, and its layers.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    platform: Platform,
    config: ContainerConfig,
    created: Timestamp,
    layers: Vec<(Layer, String)>,
    annotations: BTreeMap<String, String>,
}

impl ImageBuilder {
    /// An image without layers, made at the epoch.
    #[must_use]
    pub fn new(platform: Platform, config: ContainerConfig) -> Self {
        Self { platform, config, created: Timestamp::EPOCH, layers: Vec::new(), annotations: BTreeMap::new() }
    }

    /// Says when the image and its layers were made.
    #[must_use]
    pub fn created(mut self, created: Timestamp) -> Self {
        self.created = created;
        self
    }

    /// Puts a layer on top; `created_by` is its entry in the history.
    #[must_use]
    pub fn layer(mut self, layer: Layer, created_by: impl Into<String>) -> Self {
        self.layers.push((layer, created_by.into()));
        self
    }

    /// Sets an annotation of the manifest.
    #[must_use]
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// Writes configuration and manifest. The manifest's descriptor says its
    /// platform, ready for [`IndexBuilder::manifest`].
    ///
    /// # Errors
    ///
    /// A layer is not in the layout, or the layout cannot be written.
    pub fn write(&self, layout: &Layout) -> Result<Descriptor, LayoutError> {
        for (layer, _) in &self.layers {
            layout.open_blob(&layer.descriptor)?;
        }
        let created = Some(self.created.to_string());
        let config = ImageConfig {
            created: created.clone(),
            architecture: self.platform.architecture.clone(),
            os: self.platform.os.clone(),
            variant: self.platform.variant.clone(),
            config: self.config.clone(),
            rootfs: RootFs {
                kind: "layers".into(),
                diff_ids: self.layers.iter().map(|(layer, _)| layer.diff_id).collect(),
            },
            history: self
                .layers
                .iter()
                .map(|(_, created_by)| History {
                    created: created.clone(),
                    created_by: Some(created_by.clone()),
                    empty_layer: false,
                })
                .collect(),
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MediaType::Manifest),
            artifact_type: None,
            config: write_document(layout, MediaType::Config, &config)?,
            layers: self.layers.iter().map(|(layer, _)| layer.descriptor.clone()).collect(),
            subject: None,
            annotations: some(&self.annotations),
        };
        let mut descriptor = write_document(layout, MediaType::Manifest, &manifest)?;
        descriptor.platform = Some(self.platform.clone());
        Ok(descriptor)
    }
}

/// One image for several platforms.
#[derive(Debug, Clone, Default)]
pub struct IndexBuilder {
    manifests: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
}

impl IndexBuilder {
    /// An index without manifests.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a manifest, after those that are there. Engines take the first that
    /// fits, so the order matters.
    #[must_use]
    pub fn manifest(mut self, manifest: Descriptor) -> Self {
        self.manifests.push(manifest);
        self
    }

    /// Sets an annotation of the index.
    #[must_use]
    pub fn annotation(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }

    /// Writes the index.
    ///
    /// # Errors
    ///
    /// A child is no manifest or not in the layout, or the layout cannot be written.
    pub fn write(&self, layout: &Layout) -> Result<Descriptor, LayoutError> {
        for child in &self.manifests {
            if !child.media_type.is_manifest() {
                return Err(LayoutError::NotAnImage {
                    digest: child.digest,
                    found: child.media_type.to_string(),
                });
            }
            layout.open_blob(child)?;
        }
        let index = Index { annotations: some(&self.annotations), ..Index::new(self.manifests.clone()) };
        write_document(layout, MediaType::Index, &index)
    }
}

fn some(annotations: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!annotations.is_empty()).then(|| annotations.clone())
}

/// Members in the order of the structs, maps sorted, no spaces: one document
/// has one digest.
fn write_document<T: Serialize>(
    layout: &Layout,
    media_type: MediaType,
    document: &T,
) -> Result<Descriptor, LayoutError> {
    let content =
        serde_json::to_vec(document).map_err(|error| LayoutError::Write { source: error.into() })?;
    layout.write_blob(media_type, &content)
}

#[cfg(test)]
mod tests;
