//! Unpacked into a folder.

use super::*;

const LIMIT: u64 = 8 << 20;

/// Unpacks an image of these layers into a fresh folder.
fn unpacked(layers: &[(MediaType, Vec<u8>, Digest)]) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
    unpacked_within(LIMIT, layers)
}

fn unpacked_within(
    limit: u64,
    layers: &[(MediaType, Vec<u8>, Digest)],
) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
    let (folder, layout) = empty();
    let mut image = ImageBuilder::new(Platform::wasi_wasm(), ContainerConfig::default());
    for (media_type, content, diff_id) in layers {
        let descriptor = layout.write_blob(media_type.clone(), content).unwrap();
        image = image.layer(Layer { descriptor, diff_id: *diff_id, uncompressed_size: 0 }, "hostile");
    }
    let manifest = layout.read_manifest(&image.write(&layout).unwrap()).unwrap();
    let before = listing(folder.path());
    let options = UnpackOptions { limit, filter: &|_| true };
    let began = Instant::now();
    let result = unpack(&layout, &manifest, &folder.path().join("out"), &options);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    if let Err(error) = &result {
        assert_eq!(listing(folder.path()), before, "{}", words(error));
    }
    (folder, result)
}

fn plain(tar: Vec<u8>) -> (MediaType, Vec<u8>, Digest) {
    let diff_id = Digest::of(&tar);
    (MediaType::LayerTar, tar, diff_id)
}

fn unpack_refused(tar: Vec<u8>, expected: &str) {
    let text = words(&unpacked(&[plain(tar)]).1.expect_err("hostile layer"));
    assert!(text.contains(expected), "{text}");
    assert_plain(&text);
}

fn gzip(content: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for part in content {
        gzip.write_all(&part).unwrap();
    }
    gzip.finish().unwrap()
}

#[test]
fn a_gzip_bomb_is_refused_before_it_fills_the_disk() {
    // The zeros of a file of 1 TiB, or enough of them.
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..1].copy_from_slice(b"x");
    header.set_mode(0o644);
    header.set_size(1 << 40);
    header.set_cksum();
    let zeros = std::iter::repeat_n(vec![0; MIB], 2);
    let bomb = gzip(std::iter::once(header.as_bytes().to_vec()).chain(zeros));
    assert!(bomb.len() < MIB / 4);
    let error = unpacked_within(MIB as u64, &[(MediaType::LayerTarGzip, bomb.clone(), Digest::of(b""))])
        .1
        .unwrap_err();
    assert!(
        error.to_string().contains("expected at most 1048576 bytes in all layers, found more"),
        "{error}"
    );
    // Packed once more it is no tar.
    let twice = gzip([bomb]);
    let error =
        unpacked_within(MIB as u64, &[(MediaType::LayerTarGzip, twice, Digest::of(b""))]).1.unwrap_err();
    assert!(matches!(error, UnpackError::Damaged { .. }), "{}", words(&error));
    // Zeros after the end, which count for the diffID alone.
    let zeros = gzip(std::iter::repeat_n(vec![0; MIB], 2));
    let error =
        unpacked_within(MIB as u64, &[(MediaType::LayerTarGzip, zeros, Digest::of(b""))]).1.unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { .. }), "{}", words(&error));
}

#[test]
fn a_zstd_bomb_is_refused_before_it_fills_disk_or_memory() {
    let zeros = vec![0; 3 * MIB];
    let bomb = zstd::encode_all(zeros.as_slice(), 3).unwrap();
    let error =
        unpacked_within(MIB as u64, &[(MediaType::LayerTarZstd, bomb, Digest::of(b""))]).1.unwrap_err();
    assert!(matches!(error, UnpackError::TooLarge { .. }), "{}", words(&error));
    // A frame that wants 2 GiB of memory to look back into (RFC 8878, 3.1.1.1.2).
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    let layer = (MediaType::LayerTarZstd, window.to_vec(), Digest::of(b""));
    let error = unpacked_within(MIB as u64, &[layer]).1.unwrap_err();
    assert!(words(&error).contains("expected a zstd window of at most 128 MiB"), "{}", words(&error));
}

