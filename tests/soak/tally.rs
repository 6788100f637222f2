//! What became of the requests, by kind.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::deck::Kind;

/// Of what went wrong, how many examples are kept.
const EXAMPLES: usize = 3;

/// Requests and what was wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<Kind, Line>);

#[derive(Debug, Default)]
struct Line {
    requests: u64,
    wrong: u64,
    examples: Vec<String>,
    /// Together, and the longest.
    time: Duration,
    longest: Duration,
}

impl Tally {
    /// Counts one.
    pub(crate) fn count(&mut self, kind: Kind, took: Duration, result: Result<(), String>) {
        let line = self.0.entry(kind).or_default();
        line.requests += 1;
        line.time += took;
        line.longest = line.longest.max(took);
        if let Err(what) = result {
            line.wrong += 1;
            if line.examples.len() < EXAMPLES {
                line.examples.push(what);
            }
        }
    }

    /// Adds another client's.
    pub(crate) fn add(&mut self, other: Self) {
        for (kind, theirs) in other.0 {
            let line = self.0.entry(kind).or_default();
            line.requests += theirs.requests;
            line.wrong += theirs.wrong;
            line.time += theirs.time;
            line.longest = line.longest.max(theirs.longest);
            line.examples.extend(theirs.examples);
            line.examples.truncate(EXAMPLES);
        }
    }

    /// What was not as expected.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        let wrong = self.0.iter().filter(|(_, line)| line.wrong > 0);
        wrong
            .map(|(kind, line)| {
                format!(
                    "{}: {} of {} went wrong: {}",
                    kind.name(),
                    line.wrong,
                    line.requests,
                    line.examples.join("; ")
                )
            })
            .collect()
    }

    /// A line a kind.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{:<24}{:>9}{:>9}{:>7}{:>11}{:>12}\n",
            "", "requests", "expected", "wrong", "mean", "longest"
        );
        for (kind, line) in &self.0 {
            let status = kind.status().map_or_else(|| "–".to_owned(), |status| status.to_string());
            let mean = line.time.as_secs_f64() * 1000.0 / line.requests.max(1) as f64;
            let longest = line.longest.as_secs_f64() * 1000.0;
            let (name, requests, wrong) = (kind.name(), line.requests, line.wrong);
            let _ = writeln!(
                table,
                "{name:<24}{requests:>9}{status:>9}{wrong:>7}{mean:>8.1} ms{longest:>9.0} ms"
            );
        }
        table
    }
}
