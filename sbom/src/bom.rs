//! The SBOM: CycloneDX 1.6 in JSON (ECMA-424).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use wharf_app::{BuiltApp, Project, Sha256};

use crate::contents::{Contents, Worker};
use crate::package::{Licence, Package};

/// The media type of the SBOM.
pub const CYCLONEDX: &str = "application/vnd.cyclonedx+json";

/// The reference of the app within the document.
const APP: &str = "app";

/// What an image was made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The project.
    pub project: &'a Project,
    /// What was built of it.
    pub app: &'a BuiltApp,
    /// The digest of the image's index.
    pub image: Sha256,
    /// The servers in its linux images.
    pub hosts: &'a [NativeHost],
    /// The version of wharf.
    pub version: &'a str,
    /// `SOURCE_DATE_EPOCH` as RFC 3339, if it is set.
    pub created: Option<&'a str>,
}

/// A `wharf-host` in an image.
#[derive(Clone, Debug)]
pub struct NativeHost {
    /// Of which image: `linux/amd64`.
    pub platform: String,
    /// The hash of the binary.
    pub sha256: Sha256,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bom {
    bom_format: &'static str,
    spec_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
}

#[derive(Serialize)]
struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    tools: Tools,
    component: Component,
}

#[derive(Serialize)]
struct Tools {
    components: Vec<Component>,
}

#[derive(Default, Serialize)]
struct Component {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref", skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<LicenceChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property>,
}

#[derive(Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum LicenceChoice {
    Expression(String),
    License { name: String },
}

#[derive(Serialize)]
struct Property {
    name: String,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    #[serde(rename = "ref")]
    reference: String,
    depends_on: BTreeSet<String>,
}

/// The SBOM of an image, the same bytes for the same inputs.
#[must_use]
pub fn cyclonedx(inputs: &Inputs<'_>) -> Vec<u8> {
    let contents = Contents::of(inputs.project, inputs.app);
    let mut dependencies: BTreeMap<String, BTreeSet<String>> = contents.needs;
    for purl in contents.packages.keys() {
        dependencies.entry(purl.clone()).or_default();
    }
    let mut of_app = contents.site;
    let mut components = Vec::new();
    for host in inputs.hosts {
        let component = native(host, inputs.version);
        let reference = component.reference.clone().unwrap_or_default();
        dependencies.insert(reference.clone(), BTreeSet::new());
        of_app.insert(reference);
        components.push(component);
    }
    for worker in contents.workers {
        let reference = format!("worker:{}", worker.file);
        dependencies.insert(reference.clone(), worker.packages.clone());
        of_app.insert(reference.clone());
        components.push(of_worker(worker, reference));
    }
    components.extend(contents.packages.into_values().map(library));
    dependencies.insert(APP.into(), of_app);
    let mut bom = Bom {
        bom_format: "CycloneDX",
        spec_version: "1.6",
        serial_number: None,
        version: 1,
        metadata: Metadata {
            timestamp: inputs.created.map(Into::into),
            tools: Tools { components: vec![tool(inputs.version)] },
            component: Component {
                kind: "application",
                reference: Some(APP.into()),
                name: inputs.app.manifest.name.clone(),
                // Which image this is about, also to who has the document alone.
                hashes: vec![sha256(inputs.image)],
                ..Component::default()
            },
        },
        components,
        dependencies: dependencies
            .into_iter()
            .map(|(reference, depends_on)| Dependency { reference, depends_on })
            .collect(),
    };
    bom.serial_number = Some(serial_number(&json(&bom)));
    json(&bom)
}

fn json(bom: &Bom) -> Vec<u8> {
    // Structs, strings and sorted sets: this can't fail, and can't vary.
    serde_json::to_vec(bom).unwrap_or_default()
}

/// A UUID of version 8 (RFC 9562, 5.8) made of the document's hash: a random
/// one would make each build another.
fn serial_number(document: &[u8]) -> String {
    let mut hash = *Sha256::of(document).as_bytes();
    hash[6] = hash[6] & 0x0f | 0x80;
    hash[8] = hash[8] & 0x3f | 0x80;
    let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn tool(version: &str) -> Component {
    Component {
        kind: "application",
        name: "wharf".into(),
        version: Some(version.into()),
        ..Component::default()
    }
}

fn native(host: &NativeHost, version: &str) -> Component {
    Component {
        kind: "application",
        reference: Some(format!("wharf-host:{}", host.platform)),
        name: "wharf-host".into(),
        version: Some(version.into()),
        hashes: vec![sha256(host.sha256)],
        properties: vec![Property { name: "dev.wharf.platform".into(), value: host.platform.clone() }],
        ..Component::default()
    }
}

fn of_worker(worker: Worker, reference: String) -> Component {
    let property = |(field, value): (String, String)| Property {
        name: format!("dev.wharf.wasm.producers.{field}"),
        value,
    };
    Component {
        kind: "application",
        reference: Some(reference),
        name: worker.file,
        hashes: vec![sha256(worker.sha256)],
        properties: worker.producers.into_iter().map(property).collect(),
        ..Component::default()
    }
}

fn library(package: Package) -> Component {
    Component {
        kind: "library",
        reference: Some(package.purl.clone()),
        name: package.name,
        version: Some(package.version),
        scope: package.build_only.then_some("excluded"),
        hashes: package.sha256.map(sha256).into_iter().collect(),
        licenses: package.licence.map(choice).into_iter().collect(),
        purl: Some(package.purl),
        ..Component::default()
    }
}

fn choice(licence: Licence) -> LicenceChoice {
    match licence {
        Licence::Expression(expression) => LicenceChoice::Expression(expression),
        Licence::Name(name) => LicenceChoice::License { name },
    }
}

fn sha256(hash: Sha256) -> Hash {
    Hash { alg: "SHA-256", content: hash.to_string() }
}
