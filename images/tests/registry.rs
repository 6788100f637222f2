//! Push and pull against a real registry: Debian's `docker-registry`.

// A failing helper is a failing test.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wharf_images::{
    Client, ClientOptions, ContainerConfig, Descriptor, Digest, FileMode, ImageBuilder, IndexBuilder, Layer,
    LayerBuilder, Layout, LayoutError, Platform, Progress, Reference, RegistryError, Timestamp, Transfer,
};

/// A registry of its own, which ends with the test.
struct Registry {
    process: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Registry {
    fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a registry; `settings` is YAML that goes to the end of its configuration.
    fn start_with(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The registry cannot say which port it got, so it is given a free one.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = folder.path().join("config.yml");
        let data = folder.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n{settings}",
            data.display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is needed on PATH: apt-get install docker-registry");
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&address).is_err() {
            if process.try_wait().unwrap().is_some() || Instant::now() > deadline {
                let _ = process.kill();
                let log = BufReader::new(process.stderr.take().unwrap()).lines();
                panic!("docker-registry did not start: {:?}", log.take(20).collect::<Vec<_>>());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, address, folder }
    }

    fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.address).parse().unwrap()
    }

    /// Where the registry keeps a blob.
    fn blob(&self, digest: &Digest) -> PathBuf {
        let encoded = digest.encoded();
        self.folder
            .path()
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&encoded[..2])
            .join(&encoded)
            .join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Sample {
    folder: tempfile::TempDir,
    layout: Layout,
    index: Descriptor,
    site: Layer,
}

/// A universal image whose site is larger than what is in memory at a time.
fn sample(reference: &Reference) -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("layout")).unwrap();
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..3_000_000)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state & 255) as u8
        })
        .collect();
    let mut site = LayerBuilder::new(Timestamp::EPOCH);
    site.add_bytes("app/site/index.html", "<h1>hello</h1>", FileMode::Regular).unwrap();
    site.add_bytes("app/site/noise.bin", noise, FileMode::Regular).unwrap();
    let site = site.write(&layout).unwrap();
    let mut native = LayerBuilder::new(Timestamp::EPOCH);
    native.add_bytes("wharf-host", "program", FileMode::Executable).unwrap();
    let native = native.write(&layout).unwrap();
    let linux = ImageBuilder::new(Platform::linux_amd64(), ContainerConfig::default())
        .layer(native, "native")
        .layer(site.clone(), "site")
        .write(&layout)
        .unwrap();
    let wasi = ImageBuilder::new(Platform::wasi_wasm(), ContainerConfig::default())
        .layer(site.clone(), "site")
        .write(&layout)
        .unwrap();
    let index = IndexBuilder::new().manifest(linux).manifest(wasi).write(&layout).unwrap();
    layout.tag(reference, &index).unwrap();
    Sample { folder, layout, index, site }
}

fn empty() -> (tempfile::TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("layout")).unwrap();
    (folder, layout)
}

fn client() -> Client {
    Client::new(ClientOptions::default())
}

fn silent() -> Arc<dyn Progress> {
    Arc::new(())
}

