//! Figures: samples, their medians, and how they are printed.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// In bytes.
pub(crate) const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// The same thing measured of wharf and of a peer.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// What was measured.
    pub(crate) name: &'static str,
    /// The unit of the figures.
    pub(crate) unit: &'static str,
    /// What wharf took.
    pub(crate) wharf: Vec<f64>,
    /// The peer's name and what it took; none where there is no peer.
    pub(crate) peer: Option<(&'static str, Vec<f64>)>,
}

/// The middle of some figures, of two the lower.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 2]
}

fn least(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// One line a comparison: medians with least and most, and wharf's median over the peer's.
pub(crate) fn table(comparisons: &[Comparison]) -> String {
    let mut rows = vec![["", "wharf", "peer", "ratio", ""].map(str::to_owned)];
    for comparison in comparisons {
        let (peer, ratio, name) = match &comparison.peer {
            Some((name, figures)) => {
                let ratio = median(&comparison.wharf) / median(figures);
                (cell(figures, comparison.unit), format!("{ratio:.2}"), (*name).to_owned())
            }
            None => Default::default(),
        };
        rows.push([comparison.name.to_owned(), cell(&comparison.wharf, comparison.unit), peer, ratio, name]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [0, 1, 2, 3, 4].map(width);
    let mut table = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(table, "{}", cells.join("  ").trim_end());
    }
    table.push_str(
        "Medians (least–most); ratio: wharf over peer, where less is better but for req/s and MiB/s.\n",
    );
    table
}

fn cell(figures: &[f64], unit: &str) -> String {
    // Latencies of a fraction of a millisecond are told apart too.
    let digits = match median(figures) {
        figure if figure < 1.0 => 3,
        figure if figure < 10.0 => 1,
        _ => 0,
    };
    format!("{:.digits$} {unit} ({:.digits$}–{:.digits$})", median(figures), least(figures), most(figures))
}

/// The same as data.
pub(crate) fn json(comparisons: &[Comparison]) -> Value {
    let figures = |figures: &[f64]| json!({ "median": median(figures), "min": least(figures), "max": most(figures), "samples": figures });
    comparisons
        .iter()
        .map(|comparison| {
            json!({
                "name": comparison.name,
                "unit": comparison.unit,
                "wharf": figures(&comparison.wharf),
                "peer": comparison.peer.as_ref().map(|(name, of)| json!({ "name": name, "figures": figures(of) })),
                "ratio": comparison.peer.as_ref().map(|(_, of)| median(&comparison.wharf) / median(of)),
            })
        })
        .collect()
}
