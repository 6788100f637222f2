//! `wharf.toml`: what the folder's layout alone can't say.
//!
//! Every key is optional, an unknown one is an error.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZero;
use std::path::{Component as PathPart, Path, PathBuf};

use bytesize::ByteSize;
use serde::Deserialize;

use crate::abi::Abi;
use crate::command::BuildCommand;
use crate::grants::{Grants, Mounts, Outbound, StorePlaceError, Value, store};
use crate::headers::HeaderRule;
use crate::manifest::Limits;
use crate::media_type::{self, MediaTypes};
use crate::pattern::Pattern;
use crate::redirects::Redirect;
use crate::rules::{AddressPattern, RuleError};

/// The name of the settings file within a project's folder.
pub const CONFIG_FILE: &str = "wharf.toml";

/// A project's settings, parsed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The app's name. Default: `app`.
    pub name: Option<String>,
    /// The static part.
    pub site: SiteConfig,
    /// The workers, by name: the path of the source without extension.
    pub workers: BTreeMap<String, WorkerConfig>,
    /// The image.
    pub image: ImageConfig,
}

/// The section `[site]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteConfig {
    /// Cross-origin isolation (COOP and COEP), which `SharedArrayBuffer` needs.
    pub isolated: bool,
    /// Compressed siblings of the files in the image, where they pay. Default: true.
    pub precompress: bool,
    /// Answers navigations to what isn't there with `index.html`: a single-page
    /// app. Default: false.
    pub spa: bool,
    /// Values of `Content-Type` by the end of a file's name, with its dot.
    pub types: MediaTypes,
    /// Header rules by pattern, after those of `_headers`.
    pub headers: BTreeMap<String, BTreeMap<String, HeaderSetting>>,
    /// Redirects, after those of `_redirects`.
    pub redirects: Vec<Redirect>,
}

/// What becomes of one header.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a text, a list of texts, or false to remove the header")]
pub enum HeaderSetting {
    /// It gets this value.
    Value(String),
    /// It gets these values, joined by ", ".
    Values(Vec<String>),
    /// `false`: it goes.
    Removed(False),
}

/// `false`, the only value of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "bool")]
pub struct False;

impl TryFrom<bool> for False {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<Self, Self::Error> {
        if value { Err("expected false, which removes the header") } else { Ok(Self) }
    }
}

impl Default for SiteConfig {
    fn default() -> Self {
        Self {
            isolated: false,
            precompress: true,
            spa: false,
            types: MediaTypes::default(),
            headers: BTreeMap::new(),
            redirects: Vec::new(),
        }
    }
}

impl SiteConfig {
    /// The value of `Content-Type` for the file at `path`.
    #[must_use]
    pub fn media_type(&self, path: &str) -> String {
        self.types.of(path).map_or_else(|| media_type::of(path), ToOwned::to_owned)
    }

    /// The rules of `[site.headers]`, by pattern.
    ///
    /// # Errors
    /// [`RuleError`]: a rule has no meaning.
    pub fn header_rules(&self) -> Result<Vec<HeaderRule>, RuleError> {
        let rules = self.headers.iter().map(|(pattern, headers)| {
            let mut rule = HeaderRule::new(pattern);
            let checked = AddressPattern::parse(pattern).and_then(|_| {
                headers.iter().try_for_each(|(name, setting)| match setting {
                    HeaderSetting::Value(value) => rule.set(name, value),
                    HeaderSetting::Values(values) => {
                        values.iter().try_for_each(|value| rule.set(name, value))
                    }
                    HeaderSetting::Removed(False) => rule.remove(name),
                })
            });
            let place = || format!("[site.headers.{pattern:?}]");
            checked.map_err(|problem| RuleError { file: CONFIG_FILE.into(), place: place(), problem })?;
            Ok(rule)
        });
        rules.collect()
    }

    /// The rules of `[[site.redirects]]`.
    ///
    /// # Errors
    /// [`RuleError`]: a rule has no meaning.
    pub fn redirect_rules(&self) -> Result<&[Redirect], RuleError> {
        for (number, rule) in (1..).zip(&self.redirects) {
            let place = || format!("[[site.redirects]] number {number}");
            rule.check().map_err(|problem| RuleError {
                file: CONFIG_FILE.into(),
                place: place(),
                problem,
            })?;
        }
        Ok(&self.redirects)
    }
}

