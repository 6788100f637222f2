//! What an image is made of, as data: platforms, layers, and what refers to it.
//!
//! Reads any image, not only wharf's: what a foreign one lacks is left out.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::layout::{Layout, LayoutError};
use crate::unpack::uncompressed_size;
use crate::{Descriptor, Digest, ImageConfig, Manifest, MediaType, Platform, UnpackError};

/// An index or a plain image, with all below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The digest of the index or manifest.
    pub digest: Digest,
    /// What it is.
    pub media_type: MediaType,
    /// Its own length in bytes.
    pub size: u64,
    /// The annotations of the index or manifest, sorted by key.
    pub annotations: BTreeMap<String, String>,
    /// The images, in the order of the index.
    pub platforms: Vec<InspectedImage>,
    /// Manifests in the layout that refer to the image or to one of its platforms.
    pub referrers: Vec<Referrer>,
}

/// The image of one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedImage {
    /// What it runs on, if index or configuration say so.
    pub platform: Option<String>,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Bytes that a registry moves for it: manifest, configuration and layers.
    pub size: u64,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that the user may replace.
    pub cmd: Vec<String>,
    /// `UID:GID` or names; none is root.
    pub user: Option<String>,
    /// The labels of its configuration, sorted by key.
    pub labels: BTreeMap<String, String>,
    /// The annotations of its manifest, sorted by key.
    pub annotations: BTreeMap<String, String>,
    /// Its layers, bottom first.
    pub layers: Vec<InspectedLayer>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedLayer {
    /// The digest of its blob.
    pub digest: Digest,
    /// What the blob is.
    pub media_type: MediaType,
    /// The length of the blob in bytes.
    pub size: u64,
    /// The length of the tar stream in it; none for what is no tar.
    pub uncompressed_size: Option<u64>,
    /// The step that made it, from the image's history.
    pub created_by: Option<String>,
}

/// A manifest that refers to an image: an SBOM, a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The digest that it refers to.
    pub subject: Digest,
    /// What it is, by the manifest's `artifactType` or else its configuration.
    pub artifact_type: String,
    /// Bytes of its manifest, configuration and content.
    pub size: u64,
    /// The annotations of its manifest, sorted by key.
    pub annotations: BTreeMap<String, String>,
}

/// Describes an image of `layout`. Its layers are decompressed to learn their
/// size, of at most `limit` bytes together.
///
/// # Errors
///
/// A document or layer is missing or damaged, or the layers are too large.
pub fn inspect(layout: &Layout, image: &Descriptor, limit: u64) -> Result<Inspection, UnpackError> {
    // Read once more than `manifests` does, for the annotations of either kind.
    #[derive(Deserialize)]
    struct Annotated {
        #[serde(default)]
        annotations: Option<BTreeMap<String, String>>,
    }
    let document = layout.read_blob(image)?;
    let Annotated { annotations } = serde_json::from_slice(&document).map_err(|source| {
        LayoutError::InvalidDocument { noun: "index or manifest", digest: image.digest, source }
    })?;
    let mut sizes = Sizes { layout, known: HashMap::new(), limit, left: limit };
    let platforms: Vec<InspectedImage> = layout
        .manifests(image)?
        .into_iter()
        .map(|(child, manifest)| inspect_image(&mut sizes, &child, manifest))
        .collect::<Result<_, _>>()?;
    let digests: Vec<Digest> =
        std::iter::once(image.digest).chain(platforms.iter().map(|platform| platform.digest)).collect();
    Ok(Inspection {
        digest: image.digest,
        media_type: image.media_type.clone(),
        size: image.size,
        annotations: annotations.unwrap_or_default(),
        platforms,
        referrers: referrers(layout, &digests)?,
    })
}

