//! What the server holds while nobody asks it anything: processes, memory, files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use wharf_tests::family::Family;
use wharf_tests::process::Daemon;

/// How often the server is looked at, and how often in a row it must be the same:
/// for longer than the 10 s after which it gives back what no guest needs.
const EVERY: Duration = Duration::from_millis(500);
const TIMES: usize = 30;

/// How long it may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much memory may change from one look to the next at rest, as a part of it.
const REST: f64 = 0.002;

/// A server at rest.
#[derive(Clone, Debug)]
pub(crate) struct State {
    processes: usize,
    /// In bytes, of all processes.
    rss: u64,
    /// The same with the initial memory of each worker once in each process: shown,
    /// to tell images that slots keep from other growth, and not judged. Instances
    /// that leak would hide in it.
    once: u64,
    pss: u64,
    descriptors: usize,
}

impl State {
    /// Waits until the server holds the same for a while; of files, no more than
    /// `before`, for which it has as much time as there is. The last state, if that
    /// never comes.
    pub(crate) fn settled(server: &Daemon, before: Option<&Self>) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Self::of(server);
        let mut same = 0;
        while same < TIMES && Instant::now() < deadline {
            thread::sleep(EVERY);
            let now = Self::of(server);
            let at_rest = now.descriptors == last.descriptors
                && now.processes == last.processes
                && now.rss.abs_diff(last.rss) as f64 <= REST * last.rss as f64
                && before.is_none_or(|before| now.descriptors <= before.descriptors);
            same = if at_rest { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    fn of(server: &Daemon) -> Self {
        let family = Family::of(server.id());
        Self {
            processes: family.members().len(),
            rss: family.rss(),
            once: family.members().iter().map(|process| resident_once(*process)).sum(),
            pss: family.pss(),
            descriptors: family.descriptors(),
        }
    }

    /// What is not as it was `before`: memory by more than `tolerance`, a part of
    /// it, and files by one.
    pub(crate) fn grown(&self, before: &Self, tolerance: f64) -> Vec<String> {
        let mut faults = Vec::new();
        let change = self.rss as f64 / before.rss.max(1) as f64 - 1.0;
        if change.abs() > tolerance {
            let (percent, limit) = (change * 100.0, tolerance * 100.0);
            faults.push(format!("memory changed by {percent:+.1}%: expected at most {limit}%"));
        }
        if self.descriptors > before.descriptors {
            let (now, then) = (self.descriptors, before.descriptors);
            faults.push(format!("{now} files are open: expected no more than the {then} after the warm-up"));
        }
        faults
    }
}

/// Memory of a process, in bytes, with each private image of machine code's file
/// once: by its place in the file, from `/proc/PID/smaps` (proc_pid_smaps(5)). 0, if
/// it has ended.
fn resident_once(process: u32) -> u64 {
    let maps = fs_err::read_to_string(format!("/proc/{process}/smaps")).unwrap_or_default();
    let mut images: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let (mut image, mut other) = (None, 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Rss:") => {
                let kib: u64 = words.next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
                match image {
                    Some(image) => {
                        let most = images.entry(image).or_default();
                        *most = kib.max(*most);
                    }
                    None => other += kib,
                }
            }
            // `START-END rw-p OFFSET DEVICE INODE PATH`
            Some(range) if !range.ends_with(':') => {
                let (mode, offset) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                let file = words.nth(2).filter(|file| file.ends_with(".cwasm") && mode == "rw-p");
                image = file.map(|file| (file, offset));
            }
            _ => {}
        }
    }
    (images.values().sum::<u64>() + other) << 10
}

/// After the warm-up and at the end.
pub(crate) fn table(before: &State, after: &State) -> String {
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0);
    let rows = [
        ("processes", before.processes.to_string(), after.processes.to_string()),
        ("RSS", mebibytes(before.rss), mebibytes(after.rss)),
        ("RSS, images once", mebibytes(before.once), mebibytes(after.once)),
        ("PSS", mebibytes(before.pss), mebibytes(after.pss)),
        ("open files", before.descriptors.to_string(), after.descriptors.to_string()),
    ];
    let mut table = format!("{:<24}{:>16}{:>16}\n", "", "after warm-up", "at the end");
    for (name, before, after) in rows {
        let _ = writeln!(table, "{name:<24}{before:>16}{after:>16}");
    }
    table
}
