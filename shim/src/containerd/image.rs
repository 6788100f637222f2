//! What an image consists of: its manifest, and the files in its layers.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use sha2::Digest as _;

use super::client::{Client, ContainerdError};
use super::messages::Descriptor;

/// Longest index or manifest that is read: the registries' limit.
const MAX_MANIFEST: u64 = 4 << 20;

/// Bytes of a layer that are read at once.
const BUFFER: usize = 128 << 10;

/// Indices of OCI and of Docker.
const INDICES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// Why an image can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// containerd does not give it.
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    /// A blob can't be read to its end.
    #[error("cannot read blob {digest}")]
    Read {
        /// Its digest.
        digest: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A blob has another content than its name says.
    #[error("blob {expected} has digest {found}")]
    Digest {
        /// Its name.
        expected: String,
        /// Of its content.
        found: String,
    },
    /// An index or manifest is none.
    #[error("malformed manifest {digest}")]
    Malformed {
        /// Its digest.
        digest: String,
        /// The reason.
        #[source]
        source: serde_json::Error,
    },
    /// An index or manifest is too long.
    #[error("manifest {digest} has {size} bytes: expected {MAX_MANIFEST} at most")]
    Long {
        /// Its digest.
        digest: String,
        /// Its length.
        size: u64,
    },
    /// The image is not for us, or that part of it was not pulled.
    #[error("no manifest for linux/{} or wasi/wasm was pulled", architecture())]
    Platform,
}

/// An image's manifest, as far as it is needed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Manifest {
    /// The layers, bottom first.
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<IndexEntry>,
}

#[derive(Deserialize)]
struct IndexEntry {
    #[serde(flatten)]
    manifest: Descriptor,
    platform: Option<Platform>,
}

#[derive(PartialEq, Eq, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

impl Client {
    /// The manifest that `target` is, or of an index the one that containers of
    /// this machine are made from.
    ///
    /// # Errors
    /// [`ImageError`].
    pub(crate) fn manifest(&self, target: &Descriptor) -> Result<Manifest, ImageError> {
        if !INDICES.contains(&target.media_type.as_str()) {
            return self.json(target);
        }
        let index: Index = self.json(target)?;
        for (os, architecture) in [("linux", architecture()), ("wasi", "wasm")] {
            let wanted = Platform { os: os.to_owned(), architecture: architecture.to_owned() };
            let mut entries = index.manifests.iter();
            let Some(entry) = entries.find(|entry| entry.platform.as_ref() == Some(&wanted)) else {
                continue;
            };
            match self.json(&entry.manifest) {
                // Usually one platform alone is pulled.
                Err(ImageError::Containerd(error)) if error.is_not_found() => {}
                other => return other,
            }
        }
        Err(ImageError::Platform)
    }

    /// A blob that is JSON, verified.
    fn json<T: for<'a> Deserialize<'a>>(&self, descriptor: &Descriptor) -> Result<T, ImageError> {
        let digest = || descriptor.digest.clone();
        if descriptor.size > MAX_MANIFEST {
            return Err(ImageError::Long { digest: digest(), size: descriptor.size });
        }
        let mut blob = Hashed::new(self.blob(&descriptor.digest)?);
        let mut content = Vec::new();
        let read = blob.by_ref().take(MAX_MANIFEST + 1).read_to_end(&mut content);
        read.map_err(|source| ImageError::Read { digest: digest(), source })?;
        blob.verify(&descriptor.digest)?;
        serde_json::from_slice(&content).map_err(|source| ImageError::Malformed { digest: digest(), source })
    }

    /// Shows `visit` the regular files of a layer, by their paths without a
    /// slash in front, until it answers. If it does not, the whole layer was
    /// read and its digest is as expected.
    ///
    /// # Errors
    /// [`ImageError`], or what `visit` fails with.
    pub(crate) fn find_in_layer<T, E: From<ImageError>>(
        &self,
        layer: &Descriptor,
        mut visit: impl FnMut(&str, &mut dyn Read) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let read_error = |source| E::from(ImageError::Read { digest: layer.digest.clone(), source });
        let blob = self.blob(&layer.digest).map_err(ImageError::Containerd)?;
        let mut blob = Hashed::new(blob);
        let mut archive = tar::Archive::new(decompress(&mut blob).map_err(read_error)?);
        for entry in archive.entries().map_err(read_error)? {
            let mut entry = entry.map_err(read_error)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./").trim_start_matches('/');
            if let Some(found) = visit(path, &mut entry)? {
                return Ok(Some(found));
            }
        }
        drop(archive);
        blob.verify(&layer.digest)?;
        Ok(None)
    }
}

/// A reader that knows the digest of what was read.
struct Hashed<R> {
    inner: R,
    hasher: sha2::Sha256,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R) -> Self {
        Self { inner, hasher: sha2::Sha256::new() }
    }

    /// Reads what is left and compares the digest.
    fn verify(mut self, expected: &str) -> Result<(), ImageError> {
        let read = io::copy(&mut self, &mut io::sink());
        read.map_err(|source| ImageError::Read { digest: expected.to_owned(), source })?;
        let found = self.hasher.finalize();
        let found = found.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"));
        if found == expected {
            Ok(())
        } else {
            Err(ImageError::Digest { expected: expected.to_owned(), found })
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// The tar in a layer, however it is compressed: by its first bytes, since
/// builders name the same thing differently.
fn decompress<'a>(layer: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut layer = BufReader::with_capacity(BUFFER, layer);
    Ok(match layer.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(layer)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(layer)?),
        _ => Box::new(layer),
    })
}

/// This machine's, as OCI calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_app::Sha256;

    #[test]
    fn an_index_is_read_with_or_without_platforms() {
        let text = r#"{"schemaVersion":2,"manifests":[
            {"mediaType":"m","digest":"sha256:1","size":7,"platform":{"os":"wasi","architecture":"wasm"}},
            {"mediaType":"m","digest":"sha256:2","size":8,"annotations":{"a":"b"}}]}"#;
        let index: Index = serde_json::from_str(text).unwrap();
        assert_eq!(index.manifests[0].platform.as_ref().unwrap().os, "wasi");
        assert_eq!(index.manifests[1].manifest.digest, "sha256:2");
        let manifest = r#"{"config":{},"layers":[{"mediaType":"l","digest":"sha256:3","size":9}]}"#;
        let manifest: Manifest = serde_json::from_str(manifest).unwrap();
        assert_eq!(manifest.layers[0].size, 9);
    }

    #[test]
    fn a_layer_is_read_however_it_is_compressed() {
        let text = b"some bytes".repeat(100);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &text).unwrap();
        for layer in [text.clone(), gzip.finish().unwrap(), zstd::encode_all(&text[..], 1).unwrap()] {
            let mut content = Vec::new();
            decompress(&layer[..]).unwrap().read_to_end(&mut content).unwrap();
            assert_eq!(content, text);
        }
    }

    #[test]
    fn a_blob_with_another_digest_is_refused() {
        let digest = format!("sha256:{}", Sha256::of(b"content"));
        let mut blob = Hashed::new(&b"content"[..]);
        blob.read_exact(&mut [0; 3]).unwrap();
        blob.verify(&digest).unwrap();
        let error = Hashed::new(&b"Content"[..]).verify(&digest).unwrap_err();
        assert!(matches!(error, ImageError::Digest { .. }));
    }
}
