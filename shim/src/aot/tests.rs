//! The cache with a shell script for a compiler, and with real processes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::*;

/// Names, in the environment of [`another_process`], what it is to do.
const WORK: &str = "WHARF_TEST_WORK";
const ORDER: &str = "WHARF_TEST_ORDER";

/// In place of [`super::program`]: this test binary does the same work.
pub(super) fn program(work: &str, order: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let only = ["--exact", "aot::tests::another_process", "--ignored", "--nocapture", "--quiet"];
    command.args(only).env(WORK, work).env(ORDER, order);
    command
}

#[test]
#[ignore = "not a test: what the tests below start"]
fn another_process() {
    let order = std::env::var(ORDER).unwrap_or_default();
    let done = match std::env::var(WORK).unwrap_or_default().as_str() {
        compilation::OVERSEE => compilation::oversee(&order),
        compilation::BECOME_COMPILER => compilation::become_compiler(&order),
        "get" => {
            let node = Node::at(order.into());
            assert_eq!(node.get().unwrap(), "code\nwasm");
            Ok(())
        }
        _ => return,
    };
    if let Err(error) = done {
        compilation::fail(&error);
    }
}

/// A compiler that counts its runs, and a component.
struct Node {
    folder: PathBuf,
    /// None if another process removes the folder.
    _own: Option<tempfile::TempDir>,
    component: Component,
    size: u64,
    change: fn(&mut Settings),
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Self { _own: None, ..Self::at(folder.path().to_owned()) };
        node.write_compiler("engine-1", "sleep 0.1; { echo code; cat \"$2\"; } > \"$4\"");
        Self { _own: Some(folder), ..node }
    }

    fn at(folder: PathBuf) -> Self {
        Self { folder, _own: None, component: component(b"wasm"), size: 1 << 20, change: |_| {} }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write_compiler(&self, engine: &str, compile: &str) {
        let runs = self.path("runs");
        let script = format!(
            "#!/bin/sh\necho run >> {}\n[ \"$2\" = --engine-id ] && exec echo {engine}\n{compile}\n",
            runs.display()
        );
        // A new file each time, as an upgrade makes.
        let path = self.path("wharf");
        fs::write(self.path("wharf.new"), script).unwrap();
        fs::set_permissions(self.path("wharf.new"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(self.path("wharf.new"), path).unwrap();
    }

    fn runs(&self) -> usize {
        fs::read_to_string(self.path("runs")).unwrap_or_default().lines().count()
    }

    fn cache(&self) -> Result<Cache, AotError> {
        let mut settings = Settings::at(self.path("cache"), self.size);
        (self.change)(&mut settings);
        Cache::open_with(settings, self.path("wharf"))
    }

    fn get(&self) -> Result<String, AotError> {
        self.get_from(b"wasm")
    }

    fn get_from(&self, content: &'static [u8]) -> Result<String, AotError> {
        self.get_component(&self.component, content)
    }

    fn get_component(&self, component: &Component, content: &'static [u8]) -> Result<String, AotError> {
        let mut progress = Progress::to(File::create(self.path("log")).unwrap());
        let code = self.cache()?.get(component, || Ok(content), &mut progress)?;
        let mut text = String::new();
        File::from(code).read_to_string(&mut text).unwrap();
        Ok(text)
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.path(&format!("cache/engine-1/{}.{ending}", self.component.sha256))
    }

    fn code(&self) -> PathBuf {
        self.file("cwasm")
    }

    /// The names in the engine's folder, by their endings.
    fn left(&self) -> BTreeSet<String> {
        let files = fs::read_dir(self.path("cache/engine-1")).unwrap();
        files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .map(|name| name.split_once('.').map_or(name.clone(), |(_, ending)| ending.to_owned()))
            .collect()
    }

    /// Has the entry of `component` be unused for so long.
    fn age(&self, component: &Component, hours: u64) {
        let record = self.path(&format!("cache/engine-1/{}.json", component.sha256));
        let used = SystemTime::now() - Duration::from_secs(hours * 3600);
        File::open(record).unwrap().set_modified(used).unwrap();
    }
}

fn component(content: &[u8]) -> Component {
    Component {
        file: "workers/a.wasm".into(),
        size: content.len() as u64,
        sha256: Sha256::of(content),
        wasi: Default::default(),
    }
}

#[test]
fn a_component_is_compiled_once() {
    let node = Node::new();
    for _ in 0..3 {
        assert_eq!(node.get().unwrap(), "code\nwasm");
    }
    assert_eq!(node.runs(), 2, "once for the engine, once to compile");
    let mode = fs::metadata(node.code()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert_eq!(node.left(), BTreeSet::from(["cwasm".into(), "json".into()]));
    assert_eq!(fs::read_to_string(node.path("log")).unwrap(), "");
}

#[test]
fn those_who_ask_at_once_share_one_compilation() {
    let node = Node::new();
    node.cache().unwrap();
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| node.get().unwrap())).collect();
        for answer in asked {
            assert_eq!(answer.join().unwrap(), "code\nwasm");
        }
    });
    assert_eq!(node.runs(), 2);
}

