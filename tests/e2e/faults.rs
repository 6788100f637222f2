//! Pushes and builds that end anywhere, and builds that run at once: what is left
//! is whole, and the next one gets to the same end.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use wharf_tests::chance::Chance;
use wharf_tests::layout;
use wharf_tests::network::{Host, Namespace, Network};
use wharf_tests::process::{Outcome, Running, run};
use wharf_tests::project::Project;
use wharf_tests::proxy::{Limit, PROXY, Proxy};
use wharf_tests::registry::{ADDRESS, Registry};
use wharf_tests::wharf::{Wharf, text};

/// What a push sends besides blobs and manifests: the heads of its requests.
const HEADS: u64 = 32 << 10;
/// Through the proxy.
const PUSHED: &str = "127.0.0.1:5001/app:1";

/// Blobs of some size, so that a push ends in each of them: the site's layer,
/// the worker's, and the native one, of a few megabytes each.
fn project(chance: &mut Chance) -> Project {
    Project::hello()
        .with("public/image.png", chance.bytes(2 << 20))
        .with("public/data.txt", "some line of text that repeats itself\n".repeat(40_000))
}

#[test]
fn a_push_killed_at_any_byte_is_completed_by_the_next_which_sends_only_what_is_missing() {
    let mut chance = Chance::new();
    let pushes = Pushes::prepare(&mut chance);
    let (mut killed, mut half) = (0, 0);
    for _ in 0..50 {
        pushes.registry.empty();
        let bytes = chance.number(1..pushes.total);
        let ended = pushes.stopped_at(bytes, Limit::Hold, Running::kill);
        assert!(matches!(ended.code, 0 | 137), "at byte {bytes}\n{}", ended.report());
        killed += usize::from(ended.code == 137);

        let (missing, before) = (pushes.missing(), pushes.proxy.sent());
        half += usize::from(missing > HEADS && missing < pushes.total - HEADS);
        run(&mut pushes.command()).succeeded();
        let sent = pushes.proxy.sent() - before;
        assert!(sent <= missing + HEADS, "after byte {bytes}: {missing} were missing, {sent} were sent");
        pushes.check(bytes);
    }
    // The heads' sizes differ a little, so that a push may end before its byte.
    assert!(killed >= 45, "only {killed} of 50 pushes were killed before their end");
    assert!(half >= 5, "only {half} of 50 pushes left large blobs both complete and missing");
}

#[test]
fn a_push_whose_connections_break_once_goes_on_with_what_is_missing() {
    let mut chance = Chance::new();
    let pushes = Pushes::prepare(&mut chance);
    for _ in 0..5 {
        pushes.registry.empty();
        let bytes = chance.number(1..pushes.total / 2);
        let mut after = None;
        let ended = pushes.stopped_at(bytes, Limit::Close, |_| {
            after = Some((pushes.missing(), pushes.proxy.sent()));
        });
        ended.succeeded();
        let (missing, before) = after.expect("half of a push is sent before its end");
        let sent = pushes.proxy.sent() - before;
        assert!(sent <= missing + HEADS, "after byte {bytes}: {missing} were missing, {sent} were sent");
        pushes.check(bytes);
    }
}

#[test]
fn a_push_whose_registry_goes_away_says_so_and_is_completed_by_the_next() {
    let mut chance = Chance::new();
    let pushes = Pushes::prepare(&mut chance);
    pushes.registry.empty();
    let bytes = chance.number(1..pushes.total / 2);
    pushes.proxy.limit(bytes, Limit::Close);
    let error = run(&mut pushes.command()).exited(1).refusal();
    pushes.proxy.lift();
    assert!(error.contains(PROXY), "at byte {bytes}: expected the registry's address: {error}");
    run(&mut pushes.command()).succeeded();
    pushes.check(bytes);
}

/// An image, and a registry that can be made to stop.
struct Pushes {
    wharf: Wharf,
    digest: String,
    blobs: BTreeMap<String, u64>,
    /// Bytes that an undisturbed push sends.
    total: u64,
    // Dropped in order: the namespace ends last.
    proxy: Proxy,
    registry: Registry,
    network: Namespace,
}

impl Pushes {
    /// Alone in its store: of another name of the same registry, wharf would ask
    /// to mount the blobs.
    fn prepare(chance: &mut Chance) -> Self {
        let network = Namespace::create();
        let registry = Registry::start(&network);
        let proxy = Proxy::start(&network);
        let wharf = Wharf::new();
        let digest = wharf.build(project(chance).path(), PUSHED);
        let blobs = layout::whole(&wharf.store(), &digest);
        let mut pushes = Self { wharf, digest, blobs, total: 0, proxy, registry, network };
        run(&mut pushes.command()).succeeded();
        pushes.total = pushes.proxy.sent();
        let sizes: u64 = pushes.blobs.values().sum();
        let expected = sizes..sizes + HEADS;
        assert!(expected.contains(&pushes.total), "expected {expected:?} bytes, counted {}", pushes.total);
        pushes
    }

    fn command(&self) -> Command {
        self.wharf.command(&self.network, &["push", PUSHED])
    }

    /// A push of which so many bytes get through: then this is done, and the
    /// registry is there again.
    #[track_caller]
    fn stopped_at(&self, bytes: u64, limit: Limit, act: impl FnOnce(&mut Running)) -> Outcome {
        self.proxy.limit(bytes, limit);
        let mut push = Running::start(&mut self.command());
        while !push.has_ended() {
            if self.proxy.reached(Duration::from_millis(1)) {
                act(&mut push);
                break;
            }
        }
        self.proxy.lift();
        push.finish()
    }

