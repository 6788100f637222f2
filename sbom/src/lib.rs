//! What an image is made of, and how it came to be: a CycloneDX SBOM and a
//! provenance by SLSA.
//!
//! Owns finding packages in what goes into an image, and both documents. Knows
//! nothing of images: what it makes is attached to one elsewhere. Runs no program,
//! git included: which commit it was, it is told. It is a crate of its own so that
//! its parsers come into `wharf` alone, not into hosts and shims.
//!
//! | found in | what | module |
//! | --- | --- | --- |
//! | `*.dist-info/METADATA`, `*.whl`, `pyodide-lock.json` | Python packages | `python` |
//! | `package.json`, `third-party-licenses.json` | npm packages | `npm` |
//! | `wharf.lock`, `node_modules`, `vendor/bundle` | what workers import | `python`, `npm`, `ruby` |
//! | components' `.dep-v0` and `producers` | crates, compilers | `wasm` |
//!
//! Both documents are the same bytes for the same inputs. What can't be read is
//! left out, with a warning: files of a site may be anything.

mod bom;
mod contents;
mod npm;
mod package;
mod provenance;
mod python;
mod ruby;
mod wasm;

pub use bom::{CYCLONEDX, Inputs, NativeHost, cyclonedx};
pub use provenance::{BUILD_TYPE, BUILDER, IN_TOTO, Parameters, Provenance, Source, provenance};

#[cfg(test)]
mod tests;
