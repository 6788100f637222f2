use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::sample::{files, universal};
use crate::{Artifact, FileMode, LayerBuilder, MediaType, Platform, Reference, Timestamp};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn a_layout_is_made_once_and_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a/b");
    assert!(matches!(Layout::open(&root), Err(LayoutError::NoSuchFolder { .. })));
    Layout::create(&root).unwrap();
    Layout::create(&root).unwrap();
    assert!(Layout::open(&root).unwrap().list().unwrap().is_empty());
    assert_eq!(
        std::fs::read_to_string(root.join("oci-layout")).unwrap(),
        r#"{"imageLayoutVersion":"1.0.0"}"#
    );
}

#[test]
fn a_folder_of_other_things_is_no_layout() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("notes.txt"), "").unwrap();
    assert!(matches!(Layout::open(folder.path()), Err(LayoutError::NotALayout { .. })));
    assert!(matches!(Layout::create(folder.path()), Err(LayoutError::NotALayout { .. })));
    let file = folder.path().join("notes.txt");
    assert!(matches!(Layout::open(&file), Err(LayoutError::NoSuchFolder { .. })));
    assert!(matches!(Layout::create(&file), Err(LayoutError::NoSuchFolder { .. })));
    std::fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(matches!(Layout::open(folder.path()), Err(LayoutError::NotALayout { .. })));
}

#[test]
fn a_name_resolves_until_it_is_removed() {
    let sample = universal();
    let found = sample.layout.resolve(&sample.reference).unwrap();
    assert_eq!(found.digest, sample.index.digest);
    let by_digest = sample.reference.with_digest(sample.index.digest);
    assert_eq!(sample.layout.resolve(&by_digest).unwrap().digest, sample.index.digest);
    let child = sample.layout.manifests(&sample.index).unwrap()[0].0.clone();
    let by_digest = sample.reference.with_digest(child.digest);
    assert_eq!(sample.layout.resolve(&by_digest).unwrap().digest, child.digest);

    let entries = sample.layout.list().unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].reference.as_ref(), Some(&sample.reference));
    assert_eq!(entries[0].descriptor.annotation(CONTAINERD_NAME), Some("127.0.0.1:5000/hello:1"));
    sample.layout.remove(&sample.reference).unwrap();
    assert!(sample.layout.resolve(&sample.reference).is_err());
    assert!(sample.layout.remove(&sample.reference).is_err());
}

#[test]
fn an_unknown_name_lists_similar_ones() {
    let sample = universal();
    sample.layout.tag(&reference("other"), &sample.index).unwrap();
    let error = sample.layout.resolve(&reference("127.0.0.1:5000/hello:2")).unwrap_err();
    assert!(error.to_string().starts_with("no such image 127.0.0.1:5000/hello:2 in layout"));
    assert_eq!(error.hint().as_deref(), Some("there is 127.0.0.1:5000/hello:1, other:latest"));
}

#[test]
fn a_name_moves_to_the_image_that_got_it_last() {
    let sample = universal();
    let child = sample.layout.manifests(&sample.index).unwrap()[1].0.clone();
    sample.layout.tag(&sample.reference, &child).unwrap();
    assert_eq!(sample.layout.list().unwrap().len(), 1);
    assert_eq!(sample.layout.resolve(&sample.reference).unwrap().digest, child.digest);
}

#[test]
fn what_is_not_in_the_layout_gets_no_name() {
    let sample = universal();
    let missing = Descriptor::new(MediaType::Index, Digest::of(b"missing"), 7);
    let result = sample.layout.tag(&reference("x"), &missing);
    assert!(matches!(result, Err(LayoutError::NoSuchBlob { .. })));
}

#[test]
fn a_truncated_blob_is_named_with_both_sizes() {
    let sample = universal();
    let blob = &sample.site.descriptor;
    let path = sample.layout.blob_path(&blob.digest);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(blob.size - 1).unwrap();
    let error = sample.layout.verify(&sample.index).unwrap_err();
    let expected =
        format!("blob {} is damaged: expected {} bytes, found {}", blob.digest, blob.size, blob.size - 1);
    assert_eq!(error.to_string(), expected);
    assert!(!sample.layout.contains(blob));
}

#[test]
fn a_changed_blob_is_named_with_both_digests() {
    let sample = universal();
    let blob = &sample.site.descriptor;
    let path = sample.layout.blob_path(&blob.digest);
    let mut content = std::fs::read(&path).unwrap();
    content[20] ^= 1;
    std::fs::write(&path, &content).unwrap();
    let error = sample.layout.verify(&sample.index).unwrap_err();
    assert!(
        matches!(error, LayoutError::DigestDiffers { digest, found } if digest == blob.digest && found == Digest::of(&content))
    );
}