#[test]
fn another_engine_has_its_own_entries() {
    let node = Node::new();
    node.get().unwrap();
    node.write_compiler("engine-2", "echo other > \"$4\"");
    assert_eq!(node.get().unwrap(), "other\n");
    assert!(node.code().exists());
}

/// Does `damage` to a good entry: it must be compiled anew, and what was put
/// there never be given out.
#[track_caller]
fn is_made_anew(damage: impl FnOnce(&Node)) {
    let node = Node::new();
    node.get().unwrap();
    damage(&node);
    assert_eq!(node.get().unwrap(), "code\nwasm");
    assert_eq!(node.runs(), 3, "expected another compilation");
    assert_eq!(node.get().unwrap(), "code\nwasm");
    assert_eq!(node.runs(), 3);
}

/// Writes into a file in place and sets its times back.
fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let before = fs::metadata(path).unwrap();
    let mut content = fs::read(path).unwrap();
    change(&mut content);
    let mut file = File::options().write(true).open(path).unwrap();
    file.write_all(&content).unwrap();
    file.set_len(content.len() as u64).unwrap();
    let times = fs::FileTimes::new().set_modified(before.modified().unwrap());
    file.set_times(times.set_accessed(before.accessed().unwrap())).unwrap();
    assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), before.modified().unwrap());
}

#[test]
fn a_byte_that_was_changed_in_place_is_found() {
    is_made_anew(|node| overwrite(&node.code(), |code| code[2] ^= 1));
}

#[test]
fn an_entry_of_another_length_is_made_anew() {
    is_made_anew(|node| overwrite(&node.code(), |code| code.truncate(3)));
    is_made_anew(|node| overwrite(&node.code(), Vec::clear));
    is_made_anew(|node| overwrite(&node.code(), |code| code.push(0)));
}

