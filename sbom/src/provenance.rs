//! The provenance: an in-toto statement with a predicate by SLSA 1.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use wharf_app::{Language, Sha256};

use crate::contents::toolchain;

use crate::bom::Inputs;

/// The media type of the provenance.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";

/// What kind of build it was: `wharf build`. Its `externalParameters` are
///
/// - `app`: the app's name,
/// - `platforms`: those of the index, in its order,
/// - `compression`: of the layers, `gzip` or `zstd`,
/// - `singlePlatform`: whether the image is one manifest without an index,
/// - `precompress`: whether compressed forms of the site's files were made,
/// - `annotations` and `labels`: those given by flags, by key,
/// - `sbom`: true.
///
/// `resolvedDependencies` are the commit of the project (with the annotation
/// `dev.wharf.changed` if there were changes since), each `wharf-host` with its
/// hash, and componentize-py if Python workers were built.
pub const BUILD_TYPE: &str = "https://wharf.dev/build/v1";

/// Who built: wharf, on a machine of which nothing is said. The statement is
/// worth as much as who signs it.
pub const BUILDER: &str = "https://wharf.dev/wharf";

/// What the provenance says besides what the SBOM is made of.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'a> {
    /// What the build was asked for.
    pub parameters: &'a Parameters,
    /// The project's revision, if it is known.
    pub source: Option<&'a Source>,
}

/// What a build was asked for, besides the project: `externalParameters`, as
/// [`BUILD_TYPE`] documents them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameters {
    /// The app's name.
    pub app: String,
    /// The platforms of the index, in its order.
    pub platforms: Vec<String>,
    /// Of the layers: `gzip` or `zstd`.
    pub compression: &'static str,
    /// Whether the image is one manifest without an index.
    pub single_platform: bool,
    /// Whether compressed forms of the site's files were made.
    pub precompress: bool,
    /// Annotations given by flags.
    pub annotations: BTreeMap<String, String>,
    /// Labels given by flags.
    pub labels: BTreeMap<String, String>,
    /// Whether SBOM and provenance were asked for.
    pub sbom: bool,
}

/// Where a project comes from, as far as the caller tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The repository's URL, without credentials and query; none if it is this
    /// machine's alone.
    pub repository: Option<String>,
    /// The commit: 40 or 64 hexadecimal digits.
    pub revision: String,
    /// Whether the project has changes that the commit hasn't.
    pub changed: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: [Resource; 1],
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

#[derive(Default, Serialize)]
struct Resource {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    digest: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    build_definition: Definition<'a>,
    run_details: Run,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Definition<'a> {
    build_type: &'static str,
    external_parameters: &'a Parameters,
    resolved_dependencies: Vec<Resource>,
}

#[derive(Serialize)]
struct Run {
    builder: Builder,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Times>,
}

#[derive(Serialize)]
struct Builder {
    id: &'static str,
    version: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    started_on: String,
    finished_on: String,
}

/// The provenance of an image, the same bytes for the same inputs.
#[must_use]
pub fn provenance(inputs: &Inputs<'_>, provenance: &Provenance<'_>) -> Vec<u8> {
    let mut dependencies = Vec::new();
    if let Some(source) = provenance.source {
        dependencies.push(Resource {
            uri: source.repository.as_ref().map(|url| format!("git+{url}")),
            digest: BTreeMap::from([("gitCommit", source.revision.clone())]),
            annotations: source
                .changed
                .then(|| ("dev.wharf.changed", "true".to_owned()))
                .into_iter()
                .collect(),
            ..Resource::default()
        });
    }
    dependencies.extend(inputs.hosts.iter().map(|host| Resource {
        name: Some("wharf-host".into()),
        digest: sha256(host.sha256),
        annotations: BTreeMap::from([("dev.wharf.platform", host.platform.clone())]),
        ..Resource::default()
    }));
    let languages: BTreeSet<Language> =
        inputs.project.workers().iter().map(|worker| worker.language).collect();
    let toolchains = languages.into_iter().filter_map(|language| toolchain(inputs.project, language));
    dependencies
        .extend(toolchains.map(|package| Resource { uri: Some(package.purl), ..Resource::default() }));
    let name = &inputs.app.manifest.name;
    let statement = Statement {
        kind: "https://in-toto.io/Statement/v1",
        subject: [Resource { name: Some(name.clone()), digest: sha256(inputs.image), ..Resource::default() }],
        predicate_type: "https://slsa.dev/provenance/v1",
        predicate: Predicate {
            build_definition: Definition {
                build_type: BUILD_TYPE,
                external_parameters: provenance.parameters,
                resolved_dependencies: dependencies,
            },
            run_details: Run {
                builder: Builder {
                    id: BUILDER,
                    version: BTreeMap::from([("wharf", inputs.version.to_owned())]),
                },
                metadata: inputs
                    .created
                    .map(|time| Times { started_on: time.to_owned(), finished_on: time.to_owned() }),
            },
        },
    };
    // Structs, strings and sorted maps: this can't fail, and can't vary.
    serde_json::to_vec(&statement).unwrap_or_default()
}

fn sha256(hash: Sha256) -> BTreeMap<&'static str, String> {
    BTreeMap::from([("sha256", hash.to_string())])
}
