//! Images to send, and folders to receive them.

use std::path::Path;

use tempfile::TempDir;
use wharf_images::{
    ContainerConfig, Descriptor, Digest, ImageBuilder, IndexBuilder, Layer, Layout, MediaType, Platform,
    Reference,
};

/// An image of one layer in a layout of its own.
pub struct Sample {
    pub folder: TempDir,
    pub layout: Layout,
    pub index: Descriptor,
    pub manifest: Descriptor,
    pub config: Descriptor,
    pub layer: Descriptor,
}

/// An image whose layer has `size` bytes that do not repeat.
pub fn sample(reference: &Reference, size: usize) -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("layout")).unwrap();
    let content = noise(size);
    // Neither push nor pull looks into a layer.
    let layer = layout.write_blob(MediaType::LayerTar, &content).unwrap();
    let diff_id = Digest::of(&content);
    let image = ImageBuilder::new(Platform::linux_amd64(), ContainerConfig::default())
        .layer(Layer { descriptor: layer.clone(), diff_id, uncompressed_size: size as u64 }, "noise");
    let manifest = image.write(&layout).unwrap();
    let config = layout.read_manifest(&manifest).unwrap().config;
    let index = IndexBuilder::new().manifest(manifest.clone()).write(&layout).unwrap();
    layout.tag(reference, &index).unwrap();
    Sample { folder, layout, index, manifest, config, layer }
}

/// Bytes that no compression and no accident makes the same.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut content = Vec::with_capacity(size + 8);
    while content.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(size);
    content
}

pub fn empty() -> (TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("layout")).unwrap();
    (folder, layout)
}

/// Every file below a folder with its length, sorted.
pub fn listing(folder: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            if entry.file_type().unwrap().is_dir() {
                found.push((name + "/", 0));
                folders.push(path);
            } else {
                found.push((name, std::fs::symlink_metadata(&path).unwrap().len()));
            }
        }
    }
    found.sort();
    found
}