#[test]
fn an_entry_that_was_replaced_is_made_anew() {
    is_made_anew(|node| {
        fs::remove_file(node.code()).unwrap();
        fs::write(node.code(), "evil\nwasm").unwrap();
    });
    is_made_anew(|node| fs::remove_file(node.code()).unwrap());
    is_made_anew(|node| {
        fs::remove_file(node.code()).unwrap();
        fs::create_dir(node.code()).unwrap();
    });
    is_made_anew(|node| {
        fs::remove_file(node.code()).unwrap();
        nix::unistd::mkfifo(&node.code(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    });
}

#[test]
fn a_link_is_not_followed_though_it_leads_to_the_same_code() {
    is_made_anew(|node| {
        let elsewhere = node.path("elsewhere");
        fs::rename(node.code(), &elsewhere).unwrap();
        std::os::unix::fs::symlink(elsewhere, node.code()).unwrap();
    });
}

#[test]
fn entries_that_change_places_are_found() {
    for endings in [&["cwasm"][..], &["cwasm", "json"]] {
        is_made_anew(|node| {
            let other = component(b"other");
            assert_eq!(node.get_component(&other, b"other").unwrap(), "code\nother");
            for ending in endings {
                let theirs = node.path(&format!("cache/engine-1/{}.{ending}", other.sha256));
                fs::rename(theirs, node.file(ending)).unwrap();
            }
            // The helper counts one compilation; this was another.
            fs::write(node.path("runs"), "run\nrun\n").unwrap();
        });
    }
}

#[test]
fn an_entry_that_others_may_write_is_made_anew() {
    is_made_anew(|node| fs::set_permissions(node.code(), fs::Permissions::from_mode(0o666)).unwrap());
    is_made_anew(|node| fs::set_permissions(node.file("json"), fs::Permissions::from_mode(0o622)).unwrap());
    if nix::unistd::geteuid().is_root() {
        is_made_anew(|node| std::os::unix::fs::chown(node.code(), Some(65532), None).unwrap());
    }
}

#[test]
fn a_record_that_is_damaged_or_gone_is_no_record() {
    is_made_anew(|node| fs::remove_file(node.file("json")).unwrap());
    is_made_anew(|node| overwrite(&node.file("json"), Vec::clear));
    is_made_anew(|node| overwrite(&node.file("json"), |record| record[10] ^= 0x80));
    is_made_anew(|node| overwrite(&node.file("json"), |record| record.truncate(40)));
}

#[test]
fn any_byte_of_a_record_may_be_damaged() {
    let node = Node::new();
    node.write_compiler("engine-1", "{ echo code; cat \"$2\"; } > \"$4\"");
    node.get().unwrap();
    // Not each one: most make it compile anew.
    for byte in (0..400).step_by(7) {
        overwrite(&node.file("json"), |record| {
            let at = byte % record.len();
            record[at] ^= 1;
        });
        assert_eq!(node.get().unwrap(), "code\nwasm", "byte {byte}");
    }
}

#[test]
fn code_that_was_touched_but_is_the_same_is_kept() {
    let node = Node::new();
    node.get().unwrap();
    overwrite(&node.code(), |_| {});
    fs::set_permissions(node.code(), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(node.get().unwrap(), "code\nwasm");
    // As after the machine was started: the record is of another boot.
    let record = fs::read_to_string(node.file("json")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    fs::write(node.file("json"), record.replace(boot.trim(), "an earlier one")).unwrap();
    assert_eq!(node.get().unwrap(), "code\nwasm");
    assert_eq!(node.runs(), 2);
    assert!(fs::read_to_string(node.file("json")).unwrap().contains(boot.trim()), "expected it noted");
}

#[test]
fn a_component_that_differs_from_the_manifest_is_refused() {
    let node = Node::new();
    let error = node.get_from(b"evil").unwrap_err();
    assert!(matches!(error, AotError::Digest { .. }), "{error}");
    assert!(matches!(node.get_from(b"wasm and more").unwrap_err(), AotError::Digest { .. }));
    let mut progress = Progress::to(File::create(node.path("log")).unwrap());
    let missing = || File::open("/no/such/file");
    let error = node.cache().unwrap().get(&node.component, missing, &mut progress).unwrap_err();
    assert!(matches!(error, AotError::Read { .. }));
    assert_eq!(node.left(), BTreeSet::new());
}

#[test]
fn a_failed_compilation_is_quoted_and_leaves_nothing() {
    let node = Node::new();
    node.write_compiler("engine-1", "echo half > \"$4\"; echo 'no such thing' >&2; exit 1");
    let error = node.get().unwrap_err().to_string();
    assert_eq!(error, "cannot compile component \"workers/a.wasm\": no such thing");
    assert_eq!(node.left(), BTreeSet::new());
    node.write_compiler("engine-1", ":");
    let error = node.get().unwrap_err().to_string();
    assert!(error.contains("cannot keep what the compiler wrote"), "{error}");
    node.write_compiler("engine-1", "kill -9 $$");
    let error = node.get().unwrap_err().to_string();
    assert!(error.ends_with("signal: 9 (SIGKILL)"), "{error}");
}

#[test]
fn a_compiler_that_takes_too_long_is_ended() {
    let mut node = Node::new();
    node.change = |settings| settings.limits.time = Duration::from_millis(300);
    node.write_compiler("engine-1", "echo $$ > \"${4%/*}/../pid\"; exec sleep 60");
    let error = node.get().unwrap_err().to_string();
    let expected = "cannot compile component \"workers/a.wasm\": the compiler needs more time than 300ms: \
                    set WHARF_COMPILE_TIMEOUT to more";
    assert_eq!(error, expected);
    let pid = fs::read_to_string(node.path("cache/engine-1/pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the compiler goes on");
}

#[test]
fn a_compiler_that_takes_too_much_memory_is_ended() {
    // Where there are no cgroups for us, by the limit of its data.
    let mut node = Node::new();
    node.change = |settings| settings.limits.memory = 64 << 20;
    node.write_compiler(
        "engine-1",
        "{ head -c 300000000 /dev/zero | tail >/dev/null; } 2>&1 || { echo memory allocation of it failed >&2; kill -6 $$; }",
    );
    let Err(error) = node.get() else {
        // `tail` could do with less.
        panic!("it had more memory than it may have");
    };
    assert!(error.to_string().contains("needs more memory than 64.0 MiB"), "{error}");
}

#[test]
fn progress_is_told_when_it_takes_long() {
    let node = Node::new();
    node.write_compiler("engine-1", "sleep 1.3; { echo code; cat \"$2\"; } > \"$4\"");
    node.get().unwrap();
    let log = fs::read_to_string(node.path("log")).unwrap();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    let first = "wharf: compiling component \"workers/a.wasm\" (4 B) for this node, once; 1 s so far";
    assert_eq!(lines[0], first);
    assert!(lines[1].starts_with("wharf: component \"workers/a.wasm\" (4 B) is ready after "), "{log}");
}

#[test]
fn the_longest_unused_leave_when_there_is_too_much() {
    let mut node = Node::new();
    node.write_compiler("engine-1", "head -c 1000 /dev/zero > \"$4\"");
    node.size = 2500;
    let contents: [&[u8]; 4] = [b"1", b"2", b"3", b"4"];
    let components = contents.map(component);
    for (at, content) in contents.iter().enumerate() {
        let hours = [30, 40, 0, 0][at];
        node.get_component(&components[at], content).unwrap();
        node.age(&components[at], hours);
    }
    let there = || {
        let list = sweep::list(&node.path("cache")).unwrap();
        let there: Vec<_> = components
            .iter()
            .map(|component| list.iter().any(|listed| listed.component() == component.sha256))
            .collect();
        there
    };
    // The fourth made both old ones leave; what was just used stays.
    assert_eq!(there(), [false, false, true, true]);
    // A use is noted.
    node.age(&components[2], 5);
    node.age(&components[3], 4);
    node.get_component(&components[2], b"3").unwrap();
    node.get_component(&components[0], b"1").unwrap();
    assert_eq!(there(), [true, false, true, false]);
}

#[test]
fn entries_of_another_engine_leave_first_once_they_are_old() {
    let node = Node::new();
    let other = component(b"other");
    node.write_compiler("engine-1", "head -c 1000 /dev/zero > \"$4\"");
    node.get().unwrap();
    node.get_component(&other, b"other").unwrap();
    node.age(&node.component, 30);
    node.age(&other, 2);
    let root = node.path("cache");
    let removed = sweep::bound(&root, 1500, "engine-2", Duration::ZERO).unwrap();
    assert_eq!((removed.entries, removed.bytes, removed.busy), (1, 1000, 0));
    assert!(!node.code().exists());
    // Used a moment ago, and open: what was opened stays as it is.
    let mut code = node.cache().unwrap();
    code.settings.limits.memory = 1;
    let mut progress = Progress::to(File::create(node.path("log")).unwrap());
    let code = code.get(&other, || Ok(&b"other"[..]), &mut progress).unwrap();
    assert_eq!(sweep::bound(&root, 0, "engine-1", sweep::JUST_USED).unwrap().entries, 0);
    assert_eq!(sweep::bound(&root, 0, "engine-1", Duration::ZERO).unwrap().entries, 1);
    assert_eq!(sweep::list(&root).unwrap().len(), 0);
    let mut content = Vec::new();
    File::from(code).read_to_end(&mut content).unwrap();
    assert_eq!(content.len(), 1000);
}

#[test]
fn what_is_no_entry_is_cleared_away_but_not_from_under_who_works() {
    let node = Node::new();
    node.get().unwrap();
    let other = component(b"other").sha256;
    let entry = Entry::new(&node.path("cache"), "engine-1", other);
    fs::write(node.path(&format!("cache/engine-1/{other}.cwasm")), "half").unwrap();
    fs::create_dir(node.file("work")).unwrap();
    fs::write(node.file("json.new"), "half").unwrap();
    fs::write(node.file("lock"), "").unwrap();
    fs::create_dir(node.path("cache/engine-0")).unwrap();
    let lock = entry.try_lock().unwrap().unwrap();
    entry.begin(&lock).unwrap();
    sweep::remove_leftovers(&node.path("cache")).unwrap();
    let expected = ["cwasm", "json", "lock", "work"].map(String::from);
    assert_eq!(node.left(), expected.into());
    assert!(!node.path("cache/engine-0").exists());
    drop(lock);
    sweep::remove_leftovers(&node.path("cache")).unwrap();
    assert_eq!(node.left(), BTreeSet::from(["cwasm".into(), "json".into()]));
    assert_eq!(node.get().unwrap(), "code\nwasm");
    assert_eq!(node.runs(), 2);
}

#[test]
fn a_lock_is_one_persons_though_its_name_comes_and_goes() {
    let node = Node::new();
    node.cache().unwrap();
    let entry = node.cache().unwrap().entry(&node.component);
    let inside = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let lock = entry.lock(|| ()).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                    drop(lock);
                }
            });
        }
    });
    assert_eq!(node.left(), BTreeSet::new());
}

