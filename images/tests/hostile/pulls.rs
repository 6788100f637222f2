//! Pulled from a registry.

use super::*;

/// Pulls the image and expects an error, and a layout as it was. Where the network
/// was at fault, blobs may be kept that are what they should be, which the next
/// pull need not fetch again.
async fn pull_refused(registry: &Registry) -> RegistryError {
    let (_folder, layout) = empty();
    let before = listing(layout.root());
    let error = pull(&layout, &registry.reference("demo/app:1")).await.expect_err("hostile image");
    let lies = matches!(
        error,
        RegistryError::DigestDiffers { .. }
            | RegistryError::SizeDiffers { .. }
            | RegistryError::InvalidDocument { .. }
            | RegistryError::NotAnImage { .. }
            | RegistryError::TooLarge { .. }
    );
    if lies {
        assert_eq!(listing(layout.root()), before, "{}", words(&error));
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
