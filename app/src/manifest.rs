//! The app manifest, `wharf.json`: an app as data.
//!
//! In an image it lies at `/app/wharf.json`, beside `site/` and `workers/`.
//! It is what the host reads to serve an app and what the shim reads to
//! recognise one. It does not hold contents, only their digests.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component as PathComponent, Path};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::abi::{Abi, Wasi};
use crate::digest::Sha256;
use crate::encoding::Encoding;
use crate::grants::{Grants, Value};
use crate::headers::HeaderRule;
use crate::redirects::Redirect;

/// The name of the manifest within an app's folder.
pub const MANIFEST_FILE: &str = "wharf.json";

/// The schema that this version writes and reads.
const SCHEMA: u32 = 1;

/// Largest manifest, in bytes: room for more than 500,000 files.
pub const LARGEST_MANIFEST: u64 = 256 << 20;

/// An app: a site and its workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format; always 1.
    schema: u32,
    /// The app's name, for people.
    pub name: String,
    /// The static files, served under `/`.
    pub site: Site,
    /// The Wasm components of the workers, each once, whoever uses it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
    /// The workers, in order of precedence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<Worker>,
}

/// The static part of an app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Sends `Cross-Origin-Opener-Policy: same-origin` and
    /// `Cross-Origin-Embedder-Policy: require-corp` with every response.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Answers navigations to what isn't there with `index.html`, status 200:
    /// a single-page app.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spa: bool,
    /// What becomes of the headers of static answers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderRule>,
    /// Redirects and rewrites, in order of precedence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<Redirect>,
    /// The files, sorted by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Asset>,
}

/// One static file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asset {
    /// Path below `site/`, with `/` between its parts and none in front.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// Hash of the content: the strong `ETag`.
    pub sha256: Sha256,
    /// Value of `Content-Type`.
    #[serde(rename = "type")]
    pub media_type: String,
    /// The same content, compressed: files beside this one, sorted by coding.
    /// They have no routes of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encodings: Vec<Encoding>,
}

/// One Wasm component, or a core module that can't be made into one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Path below the app's folder, for example `workers/index.wasm`.
    pub file: String,
    /// Length in bytes.
    pub size: u64,
    /// Hash of the content; precompiled code is looked up by it.
    pub sha256: Sha256,
    /// Which WASI it is made for. Default 0.2.
    #[serde(default, skip_serializing_if = "Wasi::is_default")]
    pub wasi: Wasi,
}

/// One worker: the requests that it answers and the component that does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Path of its source without extension, for example `api/hello`.
    pub name: String,
    /// The pattern of its route, for example `/api/[id]`.
    pub pattern: String,
    /// The file from which it was made, for people: `api/hello.py`.
    pub source: String,
    /// Which of [`Manifest::components`] runs it.
    pub component: usize,
    /// How it is spoken to. Default `http`.
    #[serde(default, skip_serializing_if = "Abi::is_default")]
    pub abi: Abi,
    /// Environment variables of the guest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Value>,
    /// What else it may use.
    #[serde(default, skip_serializing_if = "Grants::is_empty")]
    pub grants: Grants,
    /// What one request may use.
    #[serde(default)]
    pub limits: Limits,
    /// Requests that one instance answers, one after the other, before another
    /// takes its place. Default 1: nothing of one request is seen by the next.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub reuse: u32,
}

const fn once() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_once(count: &u32) -> bool {
    *count == 1
}

