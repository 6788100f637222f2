//! What the server holds while nobody asks it anything: processes, memory, files.

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

/// After the warm-up and at the end.
pub(crate) fn table(before: &State, after: &State) -> String {
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1024.0 / 1024.0);
    let rows = [
        ("processes", before.processes.to_string(), after.processes.to_string()),
        ("RSS", mebibytes(before.rss), mebibytes(after.rss)),
        ("PSS", mebibytes(before.pss), mebibytes(after.pss)),
        ("open files", before.descriptors.to_string(), after.descriptors.to_string()),
    ];
    let mut table = format!("{:<24}{:>16}{:>16}\n", "", "after warm-up", "at the end");
    for (name, before, after) in rows {
        let _ = writeln!(table, "{name:<24}{before:>16}{after:>16}");
    }
    table
}