/// A section `[workers."NAME"]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// What it answers, in place of the path of its source: `"/[...path]"`.
    pub route: Option<Pattern>,
    /// Its program, where there is no source: a `.wasm` file below the project, or
    /// what a registry has, `"registry.example/x@sha256:…"`.
    pub component: Option<ComponentSource>,
    /// What makes the file `component`: a command, or
    /// `{ command = "cargo build --release", workdir = "_worker", watch = ["src"] }`.
    pub build: Option<BuildCommand>,
    /// Environment variables of the guest: `A = "1"`, or from the host's
    /// environment, when it starts, `A = { from = "A" }`.
    pub env: BTreeMap<String, Value>,
    /// Folders of the host that the worker sees:
    /// `[{ host = "/data", guest = "/data", write = true }]`; and folders of the project,
    /// which go into images: `[{ app = "templates", guest = "/templates" }]`. Default: none.
    pub mounts: Mounts,
    /// Where it may send HTTP requests, and connect to by TCP:
    /// `["https://api.example.com", "tcp://db.internal:5432"]`. Default: nowhere.
    pub outbound: Vec<Outbound>,
    /// Its key-value stores by name: a folder, `{ default = "/data/kv" }`, or a
    /// Redis server, `{ default = { from = "REDIS_URL" } }`. Default: none.
    pub kv: BTreeMap<String, Value>,
    /// Its configuration (`wasi:config`): as `env`.
    pub config: BTreeMap<String, Value>,
    /// How the worker is spoken to. Default: as the program shows, `http` for a
    /// component that exports `wasi:http/incoming-handler` and `cgi` for a command.
    pub abi: Option<Abi>,
    /// Wall-clock time of one request, for example `"5s"`.
    #[serde(with = "humantime_serde")]
    pub timeout: Option<std::time::Duration>,
    /// Linear memory of one request, for example `"64MiB"`.
    pub memory: Option<ByteSize>,
    /// Largest request body, for example `"1MiB"`.
    pub body: Option<ByteSize>,
    /// CPU time of one request, for example `"500ms"`.
    #[serde(with = "humantime_serde")]
    pub cpu: Option<std::time::Duration>,
    /// Elements of all tables of one request.
    pub table_elements: Option<u64>,
    /// Core instances of one request.
    pub instances: Option<u32>,
    /// Largest response body, for example `"1GiB"`.
    pub response: Option<ByteSize>,
    /// Most output to the log of one request, for example `"64KiB"`.
    pub log: Option<ByteSize>,
    /// Requests at the same time, in each process of the host.
    pub concurrency: Option<NonZero<u32>>,
    /// Requests that one instance answers, one after the other. Default: 1.
    pub reuse: Option<NonZero<u32>>,
}

/// Where a worker's program comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ComponentSource {
    /// A file: a path below the project.
    File(String),
    /// What a registry has, by its reference.
    Registry(String),
}

impl TryFrom<String> for ComponentSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if !text.ends_with(".wasm") {
            // It has a host and a path, at least.
            return match text.split_once('/') {
                Some((host, path)) if !host.is_empty() && !path.is_empty() => Ok(Self::Registry(text)),
                _ => Err(format!(
                    "{text:?}: expected the path of a .wasm file, or registry/repository@sha256:…"
                )),
            };
        }
        let is_below = Path::new(&text).components().all(|part| matches!(part, PathPart::Normal(_)));
        if is_below {
            Ok(Self::File(text))
        } else {
            Err(format!("{text:?}: expected a path below the project"))
        }
    }
}

