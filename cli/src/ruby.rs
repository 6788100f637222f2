//! What starts Ruby for a build: wasmtime, which this program has anyway.

use std::error::Error as _;
use std::path::Path;

use tracing::info;
use wharf_app::{RubyError, StartRuby};
use wharf_ruby::{Error, Interpreter, Program};

/// By the crate `wharf-ruby`.
pub(crate) struct Ruby;

impl StartRuby for Ruby {
    fn id(&self) -> String {
        wharf_ruby::id()
    }

    fn start(
        &self,
        interpreter: &[u8],
        cache: &Path,
        files: &[(String, Vec<u8>)],
        workers: &[(String, String)],
    ) -> Result<Vec<u8>, RubyError> {
        let built =
            Interpreter::open(interpreter, cache).and_then(|ruby| ruby.build(&Program { files, workers }));
        let built = built.map_err(|error| match error {
            Error::Source { report, hint } => RubyError { report, hint },
            other => {
                let cause = other.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                RubyError { report: format!("{other}{cause}"), hint: None }
            }
        })?;
        if !built.printed.is_empty() {
            info!(printed = built.printed, "Ruby workers printed while they were loaded");
        }
        Ok(built.component)
    }
}