#[test]
fn killed_at_any_moment_it_leaves_a_whole_entry_or_none() {
    let node = Node::new();
    node.cache().unwrap();
    node.write_compiler("engine-1", "echo half > \"$4\"; sleep 0.05; { echo code; cat \"$2\"; } > \"$4\"");
    node.cache().unwrap();
    let mut random = std::process::id() | 1;
    let mut next = |below: u32| {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        random % below
    };
    for round in 0..40 {
        let mut helper = program("get", node.folder.to_str().unwrap());
        let mut helper = helper.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(next(250))));
        // The helper, what it started, or what that started.
        let mut victims = vec![helper.id()];
        while let Some(child) = child_of(*victims.last().unwrap()) {
            victims.push(child);
        }
        let victim = victims[next(victims.len() as u32) as usize];
        crate::sys::send_signal(victim.cast_signed(), libc::SIGKILL).unwrap_or_default();
        if round % 3 == 0 {
            // The next one comes while the overseer may go on.
            let _ = helper.kill();
        }
        let _ = helper.wait();
        if let Ok(code) = fs::read_to_string(node.code())
            && node.file("json").exists()
        {
            assert_eq!(code, "code\nwasm", "round {round}");
        }
        assert_eq!(node.get().unwrap(), "code\nwasm", "round {round}");
        // A process that another test starts at this moment has all of our open
        // files until it runs its program, a lock among them.
        let (expected, since) = (BTreeSet::from(["cwasm".into(), "json".into()]), Instant::now());
        while node.left() != expected && since.elapsed() < Duration::from_secs(5) {
            sweep::remove_leftovers(&node.path("cache")).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(node.left(), expected, "round {round}");
        sweep::remove_all(&node.path("cache"), |_| true).unwrap();
    }
}

