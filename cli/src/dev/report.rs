//! What went wrong, for the browser: the words, and the code that they point at.

use std::path::Path;

use anyhow::Error;
use regex_lite::Regex;
use serde::Serialize;

use crate::output;

/// Lines shown on each side of the one that is meant.
const AROUND: usize = 3;

/// Places shown at most.
const MOST_PLACES: usize = 5;

/// Largest source that is shown a part of, in bytes.
const LARGEST_SOURCE: u64 = 4 << 20;

/// What went wrong.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    title: String,
    /// As the terminal has it.
    text: String,
    /// The most telling first.
    places: Vec<Place>,
}

/// A place in the project's sources.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Place {
    /// Path below the project.
    file: String,
    line: usize,
    /// Numbers and lines around it.
    code: Vec<(usize, String)>,
}

impl Report {
    /// Of a build that failed.
    pub(super) fn of_build(error: &Error, dir: &Path) -> Self {
        Self::new("The build failed", &output::error_text(error), dir)
    }

    /// Of a worker that failed at a request, which wrote `said` to its log.
    pub(super) fn of_worker(said: &str, dir: &Path) -> Self {
        Self::new("A worker failed", said.trim_end(), dir)
    }

    fn new(title: &str, text: &str, dir: &Path) -> Self {
        let text = output::plain_lines(text);
        let mut places = places(&text, dir);
        // Python has the most recent call last.
        if text.contains("most recent call last") {
            places.reverse();
        }
        places.truncate(MOST_PLACES);
        Self { title: title.to_owned(), text, places }
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The places that a text names, each once, as far as they are the project's.
fn places(text: &str, dir: &Path) -> Vec<Place> {
    // `File "api/x.py", line 3` of Python, and `api/x.ts:3:7` of all others.
    let Ok(pattern) = Regex::new(r#"File "([^"]+)", line ([0-9]+)|([\w@%+./\[\]-]+\.[A-Za-z]+):([0-9]+)"#)
    else {
        return Vec::new();
    };
    let mut places: Vec<Place> = Vec::new();
    for found in pattern.captures_iter(text) {
        let part = |quoted, plain| found.get(quoted).or_else(|| found.get(plain));
        let (Some(file), Some(line)) = (part(1, 3), part(2, 4)) else { continue };
        let (Ok(line), file) = (line.as_str().parse::<usize>(), file.as_str()) else { continue };
        let file = file.strip_prefix("./").unwrap_or(file);
        if places.iter().all(|known| (known.file.as_str(), known.line) != (file, line))
            && let Some(code) = code(&dir.join(file), line, dir)
        {
            places.push(Place { file: file.to_owned(), line, code });
        }
    }
    places
}

/// The lines around `line` of a source, if it is one of the project in `dir`.
fn code(path: &Path, line: usize, dir: &Path) -> Option<Vec<(usize, String)>> {
    let path = fs_err::canonicalize(path).ok()?;
    let size = fs_err::metadata(&path).ok().filter(std::fs::Metadata::is_file)?.len();
    if !path.starts_with(dir) || size > LARGEST_SOURCE {
        return None;
    }
    let text = fs_err::read_to_string(path).ok()?;
    let first = line.checked_sub(1)?.saturating_sub(AROUND);
    let lines: Vec<_> = text
        .lines()
        .enumerate()
        .skip(first)
        .take(line + AROUND - first)
        .map(|(index, text)| (index + 1, text.to_owned()))
        .collect();
    lines.iter().any(|(number, _)| *number == line).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir(folder.path().join("api")).unwrap();
        let lines: Vec<String> = (1..=20).map(|number| format!("line {number}")).collect();
        fs_err::write(folder.path().join("api/[id].py"), lines.join("\n")).unwrap();
        fs_err::write(folder.path().join("x.ts"), "only\n").unwrap();
        folder
    }

    #[test]
    fn places_are_found_with_the_code_around_them() {
        let folder = folder();
        let dir = fs_err::canonicalize(folder.path()).unwrap();
        let text = "Traceback (most recent call last):\n  File \"x.ts\", line 1, in a\n  File \"api/[id].py\", line 5\nboom";
        let report = Report::of_worker(text, &dir);
        let place = &report.places[0];
        assert_eq!((place.file.as_str(), place.line), ("api/[id].py", 5));
        assert_eq!(place.code.first(), Some(&(2, "line 2".to_owned())));
        assert_eq!(place.code.last(), Some(&(8, "line 8".to_owned())));
        let report = Report::of_worker("TypeError\n    at fetch (./x.ts:1:7)\n    at y.ts:1:1", &dir);
        assert_eq!(report.places.len(), 1);
        assert_eq!(report.places[0].code, [(1, "only".to_owned())]);
    }

    #[test]
    fn what_lies_outside_the_project_is_never_shown() {
        let folder = folder();
        let dir = fs_err::canonicalize(folder.path()).unwrap();
        for text in ["/etc/resolv.conf:1", "../../../../etc/resolv.conf:1", "x.ts:2", "x.ts:0", "none.py:1"] {
            assert_eq!(places(text, &dir), [], "{text}");
        }
    }
}
