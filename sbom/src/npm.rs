//! npm packages: those that lie in a site as they are, those that a bundler put into its
//! output and lists beside it, and those that workers import.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::package::{Licence, Package, read};

/// Largest `package.json`, in bytes.
const LARGEST_PACKAGE: u64 = 4 << 20;
/// Largest `third-party-licenses.json`, in bytes: it holds whole licences.
const LARGEST_LIST: u64 = 64 << 20;

#[derive(Deserialize)]
struct Description {
    name: String,
    version: String,
    #[serde(default)]
    license: Value,
}

/// The package of a `package.json`. Many have neither name nor version, as
/// those that only say `{"type": "module"}`.
pub(crate) fn package(file: &Path) -> Option<Package> {
    let content = read(file, LARGEST_PACKAGE)
        .inspect_err(|error| tracing::warn!(file = %file.display(), %error, "not in the SBOM"))
        .ok()?;
    let description: Description = serde_json::from_slice(&content).ok()?;
    let package = Package::npm(&description.name, &description.version)?;
    Some(Package { licence: description.license.as_str().and_then(Licence::name), ..package })
}

/// What npm keeps of what it has installed (`node_modules/.package-lock.json`).
#[derive(Deserialize)]
struct Installed {
    packages: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    license: Value,
    /// Needed by who works on the project alone.
    #[serde(default)]
    dev: bool,
    #[serde(default, rename = "devOptional")]
    dev_optional: bool,
}

/// The packages that workers of the project can import: some may not be in its
/// component, since only what is imported is.
pub(crate) fn installed(project: &Path) -> Vec<Package> {
    let file = project.join("node_modules/.package-lock.json");
    if !file.is_file() {
        return Vec::new();
    }
    let list =
        read(&file, LARGEST_LIST).and_then(|content| Ok(serde_json::from_slice::<Installed>(&content)?));
    match list {
        Ok(list) => {
            let imported = list.packages.into_iter().filter(|(_, entry)| !entry.dev && !entry.dev_optional);
            let packages = imported.filter_map(|(path, entry)| {
                let (_, name) = path.rsplit_once("node_modules/")?;
                let package = Package::npm(name, &entry.version?)?;
                Some(Package { licence: entry.license.as_str().and_then(Licence::name), ..package })
            });
            packages.collect()
        }
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "not in the SBOM");
            Vec::new()
        }
    }
}

/// What webpack's license plugins write, as JupyterLab's builder does.
#[derive(Deserialize)]
struct List {
    packages: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: String,
    #[serde(default)]
    version_info: Option<String>,
    #[serde(default)]
    license_id: Option<String>,
}

/// The packages of a `third-party-licenses.json`.
pub(crate) fn bundled(file: &Path) -> Vec<Package> {
    let list = read(file, LARGEST_LIST).and_then(|content| Ok(serde_json::from_slice::<List>(&content)?));
    match list {
        Ok(list) => {
            let packages = list.packages.into_iter().filter_map(|listed| {
                let package = Package::npm(&listed.name, &listed.version_info?)?;
                Some(Package { licence: listed.license_id.as_deref().and_then(Licence::name), ..package })
            });
            packages.collect()
        }
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "not in the SBOM");
            Vec::new()
        }
    }
}