/// The section `[image]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageConfig {
    /// Labels of the image's configuration.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the index and of each manifest.
    pub annotations: BTreeMap<String, String>,
    /// Whether git is asked for `source` and `revision`. Default: yes.
    pub git: Option<bool>,
    /// What the image is called, for people. Default: the app's name.
    pub title: Option<String>,
    /// What the app does.
    pub description: Option<String>,
    /// The version of the app.
    pub version: Option<String>,
    /// Its licences, as an SPDX expression.
    pub licenses: Option<String>,
    /// Who made it, and how to reach them.
    pub authors: Option<String>,
    /// Where to read about it.
    pub url: Option<String>,
    /// Where its documentation is.
    pub documentation: Option<String>,
    /// Who distributes it.
    pub vendor: Option<String>,
    /// Where its source code is.
    pub source: Option<String>,
    /// The revision of the source code.
    pub revision: Option<String>,
}

impl ImageConfig {
    /// The settings that are standard annotations, by the last part of their
    /// keys (image-spec, annotations.md).
    pub fn standard_annotations(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("authors", &self.authors),
            ("description", &self.description),
            ("documentation", &self.documentation),
            ("licenses", &self.licenses),
            ("revision", &self.revision),
            ("source", &self.source),
            ("title", &self.title),
            ("url", &self.url),
            ("vendor", &self.vendor),
            ("version", &self.version),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)))
    }
}

/// Why `wharf.toml` is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read; the cause names it.
    #[error("cannot read project settings")]
    Read(#[source] io::Error),
    /// The file is not TOML of this form; the cause shows the line.
    #[error("cannot parse {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, and what was expected there.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A command that makes nothing that is named.
    #[error("worker {worker:?} in {} has a build command and no component", path.display())]
    NoComponent {
        /// The file.
        path: PathBuf,
        /// The worker.
        worker: String,
    },
    /// A key-value store is at no place for one. Not a cause with its line,
    /// where a password may be.
    #[error("cannot use key-value store {store:?} of worker {worker:?} in {}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// The worker.
        worker: String,
        /// The name that the worker opens it by.
        store: String,
        /// What is wrong with its place.
        #[source]
        source: StorePlaceError,
    },
}

impl ConfigError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store { source, .. } => source.hint(),
            Self::NoComponent { .. } => Some("name the file that it makes: component = \"x.wasm\"".into()),
            Self::Read(_) | Self::Parse { .. } => None,
        }
    }
}

impl Config {
    /// Reads `wharf.toml` of the project in `dir`; without one, the defaults.
    ///
    /// # Errors
    /// [`ConfigError`]: it can't be read or parsed.
    pub fn read(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join(CONFIG_FILE);
        let text = match fs_err::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(ConfigError::Read(error)),
        };
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.clone(), source: Box::new(source) })?;
        for (worker, settings) in &config.workers {
            let makes_a_file = matches!(settings.component, Some(ComponentSource::File(_)));
            if settings.build.is_some() && !makes_a_file {
                return Err(ConfigError::NoComponent { path, worker: worker.clone() });
            }
            store::check_fixed(&settings.kv).map_err(|(store, source)| ConfigError::Store {
                path: path.clone(),
                worker: worker.clone(),
                store,
                source,
            })?;
        }
        Ok(config)
    }
}

impl WorkerConfig {
    /// What these settings grant.
    #[must_use]
    pub fn grants(&self) -> Grants {
        Grants {
            mounts: self.mounts.clone(),
            outbound: self.outbound.clone(),
            kv: self.kv.clone(),
            config: self.config.clone(),
        }
    }

