//! OCI image layouts, read by hand: what is checked must not be read by the code
//! that wrote it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The file of a blob.
///
/// # Panics
/// If `digest` is not a SHA-256 digest.
#[must_use]
pub fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").expect("the digest is a SHA-256"))
}

/// A blob that holds JSON.
///
/// # Panics
/// If there is no such blob or it holds something else.
#[must_use]
pub fn json(layout: &Path, digest: &str) -> Value {
    let bytes = fs_err::read(blob(layout, digest)).expect("the blob is there");
    serde_json::from_slice(&bytes).expect("the blob is JSON")
}

/// Every blob's name and its content's digest, which should be the same.
///
/// # Panics
/// If the layout can't be read.
#[must_use]
pub fn blobs(layout: &Path) -> BTreeMap<String, String> {
    fs_err::read_dir(layout.join("blobs/sha256"))
        .expect("the layout has blobs")
        .map(|entry| {
            let entry = entry.expect("the folder can be read");
            let bytes = fs_err::read(entry.path()).expect("the blob can be read");
            (entry.file_name().to_string_lossy().into_owned(), hex(&Sha256::digest(bytes)))
        })
        .collect()
}

/// The digest of the largest layer of an index's last image: a layer of the app.
///
/// # Panics
/// If the layout has no such image.
#[must_use]
pub fn largest_layer(layout: &Path, index: &str) -> String {
    let index = json(layout, index);
    let images = index["manifests"].as_array().expect("the index has images");
    let last = images.last().and_then(|image| image["digest"].as_str()).expect("the index has an image");
    let manifest = json(layout, last);
    let layers = manifest["layers"].as_array().expect("the image has layers");
    let largest = layers.iter().max_by_key(|layer| layer["size"].as_u64()).expect("the image has a layer");
    largest["digest"].as_str().expect("a layer has a digest").to_owned()
}

/// Of each manifest of an index, in order: `OS/ARCH`.
///
/// # Panics
/// If it is no index.
#[must_use]
pub fn platforms(index: &Value) -> Vec<String> {
    let platform = |manifest: &Value| {
        let part = |key| manifest["platform"][key].as_str().expect("a manifest has a platform");
        format!("{}/{}", part("os"), part("architecture"))
    };
    index["manifests"].as_array().expect("an index has manifests").iter().map(platform).collect()
}

/// Cuts a blob in half.
///
/// # Panics
/// If there is no such blob.
pub fn truncate(layout: &Path, digest: &str) {
    let file = fs_err::OpenOptions::new().write(true).open(blob(layout, digest)).expect("the blob is there");
    let length = file.metadata().expect("the blob has a length").len();
    file.set_len(length / 2).expect("the blob can be cut");
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
