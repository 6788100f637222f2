use std::path::Path;

use tar::{EntryType, Header};

use super::*;
use crate::sample::{Sample, files, universal};
use crate::tarball::TarWriter;
use crate::{Layout, LayoutError, Reference, Timestamp};

fn saved() -> (Sample, PathBuf) {
    let sample = universal();
    let path = sample.folder.path().join("hello.tar");
    save(&sample.layout, &sample.reference, &path).unwrap();
    (sample, path)
}

fn empty() -> (tempfile::TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("layout")).unwrap();
    (folder, layout)
}

/// Loads `bytes` and expects an error and an untouched layout.
fn refused(bytes: &[u8]) -> ArchiveError {
    let (folder, layout) = empty();
    let path = folder.path().join("hostile.tar");
    std::fs::write(&path, bytes).unwrap();
    let error = load(&layout, &path).expect_err("hostile archive");
    assert_eq!(files(layout.root()).into_keys().collect::<Vec<_>>(), ["index.json", "oci-layout"]);
    assert!(layout.list().unwrap().is_empty());
    error
}

/// The entries of the archive, changed by `change`, as a new archive.
fn rewritten(path: &Path, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    use std::io::Read;
    let mut reader = tar::Archive::new(std::fs::File::open(path).unwrap());
    let mut writer = TarWriter::new(Vec::new(), Timestamp::EPOCH);
    for entry in reader.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        if let Some(content) = change(&name, content) {
            writer.file(&name, 0o644, content.len() as u64, &mut content.as_slice()).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn with_entry(kind: EntryType, name: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn a_saved_image_is_the_same_after_loading() {
    let (sample, path) = saved();
    let (_folder, layout) = empty();
    let entries = load(&layout, &path).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].reference.as_ref(), Some(&sample.reference));
    assert_eq!(layout.resolve(&sample.reference).unwrap().digest, sample.index.digest);
    layout.verify(&sample.index).unwrap();
    assert_eq!(files(layout.root()), files(sample.layout.root()));
}

#[test]
fn an_archive_has_the_same_bytes_each_time() {
    let (_kept, first) = saved();
    let (_also_kept, second) = saved();
    assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap());
}

#[test]
fn an_archive_has_what_docker_reads() {
    let (sample, path) = saved();
    let seen = std::cell::Cell::new(false);
    rewritten(&path, |name, content| {
        if name == "manifest.json" {
            let json: serde_json::Value = serde_json::from_slice(&content).unwrap();
            assert_eq!(json[0]["RepoTags"][0], "127.0.0.1:5000/hello:1");
            let linux = [crate::Platform::linux_amd64()];
            let (_, manifest) = sample.layout.select(&sample.index, &linux).unwrap();
            let config = format!("blobs/sha256/{}", manifest.config.digest.encoded());
            assert_eq!(json[0]["Config"], config);
            assert_eq!(json[0]["Layers"].as_array().unwrap().len(), 2);
            seen.set(true);
        }
        Some(content)
    });
    assert!(seen.get());
}

