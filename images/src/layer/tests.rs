use std::io::Read as _;

use super::*;

fn layout() -> (tempfile::TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("layout")).unwrap();
    (folder, layout)
}

fn unpacked(layout: &Layout, layer: &Layer) -> Vec<u8> {
    let blob = std::fs::read(layout.blob_path(&layer.descriptor.digest)).unwrap();
    let mut tar = Vec::new();
    flate2::bufread::GzDecoder::new(blob.as_slice()).read_to_end(&mut tar).unwrap();
    tar
}

#[test]
fn inputs_in_another_order_and_folder_give_the_same_bytes() {
    let names: Vec<String> = (0..300).map(|number| format!("app/site/{}/{number}.txt", number % 7)).collect();
    let build = |reversed: bool, umask_like: u32| {
        let (folder, layout) = layout();
        let mut builder = LayerBuilder::new(Timestamp::EPOCH);
        let mut ordered = names.clone();
        if reversed {
            ordered.reverse();
            builder.add_directory("app").unwrap();
        }
        for name in &ordered {
            use std::os::unix::fs::PermissionsExt;
            let source = folder.path().join(name.replace('/', "_"));
            std::fs::write(&source, name.repeat(2000)).unwrap();
            std::fs::set_permissions(&source, std::fs::Permissions::from_mode(umask_like)).unwrap();
            builder.add_file(name, &source, FileMode::Regular).unwrap();
        }
        let layer = builder.write(&layout).unwrap();
        let bytes = std::fs::read(layout.blob_path(&layer.descriptor.digest)).unwrap();
        (layer, bytes)
    };
    let (first, bytes) = build(false, 0o600);
    let (second, other_bytes) = build(true, 0o755);
    assert_eq!(first, second);
    assert!(bytes == other_bytes);
    assert!(first.uncompressed_size > 8 << 20, "several blocks are compressed");
}

#[test]
fn the_layer_says_digest_and_size_of_both_forms() {
    let (_folder, layout) = layout();
    let mut builder = LayerBuilder::new(Timestamp::EPOCH);
    builder.add_bytes("a", vec![b'x'; 5 << 20], FileMode::Regular).unwrap();
    let layer = builder.write(&layout).unwrap();
    let blob = std::fs::read(layout.blob_path(&layer.descriptor.digest)).unwrap();
    let tar = unpacked(&layout, &layer);
    assert_eq!(layer.descriptor.digest, Digest::of(&blob));
    assert_eq!(layer.descriptor.size, blob.len() as u64);
    assert_eq!(layer.descriptor.media_type, MediaType::LayerTarGzip);
    assert_eq!(layer.diff_id, Digest::of(&tar));
    assert_eq!(layer.uncompressed_size, tar.len() as u64);
}

#[test]
fn entries_are_sorted_owned_by_root_and_have_one_time() {
    let (_folder, layout) = layout();
    let mut builder = LayerBuilder::new(Timestamp::try_from(1_700_000_000).unwrap());
    builder.add_bytes("b/c/d.txt", "d", FileMode::Regular).unwrap();
    builder.add_bytes("b.txt", "b", FileMode::Executable).unwrap();
    builder.add_bytes("b/a.txt", "a", FileMode::Regular).unwrap();
    let tar = unpacked(&layout, &builder.write(&layout).unwrap());
    let mut archive = tar::Archive::new(tar.as_slice());
    let entries: Vec<(String, u32)> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
            assert_eq!(header.username().unwrap(), Some(""));
            assert_eq!(header.mtime().unwrap(), 1_700_000_000);
            (entry.path().unwrap().display().to_string(), header.mode().unwrap())
        })
        .collect();
    let expected =
        [("b/", 0o755), ("b.txt", 0o755), ("b/a.txt", 0o644), ("b/c/", 0o755), ("b/c/d.txt", 0o644)];
    assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode)));
}

#[test]
fn paths_that_are_not_plain_and_relative_are_refused() {
    let mut builder = LayerBuilder::new(Timestamp::EPOCH);
    for path in ["", "/a", "a/", "a//b", "./a", "a/../b", "..", "a\0b"] {
        let result = builder.add_bytes(path, "", FileMode::Regular);
        assert!(matches!(result, Err(LayerError::InvalidPath { .. })), "{path:?}");
    }
    let result = builder.add_bytes("a/.wh.b", "", FileMode::Regular);
    assert!(matches!(result, Err(LayerError::Whiteout { .. })));
    assert!(builder.is_empty());
}

