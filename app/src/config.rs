//! `wharf.toml`: what the folder's layout alone can't say.
//!
//! Every key is optional, an unknown one is an error.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Deserialize;

use crate::abi::Abi;
use crate::manifest::Limits;

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
}

impl Default for SiteConfig {
    fn default() -> Self {
        Self { isolated: false, precompress: true }
    }
}

/// A section `[workers."NAME"]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// How the worker is spoken to. Default: as the program shows, `http` for a
    /// component that exports `wasi:http/incoming-handler` and `cgi` for a command.
    pub abi: Option<Abi>,
    /// Environment variables of the guest.
    pub env: BTreeMap<String, String>,
    /// Wall-clock time of one request, for example `"5s"`.
    #[serde(with = "humantime_serde")]
    pub timeout: Option<std::time::Duration>,
    /// Linear memory of one request, for example `"64MiB"`.
    pub memory: Option<ByteSize>,
    /// Largest request body, for example `"1MiB"`.
    pub body: Option<ByteSize>,
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
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path, source: Box::new(source) })
    }
}

impl WorkerConfig {
    /// The limits that these settings ask for, defaults where they are silent.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            timeout_ms: self
                .timeout
                .map_or(default.timeout_ms, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            memory: self.memory.map_or(default.memory, |size| size.as_u64()),
            body: self.body.map_or(default.body, |size| size.as_u64()),
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
    fn sites_are_precompressed_unless_the_settings_say_otherwise() {
        let precompress = |text: &str| toml::from_str::<Config>(text).unwrap().site.precompress;
        assert!(precompress(""));
        assert!(precompress("[site]\nisolated = true"));
        assert!(!precompress("[site]\nprecompress = false"));
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