#[test]
fn building_again_heals_a_truncated_blob() {
    let sample = universal();
    let blob = &sample.site.descriptor;
    std::fs::write(sample.layout.blob_path(&blob.digest), "short").unwrap();
    let content = {
        let other = universal();
        std::fs::read(other.layout.blob_path(&blob.digest)).unwrap()
    };
    sample.layout.write_blob(MediaType::LayerTarGzip, &content).unwrap();
    sample.layout.verify(&sample.index).unwrap();
}

#[test]
fn a_document_that_is_too_large_is_not_read() {
    let sample = universal();
    let blob = sample.layout.write_blob(MediaType::Index, &vec![b' '; 5 << 20]).unwrap();
    assert!(matches!(sample.layout.read_index(&blob), Err(LayoutError::TooLarge { .. })));
}

#[test]
fn indexes_in_indexes_are_refused() {
    let sample = universal();
    let nested = serde_json::to_vec(&Index::new(vec![sample.index.clone()])).unwrap();
    let nested = sample.layout.write_blob(MediaType::Index, &nested).unwrap();
    assert!(matches!(sample.layout.manifests(&nested), Err(LayoutError::NotAnImage { .. })));
    let layer = sample.site.descriptor.clone();
    assert!(matches!(sample.layout.manifests(&layer), Err(LayoutError::NotAnImage { .. })));
}

#[test]
fn the_first_platform_that_the_image_has_is_selected() {
    let sample = universal();
    let wanted = [Platform::linux_arm64(), Platform::wasi_wasm(), Platform::linux_amd64()];
    let (child, manifest) = sample.layout.select(&sample.index, &wanted).unwrap();
    assert_eq!(child.platform, Some(Platform::wasi_wasm()));
    assert_eq!(sample.layout.read_config(&manifest).unwrap().config.entrypoint, ["/app/wharf.json"]);
    let error = sample.layout.select(&sample.index, &[Platform::linux_arm64()]).unwrap_err();
    assert!(
        error.to_string().ends_with("no manifest for linux/arm64: found linux/amd64, wasi/wasm"),
        "{error}"
    );
}

#[test]
fn the_sole_image_of_a_layout_needs_no_name() {
    let sample = universal();
    assert_eq!(sample.layout.sole().unwrap().descriptor.digest, sample.index.digest);
    sample.layout.tag(&reference("same"), &sample.index).unwrap();
    assert_eq!(sample.layout.sole().unwrap().descriptor.digest, sample.index.digest);
    let child = sample.layout.manifests(&sample.index).unwrap()[0].0.clone();
    sample.layout.tag(&reference("other"), &child).unwrap();
    assert!(matches!(sample.layout.sole(), Err(LayoutError::NotOneImage { found, .. }) if found.len() == 3));
}

#[test]
fn names_by_other_tools_are_understood() {
    let sample = universal();
    let index = r#"{"schemaVersion":2,"manifests":[
        {"mediaType":"application/vnd.oci.image.index.v1+json","digest":"DIGEST","size":1,"annotations":{"org.opencontainers.image.ref.name":"1"}},
        {"mediaType":"application/vnd.oci.image.index.v1+json","digest":"DIGEST","size":1,"annotations":{"org.opencontainers.image.ref.name":"latest","io.containerd.image.name":"docker.io/library/x:latest"}},
        {"mediaType":"application/vnd.oci.image.index.v1+json","digest":"DIGEST","size":1}]}"#;
    let index = index.replace("DIGEST", &sample.index.digest.to_string());
    std::fs::write(sample.layout.root().join("index.json"), index).unwrap();
    let entries = sample.layout.list().unwrap();
    assert_eq!((entries[0].reference.as_ref(), entries[0].name.as_deref()), (None, Some("1")));
    assert_eq!(entries[1].reference, Some(reference("x")));
    assert_eq!((entries[2].reference.as_ref(), entries[2].name.as_deref()), (None, None));
}

#[test]
fn a_damaged_index_is_an_error() {
    let sample = universal();
    for content in [
        "",
        "{",
        "[]",
        r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:../../x","size":1}]}"#,
    ] {
        std::fs::write(sample.layout.root().join("index.json"), content).unwrap();
        assert!(matches!(sample.layout.list(), Err(LayoutError::InvalidIndex { .. })), "{content}");
    }
}

