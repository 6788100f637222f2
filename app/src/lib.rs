//! A project folder, its routes, and the app manifest that describes both.
//!
//! This crate owns what an app *is*: [`Project`] (what lies in the folder and
//! in `wharf.toml`), [`Routes`] (which request goes where) and [`Manifest`]
//! (`wharf.json`, the same as data). It deliberately knows neither OCI images
//! nor wasmtime: `wharf-images` packs an app, `wharf-host` serves one.

mod abi;
#[cfg(feature = "build")]
mod build;
mod config;
mod digest;
mod encoding;
mod fingerprint;
mod grants;
mod headers;
mod manifest;
pub mod media_type;
mod pattern;
#[cfg(feature = "precompress")]
mod precompress;
mod project;
#[cfg(feature = "build")]
mod python;
mod redirects;
mod routes;
mod rules;

pub use abi::{Abi, Wasi};
#[cfg(feature = "build")]
pub use abi::{ProgramError, wasi_of};
#[cfg(feature = "build")]
pub use build::{BuildError, BuiltApp, Step, Workshop};
pub use config::{CONFIG_FILE, Config, ConfigError, ImageConfig, WorkerConfig};
pub use digest::{InvalidSha256, Sha256};
pub use encoding::{Coding, Encoding};
pub use fingerprint::is_fingerprinted;
pub use grants::{
    Grants, HostName, HostVariable, MissingVariable, Mount, MountError, Mounts, Outbound, OutboundError,
    OutboundRequest, OutboundScheme, RedisUrl, StorePlace, StorePlaceError, Value,
};
pub use headers::{HeaderChange, HeaderRule, HeaderRules, parse_headers};
pub use manifest::{
    Asset, Component, LARGEST_MANIFEST, Limits, MANIFEST_FILE, Manifest, ManifestError, Site, Worker,
};
pub use pattern::{InvalidPattern, Params, Pattern};
#[cfg(feature = "precompress")]
pub use precompress::PrecompressError;
pub use project::{Language, Project, ProjectError, SITE_FOLDER, SiteFile, WorkerSource};
#[cfg(feature = "build")]
pub use python::{COMPONENTIZE_PY, PythonError, PythonToolchain};
pub use redirects::{Redirect, parse_redirects};
pub use routes::{Found, Reads, RouteError, RouteLine, Routes, Target, is_harmless};
pub use rules::{RuleError, RuleProblem, encode_path};
