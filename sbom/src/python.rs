//! Python packages: installed ones, wheels, and what Pyodide's lock file lists.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use serde::Deserialize;
use walkdir::{DirEntry, WalkDir};
use wharf_app::{SITE_FOLDER, Sha256};

use crate::package::{Licence, Package, read, read_all};

/// Largest `METADATA`, in bytes; most of it is the package's description.
const LARGEST_METADATA: u64 = 4 << 20;
/// Largest `pyodide-lock.json`, in bytes; Pyodide's own has 120 KiB.
const LARGEST_LOCK: u64 = 16 << 20;
/// Most files of a wheel.
const MOST_FILES: usize = 200_000;
/// Folders of other people's files, as [`wharf_app::Project`] has them.
const FOREIGN_FOLDERS: [&str; 4] = ["node_modules", "target", "venv", "__pycache__"];

/// The end of the path of an installed package's description.
pub(crate) const METADATA: &str = ".dist-info/METADATA";

/// Packages that lie beside the Python sources of a project, which go into its
/// component with them.
pub(crate) fn vendored(project: &Path) -> Vec<Package> {
    let searched = |entry: &DirEntry| {
        let name = entry.file_name().as_encoded_bytes();
        let foreign = FOREIGN_FOLDERS.iter().any(|folder| folder.as_bytes() == name)
            || (entry.depth() == 1 && name == SITE_FOLDER.as_bytes());
        entry.depth() == 0 || !(name.starts_with(b".") || foreign && entry.file_type().is_dir())
    };
    let entries = WalkDir::new(project).sort_by_file_name().into_iter().filter_entry(searched);
    let files = entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    let descriptions = files.filter(|entry| entry.path().to_string_lossy().ends_with(METADATA));
    descriptions.filter_map(|entry| installed(entry.path())).collect()
}

/// The package that a file `METADATA` describes.
pub(crate) fn installed(file: &Path) -> Option<Package> {
    let content = read(file, LARGEST_METADATA).and_then(|content| metadata(&content));
    content.inspect_err(|error| tracing::warn!(file = %file.display(), %error, "not in the SBOM")).ok()
}

/// The package in a wheel.
pub(crate) fn wheel(file: &Path, sha256: Sha256) -> Option<Package> {
    let package = wheel_metadata(file)
        .inspect_err(|error| tracing::warn!(file = %file.display(), %error, "not in the SBOM"))
        .ok()?;
    Some(Package { sha256: Some(sha256), ..package })
}

fn wheel_metadata(file: &Path) -> io::Result<Package> {
    let mut archive = zip::ZipArchive::new(io::BufReader::new(fs_err::File::open(file)?))?;
    if archive.len() > MOST_FILES {
        return Err(invalid(format!("expected at most {MOST_FILES} files, found {}", archive.len())));
    }
    let of_package = |name: &str| name.ends_with(METADATA) && name.matches('/').count() == 1;
    let name = archive.file_names().filter_map(Result::ok).find(|name| of_package(name)).map(Cow::into_owned);
    let Some(name) = name else {
        return Err(invalid("expected *.dist-info/METADATA, found none"));
    };
    metadata(&read_all(archive.by_name(&name)?, LARGEST_METADATA)?)
}

/// Core metadata (packaging.python.org, "Core metadata specifications"): the
/// headers of a mail.
fn metadata(content: &[u8]) -> io::Result<Package> {
    let content = String::from_utf8_lossy(content);
    let mut headers = HashMap::new();
    for line in content.lines().take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(':')
            && !line.starts_with([' ', '\t'])
        {
            headers.entry(name.to_ascii_lowercase()).or_insert(value.trim());
        }
    }
    let header = |name: &str| headers.get(name).copied();
    let package =
        header("name").zip(header("version")).and_then(|(name, version)| Package::pypi(name, version));
    let Some(package) = package else {
        return Err(invalid("expected Name and Version, found others"));
    };
    let licence = header("license-expression")
        .and_then(Licence::expression)
        .or_else(|| header("license").and_then(Licence::name));
    Ok(Package { licence, ..package })
}

#[derive(Deserialize)]
struct Lock {
    packages: BTreeMap<String, Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    file_name: String,
}

/// Those packages of a `pyodide-lock.json` whose files lie beside it: `hash` has
/// the hash of such a file. The others are fetched from elsewhere by the browser.
pub(crate) fn locked(file: &Path, hash: impl Fn(&str) -> Option<Sha256>) -> Vec<Package> {
    let lock: io::Result<Lock> =
        read(file, LARGEST_LOCK).and_then(|content| Ok(serde_json::from_slice(&content)?));
    match lock {
        Ok(lock) => {
            let present = lock.packages.into_values().filter_map(|locked| {
                let sha256 = hash(&locked.file_name)?;
                let package = Package::pypi(&locked.name, &locked.version)?;
                Some(Package { sha256: Some(sha256), ..package })
            });
            present.collect()
        }
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "not in the SBOM");
            Vec::new()
        }
    }
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}
