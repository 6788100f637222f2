//! `containerd-shim-wasm-v1 doctor`: what a node lacks to run apps, in words.
//!
//! It looks at the [`kernel`], at our own [`programs`] and at the [`engines`]. It
//! changes nothing, but that the cache's folder is made as the first start would.

mod engines;
mod kernel;
mod programs;

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// The word after the program's name.
pub(crate) const ACTION: &str = "doctor";

const USAGE: &str = "\
Says what this node lacks to run apps, and what to do about it.

Usage: containerd-shim-wasm-v1 doctor [--json] [--config FILE] [--address SOCKET]

  --json            print {\"problems\": N, \"warnings\": N, \"findings\": [{\"check\", \"level\",
                    \"found\", \"todo\"}]}; level is \"ok\", \"warning\" or \"problem\"
  --config FILE     containerd's configuration [default: that of the running one]
  --address SOCKET  containerd's socket        [default: that of the running one]

Exit code 1 if there is a problem: then no app runs. A warning is about something
that some nodes do without.

Example: sudo containerd-shim-wasm-v1 doctor
";

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Apps run, but not in every way.
    Warning,
    /// No app runs.
    Problem,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    check: &'static str,
    level: Level,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), todo: None }
    }

    fn warning(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, found: found.into(), todo: Some(todo.into()) }
    }

    fn problem(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { level: Level::Problem, ..Self::warning(check, found, todo) }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    problems: usize,
    warnings: usize,
    findings: Vec<Finding>,
}

impl Report {
    fn new(findings: Vec<Finding>) -> Self {
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Self { problems: count(Level::Problem), warnings: count(Level::Warning), findings }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for Finding { check, level, found, todo } in &self.findings {
            let mark = match level {
                Level::Ok => "ok     ",
                Level::Warning => "warning",
                Level::Problem => "PROBLEM",
            };
            let _ = writeln!(text, "{mark}  {check}: {}", plain(found));
            if let Some(todo) = todo {
                let _ = writeln!(text, "         {}", plain(todo));
            }
        }
        let _ =
            writeln!(text, "{}, {}", counted(self.problems, "problem"), counted(self.warnings, "warning"));
        text
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Without what a terminal would obey: paths and messages are others'.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What it is told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    json: bool,
    help: bool,
    config: Option<String>,
    address: Option<String>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("flag {word} has no value"));
            match word.as_str() {
                "--json" => options.json = true,
                "--help" | "-h" => options.help = true,
                "--config" => options.config = Some(value()?),
                "--address" => options.address = Some(value()?),
                _ => bail!("unknown argument {word:?} of doctor: expected --json, --config or --address"),
            }
        }
        Ok(options)
    }
}

/// Looks at everything and prints it.
///
/// # Errors
/// There is a problem, and apps don't run here; or an argument is none.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<()> {
    let options = Options::parse(words)?;
    let print = |text: &str| {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .context("cannot write to standard output")
    };
    if options.help {
        return print(USAGE);
    }
    let mut findings = kernel::examine();
    findings.extend(programs::examine());
    findings.extend(engines::examine(options.config.as_deref(), options.address.as_deref()));
    let report = Report::new(findings);
    if options.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(&report.text())?;
    }
    match report.problems {
        0 => Ok(()),
        count => bail!("apps do not run on this node: {}", counted(count, "problem")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read_and_others_refused() {
        let options = parse("--json --address /run/c.sock").unwrap();
        assert!(options.json && options.address.as_deref() == Some("/run/c.sock"));
        assert!(parse("--jsn").unwrap_err().to_string().contains("--json"));
        assert_eq!(parse("--config").unwrap_err().to_string(), "flag --config has no value");
    }

    #[test]
    fn a_report_says_what_to_do() {
        let report = Report::new(vec![
            Finding::ok("a", "fine"),
            Finding::warning("b", "half\x1b[2J", "do this"),
            Finding::problem("c", "none", "do that"),
        ]);
        let expected = "ok       a: fine\nwarning  b: half [2J\n         do this\nPROBLEM  c: none\n         do that\n\
                        1 problem, 1 warning\n";
        assert_eq!(report.text(), expected);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["problems"], &json["findings"][2]["level"]), (&1.into(), &"problem".into()));
        assert_eq!(json["findings"][0].get("todo"), None);
    }
}