#[test]
fn a_damaged_image_is_not_saved_and_the_old_file_stays() {
    let (sample, path) = saved();
    std::fs::write(&path, "old").unwrap();
    let blob = sample.layout.blob_path(&sample.site.descriptor.digest);
    let mut content = std::fs::read(&blob).unwrap();
    content[100] ^= 1;
    std::fs::write(&blob, content).unwrap();
    let error = save(&sample.layout, &sample.reference, &path).unwrap_err();
    assert!(matches!(error, ArchiveError::Layout(LayoutError::DigestDiffers { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(std::fs::read_dir(sample.folder.path()).unwrap().count(), 2);
}

#[test]
fn an_unknown_name_is_not_saved() {
    let (sample, path) = saved();
    let unknown: Reference = "unknown".parse().unwrap();
    let error = save(&sample.layout, &unknown, &path).unwrap_err();
    assert!(matches!(error, ArchiveError::Layout(LayoutError::NoSuchImage { .. })));
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let (_sample, path) = saved();
    let bytes = std::fs::read(&path).unwrap();
    // The last two blocks only mark the end.
    for end in (0..bytes.len() - 1024).step_by(997) {
        refused(&bytes[..end]);
    }
}

#[test]
fn a_blob_that_is_not_what_its_name_says_is_refused() {
    let (sample, path) = saved();
    let layer = sample.site.descriptor.digest;
    let bytes = rewritten(&path, |name, mut content| {
        if name.ends_with(&layer.encoded()) {
            content[50] ^= 1;
        }
        Some(content)
    });
    let error = refused(&bytes);
    assert!(matches!(error, ArchiveError::DigestDiffers { digest, .. } if digest == layer), "{error}");
}

#[test]
fn a_missing_blob_is_named() {
    let (sample, path) = saved();
    let layer = sample.site.descriptor.digest;
    let bytes = rewritten(&path, |name, content| (!name.ends_with(&layer.encoded())).then_some(content));
    let error = refused(&bytes);
    assert!(matches!(error, ArchiveError::NoSuchBlob { digest, .. } if digest == layer), "{error}");
}

#[test]
fn an_archive_without_index_or_marker_is_no_layout() {
    let (_sample, path) = saved();
    for missing in ["index.json", "oci-layout"] {
        let bytes = rewritten(&path, |name, content| (name != missing).then_some(content));
        assert!(
            matches!(refused(&bytes), ArchiveError::NotALayout { missing: found, .. } if found == missing)
        );
    }
    assert!(matches!(refused(b""), ArchiveError::NotALayout { .. }));
    assert!(matches!(refused(&[b'x'; 4096]), ArchiveError::Damaged { .. }));
}

#[test]
fn entries_that_are_no_plain_files_are_refused() {
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Block, EntryType::Fifo] {
        assert!(matches!(refused(&with_entry(kind, b"index.json")), ArchiveError::Refused { .. }));
    }
    for name in [b"../index.json".as_slice(), b"/index.json", b"blobs/../../x"] {
        assert!(matches!(refused(&with_entry(EntryType::Regular, name)), ArchiveError::Damaged { .. }));
    }
}

#[test]
fn a_second_index_in_the_archive_is_refused() {
    let (_sample, path) = saved();
    let mut writer = TarWriter::new(Vec::new(), Timestamp::EPOCH);
    writer.file("index.json", 0o644, 2, &mut b"{}".as_slice()).unwrap();
    let mut bytes = writer.finish().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes.extend(std::fs::read(path).unwrap());
    assert!(matches!(refused(&bytes), ArchiveError::Refused { .. }));
}

#[test]
fn an_index_with_a_wrong_size_is_refused() {
    let (sample, path) = saved();
    let size = format!("\"size\":{}", sample.index.size);
    let bytes = rewritten(&path, |name, content| match name {
        "index.json" => Some(String::from_utf8(content).unwrap().replace(&size, "\"size\":1").into_bytes()),
        _ => Some(content),
    });
    assert!(matches!(refused(&bytes), ArchiveError::SizeDiffers { expected: 1, .. }));
}

#[test]
fn an_image_without_a_whole_name_is_listed_as_it_came() {
    let (sample, path) = saved();
    let bytes = rewritten(&path, |name, content| match name {
        "index.json" => {
            Some(String::from_utf8(content).unwrap().replace("127.0.0.1:5000/hello:1", "stable").into_bytes())
        }
        _ => Some(content),
    });
    let (folder, layout) = empty();
    let path = folder.path().join("x.tar");
    std::fs::write(&path, bytes).unwrap();
    let entries = load(&layout, &path).unwrap();
    load(&layout, &path).unwrap();
    assert_eq!((entries[0].reference.as_ref(), entries[0].name.as_deref()), (None, Some("stable")));
    assert_eq!(layout.sole().unwrap().descriptor.digest, sample.index.digest);
    assert_eq!(layout.list().unwrap().len(), 1);
}

#[test]
fn what_is_no_regular_file_is_not_replaced_by_an_archive() {
    let sample = universal();
    let pipe = sample.folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = save(&sample.layout, &sample.reference, &pipe).unwrap_err();
    assert!(matches!(error, ArchiveError::Write { .. }), "{error}");
    assert!(!std::fs::metadata(&pipe).unwrap().is_file());
}

#[test]
fn what_refers_to_an_image_is_saved_and_loaded_with_it() {
    let sample = universal();
    let artifact = crate::Artifact::new("application/x", b"sbom".to_vec());
    let attached = sample.layout.attach(&sample.index, &artifact).unwrap();
    let path = sample.folder.path().join("hello.tar");
    save(&sample.layout, &sample.reference, &path).unwrap();

    let (_folder, layout) = empty();
    let loaded = load(&layout, &path).unwrap();
    assert_eq!(loaded.len(), 1, "{loaded:?}");
    load(&layout, &path).unwrap();
    let referrers = layout.referrers(&sample.index.digest).unwrap();
    assert_eq!(referrers.iter().map(|(one, _)| one).collect::<Vec<_>>(), [&attached]);
    assert_eq!(layout.read_blob(&referrers[0].1.layers[0]).unwrap(), b"sbom");
    assert_eq!(files(layout.root()), files(sample.layout.root()));
}

#[test]
fn a_list_of_referrers_that_are_none_is_refused() {
    let sample = universal();
    sample.layout.attach(&sample.index, &crate::Artifact::new("application/x", b"sbom".to_vec())).unwrap();
    let path = sample.folder.path().join("hello.tar");
    save(&sample.layout, &sample.reference, &path).unwrap();
    let with = |list: Vec<u8>| {
        refused(&rewritten(&path, |name, content| {
            Some(if name == "referrers.json" { list.clone() } else { content })
        }))
    };
    // An index in the place of an artifact's manifest.
    let index = serde_json::to_vec(&crate::Index::new(vec![sample.index.clone()])).unwrap();
    assert!(matches!(with(index), ArchiveError::NotAnImage { .. }));
    assert!(matches!(with(b"[".to_vec()), ArchiveError::InvalidDocument { .. }));
    let missing = crate::Descriptor::new(crate::MediaType::Manifest, Digest::of(b"missing"), 7);
    let missing = serde_json::to_vec(&crate::Index::new(vec![missing])).unwrap();
    assert!(matches!(with(missing), ArchiveError::NoSuchBlob { .. }));
}
