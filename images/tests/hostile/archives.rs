//! Loaded from an archive.

use super::*;

/// Loads the archive and expects an error in these words, and a layout as it was.
fn load_refused(archive: &[u8], expected: &str) {
    let error = loaded(archive).2.expect_err("hostile archive");
    let text = words(&error);
    assert!(text.contains(expected), "{text}");
    assert_plain(&text);
}

#[test]
fn an_archive_of_a_wrong_digest_or_size_is_refused() {
    let layer = noise(1000);
    let right = manifest(&descriptor(CONFIG, b"{}"), &[descriptor(LAYER, &layer)]);
    let listed = index(&[named(MANIFEST, &right, "a.b/c:1")]);
    let whole = layout_archive(&listed, &[&right, b"{}", &layer]);
    loaded(&whole).2.unwrap();

    let mut changed = whole.clone();
    let at = changed.len() - 600;
    changed[at] ^= 1;
    load_refused(&changed, "found content with digest");
    for (size, found) in [(999, "expected 999 bytes, found 1000"), (1001, "expected 1001 bytes, found 1000")]
    {
        let mut layer_descriptor = descriptor(LAYER, &layer);
        layer_descriptor["size"] = size.into();
        let wrong = manifest(&descriptor(CONFIG, b"{}"), &[layer_descriptor]);
        let listed = index(&[named(MANIFEST, &wrong, "a.b/c:1")]);
        load_refused(&layout_archive(&listed, &[&wrong, b"{}", &layer]), found);
    }
    // The end is inside the layer.
    load_refused(&whole[..whole.len() - 700], "expected 1000 bytes, found");
}

#[test]
fn an_archive_with_paths_out_of_it_is_refused() {
    for name in ["../evil", "/evil", "blobs/sha256/../../../evil", "blobs/../../evil", "a/.."] {
        load_refused(
            &entry(EntryType::Regular, name.as_bytes(), b"", b"x"),
            "expected a relative name inside the archive",
        );
    }
    for (kind, found) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device or fifo"),
        (EntryType::Block, "a device or fifo"),
        (EntryType::Fifo, "a device or fifo"),
        (EntryType::new(b'Z'), "a device or fifo"),
    ] {
        load_refused(&entry(kind, b"blobs/sha256/x", b"/etc/passwd", b""), &format!("found {found}"));
    }
}

#[test]
fn paths_in_dockers_manifest_lead_nowhere() {
    let right = manifest(&descriptor(CONFIG, b"{}"), &[]);
    let listed = index(&[named(MANIFEST, &right, "a.b/c:1")]);
    let mut bytes = layout_archive(&listed, &[&right, b"{}"]);
    let docker = json!([{ "Config": "../../../etc/passwd", "RepoTags": ["a.b/c:1"], "Layers": ["/etc/shadow", "../x"] }]);
    bytes.extend(entry(EntryType::Regular, b"manifest.json", b"", docker.to_string().as_bytes()));
    let (folder, layout, result) = loaded(&bytes);
    assert_eq!(result.unwrap().len(), 1);
    layout.verify(&layout.sole().unwrap().descriptor).unwrap();
    // Nothing but the layout, with its three blobs at most, and the archive.
    let names: Vec<String> = listing(folder.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 6 + 2, "{names:?}");
    // By itself it is no layout.
    let alone = entry(EntryType::Regular, b"manifest.json", b"", docker.to_string().as_bytes());
    load_refused(&alone, "expected an OCI image layout, found no oci-layout");
}

