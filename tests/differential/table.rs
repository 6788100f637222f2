//! `docs/http.md`: what was seen, as a table.

use std::fmt::Write as _;
use std::path::PathBuf;

use wharf_tests::testbed;

use crate::client::{Observation, Other};
use crate::server::Name;
use crate::{Row, Run, pending};

/// What stands above the tables.
const INTRODUCTION: &str = "\
# HTTP, behaviour by behaviour

<!-- Made by `make http-table` from tests/differential; not written by hand. -->

One site, the same requests over raw sockets, and what came back. The expectation
is the RFC's where a clause is named, and else the custom of the server that is
named, which users count on.

- ✓ as expected, with what was answered
- ✗ not what the RFC asks for (MUST or SHOULD)
- ≠ something else, which is allowed
- … something else, as long as wharf does not do it yet

";

/// Where the table is kept.
pub(crate) fn file() -> PathBuf {
    testbed::repository().join("docs/http.md")
}

/// The document.
pub(crate) fn document(run: &Run) -> String {
    let mut text = INTRODUCTION.to_owned();
    let of_peers: Vec<String> =
        run.servers.iter().map(|(name, version)| format!("{} {version}", name.title())).collect();
    let _ = writeln!(text, "{}.", of_peers.join(", "));
    for (title, rows) in &run.sections {
        let _ = write!(text, "\n## {title}\n\n| behaviour | clause |");
        for (name, _) in &run.servers {
            let _ = write!(text, " {} |", name.title());
        }
        let _ = writeln!(text, "\n| --- | --- |{}", " --- |".repeat(run.servers.len()));
        for row in rows {
            let _ = write!(text, "| {} | {} |", behaviour(row), row.case.clause);
            for (name, _) in &run.servers {
                let _ = write!(text, " {} |", cell(row, *name));
            }
            text.push('\n');
        }
    }
    text
}

/// Of each line of a document's tables: behaviour, clause, wharf's column. The
/// others depend on which versions of the peers are installed.
pub(crate) fn of_wharf(document: &str) -> Vec<String> {
    let rows = document.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let kept = [cells.first(), cells.get(1), cells.last()];
        kept.into_iter().flatten().copied().collect::<Vec<_>>().join(" | ")
    })
    .collect()
}

fn behaviour(row: &Row) -> String {
    match row.case.expected() {
        Some(expected) => format!("{} → {}", row.case.behaviour, short(&expected)),
        None => row.case.behaviour.to_owned(),
    }
}

fn cell(row: &Row, name: Name) -> String {
    let Some(seen) = row.seen.get(&name) else { return String::new() };
    let mark = match (seen.differences.is_empty(), name) {
        (true, _) => "✓",
        (false, Name::Wharf) if pending::CASES.contains(&row.case.behaviour) => "…",
        (false, _) if row.case.is_laid_down() => "✗",
        (false, _) => "≠",
    };
    let mut text = format!("{mark} {}", summary(&seen.observation));
    // That the status is another one shows already.
    for difference in seen.differences.iter().filter(|text| !text.starts_with("expected ")) {
        let _ = write!(text, "; {difference}");
    }
    // The port is another one each time.
    text.replace(&format!(":{}/", seen.address.port()), "/").replace('|', "\\|")
}

/// The status codes, and where a redirect leads.
fn summary(observation: &Observation) -> String {
    let statuses = observation.responses.iter().map(|response| response.status.to_string());
    let mut text = short(&statuses.collect::<Vec<_>>().join(", "));
    let location = observation.responses.last().and_then(|last| last.header("location"));
    if let Some(location) = location {
        let _ = write!(text, " to `{location}`");
    }
    if let Some(other) = observation.other {
        let words = match other {
            Other::Silence => "closed",
            Other::Nothing => "hangs",
            Other::Http2 => "frames",
            Other::Headless => "no status line",
            Other::CutOff => "cut off",
        };
        text = if text.is_empty() { words.to_owned() } else { format!("{text}, {words}") };
    }
    text
}

/// A hundred times the same is one, and how often.
fn short(statuses: &str) -> String {
    let all: Vec<&str> = statuses.split(", ").collect();
    match all.first() {
        Some(first) if all.len() > 5 && all.iter().all(|status| status == first) => {
            format!("{first} × {}", all.len())
        }
        _ => statuses.to_owned(),
    }
}
