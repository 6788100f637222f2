//! Images that nobody means well with: pulled from a registry, loaded from an
//! archive, unpacked into a folder. Each is refused with words that say why,
//! and leaves nothing.

// A failing helper is a failing test.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::*;
use tar::{EntryType, Header};
use wharf_images::{
    ArchiveError, ContainerConfig, Descriptor, Digest, Entry, ImageBuilder, Layer, Layout, LayoutError,
    MediaType, Platform, Reference, RegistryError, UnpackError, UnpackOptions, Unpacked, load, unpack,
};

const MIB: usize = 1 << 20;
const REPOSITORY: &str = "demo/app";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len() })
}

fn manifest(config: &Value, layers: &[Value]) -> Vec<u8> {
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    manifest.to_string().into_bytes()
}

fn index(manifests: &[Value]) -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string().into_bytes()
}

/// A descriptor of something that nobody has, another one for each number.
fn nothing(media_type: &str, number: usize) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{number:064x}"), "size": 1 })
}

// Pull.

/// Pulls the image and expects an error, and a layout as it was but for blobs
/// that are what they should be, which the next pull need not fetch again.
async fn pull_refused(registry: &Registry) -> RegistryError {
    let (_folder, layout) = empty();
    let before = listing(layout.root());
    let error = pull(&layout, &registry.reference("demo/app:1")).await.expect_err("hostile image");
    // A thread may still be writing a blob whose pull has ended.
    let deadline = Instant::now() + Duration::from_secs(20);
    while listing(layout.root()).iter().any(|(name, _)| name.starts_with(".unfinished-")) {
        assert!(Instant::now() < deadline, "half a blob is left: {}", words(&error));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (name, _) in listing(layout.root()).into_iter().filter(|listed| !before.contains(listed)) {
        let content = fs::read(layout.root().join(&name)).unwrap();
        assert_eq!(name, format!("blobs/sha256/{}", Digest::of(&content).encoded()), "{}", words(&error));
    }
    assert!(layout.list().unwrap().is_empty());
    error
}

/// A registry with this document as `demo/app:1`.
async fn publishing(media_type: &str, content: Vec<u8>) -> Registry {
    let registry = Registry::start(Quirks::default()).await;
    registry.store().publish(REPOSITORY, "1", media_type, content);
    registry
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_another_digest_or_size_is_not_kept() {
    let registry = Registry::start(Quirks::default()).await;
    let sample = sample(&registry.reference("demo/app:1"), 300_000);
    registry.host(&sample.layout, REPOSITORY, "1", &sample.index);
    let digest = sample.layer.digest;
    let right = registry.store().blobs[&digest].to_vec();
    let mut changed = right.clone();
    changed[150_000] ^= 1;
    let short = right[..299_999].to_vec();
    let long = [&right[..], b"x"].concat();
    for (content, found) in [
        (changed.clone(), format!("found content with digest {}", Digest::of(&changed))),
        (short, "expected 300000 bytes, found 299999".into()),
        (long, "expected 300000 bytes, found 300001".into()),
    ] {
        registry.store().blobs.insert(digest, content.into());
        let text = pull_refused(&registry).await.to_string();
        assert_eq!(text, format!("cannot pull blob {digest}: {found}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_without_end_is_given_up_soon() {
    let registry = Registry::start(Quirks::default()).await;
    let sample = sample(&registry.reference("demo/app:1"), 300_000);
    registry.host(&sample.layout, REPOSITORY, "1", &sample.index);
    let endless = Answer::new(200).unmeasured(Source::Blank(1 << 40));
    registry.fault(Fault::on("GET", sample.layer.digest.encoded(), Action::Answer(endless)).always());
    let error = pull_refused(&registry).await;
    assert!(matches!(error, RegistryError::SizeDiffers { expected: 300_000, .. }), "{}", words(&error));
    let sent: u64 = registry.requests("GET", &sample.layer.digest.encoded()).iter().map(Exchange::sent).sum();
    assert!(sent < 16 * MIB as u64, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_always_ends_early_is_given_up() {
    let registry = Registry::start(Quirks { ranges: false, ..Quirks::default() }).await;
    let sample = sample(&registry.reference("demo/app:1"), 300_000);
    registry.host(&sample.layout, REPOSITORY, "1", &sample.index);
    registry.fault(Fault::on("GET", sample.layer.digest.encoded(), Action::Cut(100_000)).always());
    let text = words(&pull_refused(&registry).await);
    assert!(text.contains(&registry.address), "{text}");
    assert!(registry.requests("GET", &sample.layer.digest.encoded()).len() < 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_without_end_is_given_up_soon() {
    let length = (1_u64 << 40).to_string();
    for answer in [
        // A registry that says how much it is, and one that does not.
        Answer::new(200).unmeasured(Source::Blank(1 << 40)).header("content-length", length),
        Answer::new(200).unmeasured(Source::Blank(1 << 40)),
    ] {
        let registry = Registry::start(Quirks::default()).await;
        let answer = answer.header("content-type", INDEX);
        registry.fault(Fault::on("GET", "/manifests/", Action::Answer(answer)).always());
        let error = pull_refused(&registry).await;
        assert!(words(&error).contains("expected"), "{}", words(&error));
        assert!(words(&error).contains("4194304 bytes"), "{}", words(&error));
        let sent: u64 = registry.requests("GET", "/manifests/").iter().map(Exchange::sent).sum();
        // What is on its way in the sockets counts, too.
        assert!(sent < 24 * MIB as u64, "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_tokens_and_lists_without_end_are_given_up_soon() {
    let endless = |status| Action::Answer(Answer::new(status).unmeasured(Source::Blank(1 << 40)));
    let tokens = Auth::Tokens(Tokens { anonymous: true, ..Tokens::default() });
    for (needle, action) in
        [("/manifests/", endless(400)), ("/manifests/", endless(404)), ("/token", endless(200))]
    {
        let registry = Registry::start(Quirks { auth: tokens.clone(), ..Quirks::default() }).await;
        registry.fault(Fault::on("GET", needle, action).always());
        let text = words(&pull_refused(&registry).await);
        assert!(text.contains(&registry.address), "{text}");
        let sent: u64 = registry.exchanges().iter().map(Exchange::sent).sum();
        assert!(sent < 24 * MIB as u64, "{needle} {sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_digest_or_size_is_refused() {
    let other = manifest(&nothing(CONFIG, 1), &[]);
    let mut child = descriptor(MANIFEST, &other);
    child["digest"] = Digest::of(b"wanted").to_string().into();
    let registry = publishing(INDEX, index(&[child])).await;
    let name = (REPOSITORY.to_owned(), Digest::of(b"wanted").to_string());
    registry.store().manifests.insert(name, (MANIFEST.into(), other.clone().into()));
    let text = pull_refused(&registry).await.to_string();
    let (wanted, found) = (Digest::of(b"wanted"), Digest::of(&other));
    assert_eq!(text, format!("cannot pull manifest {wanted}: found content with digest {found}"));

    let mut child = descriptor(MANIFEST, &other);
    child["size"] = (other.len() + 1).into();
    let registry = publishing(INDEX, index(&[child])).await;
    registry.store().publish(REPOSITORY, "child", MANIFEST, other.clone());
    let text = pull_refused(&registry).await.to_string();
    let (expected, found) = (other.len() + 1, other.len());
    assert!(text.contains(&format!("expected {expected} bytes, found {found}")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_or_manifest_of_two_sizes_is_refused() {
    let layer = noise(1000);
    let right = manifest(&descriptor(CONFIG, b"{}"), &[descriptor(LAYER, &layer)]);
    let mut other_size = descriptor(LAYER, &layer);
    other_size["size"] = 999.into();
    let wrong = manifest(&descriptor(CONFIG, b"{}"), &[other_size]);
    let mut child_of_other_size = descriptor(MANIFEST, &right);
    child_of_other_size["size"] = 1.into();
    for children in [
        [descriptor(MANIFEST, &right), descriptor(MANIFEST, &wrong)],
        [descriptor(MANIFEST, &wrong), descriptor(MANIFEST, &right)],
        [descriptor(MANIFEST, &right), child_of_other_size],
    ] {
        let registry = publishing(INDEX, index(&children)).await;
        for content in [&right, &wrong] {
            registry.store().publish(REPOSITORY, "child", MANIFEST, content.clone());
        }
        for content in [b"{}".to_vec(), layer.clone()] {
            registry.store().link(REPOSITORY, content);
        }
        let text = words(&pull_refused(&registry).await);
        assert!(text.contains("expected") && text.contains("found"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_in_an_index_is_refused_however_deep() {
    // No index can hold its own digest; this one says that it does.
    let mut itself = descriptor(INDEX, b"x");
    itself["digest"] = format!("sha256:{}", "0".repeat(64)).into();
    let looping = index(&[itself]);
    let registry = publishing(INDEX, looping.clone()).await;
    let name = (REPOSITORY.to_owned(), format!("sha256:{}", "0".repeat(64)));
    registry.store().manifests.insert(name, (INDEX.into(), looping.into()));
    let text = pull_refused(&registry).await.to_string();
    assert!(
        text.contains("expected an index of manifests or a manifest, found") && text.contains(INDEX),
        "{text}"
    );

    let mut inner = index(&[]);
    let registry = Registry::start(Quirks::default()).await;
    for _ in 0..1000 {
        registry.store().publish(REPOSITORY, "1", INDEX, inner.clone());
        inner = index(&[descriptor(INDEX, &inner)]);
    }
    let text = pull_refused(&registry).await.to_string();
    assert!(text.contains("found application/vnd.oci.image.index"), "{text}");
    assert!(registry.exchanges().len() <= 4, "{:?}", registry.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_too_many_manifests_is_refused() {
    for (count, words_of_it) in [(100_000, "4194304 bytes"), (20_000, "20000 manifests")] {
        let children: Vec<Value> = (0..count).map(|number| nothing(MANIFEST, number)).collect();
        let registry = publishing(INDEX, index(&children)).await;
        let text = words(&pull_refused(&registry).await);
        assert!(text.contains(words_of_it), "{text}");
        assert!(registry.exchanges().len() <= 4, "{}", registry.exchanges().len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_too_many_layers_is_refused() {
    for (count, words_of_it) in [(100_000, "4194304 bytes"), (20_000, "20000 layers")] {
        let layers: Vec<Value> = (0..count).map(|number| nothing(LAYER, number)).collect();
        let registry = publishing(MANIFEST, manifest(&nothing(CONFIG, count), &layers)).await;
        let text = words(&pull_refused(&registry).await);
        assert!(text.contains(words_of_it), "{text}");
        assert!(registry.exchanges().len() <= 4, "{}", registry.exchanges().len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_another_kind_than_they_say_are_refused() {
    let right = manifest(&nothing(CONFIG, 1), &[]);
    let swapped = String::from_utf8(right.clone()).unwrap().replace(MANIFEST, INDEX).into_bytes();
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    for (media_type, content) in [
        (INDEX, swapped),
        (MANIFEST, config.to_vec()),
        (MANIFEST, b"[]".to_vec()),
        (MANIFEST, b"not json".to_vec()),
        (MANIFEST, b"".to_vec()),
        (MANIFEST, vec![b'['; 100_000]),
        (CONFIG, json!({ "mediaType": CONFIG }).to_string().into_bytes()),
    ] {
        let registry = publishing(media_type, content).await;
        let text = words(&pull_refused(&registry).await);
        assert!(text.contains("demo/app:1: expected an index"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_layers_are_not_fetched_from_where_they_say() {
    let elsewhere = Registry::start_on("127.0.0.2", Quirks::default()).await;
    let content = noise(1000);
    elsewhere.store().link("x", content.clone());
    let mut layer = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", &content);
    layer["urls"] = json!([format!("http://{}/v2/x/blobs/{}", elsewhere.address, Digest::of(&content))]);
    let registry = publishing(MANIFEST, manifest(&descriptor(CONFIG, b"{}"), &[layer])).await;
    registry.store().link(REPOSITORY, b"{}".to_vec());
    let text = words(&pull_refused(&registry).await);
    assert!(text.contains(&registry.address), "{text}");
    assert!(elsewhere.exchanges().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_without_end_are_given_up() {
    let registry = Registry::start(Quirks::default()).await;
    let sample = sample(&registry.reference("demo/app:1"), 1000);
    registry.host(&sample.layout, REPOSITORY, "1", &sample.index);
    let path = format!("/v2/{REPOSITORY}/blobs/{}", sample.layer.digest);
    let answer = Answer::new(307).header("location", path.clone());
    registry.fault(Fault::on("GET", path, Action::Answer(answer)).always());
    let text = words(&pull_refused(&registry).await);
    assert!(text.contains(&registry.address) && text.contains("redirect"), "{text}");
    assert!(registry.exchanges().len() < 50, "{}", registry.exchanges().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_a_registry_do_not_reach_the_terminal_as_commands() {
    let evil = "\u{1b}]0;evil\u{7}\u{1b}[2J";
    let by_code = json!({ "errors": [{ "code": "DENIED", "message": evil }] }).to_string();
    let registry = Registry::start(Quirks::default()).await;
    for body in [by_code, evil.to_owned()] {
        let answer = Answer::new(403).header("content-type", "application/json").body(body);
        registry.fault(Fault::on("GET", "/manifests/", Action::Answer(answer)));
        assert_plain(&words(&pull_refused(&registry).await));
    }
    let document = json!({ "schemaVersion": 2, "mediaType": evil, "manifests": [] }).to_string();
    let registry = publishing(INDEX, document.into_bytes()).await;
    assert_plain(&words(&pull_refused(&registry).await));
}

fn assert_plain(text: &str) {
    assert!(!text.contains(|character: char| character.is_control()), "{text:?}");
}

// Load.

/// A tar of plain files.
fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        archive.extend(entry(EntryType::Regular, name.as_bytes(), b"", content));
    }
    archive
}

/// A header with its content, which no honest tool need have written.
fn entry(kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// An archive with this `index.json` and these blobs.
fn layout_archive(index: &[u8], blobs: &[&[u8]]) -> Vec<u8> {
    let mut files = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index.to_vec()),
    ];
    files.extend(
        blobs.iter().map(|blob| (format!("blobs/sha256/{}", Digest::of(blob).encoded()), blob.to_vec())),
    );
    archive(&files)
}

fn named(media_type: &str, content: &[u8], name: &str) -> Value {
    let mut descriptor = descriptor(media_type, content);
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    descriptor
}

fn loaded(archive: &[u8]) -> (tempfile::TempDir, Layout, Result<Vec<Entry>, ArchiveError>) {
    let (folder, layout) = empty();
    let path = folder.path().join("archive.tar");
    fs::write(&path, archive).unwrap();
    let before = listing(folder.path());
    let began = Instant::now();
    let result = load(&layout, &path);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    if let Err(error) = &result {
        assert_eq!(listing(folder.path()), before, "{}", words(error));
    }
    (folder, layout, result)
}

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

/// A header alone, which says that much comes after it.
fn announced(kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn extension(kind: EntryType, content: &[u8]) -> Vec<u8> {
    entry(kind, b"extension", b"", content)
}

/// An entry with a pax record before it.
fn pax(key: &str, value: &str, entry: Vec<u8>) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    [extension(EntryType::XHeader, format!("{length}{rest}").as_bytes()), entry].concat()
}

// Unpack.

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

// Layouts made by others.

#[test]
fn a_layout_whose_files_are_no_files_is_refused_at_once() {
    let reference: Reference = "a.b/c:1".parse().unwrap();
    let sample = sample(&reference, 1000);
    let blob = sample.layout.blob_path(&sample.layer.digest);
    let marker = sample.layout.root().join("oci-layout");
    let list = sample.layout.root().join("index.json");
    for path in [&blob, &list, &marker] {
        let content = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        let error = at_once(sample.layout.root().into(), reference.clone()).expect_err("a layout of fifos");
        assert!(words(&error).contains("expected a file"), "{}", words(&error));
        fs::remove_file(path).unwrap();
        fs::write(path, content).unwrap();
    }
    // A device that never ends.
    fs::remove_file(&list).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &list).unwrap();
    let error = at_once(sample.layout.root().into(), reference).expect_err("an endless index");
    assert!(words(&error).contains("expected a file"), "{}", words(&error));
}

/// Verifies an image on a thread of its own, which a fifo would hold for ever.
fn at_once(root: PathBuf, reference: Reference) -> Result<(), LayoutError> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let verify = |root: &Path| -> Result<(), LayoutError> {
            let layout = Layout::open(root)?;
            let image: Descriptor = layout.resolve(&reference)?;
            layout.verify(&image)
        };
        let _ = sender.send(verify(&root));
    });
    receiver.recv_timeout(Duration::from_secs(20)).expect("it hangs")
}

// Found by the fuzz target `index`.
#[test]
fn a_name_by_digest_is_only_that_of_what_has_the_digest() {
    let image = manifest(&descriptor(CONFIG, b"{}"), &[]);
    let (right, other) = (Digest::of(&image), Digest::of(b"other"));
    for (digest, expected) in [(right, Some(right)), (other, None)] {
        let listed = index(&[named(MANIFEST, &image, &format!("a.b/c@{digest}"))]);
        let (_folder, layout, result) = loaded(&layout_archive(&listed, &[&image, b"{}"]));
        let reference = result.unwrap().remove(0).reference;
        assert_eq!(reference.as_ref().and_then(Reference::digest), expected);
        if let Some(reference) = reference {
            assert_eq!(layout.resolve(&reference).unwrap().digest, right);
        }
    }
}

#[test]
fn names_of_a_foreign_layout_do_not_reach_the_terminal_as_commands() {
    let (_folder, layout) = empty();
    let mut image = named(MANIFEST, b"{}", "\u{1b}[2Jevil");
    image["platform"] = json!({ "architecture": "\u{1b}[2J", "os": "\u{7}" });
    let child = image.clone();
    let listed = layout.write_blob(MediaType::Index, &index(&[child])).unwrap();
    let mut top = serde_json::to_value(&listed).unwrap();
    top["annotations"] = json!({ "org.opencontainers.image.ref.name": "\u{1b}[2Jevil" });
    fs::write(layout.root().join("index.json"), index(&[top, image])).unwrap();
    for entry in layout.list().unwrap() {
        assert_eq!(entry.name, None);
    }
    let unknown: Reference = "a.b/c:1".parse().unwrap();
    for error in [layout.sole().unwrap_err(), layout.resolve(&unknown).unwrap_err()] {
        assert_plain(&words(&error));
        assert_plain(&error.hint().unwrap_or_default());
    }
    let error = layout.select(&listed, &[Platform::linux_amd64()]).unwrap_err();
    assert_plain(&words(&error));
}
