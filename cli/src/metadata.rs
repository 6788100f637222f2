//! What an image says of itself: annotations and labels.
//!
//! The standard ones (image-spec, annotations.md) stand on the index, on each
//! manifest, and as labels in each configuration, since `docker inspect` shows
//! only those. What is said more explicitly wins: flags, then `wharf.toml`, then
//! git.

use std::collections::BTreeMap;
use std::env;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use wharf_app::ImageConfig;
use wharf_images::Timestamp;

use crate::git::Origin;

const STANDARD: &str = "org.opencontainers.image.";

/// `KEY=VALUE` of the command line.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    key: String,
    value: String,
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() && !key.contains(char::is_whitespace) => {
                Ok(Self { key: key.to_owned(), value: value.to_owned() })
            }
            _ => Err("expected KEY=VALUE, with a key without spaces".into()),
        }
    }
}

/// Pairs by key; of a key given twice, the last.
pub(crate) fn by_key(pairs: &[Pair]) -> BTreeMap<String, String> {
    pairs.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect()
}

/// Annotations and labels of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    /// When the image and its layers were made: `SOURCE_DATE_EPOCH`.
    pub(crate) source_date: Option<Timestamp>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// What is said of an image where.
pub(crate) struct Sources<'a> {
    /// The app's name.
    pub(crate) name: &'a str,
    pub(crate) origin: Origin,
    pub(crate) settings: &'a ImageConfig,
    pub(crate) annotations: &'a [Pair],
    pub(crate) labels: &'a [Pair],
}

impl Metadata {
    /// # Errors
    /// `SOURCE_DATE_EPOCH` is malformed.
    pub(crate) fn new(sources: Sources<'_>) -> Result<Self> {
        let epoch: Option<Timestamp> = match env::var("SOURCE_DATE_EPOCH") {
            Ok(seconds) => Some(seconds.parse().context("malformed SOURCE_DATE_EPOCH")?),
            Err(_) => None,
        };
        Ok(Self::of(sources, epoch))
    }

    fn of(sources: Sources<'_>, epoch: Option<Timestamp>) -> Self {
        let Sources { name, origin, settings, annotations, labels } = sources;
        let mut standard = BTreeMap::from([("title", name.to_owned())]);
        // Unknown is left out: 1970 would be a lie to people.
        standard.extend(epoch.map(|epoch| ("created", epoch.to_string())));
        standard.extend(origin.source.map(|source| ("source", source)));
        standard.extend(origin.revision.map(|revision| ("revision", revision)));
        standard.extend(settings.standard_annotations().map(|(key, value)| (key, value.to_owned())));
        let standard = standard.into_iter().map(|(key, value)| (format!("{STANDARD}{key}"), value));
        let standard: BTreeMap<String, String> = standard.collect();
        let with = |more: &BTreeMap<String, String>, flags: &[Pair]| {
            standard.clone().into_iter().chain(more.clone()).chain(by_key(flags)).collect()
        };
        Self {
            source_date: epoch,
            annotations: with(&settings.annotations, annotations),
            labels: with(&settings.labels, labels),
        }
    }
}

impl Metadata {
    /// The time that the image shows: 1970 if none is set, as the time of a
    /// build is not part of its result.
    pub(crate) fn created(&self) -> Timestamp {
        self.source_date.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(settings: &str, annotations: &[&str], epoch: Option<u64>) -> Metadata {
        let config: wharf_app::Config = toml(settings);
        let annotations: Vec<Pair> = annotations.iter().map(|text| text.parse().unwrap()).collect();
        let sources = Sources {
            name: "app",
            origin: Origin { source: Some("https://git.test/x".into()), revision: Some("abc".into()) },
            settings: &config.image,
            annotations: &annotations,
            labels: &[],
        };
        Metadata::of(sources, epoch.map(|epoch| epoch.try_into().unwrap()))
    }

    fn toml(settings: &str) -> wharf_app::Config {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("wharf.toml"), settings).unwrap();
        wharf_app::Config::read(folder.path()).unwrap()
    }

    #[test]
    fn flags_win_over_settings_and_settings_over_git() {
        let settings = "[image]\nversion = \"1\"\nsource = \"https://home.test\"\n\
            annotations = { \"org.opencontainers.image.version\" = \"2\", \"test.a\" = \"a\" }";
        let metadata = of(settings, &["org.opencontainers.image.version=3", "test.b=x=y"], None);
        let annotation = |key: &str| metadata.annotations.get(key).map(String::as_str);
        assert_eq!(annotation("org.opencontainers.image.version"), Some("3"));
        assert_eq!(annotation("org.opencontainers.image.source"), Some("https://home.test"));
        assert_eq!(annotation("org.opencontainers.image.revision"), Some("abc"));
        assert_eq!(annotation("org.opencontainers.image.title"), Some("app"));
        assert_eq!((annotation("test.a"), annotation("test.b")), (Some("a"), Some("x=y")));
        let label = |key: &str| metadata.labels.get(key).map(String::as_str);
        assert_eq!(label("org.opencontainers.image.version"), Some("1"));
        assert_eq!(label("test.a"), None);
    }

    #[test]
    fn the_time_is_said_only_if_it_is_known() {
        let key = "org.opencontainers.image.created";
        assert_eq!(of("", &[], None).annotations.get(key), None);
        assert_eq!(of("", &[], None).created(), Timestamp::EPOCH);
        let known = of("", &[], Some(1_700_000_000));
        assert_eq!(known.annotations[key], "2023-11-14T22:13:20Z");
        assert_eq!(known.labels[key], "2023-11-14T22:13:20Z");
    }

    #[test]
    fn a_pair_needs_a_key() {
        for text in ["", "a", "=b", "a b=c"] {
            assert!(text.parse::<Pair>().is_err(), "{text:?}");
        }
    }
}