/// What one request to a worker may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Wall-clock time, in milliseconds, until 504. Default 30,000.
    pub timeout_ms: u64,
    /// CPU time, in milliseconds, until 504. Default 10,000.
    pub cpu_ms: u64,
    /// Linear memory, in bytes, all memories together, past which the guest
    /// can't grow. Default 256 MiB.
    pub memory: u64,
    /// Elements of tables, all tables together, past which they can't grow.
    /// Default 100,000.
    pub table_elements: u64,
    /// Core instances that the component is made of at most. Default 100.
    pub instances: u32,
    /// Request body, in bytes; past it 413. Default 10 MiB.
    pub body: u64,
    /// Response body, in bytes; past it the connection is cut off. Default 1 GiB.
    pub response: u64,
    /// Output to the log, in bytes; the rest is dropped. Default 64 KiB.
    pub log: u64,
    /// Requests that run at the same time in each process of the host; further
    /// ones wait for their turn, and get 503 if it does not come. Default 64.
    pub concurrency: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout_ms: 30_000,
            cpu_ms: 10_000,
            memory: 256 << 20,
            table_elements: 100_000,
            instances: 100,
            body: 10 << 20,
            response: 1 << 30,
            log: 64 << 10,
            concurrency: 64,
        }
    }
}

impl Limits {
    /// Wall-clock time of one request.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file can't be read; the cause names it.
    #[error("cannot read app manifest")]
    Read(#[source] io::Error),
    /// The file is larger than any real manifest.
    #[error("app manifest has {size} bytes: expected at most {LARGEST_MANIFEST}")]
    TooLarge {
        /// Its length in bytes.
        size: u64,
    },
    /// The text is not JSON of this form.
    #[error("cannot parse app manifest")]
    Parse(#[source] serde_json::Error),
    /// It was written by a newer version.
    #[error("app manifest has schema {found}: expected {SCHEMA}")]
    Schema {
        /// The schema of the file.
        found: u32,
    },
    /// A path would leave the app's folder.
    #[error("app manifest names {path:?}: expected a relative path without \"..\"")]
    Path {
        /// The path as written.
        path: String,
    },
    /// A file has two encoded forms of one coding, or they are in disorder.
    #[error("app manifest has malformed encodings of {path:?}: expected each coding once, in order")]
    Encodings {
        /// The path of the file.
        path: String,
    },
    /// A worker names a component that isn't listed.
    #[error("worker {worker:?} uses component {component}: expected one of the {count} listed")]
    Component {
        /// Name of the worker.
        worker: String,
        /// The index that it gives.
        component: usize,
        /// Number of components.
        count: usize,
    },
}

impl Manifest {
    /// An app without files or workers.
    #[must_use]
    pub const fn new(name: String, site: Site) -> Self {
        Self { schema: SCHEMA, name, site, components: Vec::new(), workers: Vec::new() }
    }

    /// Reads and checks the manifest in the file `path`.
    ///
    /// # Errors
    /// [`ManifestError`]: the file can't be read, or is not a valid manifest.
    pub fn read(path: &Path) -> Result<Self, ManifestError> {
        let size = fs_err::metadata(path).map_err(ManifestError::Read)?.len();
        if size > LARGEST_MANIFEST {
            return Err(ManifestError::TooLarge { size });
        }
        Self::parse(&fs_err::read(path).map_err(ManifestError::Read)?)
    }

    /// Parses and checks a manifest.
    ///
    /// # Errors
    /// [`ManifestError`]: the text is not a valid manifest.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        /// Read first, so that a newer file is called newer, not malformed.
        #[derive(Deserialize)]
        struct Versioned {
            schema: u32,
        }
        let Versioned { schema } = serde_json::from_slice(json).map_err(ManifestError::Parse)?;
        if schema != SCHEMA {
            return Err(ManifestError::Schema { found: schema });
        }
        let manifest: Self = serde_json::from_slice(json).map_err(ManifestError::Parse)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest as canonical JSON: the same app gives the same bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Struct fields serialize in order, maps are B-trees and no key is
        // anything but a string, so this can't fail and can't vary.
        let mut json = serde_json::to_vec(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    fn check(&self) -> Result<(), ManifestError> {
        let paths = self.site.files.iter().map(|asset| &asset.path);
        for path in paths.chain(self.components.iter().map(|component| &component.file)) {
            let stays_inside = !path.is_empty()
                && !path.contains('\0')
                && Path::new(path).components().all(|part| matches!(part, PathComponent::Normal(_)));
            if !stays_inside {
                return Err(ManifestError::Path { path: path.clone() });
            }
        }
        for asset in &self.site.files {
            if !asset.encodings.is_sorted_by(|a, b| a.coding < b.coding) {
                return Err(ManifestError::Encodings { path: asset.path.clone() });
            }
        }
        for worker in &self.workers {
            if worker.component >= self.components.len() {
                return Err(ManifestError::Component {
                    worker: worker.name.clone(),
                    component: worker.component,
                    count: self.components.len(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::Coding;

    fn hello() -> Manifest {
        let mut manifest = Manifest::new("hello".into(), Site::default());
        manifest.components.push(Component {
            file: "workers/hello.wasm".into(),
            size: 3,
            sha256: Sha256::of(b"abc"),
            wasi: Wasi::default(),
        });
        manifest.workers.push(Worker {
            name: "hello".into(),
            pattern: "/hello".into(),
            source: "hello.wasm".into(),
            component: 0,
            abi: Abi::default(),
            env: BTreeMap::new(),
            grants: Grants::default(),
            reuse: 1,
            limits: Limits::default(),
        });
        manifest
    }

    #[test]
    fn a_manifest_survives_the_round_trip() {
        let manifest = hello();
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
    }

    #[test]
    fn a_newer_schema_is_named() {
        let error = Manifest::parse(br#"{"schema": 2, "future": true}"#).unwrap_err();
        assert_eq!(error.to_string(), "app manifest has schema 2: expected 1");
    }

    #[test]
    fn a_path_out_of_the_app_is_refused() {
        for path in ["../etc/passwd", "/etc/passwd", "workers/../../x", "", "./x"] {
            let mut manifest = hello();
            manifest.components[0].file = path.into();
            let error = Manifest::parse(&manifest.to_json()).unwrap_err();
            assert!(matches!(error, ManifestError::Path { .. }), "{path:?}");
        }
    }

    fn encoded(codings: &[Coding]) -> Asset {
        let encoding = |&coding| Encoding { coding, size: 1, sha256: Sha256::of(b"e") };
        Asset {
            path: "a.js".into(),
            size: 3,
            sha256: Sha256::of(b"abc"),
            media_type: "text/javascript".into(),
            encodings: codings.iter().map(encoding).collect(),
        }
    }

    #[test]
    fn encoded_forms_survive_the_round_trip_and_a_manifest_without_any_is_read() {
        let mut manifest = hello();
        manifest.site.files = vec![encoded(&Coding::ALL), encoded(&[])];
        let json = String::from_utf8(manifest.to_json()).unwrap();
        assert_eq!(json.matches("encodings").count(), 1, "{json}");
        assert!(json.contains(r#""coding":"zstd","size":1"#), "{json}");
        assert_eq!(Manifest::parse(json.as_bytes()).unwrap(), manifest);
    }

    #[test]
    fn a_coding_twice_or_out_of_order_is_refused_and_an_unknown_one_is_named() {
        let mut manifest = hello();
        for codings in [[Coding::Br, Coding::Br], [Coding::Gzip, Coding::Br]] {
            manifest.site.files = vec![encoded(&codings)];
            let error = Manifest::parse(&manifest.to_json()).unwrap_err();
            assert!(matches!(error, ManifestError::Encodings { .. }), "{error}");
        }
        manifest.site.files = vec![encoded(&[Coding::Br])];
        let json = String::from_utf8(manifest.to_json()).unwrap().replace(r#""br""#, r#""lzma""#);
        let ManifestError::Parse(source) = Manifest::parse(json.as_bytes()).unwrap_err() else {
            panic!("not a parse error");
        };
        assert!(source.to_string().contains("lzma"), "{source}");
    }

    #[test]
    fn a_worker_without_component_is_refused() {
        let mut manifest = hello();
        manifest.workers[0].component = 1;
        let error = Manifest::parse(&manifest.to_json()).unwrap_err();
        assert!(matches!(error, ManifestError::Component { .. }));
    }
}