fn blobs(layout: &Layout) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(layout.root().join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn assert_untouched(layout: &Layout) {
    assert!(layout.list().unwrap().is_empty());
    let mut left: Vec<_> =
        fs::read_dir(layout.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["blobs", "index.json", "oci-layout"]);
}

#[derive(Default)]
struct Recorder {
    bytes: Mutex<u64>,
    finished: Mutex<Vec<(Digest, Transfer)>>,
}

impl Recorder {
    fn count(&self, transfer: Transfer) -> usize {
        self.finished.lock().unwrap().iter().filter(|(_, other)| *other == transfer).count()
    }
}

impl Progress for Recorder {
    fn advanced(&self, _: &Digest, bytes: u64) {
        *self.bytes.lock().unwrap() += bytes;
    }

    fn finished(&self, digest: &Digest, transfer: Transfer) {
        self.finished.lock().unwrap().push((*digest, transfer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_image_is_the_same_after_a_pull() {
    let registry = Registry::start();
    let reference = registry.reference("demo/hello:1");
    let sample = sample(&reference);
    let pushed = client().push(&sample.layout, &reference, silent()).await.unwrap();
    assert_eq!(pushed.digest, sample.index.digest);

    let (_folder, layout) = empty();
    let pulled = client().pull(&layout, &reference, silent()).await.unwrap();
    assert_eq!(pulled.digest, sample.index.digest);
    assert_eq!(blobs(&layout), blobs(&sample.layout));
    layout.verify(&layout.resolve(&reference).unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_by_digest() {
    let registry = Registry::start();
    let reference = registry.reference("hello:1");
    let sample = sample(&reference);
    client().push(&sample.layout, &reference, silent()).await.unwrap();
    let (_folder, layout) = empty();
    let by_digest = reference.with_digest(sample.index.digest);
    client().pull(&layout, &by_digest, silent()).await.unwrap();
    assert_eq!(layout.resolve(&by_digest).unwrap().digest, sample.index.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_an_index_is_pushed_and_pulled() {
    let registry = Registry::start();
    let reference = registry.reference("single:1");
    let sample = sample(&reference);
    let (child, _) = sample.layout.manifests(&sample.index).unwrap().remove(0);
    sample.layout.tag(&reference, &child).unwrap();
    client().push(&sample.layout, &reference, silent()).await.unwrap();
    let (_folder, layout) = empty();
    let pulled = client().pull(&layout, &reference, silent()).await.unwrap();
    assert_eq!(pulled.digest, child.digest);
    layout.verify(&pulled).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_side_has_is_not_sent_again() {
    let registry = Registry::start();
    let reference = registry.reference("hello:1");
    let sample = sample(&reference);
    let first = Arc::new(Recorder::default());
    client().push(&sample.layout, &reference, first.clone()).await.unwrap();
    // Two layers and two configurations.
    assert_eq!(first.count(Transfer::Complete), 4);
    assert!(*first.bytes.lock().unwrap() > 3_000_000);

    let second = Arc::new(Recorder::default());
    client().push(&sample.layout, &reference, second.clone()).await.unwrap();
    assert_eq!(second.count(Transfer::AlreadyThere), 4);
    assert_eq!(*second.bytes.lock().unwrap(), 0);

    let (_folder, layout) = empty();
    let third = Arc::new(Recorder::default());
    client().pull(&layout, &reference, third.clone()).await.unwrap();
    assert_eq!(*third.bytes.lock().unwrap(), *first.bytes.lock().unwrap());
    let fourth = Arc::new(Recorder::default());
    client().pull(&layout, &reference, fourth.clone()).await.unwrap();
    assert_eq!(*fourth.bytes.lock().unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_does_not_exist_is_named() {
    let registry = Registry::start();
    let reference = registry.reference("hello:1");
    let sample = sample(&reference);
    client().push(&sample.layout, &reference, silent()).await.unwrap();
    let (_folder, layout) = empty();
    for name in ["hello:2", "nobody:1", &format!("hello@{}", Digest::of(b"nothing"))] {
        let missing = registry.reference(name);
        let error = client().pull(&layout, &missing, silent()).await.unwrap_err();
        let expected = format!("no such image {missing} in registry {}", registry.address);
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some());
        assert_untouched(&layout);
    }
    let unknown = registry.reference("hello:3");
    let error = client().push(&sample.layout, &unknown, silent()).await.unwrap_err();
    assert!(matches!(error, RegistryError::Layout(LayoutError::NoSuchImage { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let reference: Reference = format!("127.0.0.1:{port}/hello:1").parse().unwrap();
    let sample = sample(&reference);
    let (_folder, layout) = empty();
    let push = client().push(&sample.layout, &reference, silent()).await.unwrap_err();
    let pull = client().pull(&layout, &reference, silent()).await.unwrap_err();
    for error in [push, pull] {
        assert!(matches!(error, RegistryError::Unreachable { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("cannot reach registry 127.0.0.1:{port}"));
        assert!(error.hint().unwrap().contains(&port.to_string()));
    }
    assert_untouched(&layout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reference: Reference = format!("{}/hello:1", listener.local_addr().unwrap()).parse().unwrap();
    let (_folder, layout) = empty();
    let options = ClientOptions { read_timeout: Duration::from_millis(200), ..ClientOptions::default() };
    let error = Client::new(options).pull(&layout, &reference, silent()).await.unwrap_err();
    assert!(matches!(error, RegistryError::TimedOut { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_blob_of_the_layout_is_not_pushed() {
    let registry = Registry::start();
    let reference = registry.reference("hello:1");
    let sample = sample(&reference);
    let blob = &sample.site.descriptor;
    let path = sample.layout.blob_path(&blob.digest);
    let content = fs::read(&path).unwrap();

    fs::write(&path, &content[..content.len() / 2]).unwrap();
    let error = client().push(&sample.layout, &reference, silent()).await.unwrap_err();
    let RegistryError::Layout(LayoutError::SizeDiffers { digest, .. }) = error else { panic!("{error:?}") };
    assert_eq!(digest, blob.digest);

    let mut changed = content.clone();
    changed[1_000_000] ^= 1;
    fs::write(&path, changed).unwrap();
    let error = client().push(&sample.layout, &reference, silent()).await.unwrap_err();
    let RegistryError::Layout(LayoutError::DigestDiffers { digest, .. }) = error else { panic!("{error:?}") };
    assert_eq!(digest, blob.digest);

    // Nothing got a name, and the healed image goes through.
    let (_folder, layout) = empty();
    let error = client().pull(&layout, &reference, silent()).await.unwrap_err();
    assert!(matches!(error, RegistryError::NoSuchImage { .. }));
    fs::write(&path, content).unwrap();
    client().push(&sample.layout, &reference, silent()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_registry_damaged_is_not_kept() {
    let registry = Registry::start();
    let reference = registry.reference("hello:1");
    let sample = sample(&reference);
    client().push(&sample.layout, &reference, silent()).await.unwrap();
    let digest = sample.site.descriptor.digest;
    let path = registry.blob(&digest);
    let content = fs::read(&path).unwrap();
    let (_folder, layout) = empty();

    let mut changed = content.clone();
    changed[1_000_000] ^= 1;
    fs::write(&path, &changed).unwrap();
    let error = client().pull(&layout, &reference, silent()).await.unwrap_err();
    let RegistryError::DigestDiffers { digest: named, found, .. } = error else { panic!("{error:?}") };
    assert_eq!((named, found), (digest, Digest::of(&changed)));
    assert_untouched(&layout);

    for length in [content.len() / 2, content.len() + 10] {
        let mut changed = content.clone();
        changed.resize(length, 0);
        fs::write(&path, &changed).unwrap();
        let error = client().pull(&layout, &reference, silent()).await.unwrap_err();
        assert!(error.to_string().contains(&digest.to_string()), "{error:?}");
        assert_untouched(&layout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_docker_are_used_and_never_left_out_silently() {
    let htpasswd = tempfile::NamedTempFile::new().unwrap();
    // "me" with the password "secret", by bcrypt.
    fs::write(htpasswd.path(), HTPASSWD).unwrap();
    let registry = Registry::start_with(&format!(
        "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
        htpasswd.path().display()
    ));
    let reference = registry.reference("hello:1");
    let sample = sample(&reference);
    let docker = sample.folder.path().join("docker");
    let config = docker.join("config.json");
    fs::create_dir(&docker).unwrap();
    // Docker's configuration is found by environment variables, which belong to
    // the whole process: so each case is a process of its own.
    let push = |config_text: &str| {
        fs::write(&config, config_text).unwrap();
        run_push(sample.layout.root(), &reference, &docker)
    };
    let (ok, text) = push("{}");
    assert!(!ok && text.contains("wants a login"), "{text}");
    let (ok, text) = push(&format!(r#"{{"auths":{{"{}":{{"auth":"bWU6d3Jvbmc="}}}}}}"#, registry.address));
    assert!(!ok && text.contains("wants a login"), "{text}");
    let (ok, text) = push(r#"{"credsStore":"fails"}"#);
    assert!(!ok && text.contains("docker-credential-fails failed: the keyring is locked"), "{text}");
    let (ok, text) = push("{ not json");
    assert!(!ok && text.contains("cannot get credentials"), "{text}");
    let (ok, text) = push(r#"{"credsStore":"gives"}"#);
    assert!(ok, "{text}");
    let (ok, text) = push(&format!(r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#, registry.address));
    assert!(ok, "{text}");
}

const HTPASSWD: &str = "me:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n";

/// Runs the test below in a process with Docker's configuration in `docker`,
/// and credential helpers on its PATH.
fn run_push(layout: &Path, reference: &Reference, docker: &Path) -> (bool, String) {
    let helper = |name: &str, script: &str| {
        let path = docker.join(format!("docker-credential-{name}"));
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    helper("gives", r#"cat >/dev/null; echo '{"ServerURL":"x","Username":"me","Secret":"secret"}'"#);
    helper("fails", "cat >/dev/null; echo 'the keyring is locked' >&2; exit 1");
    let path = format!("{}:{}", docker.display(), std::env::var("PATH").unwrap());
    let output = pusher(layout, reference).env("PATH", path).env("DOCKER_CONFIG", docker).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// A process that pushes, for what a process has only one of: its environment.
fn pusher(layout: &Path, reference: &Reference) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "pushes_as_the_environment_says", "--nocapture"])
        .env("PUSH_LAYOUT", layout)
        .env("PUSH_REFERENCE", reference.to_string());
    command
}

/// What such a process runs; by itself it does nothing.
#[tokio::test(flavor = "multi_thread")]
async fn pushes_as_the_environment_says() {
    let (Ok(layout), Ok(reference)) = (std::env::var("PUSH_LAYOUT"), std::env::var("PUSH_REFERENCE")) else {
        return;
    };
    let layout = Layout::open(layout).unwrap();
    let pushed = client().push(&layout, &reference.parse().unwrap(), silent()).await;
    if let Err(error) = pushed {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        panic!("{error}: {}", cause.unwrap_or_default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_certificates_gets_a_clear_error() {
    let registry = Registry::start();
    let reference = registry.reference("hello:1");
    let sample = sample(&reference);
    let nowhere = sample.folder.path().join("nowhere");
    let push = |reference: &Reference| {
        pusher(sample.layout.root(), reference)
            .env("SSL_CERT_FILE", &nowhere)
            .env("SSL_CERT_DIR", &nowhere)
            .output()
            .unwrap()
    };
    // Where there is no TLS, none are needed.
    assert!(push(&reference).status.success());
    let with_tls: Reference = "registry.invalid/hello:1".parse().unwrap();
    sample.layout.tag(&with_tls, &sample.index).unwrap();
    let output = push(&with_tls);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("cannot set up TLS"), "{text}");
}

#[tokio::test]
async fn a_pull_heals_a_blob_that_was_changed_in_the_layout() {
    let registry = Registry::start();
    let reference = registry.reference("hello:1");
    let sample = sample(&reference);
    client().push(&sample.layout, &reference, silent()).await.unwrap();
    let path = sample.layout.blob_path(&sample.site.descriptor.digest);
    let content = fs::read(&path).unwrap();
    let mut changed = content.clone();
    // Of the same size, so that only its digest tells.
    changed[1_000_000] ^= 1;
    fs::write(&path, changed).unwrap();
    client().pull(&sample.layout, &reference, silent()).await.unwrap();
    assert!(fs::read(&path).unwrap() == content);
}