#[test]
fn a_compilation_goes_on_without_the_one_who_asked() {
    let node = Node::new();
    node.write_compiler("engine-1", "sleep 0.5; { echo code; cat \"$2\"; } > \"$4\"");
    node.cache().unwrap();
    let mut helper = program("get", node.folder.to_str().unwrap());
    let mut helper = helper.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !node.file("work").join("messages").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    helper.kill().unwrap();
    helper.wait().unwrap();
    assert_eq!(node.get().unwrap(), "code\nwasm");
    assert_eq!(node.runs(), 2, "once for the engine, once to compile");
}

fn child_of(process: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).ok()?;
    // The test harness starts from a thread of its own.
    let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let all = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let all: String = std::iter::once(children).chain(all).collect();
    all.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_folder_that_others_may_write_is_not_used() {
    let node = Node::new();
    fs::create_dir(node.path("cache")).unwrap();
    fs::set_permissions(node.path("cache"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(node.get().unwrap_err(), AotError::Untrusted { .. }));
}

#[test]
fn an_engine_that_is_not_a_plain_name_is_refused() {
    for text in ["", ".", "../up", "a/b", "engines", "a b", &"x".repeat(129)] {
        assert!(!is_engine_id(text), "{text:?}");
    }
    assert!(is_engine_id("wharf-0.1.0_wasmtime-48.2-x86_64"));
}