#[test]
fn sparse_files_are_refused() {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..1].copy_from_slice(b"x");
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(0);
    header.as_gnu_mut().unwrap().realsize = *b"77777777777\0";
    header.set_cksum();
    unpack_refused(header.as_bytes().to_vec(), "expected no sparse file");
    for (key, value) in [("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "1099511627776")] {
        unpack_refused(
            pax(key, value, entry(EntryType::Regular, b"x", b"", b"")),
            "pax records are malformed",
        );
    }
}

#[test]
fn a_layer_of_a_thousand_directories_above_each_entry_is_refused() {
    // 2 KB of name each, all of which would be kept in memory at every depth.
    let mut tar = Vec::new();
    for number in 0..20 {
        let path = format!("{number}/{}x", "a/".repeat(1000));
        tar.extend(pax("path", &path, entry(EntryType::Regular, b"x", b"", b"")));
    }
    unpack_refused(tar, "expected at most 128 directories above it");
}

#[test]
fn whiteouts_of_the_same_directory_are_cheap() {
    let mut tar = Vec::new();
    for number in 0..5000 {
        tar.extend(entry(EntryType::Regular, format!("d/{number}").as_bytes(), b"", b""));
    }
    for _ in 0..5000 {
        tar.extend(entry(EntryType::Regular, b"d/.wh..wh..opq", b"", b""));
    }
    let (_folder, result) = unpacked(&[plain(tar)]);
    assert_eq!(result.unwrap().files, 5000);
}

#[test]
fn headers_of_a_layer_that_lie_are_refused() {
    for kind in [EntryType::XHeader, EntryType::GNULongName] {
        unpack_refused(announced(kind, 64 << 20), "of at most 65536 bytes, found 67108864");
    }
    unpack_refused(pax("size", "99", entry(EntryType::Regular, b"x", b"", b"")), "found the layer's end");
    unpack_refused(
        pax("path", "/etc/evil", entry(EntryType::Regular, b"x", b"", b"")),
        "expected a relative name",
    );
    let through = pax("linkpath", "../../../etc", entry(EntryType::Symlink, b"x", b"a", b""));
    unpack_refused(through, "found one that may lead out");
    // Longer than any path of the system, and longer than any name.
    let long = "x".repeat(60_000);
    unpack_refused(
        pax("path", &long, entry(EntryType::Regular, b"x", b"", b"")),
        "expected a path of at most",
    );
    let longest = pax("path", &"x".repeat(300), entry(EntryType::Regular, b"x", b"", b""));
    unpack_refused(longest, "xxx");
}

#[test]
fn a_name_that_comes_twice_has_the_last_content() {
    let twice = [
        entry(EntryType::Regular, b"a/x", b"", b"first"),
        entry(EntryType::Symlink, b"a/y", b"x", b""),
        entry(EntryType::Regular, b"a/y", b"", b"second"),
        entry(EntryType::Regular, b"a/x", b"", b"third"),
    ];
    let (folder, result) = unpacked(&[plain(twice.concat())]);
    result.unwrap();
    assert_eq!(fs::read(folder.path().join("out/a/x")).unwrap(), b"third");
    assert_eq!(fs::read(folder.path().join("out/a/y")).unwrap(), b"second");
}

#[test]
fn a_configuration_that_is_none_is_refused() {
    for config in
        [b"not json".as_slice(), b"", b"[]", br#"{"architecture":"amd64","os":"linux","rootfs":{}}"#]
    {
        let (folder, layout) = empty();
        let layer = layout.write_blob(MediaType::LayerTar, &[0; 1024]).unwrap();
        let manifest = wharf_images::Manifest {
            schema_version: 2,
            media_type: Some(MediaType::Manifest),
            config: layout.write_blob(MediaType::Config, config).unwrap(),
            layers: vec![layer],
            annotations: None,
            artifact_type: None,
            subject: None,
        };
        let options = UnpackOptions { limit: LIMIT, filter: &|_| true };
        let error = unpack(&layout, &manifest, &folder.path().join("out"), &options).unwrap_err();
        let digest = Digest::of(config);
        assert_eq!(error.to_string(), format!("cannot read configuration {digest}"));
        assert!(!folder.path().join("out").exists());
    }
}