#[test]
fn two_entries_of_one_path_are_refused() {
    let mut builder = LayerBuilder::new(Timestamp::EPOCH);
    builder.add_bytes("a", "", FileMode::Regular).unwrap();
    builder.add_bytes("d/b", "", FileMode::Regular).unwrap();
    builder.add_directory("d").unwrap();
    for path in ["a", "a/b", "d"] {
        let result = builder.add_bytes(path, "", FileMode::Regular);
        assert!(matches!(result, Err(LayerError::Occupied { .. })), "{path}");
    }
    assert!(matches!(builder.add_directory("a"), Err(LayerError::Occupied { .. })));
}

#[test]
fn a_directory_is_for_all_if_anybody_says_so() {
    let (_folder, layout) = layout();
    let modes = |order: [bool; 2]| {
        let mut builder = LayerBuilder::new(Timestamp::EPOCH);
        builder.add_bytes("data/x/file", "", FileMode::Regular).unwrap();
        for is_shared in order {
            let added =
                if is_shared { builder.add_shared_directory("data") } else { builder.add_directory("data") };
            added.unwrap();
        }
        let layer = builder.write(&layout).unwrap();
        let tar = unpacked(&layout, &layer);
        let mut archive = tar::Archive::new(tar.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
        });
        entries.collect::<Vec<_>>()
    };
    let expected =
        [("data/".to_owned(), 0o1777), ("data/x/".to_owned(), 0o755), ("data/x/file".to_owned(), 0o644)];
    assert_eq!(modes([true, false]), expected);
    assert_eq!(modes([false, true]), expected);
}

#[test]
fn a_source_that_is_missing_or_no_file_is_named_and_leaves_nothing() {
    let (folder, layout) = layout();
    for source in [folder.path().join("missing"), folder.path().to_path_buf()] {
        let mut builder = LayerBuilder::new(Timestamp::EPOCH);
        builder.add_bytes("a", vec![1; 3 << 20], FileMode::Regular).unwrap();
        builder.add_file("x", &source, FileMode::Regular).unwrap();
        let error = builder.write(&layout).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let text = format!("{error}: {cause}");
        assert!(text.contains(source.to_str().unwrap()), "{text}");
    }
    let left: Vec<_> = crate::sample::files(layout.root()).into_keys().collect();
    assert_eq!(left, ["index.json", "oci-layout"]);
}

/// Files under /proc say a size of 0 and have content: as a file that grows
/// between the two looks at it.
#[test]
fn a_source_that_grows_while_it_is_read_is_an_error() {
    let (_folder, layout) = layout();
    let mut builder = LayerBuilder::new(Timestamp::EPOCH);
    builder.add_file("x", "/proc/self/status", FileMode::Regular).unwrap();
    assert!(matches!(builder.write(&layout), Err(LayerError::Changed { expected: 0, .. })));
}

#[test]
fn an_empty_layer_is_a_valid_archive() {
    let (_folder, layout) = layout();
    let layer = LayerBuilder::new(Timestamp::EPOCH).write(&layout).unwrap();
    assert_eq!(unpacked(&layout, &layer), [0; 1024]);
}

#[test]
fn a_zstd_layer_has_the_same_content_and_another_blob() {
    let (_folder, layout) = layout();
    let layer = |compression| {
        let mut builder = LayerBuilder::new(Timestamp::EPOCH).compression(compression);
        builder.add_bytes("a", vec![b'x'; 5 << 20], FileMode::Regular).unwrap();
        builder.write(&layout).unwrap()
    };
    let (gzip, zstd) = (layer(Compression::Gzip), layer(Compression::Zstd));
    assert_eq!((gzip.diff_id, gzip.uncompressed_size), (zstd.diff_id, zstd.uncompressed_size));
    assert_eq!(zstd.descriptor.media_type, MediaType::LayerTarZstd);
    let blob = std::fs::read(layout.blob_path(&zstd.descriptor.digest)).unwrap();
    assert_eq!(Digest::of(&::zstd::stream::decode_all(blob.as_slice()).unwrap()), zstd.diff_id);
    assert_eq!(layer(Compression::Zstd), zstd);
}