#[test]
fn prune_removes_what_no_name_needs() {
    let sample = universal();
    let before = files(sample.layout.root());
    std::fs::write(sample.layout.root().join(".unfinished-x"), "killed").unwrap();
    let garbage = sample.layout.write_blob(MediaType::LayerTar, b"garbage").unwrap();
    let prunable = sample.layout.prunable().unwrap();
    assert!(sample.layout.contains(&garbage), "only counted");
    let pruned = sample.layout.prune().unwrap();
    assert_eq!(pruned, Pruned { blobs: 2, bytes: 13 });
    assert_eq!(prunable, pruned);
    assert!(!sample.layout.contains(&garbage));
    assert_eq!(files(sample.layout.root()), before);

    sample.layout.remove(&sample.reference).unwrap();
    sample.layout.prune().unwrap();
    assert_eq!(files(sample.layout.root()).len(), 2);
}

#[test]
fn prune_waits_for_a_build_that_has_not_named_its_image() {
    let sample = universal();
    let building = Layout::open(sample.layout.root()).unwrap();
    let blob = building.write_blob(MediaType::LayerTar, b"unnamed").unwrap();
    // `sample` itself has written, too, and must not stand in the way.
    let pruning = Layout::open(sample.layout.root()).unwrap();
    drop(sample.layout);
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || sender.send(pruning.prune().unwrap()).unwrap());
    assert!(receiver.recv_timeout(Duration::from_millis(300)).is_err());
    assert!(building.contains(&blob));
    drop(building);
    assert_eq!(receiver.recv_timeout(Duration::from_secs(20)).unwrap().blobs, 1);
    thread.join().unwrap();
}

#[test]
fn names_given_at_once_are_all_kept() {
    let sample = universal();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let layout = Layout::open(sample.layout.root()).unwrap();
            let index = sample.index.clone();
            scope.spawn(move || layout.tag(&reference(&format!("x:{number}")), &index).unwrap());
        }
    });
    assert_eq!(sample.layout.list().unwrap().len(), 17);
}

#[test]
fn layouts_created_at_once_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("layout");
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| Layout::create(&root).unwrap().write_blob(MediaType::LayerTar, b"x").unwrap());
        }
    });
    assert_eq!(files(&root).len(), 3);
}

#[test]
fn a_cached_layer_counts_only_while_its_blob_is_whole() {
    let sample = universal();
    let cache = LayerCache::new(sample.folder.path().join("cache/layers"));
    let fingerprint = Digest::of(b"inputs");
    assert_eq!(cache.get(&sample.layout, &fingerprint), None);
    cache.put(&fingerprint, &sample.site).unwrap();
    assert_eq!(cache.get(&sample.layout, &fingerprint), Some(sample.site.clone()));
    assert_eq!(cache.prune(&sample.layout).unwrap(), Pruned::default());
    std::fs::write(sample.layout.blob_path(&sample.site.descriptor.digest), "short").unwrap();
    assert_eq!(cache.get(&sample.layout, &fingerprint), None);
    assert_eq!(cache.prunable(&sample.layout).unwrap().blobs, 1);
    assert_eq!(cache.prune(&sample.layout).unwrap().blobs, 1);
    assert_eq!(cache.prune(&sample.layout).unwrap().blobs, 0);
    std::fs::write(cache_file(&sample.folder, &fingerprint), "garbage").unwrap();
    assert_eq!(cache.get(&sample.layout, &fingerprint), None);
}

fn cache_file(folder: &tempfile::TempDir, fingerprint: &Digest) -> PathBuf {
    folder.path().join("cache/layers").join(format!("{}.json", fingerprint.encoded()))
}

#[test]
fn an_abandoned_layer_leaves_nothing() {
    let sample = universal();
    let before = files(sample.layout.root());
    let mut writer = sample.layout.blob_writer().unwrap();
    io::Write::write_all(&mut writer, b"half").unwrap();
    drop(writer);
    let mut builder = LayerBuilder::new(Timestamp::EPOCH);
    builder.add_file("x", "/nowhere", FileMode::Regular).unwrap();
    builder.write(&sample.layout).unwrap_err();
    assert_eq!(files(sample.layout.root()), before);
}

fn artifact(content: &str) -> Artifact {
    Artifact::new("application/x", content.into())
}

#[test]
fn an_artifact_is_listed_once_under_its_subject_and_not_among_the_images() {
    let sample = universal();
    let attached = sample.layout.attach(&sample.index, &artifact("a")).unwrap();
    let once = files(sample.layout.root());
    assert_eq!(sample.layout.attach(&sample.index, &artifact("a")).unwrap(), attached);
    assert_eq!(files(sample.layout.root()), once);

    let referrers = sample.layout.referrers(&sample.index.digest).unwrap();
    assert_eq!(referrers.len(), 1);
    assert_eq!(referrers[0].0, attached);
    let layer = &referrers[0].1.layers[0];
    assert_eq!(sample.layout.read_blob(layer).unwrap(), b"a");
    assert!(sample.layout.referrers(&Digest::of(b"other")).unwrap().is_empty());
    assert_eq!(sample.layout.list().unwrap().len(), 1);
    assert_eq!(sample.layout.sole().unwrap().descriptor.digest, sample.index.digest);
}

