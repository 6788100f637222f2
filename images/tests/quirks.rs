//! Push and pull against registries that behave as real ones do, which is not
//! always as distribution-spec says.

// A failing helper is a failing test.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, SystemTime};

use serde_json::json;
use support::*;
use wharf_images::{Client, ClientOptions, Layout, Reference, RegistryError};

const MIB: usize = 1 << 20;
const NAME: &str = "demo/app:1";
const REPOSITORY: &str = "demo/app";
const REFUSED: &str = "wants a login";

#[tokio::test(flavor = "multi_thread")]
async fn acts_as_the_environment_says() {
    act().await;
}

/// A registry and an image for it whose layer has `size` bytes.
async fn scene(quirks: Quirks, size: usize) -> (Registry, Reference, Sample) {
    let registry = Registry::start(quirks).await;
    let reference = registry.reference(NAME);
    let sample = sample(&reference, size);
    (registry, reference, sample)
}

/// The same with the image in the registry, and an empty layout.
async fn hosted(quirks: Quirks, size: usize) -> (Registry, Reference, Sample, tempfile::TempDir, Layout) {
    let (registry, reference, sample) = scene(quirks, size).await;
    registry.host(&sample.layout, REPOSITORY, "1", &sample.index);
    let (folder, layout) = empty();
    (registry, reference, sample, folder, layout)
}

fn assert_pushed(registry: &Registry, sample: &Sample) {
    let there = registry.has_image(&sample.layout, REPOSITORY, "1", &sample.index);
    assert!(there, "{:#?}", registry.lines());
}

fn assert_pulled(layout: &Layout, reference: &Reference, sample: &Sample) {
    let image = layout.resolve(reference).unwrap();
    assert_eq!(image.digest, sample.index.digest);
    layout.verify(&image).unwrap();
}

/// Bytes of blobs that the registry read in all uploads.
fn uploaded(registry: &Registry) -> u64 {
    registry.exchanges().iter().filter(|one| one.path.contains("uploads/")).map(|one| one.received).sum()
}

fn anonymous_tokens() -> Auth {
    Auth::Tokens(Tokens { anonymous: true, ..Tokens::default() })
}

fn user_tokens() -> Tokens {
    Tokens { user: Some(("me".into(), "secret".into())), ..Tokens::default() }
}

fn login(registry: &str, user: &str, password: &str) -> serde_json::Value {
    json!({ "auths": { registry: { "auth": base64(&format!("{user}:{password}")) } } })
}

/// `PUT` of the sample's layer, as a fault's needle.
fn layer_digest(sample: &Sample) -> String {
    sample.layer.digest.encoded()
}

fn ghcr() -> Quirks {
    Quirks {
        patch: Patch::AtMost(4 * MIB, 416),
        location: Location::Relative,
        uploads_resume: false,
        referrers: false,
        auth: anonymous_tokens(),
        ..Quirks::default()
    }
}

fn ecr() -> Quirks {
    Quirks {
        patched: 201,
        least_chunk: Some(5 * MIB),
        manifest_location: false,
        auth: Auth::Basic { user: "AWS".into(), password: "token".into() },
        ..Quirks::default()
    }
}

fn google() -> Quirks {
    Quirks {
        patch: Patch::Refused(405),
        location: Location::Elsewhere,
        uploads_resume: false,
        auth: anonymous_tokens(),
        ..Quirks::default()
    }
}

