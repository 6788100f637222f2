//! OCI images: writing them, keeping them in a layout, moving them to and from registries.
//!
//! Owns everything between "these files make a layer" and "the registry has
//! the index". Knows nothing of wasmtime nor of wharf's app manifest.
//!
//! Data's way, one module a step:
//!
//! | step | type | module |
//! | --- | --- | --- |
//! | files → a reproducible tar.gz or tar.zst blob | [`LayerBuilder`] → [`Layer`] | [`layer`] |
//! | the same files again → nothing to do | [`LayerCache`] | [`layout`] |
//! | layers → config and manifest of a platform | [`ImageBuilder`] → [`Descriptor`] | [`image`] |
//! | manifests → index | [`IndexBuilder`] → [`Descriptor`] | [`image`] |
//! | index → a name in a layout folder | [`Layout::tag`], [`Layout::resolve`] | [`layout`] |
//! | layout ↔ one tar file | [`save`], [`load`] | [`archive`] |
//! | an SBOM, a signature → what refers to an image | [`Artifact`] → [`Layout::attach`] | [`artifact`] |
//! | a digest and a key → a signature, and back | [`signature::sign`], [`signature::verify`] | [`signature`] |
//! | layout → files in a folder | [`unpack()`] | [`mod@unpack`] |
//! | image → what it is made of | [`inspect()`] → [`Inspection`] | [`mod@inspect`] |
//! | layout ↔ registry | [`Client::push`], [`Client::pull`] | [`registry`] |
//!
//! ```no_run
//! use wharf_images::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let layout = Layout::create("/tmp/store")?;
//! let mut site = LayerBuilder::new(Timestamp::EPOCH);
//! site.add_file("app/site/index.html", "public/index.html", FileMode::Regular)?;
//! site.add_bytes("app/wharf.json", "{}", FileMode::Regular)?;
//! let layer: Layer = site.write(&layout)?;
//!
//! let config = ContainerConfig {
//!     entrypoint: vec!["/wharf-host".into()],
//!     user: Some("65532:65532".into()),
//!     ..ContainerConfig::default()
//! };
//! let amd64: Descriptor = ImageBuilder::new(Platform::linux_amd64(), config)
//!     .created(Timestamp::EPOCH)
//!     .layer(layer, "wharf: site")
//!     .write(&layout)?;
//! let index: Descriptor = IndexBuilder::new()
//!     .manifest(amd64)
//!     .annotation("org.opencontainers.image.title", "hello")
//!     .write(&layout)?;
//!
//! let reference: Reference = "127.0.0.1:5000/hello:1".parse()?;
//! layout.tag(&reference, &index)?;
//! save(&layout, &reference, "hello.tar".as_ref())?;
//! # Ok(()) }
//! ```

pub mod archive;
pub mod artifact;
pub mod config;
pub mod descriptor;
pub mod digest;
pub mod image;
pub mod index;
pub mod inspect;
pub mod layer;
pub mod layout;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod registry;
#[cfg(test)]
mod sample;
pub mod signature;
mod tarball;
pub mod timestamp;
pub mod unpack;

pub use archive::{ArchiveError, load, save};
pub use artifact::Artifact;
pub use config::{ContainerConfig, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Digest, HashWriter, InvalidDigest};
pub use image::{ImageBuilder, IndexBuilder};
pub use index::Index;
pub use inspect::{InspectedImage, InspectedLayer, Inspection, Referrer, inspect};
pub use layer::{Compression, FileMode, Layer, LayerBuilder, LayerError};
pub use layout::{BlobReader, BlobWriter, Entry, LayerCache, Layout, LayoutError, Pruned, is_plain};
pub use manifest::Manifest;
pub use media_type::MediaType;
pub use platform::Platform;
pub use reference::{InvalidReference, Reference, Target};
pub use registry::{
    Client, ClientOptions, Credential, CredentialsError, Kept, Progress, RegistryError, RequestError,
    Transfer,
};
pub use timestamp::Timestamp;
pub use unpack::{UnpackError, UnpackOptions, Unpacked, unpack};
