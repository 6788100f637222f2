//! A project folder, its routes, and the app manifest that describes both.
//!
//! This crate owns what an app *is*: [`Project`] (what lies in the folder and
//! in `wharf.toml`), [`Routes`] (which request goes where) and [`Manifest`]
//! (`wharf.json`, the same as data). It deliberately knows neither OCI images
//! nor wasmtime: `wharf-images` packs an app, `wharf-host` serves one.

mod abi;
#[cfg(feature = "build")]
mod build;
#[cfg(feature = "build")]
mod command;
#[cfg(feature = "build")]
mod config;
mod digest;
#[cfg(feature = "build")]
mod embedded;
mod encoding;
mod fingerprint;
#[cfg(feature = "build")]
mod go;
mod grants;
mod headers;
#[cfg(feature = "build")]
mod inputs;
#[cfg(feature = "build")]
mod javascript;
#[cfg(feature = "build")]
mod language;
#[cfg(feature = "build")]
mod lock;
mod manifest;
pub mod media_type;
mod pattern;
#[cfg(feature = "precompress")]
mod precompress;
#[cfg(feature = "build")]
mod prefix;
#[cfg(feature = "build")]
mod project;
#[cfg(feature = "build")]
mod python;
mod redirects;
mod routes;
#[cfg(feature = "build")]
mod ruby;
mod rules;
#[cfg(feature = "build")]
mod sources;
#[cfg(feature = "build")]
mod toolchain;
#[cfg(feature = "build")]
mod wws;

pub use abi::{Abi, Wasi};
#[cfg(feature = "build")]
pub use abi::{ProgramError, wasi_of};
#[cfg(feature = "build")]
pub use build::{AppFile, BuildError, BuiltApp, Progress, Registry, Step, Workshop};
#[cfg(feature = "build")]
pub use command::{BuildCommand, CommandError};
#[cfg(feature = "build")]
pub use config::{CONFIG_FILE, ComponentSource, Config, ConfigError, ImageConfig, WorkerConfig};
pub use digest::{InvalidSha256, Sha256};
pub use encoding::{Coding, Encoding};
pub use fingerprint::is_fingerprinted;
pub use grants::{
    Grants, HostName, HostVariable, MissingVariable, Mount, MountError, Mounts, Outbound, OutboundError,
    OutboundRequest, OutboundScheme, RedisUrl, StorePlace, StorePlaceError, Value,
};
pub use headers::{HeaderChange, HeaderRule, HeaderRules, parse_headers};
#[cfg(feature = "build")]
pub use language::Language;
#[cfg(feature = "build")]
pub use lock::{LOCK_FILE, Lock, LockError};
pub use manifest::{
    Asset, Component, LARGEST_MANIFEST, Limits, MANIFEST_FILE, Manifest, ManifestError, Site, Worker,
};
pub use pattern::{InvalidPattern, Params, Pattern};
#[cfg(feature = "precompress")]
pub use precompress::PrecompressError;
#[cfg(feature = "build")]
pub use prefix::{Prefix, PrefixError};
#[cfg(feature = "build")]
pub use project::{Origin, Project, ProjectError, SITE_FOLDER, SiteFile, WorkerSource};
pub use redirects::{Redirect, parse_redirects};
pub use routes::{Found, Reads, RouteError, RouteLine, Routes, Target, is_harmless};
#[cfg(feature = "build")]
pub use ruby::{RubyError, StartRuby};
pub use rules::{RuleError, RuleProblem, encode_path};
#[cfg(feature = "build")]
pub use toolchain::{
    COMPONENTIZE_JS, COMPONENTIZE_PY, Place, Release, ToolError, Toolchain, default_release,
};
#[cfg(feature = "build")]
pub use wws::WwsError;