fn harbor() -> Quirks {
    Quirks { location: Location::Relative, auth: anonymous_tokens(), ..Quirks::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn ghcr_gets_a_large_blob_in_one_put() {
    let (registry, reference, sample) = scene(ghcr(), 6 * MIB).await;
    push(&sample.layout, &reference).await.unwrap();
    assert_pushed(&registry, &sample);
    let puts = registry.requests("PUT", &layer_digest(&sample));
    assert_eq!(puts.len(), 1);
    // Storage behind registries refuses bodies that do not say how long they are.
    assert_eq!(puts[0].header("content-length"), Some((6 * MIB).to_string().as_str()));
    assert_eq!(uploaded(&registry), sample.layer.size + sample.config.size);
    let (_folder, layout) = empty();
    pull(&layout, &reference).await.unwrap();
    assert_pulled(&layout, &reference, &sample);
}

#[tokio::test(flavor = "multi_thread")]
async fn ecr_takes_a_login_and_gives_no_location_of_a_manifest() {
    let (registry, reference, sample) = scene(ecr(), 100_000).await;
    let process = Process::new(&login(&registry.address, "AWS", "token"));
    let (ok, text) = process.push(&sample.layout, &reference).await;
    assert!(ok, "{text}");
    assert_pushed(&registry, &sample);
}

#[tokio::test(flavor = "multi_thread")]
async fn google_gets_no_chunks_and_keeps_the_query_of_its_location() {
    let (registry, reference, sample) = scene(google(), 300_000).await;
    push(&sample.layout, &reference).await.unwrap();
    assert_pushed(&registry, &sample);
    assert!(registry.requests("PATCH", "").is_empty());
    for put in registry.requests("PUT", "artifacts-uploads") {
        let query = parse_query(&put.query);
        assert!(query["_state"].ends_with("=="), "{query:?}");
        assert_eq!(query["a"], "b");
        assert!(query["digest"].starts_with("sha256:"), "{query:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn harbor_gives_relative_locations() {
    let (registry, reference, sample) = scene(harbor(), 300_000).await;
    push(&sample.layout, &reference).await.unwrap();
    assert_pushed(&registry, &sample);
    let (_folder, layout) = empty();
    pull(&layout, &reference).await.unwrap();
    assert_pulled(&layout, &reference, &sample);
}

/// Docker Hub by its own names, which a proxy answers for.
async fn docker_hub(name: &str) -> (Registry, Reference, Sample, serde_json::Value) {
    let quirks = Quirks {
        content_from: Some("http://production.cloudflare.docker.com".into()),
        auth: Auth::Tokens(Tokens { realm: Some("http://auth.docker.io/token".into()), ..user_tokens() }),
        ..Quirks::default()
    };
    let registry = Registry::start(quirks).await;
    let reference: Reference = name.parse().unwrap();
    let sample = sample(&reference, 100_000);
    (registry, reference, sample, login("https://index.docker.io/v1/", "me", "secret"))
}

fn through_proxy(login: &serde_json::Value, registry: &Registry) -> Process {
    let proxy = format!("http://{}", registry.address);
    Process::new(login)
        .env("HTTP_PROXY", &proxy)
        .env("http_proxy", &proxy)
        .env("NO_PROXY", "")
        .env("no_proxy", "")
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_hub_has_official_images_under_library() {
    let (registry, reference, sample, login) = docker_hub("hello:1").await;
    registry.host(&sample.layout, "library/hello", "1", &sample.index);
    let (_folder, layout) = empty();
    let (ok, text) = through_proxy(&login, &registry).pull(&layout, &reference).await;
    assert!(ok, "{text} {:#?}", registry.lines());
    assert_pulled(&layout, &reference, &sample);
    let hosts: Vec<String> = registry.exchanges().iter().map(|one| one.host.clone()).collect();
    assert!(hosts.contains(&"auth.docker.io".into()), "{hosts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_hubs_content_servers_get_no_credentials() {
    let (registry, reference, sample, login) = docker_hub("someone/hello:1").await;
    registry.host(&sample.layout, "someone/hello", "1", &sample.index);
    let (_folder, layout) = empty();
    let (ok, text) = through_proxy(&login, &registry).pull(&layout, &reference).await;
    assert!(ok, "{text}");
    assert_pulled(&layout, &reference, &sample);
    let content = registry.requests("GET", "/content/");
    assert_eq!(content.len(), 2, "{:#?}", registry.lines());
    for one in content {
        assert_eq!(one.host, "production.cloudflare.docker.com");
        assert_eq!((one.header("authorization"), one.header("cookie")), (None, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_on_another_host_gets_no_basic_credentials() {
    let content = Registry::start_on("127.0.0.2", Quirks::default()).await;
    let quirks = Quirks {
        content_from: Some(format!("http://{}", content.address)),
        auth: Auth::Basic { user: "me".into(), password: "secret".into() },
        ..Quirks::default()
    };
    let (registry, reference, sample, _folder, layout) = hosted(quirks, 100_000).await;
    content.host(&sample.layout, REPOSITORY, "1", &sample.index);
    let (ok, text) = Process::new(&login(&registry.address, "me", "secret")).pull(&layout, &reference).await;
    assert!(ok, "{text}");
    let taken = content.exchanges();
    assert_eq!(taken.len(), 2);
    assert!(taken.iter().all(|one| one.header("authorization").is_none()), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_redirected_to_does_not_choose_where_credentials_go() {
    let content = Registry::start_on("127.0.0.2", Quirks::default()).await;
    // It asks for a login by a token service of its own.
    let thief = format!("Bearer realm=\"http://{}/token\",service=\"thief\"", content.address);
    let answer = || Answer::error(401, "UNAUTHORIZED").header("www-authenticate", thief.clone());
    content.fault(Fault::on("GET", "", Action::Answer(answer())).always());
    let quirks = Quirks {
        content_from: Some(format!("http://{}", content.address)),
        auth: Auth::Tokens(user_tokens()),
        ..Quirks::default()
    };
    let (registry, reference, _sample, _folder, layout) = hosted(quirks, 100_000).await;
    let (ok, text) = Process::new(&login(&registry.address, "me", "secret")).pull(&layout, &reference).await;
    assert!(!ok && text.contains(REFUSED), "{text}");
    let asked = content.exchanges();
    assert!(!asked.is_empty());
    for one in asked {
        assert!(!one.path.contains("/token") && one.header("authorization").is_none(), "{one:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_pass_are_tried_again() {
    for status in [500, 502, 503, 504] {
        let (registry, reference, sample) = scene(Quirks::default(), 100_000).await;
        let failing = |method, needle: &str| {
            Fault::on(method, needle, Action::Answer(Answer::error(status, "UNAVAILABLE"))).times(2)
        };
        registry.fault(failing("HEAD", "/blobs/sha256:"));
        registry.fault(failing("POST", "/blobs/uploads/"));
        registry.fault(failing("PUT", &layer_digest(&sample)));
        registry.fault(failing("PUT", "/manifests/1"));
        push(&sample.layout, &reference).await.unwrap();
        assert_pushed(&registry, &sample);

        registry.fault(failing("GET", "/manifests/1"));
        registry.fault(failing("GET", "/blobs/sha256:"));
        let (_folder, layout) = empty();
        pull(&layout, &reference).await.unwrap();
        assert_pulled(&layout, &reference, &sample);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_that_do_not_pass_are_given_up_and_name_registry_and_answer() {
    let (registry, reference, sample) = scene(Quirks::default(), 1000).await;
    registry.fault(Fault::on("PUT", "/blobs/", Action::Answer(Answer::error(503, "UNAVAILABLE"))).always());
    let error = push(&sample.layout, &reference).await.unwrap_err();
    assert!(error.to_string().contains(&registry.address), "{error}");
    assert!(words(&error).contains("503"), "{}", words(&error));
    // Six tries a blob, and none without end.
    let tries = registry.requests("PUT", "/blobs/").len();
    assert!((2..=12).contains(&tries), "{tries}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_cannot_change_are_not_asked_for_again() {
    for (status, code) in [(400, "MANIFEST_INVALID"), (403, "DENIED"), (404, "NAME_UNKNOWN")] {
        let (registry, reference, sample) = scene(Quirks::default(), 1000).await;
        registry.fault(Fault::on("PUT", "/manifests/", Action::Answer(Answer::error(status, code))).always());
        let error = push(&sample.layout, &reference).await.unwrap_err();
        assert!(words(&error).contains(&registry.address), "{}", words(&error));
        assert_eq!(registry.requests("PUT", "/manifests/").len(), 1, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_busy_is_given_the_time_it_asks_for() {
    let busy =
        |value: String| Action::Answer(Answer::error(429, "TOOMANYREQUESTS").header("retry-after", value));
    let (registry, reference, sample) = scene(Quirks::default(), 1000).await;
    registry.fault(Fault::on("PUT", layer_digest(&sample), busy("1".into())));
    push(&sample.layout, &reference).await.unwrap();
    assert_pushed(&registry, &sample);
    let puts = registry.requests("PUT", &layer_digest(&sample));
    assert_eq!(puts.len(), 2);
    let waited = puts[1].arrived - puts[0].arrived;
    assert!(waited >= Duration::from_millis(990), "{waited:?}");

    // Also as a date (RFC 9110, 10.2.3), which has whole seconds.
    let (_folder, layout) = empty();
    registry.fault(Fault::on(
        "GET",
        "/manifests/1",
        busy(httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3))),
    ));
    pull(&layout, &reference).await.unwrap();
    let gets = registry.requests("GET", "/manifests/1");
    assert_eq!(gets.len(), 2);
    let waited = gets[1].arrived - gets[0].arrived;
    assert!(waited >= Duration::from_millis(1500), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_an_hour_is_given_up() {
    let (registry, reference, sample) = scene(Quirks::default(), 1000).await;
    let answer = Answer::error(429, "TOOMANYREQUESTS").header("retry-after", "3600");
    registry.fault(Fault::on("PUT", "/blobs/", Action::Answer(answer)).always());
    let error = push(&sample.layout, &reference).await.unwrap_err();
    assert!(error.to_string().contains(&registry.address), "{error}");
    assert!(words(&error).contains("429"), "{}", words(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_broke_off_goes_on_where_the_registry_has_it() {
    for patched in [202, 201] {
        let quirks = Quirks { patched, ..Quirks::default() };
        let (registry, reference, sample) = scene(quirks, 3 * MIB).await;
        registry.fault(Fault::on("PUT", layer_digest(&sample), Action::CloseAfter(MIB)));
        push(&sample.layout, &reference).await.unwrap();
        assert_pushed(&registry, &sample);
        // Nothing twice: the first mebibyte was kept.
        assert_eq!(uploaded(&registry), sample.layer.size + sample.config.size, "{:#?}", registry.lines());
        assert_eq!(registry.requests("POST", "/blobs/uploads/").len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_broke_off_twice_goes_on_twice() {
    let (registry, reference, sample) = scene(Quirks::default(), 3 * MIB).await;
    registry.fault(Fault::on("PUT", layer_digest(&sample), Action::CloseAfter(MIB)));
    registry.fault(Fault::on("PATCH", "/blobs/uploads/", Action::CloseAfter(MIB)));
    push(&sample.layout, &reference).await.unwrap();
    assert_pushed(&registry, &sample);
    assert_eq!(uploaded(&registry), sample.layer.size + sample.config.size, "{:#?}", registry.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_broke_off_before_its_first_byte_ends_right() {
    // Docker's registry says 0-0 of an upload without a byte, as of one with one.
    let (registry, reference, sample) = scene(Quirks::default(), MIB).await;
    registry.fault(Fault::on("PUT", layer_digest(&sample), Action::CloseAfter(0)));
    push(&sample.layout, &reference).await.unwrap();
    assert_pushed(&registry, &sample);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_registry_forgot_begins_anew() {
    for quirks in [ghcr(), google()] {
        let (registry, reference, sample) = scene(quirks, 3 * MIB).await;
        registry.fault(Fault::on("PUT", layer_digest(&sample), Action::CloseAfter(MIB)));
        push(&sample.layout, &reference).await.unwrap();
        assert_pushed(&registry, &sample);
        let expected = sample.layer.size + sample.config.size + MIB as u64;
        assert_eq!(uploaded(&registry), expected, "{:#?}", registry.lines());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_whose_answer_was_lost_is_not_sent_again() {
    let (registry, reference, sample) = scene(Quirks::default(), MIB).await;
    registry.fault(Fault::on("PUT", layer_digest(&sample), Action::Swallow));
    push(&sample.layout, &reference).await.unwrap();
    assert_pushed(&registry, &sample);
    assert_eq!(uploaded(&registry), sample.layer.size + sample.config.size, "{:#?}", registry.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_broke_off_goes_on_with_a_range() {
    let (registry, reference, sample, _folder, layout) = hosted(Quirks::default(), 3 * MIB).await;
    let needle = layer_digest(&sample);
    registry.fault(Fault::on("GET", &needle, Action::Cut(MIB as u64)));
    registry.fault(Fault::on("GET", &needle, Action::Cut(MIB as u64)));
    pull(&layout, &reference).await.unwrap();
    assert_pulled(&layout, &reference, &sample);
    let gets = registry.requests("GET", &needle);
    let ranges: Vec<Option<&str>> = gets.iter().map(|get| get.header("range")).collect();
    assert_eq!(gets.len(), 3, "{ranges:?}");
    assert_eq!(ranges[0], None);
    for (at, range) in ranges[1..].iter().enumerate() {
        let begin = format!("bytes={}-", (at + 1) * MIB);
        assert!(range.is_some_and(|range| range.starts_with(&begin)), "{ranges:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_begins_anew_if_the_registry_knows_no_ranges() {
    let quirks = Quirks { ranges: false, ..Quirks::default() };
    let (registry, reference, sample, _folder, layout) = hosted(quirks, 3 * MIB).await;
    registry.fault(Fault::on("GET", layer_digest(&sample), Action::Cut(MIB as u64)));
    pull(&layout, &reference).await.unwrap();
    assert_pulled(&layout, &reference, &sample);
    assert_eq!(registry.requests("GET", &layer_digest(&sample)).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirected_download_that_broke_off_goes_on_there() {
    let content = Registry::start_on("127.0.0.2", Quirks::default()).await;
    let quirks = Quirks { content_from: Some(format!("http://{}", content.address)), ..Quirks::default() };
    let (_registry, reference, sample, _folder, layout) = hosted(quirks, 3 * MIB).await;
    content.host(&sample.layout, REPOSITORY, "1", &sample.index);
    content.fault(Fault::on("GET", layer_digest(&sample), Action::Cut(MIB as u64)));
    pull(&layout, &reference).await.unwrap();
    assert_pulled(&layout, &reference, &sample);
    let gets = content.requests("GET", &layer_digest(&sample));
    assert_eq!(gets.len(), 2);
    assert!(gets[1].header("range").is_some_and(|range| range.starts_with("bytes=1048576-")), "{gets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_stops_in_the_middle_is_given_up_and_named() {
    // Without ranges each attempt is in vain.
    let quirks = Quirks { ranges: false, ..Quirks::default() };
    let (registry, reference, sample, _folder, layout) = hosted(quirks, 3 * MIB).await;
    let before = listing(layout.root());
    let impatient = Client::new(ClientOptions { read_timeout: Duration::from_millis(200), ..options() });
    for (method, needle, action) in [
        ("GET", layer_digest(&sample), Action::StopAfter(0)),
        ("GET", layer_digest(&sample), Action::Stall),
        ("GET", "/manifests/1".into(), Action::Stall),
    ] {
        registry.fault(Fault::on(method, needle, action.clone()).always());
        let error = in_time(impatient.pull(&layout, &reference, silent())).await.unwrap_err();
        assert!(matches!(error, RegistryError::TimedOut { .. }), "{action:?}: {}", words(&error));
        assert!(error.to_string().contains(&registry.address), "{error}");
        // What came whole is kept for the next time; nothing else is left.
        let kept = (format!("blobs/sha256/{}", sample.config.digest.encoded()), sample.config.size);
        let mut left = listing(layout.root());
        left.retain(|entry| !before.contains(entry) && *entry != kept);
        assert!(left.is_empty(), "{left:?}");
    }
    let stalled = Registry::start(Quirks::default()).await;
    stalled.fault(Fault::on("PUT", "/blobs/", Action::Stall).always());
    let elsewhere = stalled.reference(NAME);
    sample.layout.tag(&elsewhere, &sample.index).unwrap();
    let error = in_time(impatient.push(&sample.layout, &elsewhere, silent())).await.unwrap_err();
    assert!(matches!(error, RegistryError::TimedOut { .. }), "{}", words(&error));
    assert!(error.to_string().contains(&stalled.address), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_fell_silent_goes_on_with_a_range() {
    let (registry, reference, sample, _folder, layout) = hosted(Quirks::default(), 3 * MIB).await;
    registry.fault(Fault::on("GET", layer_digest(&sample), Action::StopAfter(MIB as u64)));
    let impatient = Client::new(ClientOptions { read_timeout: Duration::from_millis(200), ..options() });
    in_time(impatient.pull(&layout, &reference, silent())).await.unwrap();
    assert_pulled(&layout, &reference, &sample);
    let gets = registry.requests("GET", &layer_digest(&sample));
    assert_eq!(gets.len(), 2);
    assert_eq!(gets[1].header("range"), Some("bytes=1048576-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_on_the_way_is_renewed_once() {
    let quirks = Quirks { auth: anonymous_tokens(), ..Quirks::default() };
    let (registry, reference, sample) = scene(quirks, 300_000).await;
    registry.fault(Fault::on("PUT", "/manifests/1", Action::ExpireTokens));
    push(&sample.layout, &reference).await.unwrap();
    assert_pushed(&registry, &sample);
    assert_eq!(registry.requests("PUT", "/manifests/1").len(), 2);

    registry.fault(Fault::on("GET", layer_digest(&sample), Action::ExpireTokens));
    let (_folder, layout) = empty();
    pull(&layout, &reference).await.unwrap();
    assert_pulled(&layout, &reference, &sample);
    assert_eq!(registry.requests("GET", &layer_digest(&sample)).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_with_a_blob_on_its_way_is_renewed() {
    let quirks = Quirks { auth: anonymous_tokens(), ..Quirks::default() };
    let (registry, reference, sample) = scene(quirks, 2 * MIB).await;
    registry.fault(Fault::on("PUT", layer_digest(&sample), Action::ExpireTokens));
    push(&sample.layout, &reference).await.unwrap();
    assert_pushed(&registry, &sample);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_token_after_token_is_given_up() {
    let quirks = Quirks { auth: anonymous_tokens(), ..Quirks::default() };
    let (registry, reference, sample) = scene(quirks, 1000).await;
    registry.fault(Fault::on("PUT", "/manifests/", Action::ExpireTokens).always());
    let error = push(&sample.layout, &reference).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{}", words(&error));
    let tries = registry.requests("PUT", "/manifests/").len();
    assert!(tries <= 2, "{tries}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_get_tokens_for_what_they_do() {
    let quirks = Quirks { auth: Auth::Tokens(user_tokens()), ..Quirks::default() };
    let (registry, reference, sample) = scene(quirks, 1000).await;
    let (ok, text) =
        Process::new(&login(&registry.address, "me", "secret")).push(&sample.layout, &reference).await;
    assert!(ok, "{text}");
    assert_pushed(&registry, &sample);
    let asked = registry.requests("GET", "/token");
    assert!(asked.iter().all(|one| one.header("authorization").is_some()), "{asked:?}");
    assert!(asked.iter().all(|one| parse_query(&one.query)["service"] == "wharf-test"), "{asked:?}");
    // The password goes to the token server alone.
    let basic = format!("Basic {}", base64("me:secret"));
    for one in registry.exchanges().iter().filter(|one| one.path != "/token") {
        assert_ne!(one.header("authorization"), Some(basic.as_str()), "{}", one.line());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_never_end_in_an_anonymous_request() {
    // A registry that would give anyone a token: an anonymous push would work.
    let tokens = Tokens { anonymous: true, ..user_tokens() };
    let quirks = Quirks { auth: Auth::Tokens(tokens), ..Quirks::default() };
    let (registry, reference, sample) = scene(quirks, 1000).await;
    registry.host(&sample.layout, REPOSITORY, "1", &sample.index);
    let (_folder, layout) = empty();
    let wrong = login(&registry.address, "me", "wrong");
    for is_push in [true, false] {
        let process = Process::new(&wrong);
        let (ok, text) = match is_push {
            true => process.push(&sample.layout, &reference).await,
            false => process.pull(&layout, &reference).await,
        };
        assert!(!ok && text.contains(REFUSED) && text.contains(&registry.address), "{text}");
        let exchanges = registry.exchanges();
        let refused = exchanges.iter().position(|one| one.path == "/token").unwrap();
        assert_eq!(exchanges[refused].status, Some(401));
        for one in &exchanges[refused..] {
            assert!(one.header("authorization").is_some(), "{}", one.line());
        }
        registry.forget_requests();
    }
    assert!(layout.list().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_exchanged_for_a_token() {
    let tokens = Tokens { identity: Some("idt/+=&x".into()), ..Tokens::default() };
    let quirks = Quirks { auth: Auth::Tokens(tokens), ..Quirks::default() };
    let (registry, reference, sample) = scene(quirks, 1000).await;
    let login = |token: &str| {
        // As `docker login` writes it: the user's name is no real one.
        let auth = base64("00000000-0000-0000-0000-000000000000:");
        json!({ "auths": { &registry.address: { "auth": auth, "identitytoken": token } } })
    };
    let (ok, text) = Process::new(&login("idt/+=&x")).push(&sample.layout, &reference).await;
    assert!(ok, "{text}");
    assert_pushed(&registry, &sample);
    assert!(registry.requests("GET", "/token").is_empty());
    let exchanged = registry.requests("POST", "/token");
    assert!(!exchanged.is_empty());
    assert!(
        exchanged.iter().all(|one| one.header("content-type") == Some("application/x-www-form-urlencoded"))
    );

    registry.forget_requests();
    let (ok, text) = Process::new(&login("other")).push(&sample.layout, &reference).await;
    assert!(!ok && text.contains(REFUSED) && text.contains(&registry.address), "{text}");
    assert!(registry.requests("PUT", "").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_too_large_for_one_put_goes_in_chunks() {
    for patched in [202, 201] {
        let quirks = Quirks { largest_put: Some(4 * MIB), patched, ..ghcr() };
        let (registry, reference, sample) = scene(quirks, 7 * MIB).await;
        push(&sample.layout, &reference).await.unwrap();
        assert_pushed(&registry, &sample);
        let patches = registry.requests("PATCH", "");
        assert!(patches.len() >= 3, "{:#?}", registry.lines());
        for patch in &patches {
            assert!(patch.received <= 3 * MIB as u64, "{patch:?}");
            assert!(patch.header("content-range").is_some(), "{patch:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_no_smaller_than_the_registry_wants() {
    let quirks = Quirks { largest_put: Some(MIB), auth: Auth::Open, ..ecr() };
    let (registry, reference, sample) = scene(quirks, 11 * MIB).await;
    push(&sample.layout, &reference).await.unwrap();
    assert_pushed(&registry, &sample);
    let patches = registry.requests("PATCH", "");
    assert!(patches.len() >= 2, "{:#?}", registry.lines());
    for patch in &patches[..patches.len() - 1] {
        assert!(patch.received >= 5 * MIB as u64, "{patch:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_push_is_one_head() {
    let quirks = Quirks { auth: anonymous_tokens(), ..Quirks::default() };
    let (registry, reference, sample) = scene(quirks, 100_000).await;
    push(&sample.layout, &reference).await.unwrap();
    registry.forget_requests();
    push(&sample.layout, &reference).await.unwrap();
    let asked: Vec<String> =
        registry.exchanges().iter().filter(|one| one.status == Some(200)).map(Exchange::line).collect();
    let asked: Vec<&str> =
        asked.iter().map(String::as_str).filter(|line| !["GET /v2/", "GET /token"].contains(line)).collect();
    assert_eq!(asked, ["HEAD /v2/demo/app/manifests/1"], "{:#?}", registry.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_name_meant_before_does_not_keep_a_push_from_changing_it() {
    let (registry, reference, old) = scene(Quirks::default(), 1000).await;
    push(&old.layout, &reference).await.unwrap();
    let new = sample(&reference, 2000);
    push(&new.layout, &reference).await.unwrap();
    assert_pushed(&registry, &new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_asks_for_a_mount_of_nothing_that_the_registry_has() {
    for mount in [Mount::Mounts, Mount::Ignored] {
        let quirks = Quirks { mount, ..harbor() };
        let (registry, reference, sample) = scene(quirks, 100_000).await;
        push(&sample.layout, &reference).await.unwrap();
        let posts = registry.requests("POST", "/blobs/uploads/").len();
        let other = registry.reference("demo/app:2");
        sample.layout.tag(&other, &sample.index).unwrap();
        push(&sample.layout, &other).await.unwrap();
        assert!(registry.has_image(&sample.layout, REPOSITORY, "2", &sample.index));
        assert_eq!(registry.requests("POST", "/blobs/uploads/").len(), posts);
    }
}

/// A registry that has the image as `demo/base:1`, and the same image to be
/// pushed as `demo/app:1`.
async fn based(quirks: Quirks) -> (Registry, Reference, Sample) {
    let (registry, reference, sample) = scene(quirks, 100_000).await;
    registry.host(&sample.layout, "demo/base", "1", &sample.index);
    sample.layout.tag(&registry.reference("demo/base:1"), &sample.index).unwrap();
    (registry, reference, sample)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_another_repository_is_mounted_with_a_token_for_both() {
    let (registry, reference, sample) = based(harbor()).await;
    push(&sample.layout, &reference).await.unwrap();
    assert_pushed(&registry, &sample);
    assert_eq!(uploaded(&registry), 0, "{:#?}", registry.lines());
    let posts = registry.requests("POST", "/blobs/uploads/");
    assert_eq!(posts.len(), 2);
    for post in &posts {
        assert_eq!(parse_query(&post.query)["from"], "demo/base");
        assert_eq!(post.status, Some(201));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_cannot_be_mounted_is_sent() {
    let hidden = Tokens { anonymous: true, hidden: Some("demo/base".into()), ..Tokens::default() };
    for quirks in [
        Quirks { mount: Mount::Ignored, ..harbor() },
        Quirks { mount: Mount::Refused(403), ..harbor() },
        Quirks { mount: Mount::Refused(404), ..harbor() },
        Quirks { auth: Auth::Tokens(hidden), ..harbor() },
    ] {
        let (registry, reference, sample) = based(quirks.clone()).await;
        push(&sample.layout, &reference).await.unwrap();
        assert_pushed(&registry, &sample);
        assert_eq!(uploaded(&registry), sample.layer.size + sample.config.size, "{quirks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_come_before_manifests_and_manifests_before_the_index() {
    let (registry, reference, sample) = scene(Quirks::default(), 1000).await;
    push(&sample.layout, &reference).await.unwrap();
    let puts: Vec<String> = registry.requests("PUT", "").iter().map(Exchange::line).collect();
    assert_eq!(puts.len(), 4);
    assert!(puts[..2].iter().all(|line| line.contains("/blobs/uploads/")), "{puts:?}");
    assert_eq!(puts[2], format!("PUT /v2/{REPOSITORY}/manifests/{}", sample.manifest.digest));
    assert_eq!(puts[3], format!("PUT /v2/{REPOSITORY}/manifests/1"));
}