#[test]
fn nothing_is_attached_to_what_is_not_there() {
    let sample = universal();
    let before = files(sample.layout.root());
    let missing = Descriptor::new(MediaType::Index, Digest::of(b"missing"), 7);
    let result = sample.layout.attach(&missing, &artifact("a"));
    assert!(matches!(result, Err(LayoutError::NoSuchBlob { .. })));
    assert_eq!(files(sample.layout.root()), before);
}

#[test]
fn a_referrer_is_kept_exactly_as_long_as_its_subject() {
    let sample = universal();
    let before = files(sample.layout.root());
    let first = sample.layout.attach(&sample.index, &artifact("a")).unwrap();
    // A referrer of a referrer: a signed SBOM.
    let second = sample.layout.attach(&first, &artifact("b")).unwrap();
    assert_eq!(sample.layout.prune().unwrap(), Pruned::default());
    assert_eq!(sample.layout.referrers(&first.digest).unwrap()[0].0, second);

    // The name moves to another image, which contains nothing of them.
    let child = sample.layout.manifests(&sample.index).unwrap()[0].0.clone();
    sample.layout.tag(&sample.reference, &child).unwrap();
    sample.layout.prune().unwrap();
    assert!(sample.layout.referrers(&sample.index.digest).unwrap().is_empty());
    assert!(!sample.layout.contains(&first) && !sample.layout.contains(&second));
    assert!(sample.layout.attached().unwrap().is_empty());
    assert!(files(sample.layout.root()).len() < before.len());
}

#[test]
fn a_damaged_referrer_refers_to_nothing_and_is_pruned() {
    let sample = universal();
    let attached = sample.layout.attach(&sample.index, &artifact("a")).unwrap();
    let whole = sample.layout.attach(&sample.index, &artifact("b")).unwrap();
    std::fs::write(sample.layout.blob_path(&attached.digest), "short").unwrap();
    let referrers = sample.layout.referrers(&sample.index.digest).unwrap();
    assert_eq!(referrers.iter().map(|(descriptor, _)| descriptor).collect::<Vec<_>>(), [&whole]);
    sample.layout.prune().unwrap();
    assert!(!sample.layout.blob_path(&attached.digest).exists());
    assert_eq!(sample.layout.attached().unwrap(), [whole]);
}

#[test]
fn an_artifact_without_a_subject_is_an_image_like_any_other() {
    let sample = universal();
    let mut alone = sample.layout.attach(&sample.index, &artifact("a")).unwrap();
    let mut manifest = sample.layout.read_manifest(&alone).unwrap();
    manifest.subject = None;
    let content = serde_json::to_vec(&manifest).unwrap();
    let written = sample.layout.write_blob(MediaType::Manifest, &content).unwrap();
    (alone.digest, alone.size) = (written.digest, written.size);
    sample.layout.enter(&[Entry::new(alone.clone())]).unwrap();
    assert_eq!(sample.layout.list().unwrap().len(), 2);
    sample.layout.prune().unwrap();
    assert!(sample.layout.contains(&alone));
}

#[test]
fn referrers_that_other_tools_list_among_the_images_are_understood() {
    let sample = universal();
    let attached = sample.layout.attach(&sample.index, &artifact("a")).unwrap();
    std::fs::remove_file(sample.layout.root().join("referrers.json")).unwrap();
    sample.layout.enter(&[Entry::new(attached.clone())]).unwrap();
    assert_eq!(sample.layout.referrers(&sample.index.digest).unwrap()[0].0, attached);
    assert_eq!(sample.layout.list().unwrap().len(), 1);
    assert_eq!(sample.layout.prune().unwrap(), Pruned::default());
    sample.layout.remove(&sample.reference).unwrap();
    sample.layout.prune().unwrap();
    assert!(sample.layout.index().unwrap().manifests.is_empty());
    assert!(!sample.layout.contains(&attached));
}

#[test]
fn a_damaged_list_of_referrers_is_named() {
    let sample = universal();
    std::fs::write(sample.layout.root().join("referrers.json"), "{").unwrap();
    let error = sample.layout.referrers(&sample.index.digest).unwrap_err();
    assert!(error.to_string().starts_with("cannot read referrers.json of layout"), "{error}");
    assert!(matches!(sample.layout.prune(), Err(LayoutError::InvalidIndex { .. })));
}
