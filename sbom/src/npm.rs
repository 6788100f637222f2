//! npm packages: those that lie in a site as they are, and those that a bundler
//! put into its output and lists beside it.

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
