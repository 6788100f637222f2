//! Pushes and builds that end anywhere, and builds that run at once: what is left
//! is whole, and the next one gets to the same end.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use wharf_tests::chance::Chance;
use wharf_tests::layout;
use wharf_tests::network::{Host, Namespace, Network};
use wharf_tests::process::{Running, run};
use wharf_tests::project::Project;
use wharf_tests::proxy::{Limit, PROXY, Proxy};
use wharf_tests::registry::{ADDRESS, Registry};
use wharf_tests::wharf::{Wharf, text};

/// What a push sends besides blobs and manifests: the heads of its requests.
const HEADS: u64 = 32 << 10;

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
    let pushes = Pushes::prepare(&mut chance, 50);
    let (mut killed, mut half) = (0, 0);
    for round in 0..50 {
        let bytes = chance.number(1..pushes.total);
        pushes.proxy.limit(bytes, Limit::Hold);
        let mut push = Running::start(&mut pushes.command(round));
        // The first to come: usually the byte, but the heads' sizes differ a little.
        while !pushes.proxy.reached(Duration::from_millis(1)) && !push.has_ended() {}
        push.kill();
        let ended = push.finish();
        pushes.proxy.lift();
        assert!(matches!(ended.code, 0 | 137), "at byte {bytes}\n{}", ended.report());
        killed += usize::from(ended.code == 137);
        let missing = pushes.complete(round, bytes);
        half += usize::from(missing > HEADS && missing < pushes.total - HEADS);
    }
    assert!(killed >= 45, "only {killed} of 50 pushes were killed before their end");
    assert!(half >= 5, "only {half} of 50 pushes left large blobs both complete and missing");
}

#[test]
fn a_push_whose_registry_goes_away_says_so_and_is_completed_by_the_next() {
    let mut chance = Chance::new();
    let pushes = Pushes::prepare(&mut chance, 5);
    for round in 0..5 {
        let bytes = chance.number(1..pushes.total / 2);
        pushes.proxy.limit(bytes, Limit::Close);
        let error = run(&mut pushes.command(round)).exited(1).refusal();
        pushes.proxy.lift();
        assert!(error.contains(PROXY), "at byte {bytes}: expected the registry's address: {error}");
        let _ = pushes.complete(round, bytes);
    }
}

/// An image in the store under one name a round, each in a repository of its own.
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
    fn prepare(chance: &mut Chance, rounds: usize) -> Self {
        let network = Namespace::create();
        let registry = Registry::start(&network);
        let proxy = Proxy::start(&network);
        let wharf = Wharf::new();
        let project = project(chance);
        let undisturbed = format!("{PROXY}/undisturbed:1");
        let digest = wharf.build(project.path(), &undisturbed);
        let names: Vec<_> = (0..rounds).map(name).collect();
        let tags = names.iter().flat_map(|name| ["-t", name.as_str()]);
        let build: Vec<_> = ["build", text(project.path())].into_iter().chain(tags).collect();
        wharf.run(&build).succeeded();
        let blobs = layout::whole(&wharf.store(), &digest);
        wharf.run_in(&network, &["push", &undisturbed]).succeeded();
        let total = proxy.sent();
        let sizes: u64 = blobs.values().sum();
        assert!((sizes..sizes + HEADS).contains(&total), "expected about {sizes} bytes, counted {total}");
        Self { wharf, digest, blobs, total, proxy, registry, network }
    }

    fn command(&self, round: usize) -> std::process::Command {
        self.wharf.command(&self.network, &["push", &name(round)])
    }

    /// Pushes again after one that ended at a byte: what was complete isn't sent,
    /// and what is there then is the image. The bytes of blobs that were missing.
    #[track_caller]
    fn complete(&self, round: usize, bytes: u64) -> u64 {
        let repository = repository(round);
        let missing: u64 = self
            .blobs
            .iter()
            .filter(|(digest, _)| !self.registry.has(&repository, digest))
            .map(|(_, size)| size)
            .sum();
        let before = self.proxy.sent();
        run(&mut self.command(round)).succeeded();
        let sent = self.proxy.sent() - before;
        assert!(
            sent <= missing + HEADS,
            "after byte {bytes}: {missing} bytes were missing, {sent} were sent"
        );

        let copy = self.wharf.scratch().join(&repository);
        let (source, target) =
            (format!("docker://{ADDRESS}/{repository}:1"), format!("oci:{}:1", text(&copy)));
        let mut skopeo = self.network.command("skopeo".as_ref());
        run(skopeo.args(["copy", "--quiet", "--all", "--src-tls-verify=false", &source, &target]))
            .succeeded();
        assert_eq!(layout::names(&copy)["1"], self.digest, "after byte {bytes}");
        assert_eq!(layout::whole(&copy, &self.digest), self.blobs, "after byte {bytes}");
        fs_err::remove_dir_all(copy).expect("the copy can be removed");
        missing
    }
}

fn repository(round: usize) -> String {
    format!("round-{round}")
}

fn name(round: usize) -> String {
    format!("{PROXY}/{}:1", repository(round))
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
    let undisturbed = begin().0.run(&["build", text(project.path()), "-t", REFERENCE]);
    let whole_time = undisturbed.took;
    let expected = undisturbed.output().lines().last().unwrap_or_default().to_owned();
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
    assert!(killed >= 10, "only {killed} of 20 builds were killed before their end");
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
            if knows_prune(&wharf) {
                wharf.run(&["prune"]).succeeded();
            }
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
    if !knows_prune(wharf) {
        return;
    }
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

fn knows_prune(wharf: &Wharf) -> bool {
    wharf.run(&["prune", "--help"]).code == 0
}