#[test]
fn documents_of_an_archive_that_are_none_are_refused() {
    let deep = vec![b'['; 1_000_000];
    for content in
        [b"".as_slice(), b"null", b"[]", b"{", b"\xff\xfe", &deep, br#"{"schemaVersion":2,"manifests":[{}]}"#]
    {
        load_refused(&layout_archive(content, &[]), "cannot load index.json of archive");
    }
    load_refused(&layout_archive(&vec![b' '; 5 * MIB], &[]), "expected at most 4194304 bytes, found 5242880");
    // A manifest's place is taken by a configuration, an index's by a manifest.
    let right = manifest(&descriptor(CONFIG, b"{}"), &[]);
    let listed = index(&[named(MANIFEST, b"{}", "a.b/c:1")]);
    load_refused(&layout_archive(&listed, &[b"{}"]), "cannot load manifest sha256:");
    let listed = index(&[named(INDEX, &right, "a.b/c:1")]);
    load_refused(&layout_archive(&listed, &[&right, b"{}"]), "cannot load index sha256:");
    let listed = index(&[named(CONFIG, b"{}", "a.b/c:1")]);
    load_refused(&layout_archive(&listed, &[b"{}"]), "expected an index of manifests or a manifest, found");
    let huge = vec![b' '; 5 * MIB];
    let listed = index(&[named(MANIFEST, &huge, "a.b/c:1")]);
    load_refused(&layout_archive(&listed, &[&huge]), "expected at most 4194304 bytes, found 5242880");
}

#[test]
fn indexes_in_indexes_of_an_archive_are_refused() {
    let inner = index(&[]);
    let outer = index(&[descriptor(INDEX, &inner)]);
    let listed = index(&[named(INDEX, &outer, "a.b/c:1")]);
    load_refused(&layout_archive(&listed, &[&outer, &inner]), "expected an index of manifests or a manifest");
}

#[test]
fn one_index_named_a_thousand_times_is_read_once() {
    // 5,000 children, which would be read a thousand times over.
    let child = manifest(&descriptor(CONFIG, b"{}"), &[]);
    let children: Vec<Value> = (0..5000).map(|_| descriptor(MANIFEST, &child)).collect();
    let large = index(&children);
    let one = named(INDEX, &large, "");
    let names: Vec<Value> = (0..1000)
        .map(|number| {
            let mut one = one.clone();
            one["annotations"]["org.opencontainers.image.ref.name"] = format!("a.b/c:{number}").into();
            one
        })
        .collect();
    let (_folder, layout, result) = loaded(&layout_archive(&index(&names), &[&large, &child, b"{}"]));
    assert_eq!(result.unwrap().len(), 1000);
    assert_eq!(layout.list().unwrap().len(), 1000);
}

#[test]
fn a_blob_of_an_archive_with_two_sizes_is_refused() {
    let layer = noise(1000);
    let mut other_size = descriptor(LAYER, &layer);
    other_size["size"] = 999.into();
    let right = manifest(&descriptor(CONFIG, b"{}"), &[descriptor(LAYER, &layer)]);
    let wrong = manifest(&descriptor(CONFIG, b"{}"), &[other_size]);
    for [first, second] in [[&right, &wrong], [&wrong, &right]] {
        let listed = index(&[named(MANIFEST, first, "a.b/c:1"), named(MANIFEST, second, "a.b/c:2")]);
        load_refused(&layout_archive(&listed, &[&right, &wrong, b"{}", &layer]), "bytes, found");
    }
}

#[test]
fn a_manifest_that_is_also_a_layer_is_checked_all_the_same() {
    let without_blobs = manifest(&nothing(CONFIG, 7), &[nothing(LAYER, 8)]);
    let disguise = manifest(&descriptor(CONFIG, b"{}"), &[descriptor(LAYER, &without_blobs)]);
    let listed = index(&[named(MANIFEST, &disguise, "a.b/c:1"), named(MANIFEST, &without_blobs, "a.b/c:2")]);
    let bytes = layout_archive(&listed, &[&disguise, &without_blobs, b"{}"]);
    load_refused(&bytes, "expected layer or configuration sha256:");
}

#[test]
fn more_images_than_any_archive_has_are_refused() {
    let image = manifest(&descriptor(CONFIG, b"{}"), &[]);
    let names: Vec<Value> =
        (0..2000).map(|number| named(MANIFEST, &image, &format!("a.b/c:{number}"))).collect();
    load_refused(&layout_archive(&index(&names), &[&image, b"{}"]), "found 2000");
}

#[test]
fn more_layers_than_any_image_has_are_refused() {
    let layers: Vec<Value> = (0..20_000).map(|number| nothing(LAYER, number)).collect();
    let image = manifest(&descriptor(CONFIG, b"{}"), &layers);
    let listed = index(&[named(MANIFEST, &image, "a.b/c:1")]);
    load_refused(&layout_archive(&listed, &[&image, b"{}"]), "expected layer or configuration sha256:");
}

#[test]
fn more_blobs_than_any_archive_has_are_refused() {
    let mut bytes = Vec::new();
    for number in 0..16_400_u32 {
        let content = number.to_le_bytes();
        let name = format!("blobs/sha256/{}", Digest::of(&content).encoded());
        bytes.extend(entry(EntryType::Regular, name.as_bytes(), b"", &content));
    }
    load_refused(&bytes, "expected at most 16384 blobs, found more");
}

#[test]
fn a_name_with_control_characters_is_refused() {
    let image = manifest(&descriptor(CONFIG, b"{}"), &[]);
    for name in ["\u{1b}]0;evil\u{7}", "stable\r\nfake line", "a\u{202e}b\u{0}"] {
        for key in ["org.opencontainers.image.ref.name", "io.containerd.image.name"] {
            let mut image_descriptor = descriptor(MANIFEST, &image);
            image_descriptor["annotations"] = json!({ key: name });
            let bytes = layout_archive(&index(&[image_descriptor]), &[&image, b"{}"]);
            load_refused(&bytes, "expected a name without control characters");
        }
    }
}

#[test]
fn media_types_with_control_characters_are_printed_plainly() {
    let listed = index(&[named("\u{1b}[2Jx", b"{}", "a.b/c:1")]);
    load_refused(&layout_archive(&listed, &[b"{}"]), "found \\u{1b}[2Jx");
}

#[test]
fn archives_with_headers_that_lie_are_refused() {
    // A size of 2^63 in base 256, and all ones, which is negative.
    for first in [0x80_u8, 0xff] {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..10].copy_from_slice(b"index.json");
        header.set_mode(0o644);
        header.as_old_mut().size = [0xff; 12];
        header.as_old_mut().size[0] = first;
        header.set_cksum();
        let error = loaded(header.as_bytes()).2.expect_err("hostile archive");
        assert!(words(&error).contains("found"), "{}", words(&error));
    }
    let mut header = Header::new_ustar();
    header.as_old_mut().size = *b"-0000000001\0";
    header.set_cksum();
    load_refused(header.as_bytes(), "its size is no number");
    load_refused(
        &pax("size", "18446744073709551615", entry(EntryType::Regular, b"x", b"", b"")),
        "found its end",
    );
    load_refused(
        &pax("size", "-1", entry(EntryType::Regular, b"x", b"", b"")),
        "its pax records are malformed",
    );
    load_refused(&pax("path", "../x", entry(EntryType::Regular, b"x", b"", b"")), "expected a relative name");
    for kind in [EntryType::XHeader, EntryType::XGlobalHeader, EntryType::GNULongName, EntryType::GNULongLink]
    {
        load_refused(
            &announced(kind, 64 << 20),
            "expected an extension record of at most 65536 bytes, found 67108864",
        );
        load_refused(&extension(kind, &[b'x'; 70_000]), "of at most 65536 bytes, found 70000");
    }
}
