//! What a WebAssembly component tells of itself in custom sections, its own and
//! those of the modules in it.

use std::collections::BTreeSet;

use flate2::read::ZlibDecoder;
use serde::Deserialize;
use wasmparser::{BinaryReader, Parser, Payload, ProducersSectionReader};

use crate::package::{Package, read_all};

/// Where `cargo auditable` puts the crates.
const AUDITABLE: &str = ".dep-v0";
/// Where compilers put their names (tool-conventions, ProducersSection.md).
const PRODUCERS: &str = "producers";
/// Most crates, and most producers, of one section.
const MOST: usize = 20_000;
/// Largest list of crates, in bytes, uncompressed.
const LARGEST_LIST: u64 = 16 << 20;
/// Longest name of a producer that is kept, in bytes.
const LONGEST: usize = 256;

/// What was found.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Contents {
    /// `language`, `processed-by` or `sdk`, and the name with its version.
    pub(crate) producers: BTreeSet<(String, String)>,
    /// The crates of each module that lists them.
    pub(crate) crates: Vec<Crates>,
}

/// The crates of one module.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Crates {
    pub(crate) packages: Vec<Package>,
    /// For each of them, places in `packages` of what it needs.
    pub(crate) needs: Vec<Vec<usize>>,
    /// The place of the module's own crate.
    pub(crate) root: Option<usize>,
}

/// Reads what there is; a damaged section, or the rest of a damaged component,
/// is left out.
pub(crate) fn contents(wasm: &[u8]) -> Contents {
    let mut contents = Contents::default();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload {
            Ok(Payload::CustomSection(section)) if section.name() == PRODUCERS => {
                let producers = producers(section.data()).unwrap_or_default();
                contents.producers.extend(producers);
            }
            Ok(Payload::CustomSection(section)) if section.name() == AUDITABLE => {
                contents.crates.extend(crates(section.data()));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    contents
}

fn producers(section: &[u8]) -> wasmparser::Result<BTreeSet<(String, String)>> {
    let mut found = BTreeSet::new();
    for field in ProducersSectionReader::new(BinaryReader::new(section, 0))? {
        let field = field?;
        for value in field.values {
            let value = value?;
            let text = format!("{} {}", value.name, value.version).trim().to_owned();
            let fits =
                |text: &str| !text.is_empty() && text.len() <= LONGEST && !text.contains(char::is_control);
            if found.len() < MOST && fits(field.name) && fits(&text) {
                found.insert((field.name.to_owned(), text));
            }
        }
    }
    Ok(found)
}

/// The format of `cargo auditable` (its PARSING.md): JSON, compressed by zlib.
#[derive(Deserialize)]
struct Auditable {
    packages: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    version: String,
    source: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    dependencies: Vec<usize>,
    #[serde(default)]
    root: bool,
}

fn crates(section: &[u8]) -> Option<Crates> {
    let json = read_all(ZlibDecoder::new(section), LARGEST_LIST).ok()?;
    let list: Auditable = serde_json::from_slice(&json).ok()?;
    if list.packages.len() > MOST {
        return None;
    }
    let root = list.packages.iter().position(|entry| entry.root);
    let count = list.packages.len();
    let needs = list
        .packages
        .iter()
        .map(|entry| entry.dependencies.iter().copied().filter(|place| *place < count).collect())
        .collect();
    let packages: Option<Vec<Package>> = list
        .packages
        .into_iter()
        .map(|entry| {
            let mut package = Package::cargo(&entry.name, &entry.version)?;
            // A crate of no registry must not be taken for one of that name there.
            match entry.source.as_str() {
                "crates.io" => {}
                "git" | "local" | "registry" => {
                    package.purl.push_str(&format!("?source={}", entry.source));
                }
                _ => package.purl.push_str("?source=other"),
            }
            package.build_only = entry.kind.as_deref() == Some("build");
            Some(package)
        })
        .collect();
    Some(Crates { packages: packages?, needs, root })
}
