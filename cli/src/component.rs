//! What a WebAssembly component asks of its host, and what it offers.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use wasmparser::{Parser, Payload};

/// The names of a component's interfaces, as WIT writes them:
/// `wasi:http/types@0.2.3`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Interfaces {
    /// Sorted.
    pub(crate) imports: Vec<String>,
    /// Sorted.
    pub(crate) exports: Vec<String>,
}

impl Interfaces {
    /// Reads the component in the file `path`.
    ///
    /// # Errors
    /// It can't be read, or is malformed.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let component = fs_err::read(path)?;
        Self::parse(&component).with_context(|| format!("cannot parse component {}", path.display()))
    }

    fn parse(mut rest: &[u8]) -> Result<Self> {
        let mut interfaces = Self::default();
        let mut parser = Parser::new(0);
        // Not what modules and components within it import: those get it from
        // the outer one. Their sections are stepped over, not read.
        while let wasmparser::Chunk::Parsed { consumed, payload } = parser.parse(rest, true)? {
            rest = rest.get(consumed..).unwrap_or_default();
            match payload {
                Payload::ComponentImportSection(section) => {
                    for import in section {
                        interfaces.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) => {
                    for export in section {
                        interfaces.exports.push(export?.name.name.to_owned());
                    }
                }
                Payload::ModuleSection { unchecked_range, .. }
                | Payload::ComponentSection { unchecked_range, .. } => {
                    rest = rest.get(unchecked_range.len()..).context("a section ends early")?;
                }
                Payload::End(_) => break,
                _ => {}
            }
        }
        interfaces.imports.sort();
        interfaces.exports.sort();
        Ok(interfaces)
    }
}