fn inspect_image(
    sizes: &mut Sizes<'_>,
    child: &Descriptor,
    manifest: Manifest,
) -> Result<InspectedImage, UnpackError> {
    // Artifacts have other configurations, or an empty one.
    let config = match &manifest.config.media_type {
        MediaType::Config | MediaType::DockerConfig => Some(sizes.layout.read_config(&manifest)?),
        _ => None,
    };
    let platform = child.platform.clone().or_else(|| config.as_ref().map(platform_of));
    let history = config.iter().flat_map(|config| &config.history).filter(|step| !step.empty_layer);
    let mut steps = history.map(|step| step.created_by.clone());
    let layers = manifest.layers.iter().map(|layer| {
        Ok(InspectedLayer {
            digest: layer.digest,
            media_type: layer.media_type.clone(),
            size: layer.size,
            uncompressed_size: sizes.of(layer)?,
            created_by: steps.next().flatten(),
        })
    });
    let layers = layers.collect::<Result<_, UnpackError>>()?;
    let size = manifest.blobs().map(|blob| blob.size).fold(child.size, u64::saturating_add);
    let (created, container) = config.map(|config| (config.created, config.config)).unwrap_or_default();
    Ok(InspectedImage {
        platform: platform.map(|platform| platform.to_string()),
        digest: child.digest,
        size,
        created,
        entrypoint: container.entrypoint,
        cmd: container.cmd,
        user: container.user.filter(|user| !user.is_empty()),
        labels: container.labels,
        annotations: manifest.annotations.unwrap_or_default(),
        layers,
    })
}

fn platform_of(config: &ImageConfig) -> Platform {
    Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: config.variant.clone(),
    }
}

/// Uncompressed sizes, each found out once: platforms share layers.
struct Sizes<'a> {
    layout: &'a Layout,
    known: HashMap<Digest, Option<u64>>,
    limit: u64,
    left: u64,
}

impl Sizes<'_> {
    fn of(&mut self, layer: &Descriptor) -> Result<Option<u64>, UnpackError> {
        if let Some(known) = self.known.get(&layer.digest) {
            return Ok(*known);
        }
        let size = match uncompressed_size(self.layout, layer, self.left) {
            Ok(size) => Some(size),
            Err(UnpackError::Unsupported { .. }) => None,
            Err(UnpackError::TooLarge { layer, .. }) => {
                return Err(UnpackError::TooLarge { layer, limit: self.limit });
            }
            Err(error) => return Err(error),
        };
        self.left -= size.unwrap_or(0);
        self.known.insert(layer.digest, size);
        Ok(size)
    }
}

