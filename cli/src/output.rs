//! What is printed where: data on stdout, talk on stderr. The only file that
//! prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write as _};

use anyhow::Result;
use serde::Serialize;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;
use wharf_app::{BuildError, LockError, PrecompressError, ProjectError, ToolError};
use wharf_host::{AppError, BindError, CodeCacheError, CompileError, Log};
use wharf_images::signature::KeyError;
use wharf_images::{
    ArchiveError, InvalidReference, LayerError, LayoutError, RegistryError, UnpackError, is_plain,
};

use crate::arguments::Global;
use crate::commands::verify::NoSignature;
use crate::kubernetes::KubernetesError;
use crate::native::NoNativeHost;
use crate::node::NodeError;
use crate::target::TargetError;

/// Sends the log of the libraries to stderr, as much as the flags ask for, by
/// way of the host's queue: while it serves, no request waits for a reader.
pub(crate) fn start_log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, _) => LevelFilter::DEBUG,
    };
    let format = tracing_subscriber::fmt::layer()
        .with_writer(Log)
        .with_target(false)
        .without_time()
        .with_ansi(false)
        .with_filter(level);
    tracing_subscriber::registry().with(format).init();
}

/// A line of data.
///
/// # Errors
/// stdout is closed.
pub(crate) fn line(text: impl Display) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()?;
    Ok(())
}

/// Data as JSON.
///
/// # Errors
/// stdout is closed.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Rows in columns as wide as their widest cell.
///
/// # Errors
/// stdout is closed.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// Text from elsewhere, without what a terminal would obey, or what turns the
/// direction of the text around it.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// The same of a text of several lines.
pub(crate) fn plain_lines(text: &str) -> String {
    let safe =
        |c: char| if is_plain(c) || matches!(c, '\n' | '\t') { c } else { char::REPLACEMENT_CHARACTER };
    text.chars().map(safe).collect()
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A remark for the person, on stderr.
pub(crate) fn remark(text: impl Display) {
    eprintln!("{text}");
}

/// An error, its causes, and what to do about it.
pub(crate) fn print_error(error: &anyhow::Error) {
    // `wharf images | head` is no failure of ours.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return;
    }
    eprintln!("{}", error_text(error));
}

/// The same as text.
pub(crate) fn error_text(error: &anyhow::Error) -> String {
    let mut lines = vec![format!("error: {error}")];
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Some libraries repeat the cause in their own text.
        if !last.contains(&text) {
            lines.push(format!("  caused by: {}", text.trim_end().replace('\n', "\n    ")));
        }
        last = text;
    }
    lines.extend(error.chain().find_map(hint).map(|hint| format!("hint: {hint}")));
    lines.join("\n")
}

fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    macro_rules! hint_of {
        ($($kind:ty),+) => {
            None$(.or_else(|| error.downcast_ref::<$kind>().and_then(<$kind>::hint)))+
        };
    }
    hint_of!(
        AppError,
        ArchiveError,
        BindError,
        BuildError,
        CodeCacheError,
        CompileError,
        InvalidReference,
        LayerError,
        KeyError,
        KubernetesError,
        LayoutError,
        LockError,
        NoNativeHost,
        NoSignature,
        NodeError,
        PrecompressError,
        ProjectError,
        RegistryError,
        TargetError,
        ToolError,
        UnpackError
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_replaced_and_all_else_stays() {
        assert_eq!(
            plain("a\x1b[2Jb\u{202e}c\u{2066}d\n\u{9b}"),
            "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}\u{fffd}"
        );
        assert_eq!(plain("/grüße/日本 שלום"), "/grüße/日本 שלום");
    }
}