    /// The limits that these settings ask for, defaults where they are silent.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        let milliseconds = |time: Option<std::time::Duration>, default: u64| {
            time.map_or(default, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        let bytes = |size: Option<ByteSize>, default: u64| size.map_or(default, |size| size.as_u64());
        Limits {
            timeout_ms: milliseconds(self.timeout, default.timeout_ms),
            cpu_ms: milliseconds(self.cpu, default.cpu_ms),
            memory: bytes(self.memory, default.memory),
            table_elements: self.table_elements.unwrap_or(default.table_elements),
            instances: self.instances.unwrap_or(default.instances),
            body: bytes(self.body, default.body),
            response: bytes(self.response, default.response),
            log: bytes(self.log, default.log),
            concurrency: self.concurrency.map_or(default.concurrency, NonZero::get),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_in_human_units() {
        let config: Config =
            toml::from_str("[workers.\"api/x\"]\ntimeout = \"5s\"\nmemory = \"64MiB\"\nenv = { A = \"1\" }")
                .unwrap();
        let limits = config.workers["api/x"].limits();
        assert_eq!((limits.timeout_ms, limits.memory), (5_000, 64 << 20));
        assert_eq!(limits.body, Limits::default().body);
    }

    #[test]
    fn grants_are_read_and_none_is_the_default() {
        let config: Config = toml::from_str(
            r#"
            [workers.api]
            env = { A = "1", DATABASE_URL = { from = "DATABASE_URL" } }
            mounts = [{ host = "/data", guest = "/data" }]
            outbound = ["https://api.example.com"]
            kv = { default = "/data/kv" }
            config = { level = "info" }
            [workers.plain]
            "#,
        )
        .unwrap();
        assert!(config.workers["plain"].grants().is_empty());
        let grants = config.workers["api"].grants();
        assert_eq!((grants.mounts.iter().count(), grants.outbound.len()), (1, 1));
        assert_eq!((grants.kv.len(), grants.config.len()), (1, 1));
        assert_eq!(config.workers["api"].env["DATABASE_URL"].to_string(), "$DATABASE_URL");
    }

    #[test]
    fn a_malformed_grant_is_refused_with_its_line() {
        let error = toml::from_str::<Config>("[workers.api]\noutbound = [\"api.example.com\"]").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(error.to_string().contains("http://, https:// or tcp://"), "{error}");
    }

    #[test]
    fn a_password_of_a_store_is_refused_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let settings = "[workers.api]\nkv = { default = \"redis://:hunter2@cache\" }\n";
        fs_err::write(folder.path().join(CONFIG_FILE), settings).unwrap();
        let error = Config::read(folder.path()).unwrap_err();
        let mut text = format!("{error} {error:?}");
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text += &format!(" {error} {error:?}");
            cause = error.source();
        }
        assert!(text.contains("store \"default\" of worker \"api\""), "{text}");
        assert!(text.contains("without user and password"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(error.hint().unwrap().contains("{ from = \"REDIS_URL\" }"));
    }

    #[test]
    fn sites_are_precompressed_unless_the_settings_say_otherwise() {
        let precompress = |text: &str| toml::from_str::<Config>(text).unwrap().site.precompress;
        assert!(precompress(""));
        assert!(precompress("[site]\nisolated = true"));
        assert!(!precompress("[site]\nprecompress = false"));
    }

    fn refused(text: &str) -> String {
        match toml::from_str::<Config>(text) {
            Err(error) => error.to_string(),
            Ok(config) => {
                let headers = config.site.header_rules().map(drop);
                headers.and_then(|()| config.site.redirect_rules().map(drop)).unwrap_err().to_string()
            }
        }
    }

    #[test]
    fn settings_of_the_site_that_have_no_meaning_are_refused_by_name() {
        for (text, expected) in [
            ("[site.types]\nfoo = \"text/x\"", "expected an ending such as \".foo\""),
            ("[site.types]\n\".foo\" = \"text\"", "expected a media type such as"),
            ("[site.headers.\"/*\"]\nX-A = true", "expected a text, a list of texts, or false"),
            ("[site.headers.\"/*\"]\ndate = \"1\"", "wharf.toml, [site.headers.\"/*\"]: header \"date\""),
            ("[site.headers.x]\na = \"1\"", "invalid pattern \"x\""),
            ("[[site.redirects]]\nfrom = \"/a\"\nto = \"b\"", "[[site.redirects]] number 1: invalid target"),
            ("[[site.redirects]]\nfrom = \"/a\"", "missing field `to`"),
            ("[[site.redirects]]\nfrom = \"/a\"\nto = \"/b\"\nstatus = 418", "invalid status \"418\""),
        ] {
            let error = refused(text);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_those_expected() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join(CONFIG_FILE), "[site]\nisolate = true\n").unwrap();
        let ConfigError::Parse { source, .. } = Config::read(folder.path()).unwrap_err() else {
            panic!("not a parse error");
        };
        let text = source.to_string();
        assert!(text.contains("unknown field `isolate`"), "{text}");
        assert!(text.contains("isolated"), "{text}");
    }
}