/// What the layout lists that refers to one of `subjects`.
fn referrers(layout: &Layout, subjects: &[Digest]) -> Result<Vec<Referrer>, LayoutError> {
    let mut referrers = Vec::new();
    for subject in subjects {
        referrers.extend(layout.referrers(subject)?.into_iter().map(|(descriptor, manifest)| Referrer {
            digest: descriptor.digest,
            subject: *subject,
            size: manifest.blobs().map(|blob| blob.size).fold(descriptor.size, u64::saturating_add),
            artifact_type: manifest.artifact_type.unwrap_or_else(|| manifest.config.media_type.to_string()),
            annotations: manifest.annotations.unwrap_or_default(),
        }));
    }
    Ok(referrers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::universal;
    use crate::{Artifact, Reference};

    const LIMIT: u64 = 64 << 20;

    #[test]
    fn an_index_is_described_with_its_platforms_and_layers() {
        let sample = universal();
        let found = inspect(&sample.layout, &sample.index, LIMIT).unwrap();
        assert_eq!(found.digest, sample.index.digest);
        let platforms: Vec<_> = found.platforms.iter().map(|image| image.platform.as_deref()).collect();
        assert_eq!(platforms, [Some("linux/amd64"), Some("wasi/wasm")]);
        let linux = &found.platforms[0];
        assert_eq!(linux.entrypoint, ["/wharf-host"]);
        assert_eq!(linux.user.as_deref(), Some("65532:65532"));
        let site = &linux.layers[1];
        assert_eq!(site.digest, sample.site.descriptor.digest);
        assert_eq!(site.uncompressed_size, Some(sample.site.uncompressed_size));
        assert_eq!(site.created_by.as_deref(), Some("site"));
        let manifest = &sample.layout.manifests(&sample.index).unwrap()[0];
        let sum: u64 = manifest.1.blobs().map(|blob| blob.size).sum();
        assert_eq!(linux.size, sum + manifest.0.size);
        assert!(found.referrers.is_empty());
    }

    #[test]
    fn a_plain_manifest_without_platform_takes_it_from_its_configuration() {
        let sample = universal();
        let mut child = sample.layout.manifests(&sample.index).unwrap()[1].0.clone();
        child.platform = None;
        let found = inspect(&sample.layout, &child, LIMIT).unwrap();
        assert_eq!(found.platforms.len(), 1);
        assert_eq!(found.platforms[0].platform.as_deref(), Some("wasi/wasm"));
    }

    #[test]
    fn an_image_of_another_kind_is_described_as_far_as_it_goes() {
        let sample = universal();
        let layout = &sample.layout;
        let other = |name: &str| MediaType::Other(name.into());
        let config = layout.write_blob(other("application/vnd.wasm.config.v0+json"), b"{}").unwrap();
        let wasm = layout.write_blob(other("application/wasm"), b"\0asm").unwrap();
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [wasm]});
        let manifest = layout.write_blob(MediaType::Manifest, manifest.to_string().as_bytes()).unwrap();
        let found = inspect(layout, &manifest, LIMIT).unwrap();
        let image = &found.platforms[0];
        assert_eq!((image.platform.as_deref(), image.layers[0].uncompressed_size), (None, None));
        assert_eq!(image.layers[0].size, 4);
    }

    #[test]
    fn layers_that_unpack_to_more_than_allowed_are_refused() {
        let sample = universal();
        let limit = sample.site.uncompressed_size;
        let error = inspect(&sample.layout, &sample.index, limit).unwrap_err();
        assert!(matches!(error, UnpackError::TooLarge { limit: said, .. } if said == limit), "{error}");
    }

    #[test]
    fn what_refers_to_an_image_is_listed_and_nothing_else() {
        let sample = universal();
        let layout = &sample.layout;
        let refer = |subject: &Descriptor, kind: &str| {
            let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
            let artifact = Artifact { annotations, ..Artifact::new(kind, b"{}".to_vec()) };
            layout.attach(subject, &artifact).unwrap()
        };
        let child = layout.manifests(&sample.index).unwrap()[0].0.clone();
        let signature = refer(&child, "application/signature");
        let sbom = refer(&sample.index, "application/sbom");
        refer(&sample.site.descriptor, "application/other");
        let found = inspect(layout, &sample.index, LIMIT).unwrap().referrers;
        let kinds: Vec<_> = found.iter().map(|found| (found.artifact_type.as_str(), found.digest)).collect();
        assert_eq!(kinds, [("application/sbom", sbom.digest), ("application/signature", signature.digest)]);
        assert_eq!((found[0].subject, found[1].subject), (sample.index.digest, child.digest));
        // Its manifest, the empty configuration and the content, each of two bytes.
        assert_eq!((found[0].size, found[0].annotations["a"].as_str()), (sbom.size + 4, "b"));
    }

    #[test]
    fn a_damaged_layer_is_named() {
        let sample = universal();
        let digest = sample.site.descriptor.digest;
        std::fs::write(sample.layout.blob_path(&digest), "short").unwrap();
        let reference: Reference = "127.0.0.1:5000/hello:1".parse().unwrap();
        let image = sample.layout.resolve(&reference).unwrap();
        let error = inspect(&sample.layout, &image, LIMIT).unwrap_err();
        assert!(error.to_string().contains(&digest.to_string()), "{error}");
    }
}
