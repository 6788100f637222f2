//! Media types of the OCI image specification and of Docker's schema 2, which
//! most older images still have.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a descriptor's blob is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum MediaType {
    /// An OCI image index.
    Index,
    /// An OCI image manifest.
    Manifest,
    /// An OCI image configuration.
    Config,
    /// A layer as plain tar.
    LayerTar,
    /// A layer as tar, gzip-compressed: what wharf writes.
    LayerTarGzip,
    /// A layer as tar, zstd-compressed.
    LayerTarZstd,
    /// The configuration of what needs none: `{}`.
    Empty,
    /// Docker's manifest list.
    DockerIndex,
    /// Docker's image manifest, schema 2.
    DockerManifest,
    /// Docker's image configuration.
    DockerConfig,
    /// Docker's layer: tar, gzip-compressed.
    DockerLayerTarGzip,
    /// Anything else, kept as it was read.
    Other(String),
}

impl MediaType {
    const NAMES: [(Self, &'static str); 11] = [
        (Self::Index, "application/vnd.oci.image.index.v1+json"),
        (Self::Manifest, "application/vnd.oci.image.manifest.v1+json"),
        (Self::Config, "application/vnd.oci.image.config.v1+json"),
        (Self::LayerTar, "application/vnd.oci.image.layer.v1.tar"),
        (Self::LayerTarGzip, "application/vnd.oci.image.layer.v1.tar+gzip"),
        (Self::LayerTarZstd, "application/vnd.oci.image.layer.v1.tar+zstd"),
        (Self::Empty, "application/vnd.oci.empty.v1+json"),
        (Self::DockerIndex, "application/vnd.docker.distribution.manifest.list.v2+json"),
        (Self::DockerManifest, "application/vnd.docker.distribution.manifest.v2+json"),
        (Self::DockerConfig, "application/vnd.docker.container.image.v1+json"),
        (Self::DockerLayerTarGzip, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    ];

    /// The name that stands in documents and HTTP headers.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => Self::NAMES
                .iter()
                .find_map(|(media_type, name)| (media_type == known).then_some(*name))
                .unwrap_or_default(),
        }
    }

    /// Whether the blob is a list of manifests.
    #[must_use]
    pub fn is_index(&self) -> bool {
        matches!(self, Self::Index | Self::DockerIndex)
    }

    /// Whether the blob is the manifest of one image.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        matches!(self, Self::Manifest | Self::DockerManifest)
    }
}

impl From<String> for MediaType {
    fn from(name: String) -> Self {
        Self::NAMES
            .iter()
            .find_map(|(media_type, known)| (*known == name).then(|| media_type.clone()))
            .unwrap_or(Self::Other(name))
    }
}

impl From<MediaType> for String {
    fn from(media_type: MediaType) -> Self {
        media_type.as_str().into()
    }
}

/// For people: control characters in a name that someone else chose are escaped.
impl fmt::Display for MediaType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().escape_debug().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_media_type_is_read_back_from_its_name() {
        for (media_type, name) in MediaType::NAMES {
            assert_eq!(media_type.as_str(), name);
            assert_eq!(MediaType::from(name.to_owned()), media_type);
        }
        let foreign = MediaType::from("application/wasm".to_owned());
        assert_eq!(foreign.as_str(), "application/wasm");
        assert_eq!(foreign.to_string(), "application/wasm");
    }
}
