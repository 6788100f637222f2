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

/// The images of a layout's index.json, by name.
///
/// # Panics
/// If the layout has no such file, or an image has no name.
#[must_use]
pub fn names(layout: &Path) -> BTreeMap<String, String> {
    let bytes = fs_err::read(layout.join("index.json")).expect("the layout has an index");
    let index: Value = serde_json::from_slice(&bytes).expect("index.json is JSON");
    let images = index["manifests"].as_array().expect("the index has images").iter();
    let text = |value: &Value| value.as_str().expect("an image has a name and a digest").to_owned();
    images
        .map(|image| {
            (text(&image["annotations"]["org.opencontainers.image.ref.name"]), text(&image["digest"]))
        })
        .collect()
}

/// Every blob that an index or image needs, itself included, and its size. Each
/// is there and is what the descriptors say.
///
/// # Panics
/// If one is missing, has another size, or holds something else.
#[track_caller]
#[must_use]
pub fn whole(layout: &Path, digest: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut open = vec![(digest.to_owned(), None)];
    while let Some((digest, size)) = open.pop() {
        let bytes = fs_err::read(blob(layout, &digest)).unwrap_or_else(|error| panic!("{digest}: {error}"));
        let length = bytes.len() as u64;
        assert!(size.is_none_or(|size| size == length), "{digest}: expected {size:?} bytes, found {length}");
        assert_eq!(format!("sha256:{}", hex(&Sha256::digest(&bytes))), digest);
        if found.insert(digest, length).is_some() {
            continue;
        }
        // A layer is no JSON, and a configuration has neither of these members.
        let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let lists = [&document["manifests"], &document["layers"]].map(|list| list.as_array());
        let descriptors = lists.into_iter().flatten().flatten().chain([&document["config"]]);
        for descriptor in descriptors {
            if let (Some(digest), Some(size)) = (descriptor["digest"].as_str(), descriptor["size"].as_u64()) {
                open.push((digest.to_owned(), Some(size)));
            }
        }
    }
    found
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
