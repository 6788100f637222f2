//! The image configuration: how a container of the image is started.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Digest;

/// An OCI image configuration (image-spec, config.md). Members that wharf does
/// not use are ignored when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The CPU, as in [`crate::Platform`].
    pub architecture: String,
    /// The operating system, as in [`crate::Platform`].
    pub os: String,
    /// The CPU's variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How a container is started.
    #[serde(default)]
    pub config: ContainerConfig,
    /// The layers' contents.
    pub rootfs: RootFs,
    /// One entry a layer, bottom first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub history: Vec<History>,
}

/// How a container is started (the member `config`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `UID:GID` or names; none is root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `8080/tcp`; information only.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", with = "exposed_ports")]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value`, in order.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub entrypoint: Vec<String>,
    /// Arguments that the user may replace.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_default")]
    pub cmd: Vec<String>,
    /// The directory that the program starts in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Free labels, sorted by key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the container to end, as `SIGTERM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// The layers by the digests of their uncompressed tar streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The diffIDs, bottom first.
    pub diff_ids: Vec<Digest>,
}

/// How one layer came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Whether the step made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// Docker writes `null` where Go has a nil slice or map.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// The specification writes the set of ports as an object of empty objects,
/// since Go marshals a `map[string]struct{}` so.
mod exposed_ports {
    use std::collections::{BTreeMap, BTreeSet};

    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(serde::Serialize, Deserialize)]
    struct Empty {}

    pub(super) fn serialize<S: Serializer>(
        ports: &BTreeSet<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(ports.iter().map(|port| (port, Empty {})))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<String>, D::Error> {
        let ports = Option::<BTreeMap<String, Empty>>::deserialize(deserializer)?;
        Ok(ports.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_ports_are_an_object_of_empty_objects() {
        let config =
            ContainerConfig { exposed_ports: ["8080/tcp".to_owned()].into(), ..ContainerConfig::default() };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(json, r#"{"ExposedPorts":{"8080/tcp":{}}}"#);
        assert_eq!(serde_json::from_str::<ContainerConfig>(&json).unwrap(), config);
    }

    #[test]
    fn a_configuration_by_docker_with_nulls_and_foreign_members_is_read() {
        let config: ImageConfig = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","docker_version":"20.10","container":"x",
                "config":{"Hostname":"","Cmd":["/bin/sh"],"Env":null,"Entrypoint":null,
                "Labels":null,"ExposedPorts":null,"OnBuild":null},
                "history":null,"rootfs":{"type":"layers","diff_ids":[]}}"#,
        )
        .unwrap();
        assert_eq!(config.config.cmd, ["/bin/sh"]);
        assert!(config.config.entrypoint.is_empty());
    }
}
