//! The component: Ruby's module, what speaks preview 1 for it, and our glue.

use std::fmt::Write as _;

use anyhow::Context as _;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{ExportKind, ExportSection, RawSection};
use wasmparser::{Parser, Payload, TypeRef};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const GLUE: &str = include_str!("glue.wat");
const CANONICAL_ABI: &str = include_str!("canonical_abi.wat");

/// What the glue imports and exports.
const WIT: [(&str, &str); 3] = [
    (
        "keyvalue.wit",
        concat!(
            include_str!("../../host/wit/keyvalue/world.wit"),
            include_str!("../../host/wit/keyvalue/store.wit"),
            include_str!("../../host/wit/keyvalue/atomic.wit"),
            include_str!("../../host/wit/keyvalue/batch.wit"),
        ),
    ),
    ("cli.wit", "package wasi:cli@0.2.6; interface run { run: func() -> result; }"),
    (
        "glue.wit",
        "package wharf:ruby; world glue {
        import wasi:keyvalue/store@0.2.0-draft;
        import wasi:keyvalue/atomics@0.2.0-draft;
        export wasi:cli/run@0.2.6;
    }",
    ),
];

/// Folders that can be mounted at once.
pub(crate) const MOST_MOUNTS: u32 = 8;

/// Longest path of a mounted folder, in bytes, its first slash included.
const LONGEST_MOUNT: usize = 250;

/// The functions of preview 1 that the glue calls through the module.
const PREOPENS: [&str; 2] = ["fd_prestat_get", "fd_prestat_dir_name"];

/// A folder's name that holds the place of one that is mounted.
pub(crate) fn mount_placeholder(index: u32) -> String {
    format!("/{:_<1$}", format!(".wharf-mount-{index}"), LONGEST_MOUNT - 1)
}

/// The module `ruby`, which exports what it imports of [`PREOPENS`].
pub(crate) fn with_preopens_exported(ruby: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut module = wasm_encoder::Module::new();
    let mut functions = Vec::new();
    for payload in Parser::new(0).parse_all(ruby) {
        let payload = payload?;
        match &payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    let import = import?;
                    if matches!(import.ty, TypeRef::Func(_)) {
                        functions.push(import.name);
                    }
                }
            }
            Payload::ExportSection(exports) => {
                let mut section = ExportSection::new();
                RoundtripReencoder.parse_export_section(&mut section, exports.clone())?;
                for name in PREOPENS {
                    let index = functions.iter().position(|function| *function == name);
                    let index = index.with_context(|| format!("expected an import {name}"))?;
                    section.export(name, ExportKind::Func, u32::try_from(index)?);
                }
                module.section(&section);
                continue;
            }
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            module.section(&RawSection { id, data: &ruby[range] });
        }
    }
    Ok(module.finish())
}

/// The component of a started Ruby. `mounts`: where libc has the names of
/// preopened folders.
pub(crate) fn encode(module: &[u8], mounts: &[u32]) -> anyhow::Result<Vec<u8>> {
    let glue = glue(mounts)?;
    let abi = wat::parse_str(CANONICAL_ABI)?;
    ComponentEncoder::default()
        .module(module)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?
        .adapter("rb-js-abi-host", &glue)?
        .adapter("canonical_abi", &abi)?
        .validate(true)
        .encode()
}

fn glue(mounts: &[u32]) -> anyhow::Result<Vec<u8>> {
    let mut calls = String::new();
    for (fd, address) in (crate::files::FIRST..).zip(mounts) {
        write!(calls, "(call $mount (i32.const {fd}) (i32.const {address}))")?;
    }
    let mut module = wat::parse_str(GLUE.replace("(; MOUNTS ;)", &calls))?;
    let mut resolve = Resolve::default();
    let mut package = None;
    for (name, text) in WIT {
        package = Some(resolve.push_source(name, text)?);
    }
    let world = resolve.select_world(package.as_slice(), Some("glue"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

#[cfg(test)]
mod tests {
    use wasmparser::Validator;

    use super::*;

    #[test]
    fn the_glue_is_valid_and_names_each_mount() {
        let none = glue(&[]).unwrap();
        let some = glue(&[1000, 2000]).unwrap();
        Validator::new().validate_all(&none).unwrap();
        Validator::new().validate_all(&some).unwrap();
        assert!(some.len() > none.len());
    }

    #[test]
    fn a_placeholder_is_as_long_as_the_longest_mount() {
        let name = mount_placeholder(3);
        assert_eq!(name.len(), LONGEST_MOUNT);
        assert!(name.starts_with("/.wharf-mount-3_"));
    }

    #[test]
    fn what_the_module_imports_of_preview_1_is_exported_too() {
        let imports = |names: &[&str]| -> String {
            names.iter().map(|name| format!("(import \"wasi_snapshot_preview1\" {name:?} (func))")).collect()
        };
        let module =
            |names| wat::parse_str(format!("(module {} (func (export \"a\")))", imports(names))).unwrap();
        let exported =
            with_preopens_exported(&module(&["b", "fd_prestat_dir_name", "fd_prestat_get"])).unwrap();
        Validator::new().validate_all(&exported).unwrap();
        let mut exports = Vec::new();
        for payload in Parser::new(0).parse_all(&exported) {
            if let Payload::ExportSection(section) = payload.unwrap() {
                exports.extend(
                    section
                        .into_iter()
                        .map(|export| export.unwrap())
                        .map(|export| (export.name, export.index)),
                );
            }
        }
        assert_eq!(exports, [("a", 3), ("fd_prestat_get", 2), ("fd_prestat_dir_name", 1)]);
        let error = with_preopens_exported(&module(&["fd_prestat_get"])).unwrap_err();
        assert_eq!(error.to_string(), "expected an import fd_prestat_dir_name");
    }
}
