//! A layer that anyone may have made, unpacked into a folder.
//!
//! The first byte says what the rest is: a tar whose checksums are put right,
//! a tar as it is, or gzip. Nothing may leave the folder, and nothing but
//! files, directories and links that stay inside may come into it.
#![no_main]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use wharf_fuzz::{files, fix_checksums};
use wharf_images::{
    ContainerConfig, Digest, ImageBuilder, Layer, Layout, MediaType, Platform, UnpackOptions, unpack,
};

const LIMIT: u64 = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((kind, stream)) = input.split_first() else { return };
    let mut stream = stream.to_vec();
    let media_type = match kind % 4 {
        0 | 1 => {
            fix_checksums(&mut stream);
            MediaType::LayerTar
        }
        2 => MediaType::LayerTar,
        _ => MediaType::LayerTarGzip,
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("outside"), "outside").expect("a file");
    let layout = Layout::create(folder.path().join("layout")).expect("a layout");
    let descriptor = layout.write_blob(media_type, &stream).expect("a blob");
    let layer = Layer { diff_id: Digest::of(&stream), descriptor, uncompressed_size: stream.len() as u64 };
    let image = ImageBuilder::new(Platform::wasi_wasm(), ContainerConfig::default()).layer(layer, "fuzz");
    let manifest = image.write(&layout).and_then(|image| layout.read_manifest(&image)).expect("an image");

    let before = files(folder.path());
    let out = folder.path().join("out");
    let result = unpack(&layout, &manifest, &out, &UnpackOptions { limit: LIMIT, filter: &|_| true });
    match result {
        Ok(unpacked) => {
            assert!(unpacked.bytes <= LIMIT);
            check(&out, &out);
            fs::remove_dir_all(&out).expect("all of it can be removed");
        }
        Err(error) => {
            let _ = error.to_string();
            assert!(!out.exists(), "something is left: {error}");
        }
    }
    assert_eq!(files(folder.path()), before);
});

fn check(root: &Path, folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let metadata = fs::symlink_metadata(&path).expect("an entry");
        let kind = metadata.file_type();
        assert!(kind.is_dir() || kind.is_file() || kind.is_symlink(), "{path:?}");
        assert_eq!(metadata.permissions().mode() & 0o7000, 0, "{path:?}");
        if kind.is_dir() {
            check(root, &path);
        } else if kind.is_symlink() {
            assert!(stays(root, &path, 0), "{path:?} -> {:?}", fs::read_link(&path));
        }
    }
}

/// Whether a link, followed step by step as the kernel does, never leaves `root`.
fn stays(root: &Path, link: &Path, depth: usize) -> bool {
    // The kernel gives up, too (path_resolution(7)).
    if depth > 40 {
        return true;
    }
    let mut at: PathBuf = link.parent().expect("below the root").into();
    for part in fs::read_link(link).expect("a link").components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if at == root => return false,
            Component::ParentDir => drop(at.pop()),
            Component::Normal(name) => {
                at.push(name);
                if at.is_symlink() {
                    if !stays(root, &at, depth + 1) {
                        return false;
                    }
                    match at.canonicalize() {
                        Ok(real) => at = real,
                        Err(_) => return true,
                    }
                }
            }
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    at.starts_with(root)
}