    /// Bytes of the blobs and manifests that the registry does not have.
    fn missing(&self) -> u64 {
        let blobs = self.blobs.iter().filter(|(digest, _)| !self.registry.has("app", digest));
        blobs.map(|(_, size)| size).sum()
    }

    /// Checks that the registry has the image, after a push that was stopped.
    #[track_caller]
    fn check(&self, bytes: u64) {
        let copy = self.wharf.scratch().join("copy");
        let (source, target) = (format!("docker://{ADDRESS}/app:1"), format!("oci:{}:1", text(&copy)));
        let mut skopeo = self.network.command("skopeo".as_ref());
        run(skopeo.args(["copy", "--quiet", "--all", "--src-tls-verify=false", &source, &target]))
            .succeeded();
        assert_eq!(layout::names(&copy)["1"], self.digest, "after byte {bytes}");
        assert_eq!(layout::whole(&copy, &self.digest), self.blobs, "after byte {bytes}");
        fs_err::remove_dir_all(copy).expect("the copy can be removed");
    }
}

const EARLIER: &str = "example.test/earlier:1";
const REFERENCE: &str = "example.test/app:1";

#[test]
fn a_build_killed_at_any_time_leaves_a_whole_store_and_the_next_makes_the_same_image() {
    let mut chance = Chance::new();
    let project = project(&mut chance);
    let earlier = Project::empty().with("public/index.html", "<p>earlier</p>");
    let begin = || {
        let wharf = Wharf::new();
        let digest = wharf.build(earlier.path(), EARLIER);
        (wharf, digest)
    };
    let undisturbed = || begin().0.run(&["build", text(project.path()), "-t", REFERENCE]);
    let runs = [undisturbed(), undisturbed(), undisturbed()];
    let whole_time = runs.iter().map(|run| run.took).min().unwrap_or_default();
    let [run, ..] = runs;
    let expected = run.output().lines().last().unwrap_or_default().to_owned();
    let mut killed = 0;
    for _ in 0..20 {
        let (wharf, earlier) = begin();
        // A moment, not an event: that is what the test is about.
        let moment = Duration::from_micros(chance.number(1..whole_time.as_micros() as u64));
        let mut build =
            Running::start(&mut wharf.command(&Host, &["build", text(project.path()), "-t", REFERENCE]));
        thread::sleep(moment);
        build.kill();
        killed += usize::from(build.finish().code == 137);
        let left = check(&wharf.store());
        assert_eq!(left[EARLIER], earlier, "killed after {moment:?}");

        assert_eq!(wharf.build(project.path(), REFERENCE), expected, "killed after {moment:?}");
        let names = check(&wharf.store());
        assert_eq!(names, BTreeMap::from([(EARLIER.into(), earlier), (REFERENCE.into(), expected.clone())]));
        prune(&wharf);
    }
    // How long a build takes differs with what else the machine does.
    assert!(killed >= 3, "only {killed} of 20 builds were killed before their end");
}

#[test]
fn builds_at_once_into_one_store_agree_while_images_are_removed() {
    let project = project(&mut Chance::new());
    let expected = Wharf::new().build(project.path(), REFERENCE);
    let other = Project::empty().with("public/index.html", "<p>soon removed</p>");
    let wharf = Wharf::new();
    // The first eight have a name each, the others share one.
    for name in [|at: usize| format!("example.test/app:{at}"), |_| REFERENCE.to_owned()] {
        let mut builds: Vec<_> = (0..8)
            .map(|at| {
                let name = name(at);
                Running::start(&mut wharf.command(&Host, &["build", text(project.path()), "-t", &name]))
            })
            .collect();
        let mut removed = 0;
        while !builds.iter_mut().all(Running::has_ended) {
            let _ = wharf.build(other.path(), "example.test/removed:1");
            wharf.run(&["rm", "example.test/removed:1"]).succeeded();
            wharf.run(&["prune"]).succeeded();
            removed += 1;
        }
        assert!(removed > 0, "the builds ended before anything was removed");
        for build in builds {
            let digest = build.finish().output();
            assert_eq!(digest.lines().last(), Some(expected.as_str()));
        }
    }
    let names: BTreeMap<_, _> = (0..8)
        .map(|at| format!("example.test/app:{at}"))
        .chain([REFERENCE.to_owned()])
        .map(|name| (name, expected.clone()))
        .collect();
    assert_eq!(check(&wharf.store()), names);
    prune(&wharf);
}

/// Checks that every image of a store is whole: their names and digests.
#[track_caller]
fn check(store: &Path) -> BTreeMap<String, String> {
    let names = layout::names(store);
    for digest in names.values() {
        let _ = layout::whole(store, digest);
    }
    names
}

/// Prunes a store, where wharf can: then it holds its images and nothing else.
#[track_caller]
fn prune(wharf: &Wharf) {
    let (store, names) = (wharf.store(), check(&wharf.store()));
    wharf.run(&["prune"]).succeeded();
    assert_eq!(check(&store), names);
    let mut needed: Vec<_> =
        names.values().flat_map(|digest| layout::whole(&store, digest).into_keys()).collect();
    needed.sort();
    needed.dedup();
    let held: Vec<_> = layout::blobs(&store).into_keys().map(|hex| format!("sha256:{hex}")).collect();
    assert_eq!(held, needed);
    let mut files: Vec<_> = fs_err::read_dir(&store)
        .expect("the store can be read")
        .map(|entry| entry.expect("the store can be read").file_name())
        .collect();
    files.sort();
    assert_eq!(files, ["blobs", "index.json", "oci-layout"]);
}
