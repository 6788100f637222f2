//! The folders that an app names: mounts of its workers, and key-value stores in
//! folders. Each is a volume, for all else in the container is read-only.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use wharf_app::{StorePlace, Value};

use super::environment::Variable;
use super::name::Name;
use super::{KubernetesError, Workload};
use crate::yaml::{Item, Map, Node};

/// What a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum VolumeSource {
    /// A folder that ends with the pod.
    EmptyDir,
    /// A PersistentVolumeClaim.
    Claim(String),
    /// The entries of a ConfigMap.
    ConfigMap(String),
    /// The entries of a Secret.
    Secret(String),
}

impl VolumeSource {
    fn is_writable(&self) -> bool {
        matches!(self, Self::EmptyDir | Self::Claim(_))
    }

    fn to_yaml(&self) -> (&'static str, Map) {
        match self {
            Self::EmptyDir => ("emptyDir", Map::new()),
            Self::Claim(name) => ("persistentVolumeClaim", Map::new().with("claimName", name.as_str())),
            Self::ConfigMap(name) => ("configMap", Map::new().with("name", name.as_str())),
            Self::Secret(name) => ("secret", Map::new().with("secretName", name.as_str())),
        }
    }
}

impl FromStr for VolumeSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let name = || match name.split('.').all(is_part_of_name) {
            true => Ok(name.to_owned()),
            false => Err(format!("{name:?} is no name of a {kind}: expected a-z, 0-9, - and .")),
        };
        match kind {
            "emptydir" => Ok(Self::EmptyDir),
            "claim" => Ok(Self::Claim(name()?)),
            "configmap" => Ok(Self::ConfigMap(name()?)),
            "secret" => Ok(Self::Secret(name()?)),
            _ => Err("expected claim:NAME, configmap:NAME, secret:NAME or emptydir".into()),
        }
    }
}

/// RFC 1123, 2.1.
fn is_part_of_name(part: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&part.len())
        && part.bytes().all(|byte| word(byte) || byte == b'-')
        && !part.starts_with('-')
        && !part.ends_with('-')
}

impl fmt::Display for VolumeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyDir => f.write_str("emptydir"),
            Self::Claim(name) => write!(f, "claim:{name}"),
            Self::ConfigMap(name) => write!(f, "configmap:{name}"),
            Self::Secret(name) => write!(f, "secret:{name}"),
        }
    }
}

/// The volumes of a pod, by their path in the container.
pub(super) struct Volumes(BTreeMap<String, Volume>);

struct Volume {
    name: String,
    source: VolumeSource,
    /// Who writes to it first.
    writer: Option<String>,
    users: Vec<String>,
}

/// The volumes of the workload.
pub(super) fn of(workload: &Workload<'_>, environment: &[Variable<'_>]) -> Result<Volumes, KubernetesError> {
    let mut volumes: BTreeMap<String, Volume> = BTreeMap::new();
    let mut need = |path: &str, user: String, writes: bool| -> Result<(), KubernetesError> {
        let Some(path) = in_container(path).map_err(|()| error(path, &user))? else { return Ok(()) };
        let volume = volumes.entry(path).or_insert_with(|| Volume {
            name: String::new(),
            source: VolumeSource::EmptyDir,
            writer: None,
            users: Vec::new(),
        });
        if writes && volume.writer.is_none() {
            volume.writer = Some(user.clone());
        }
        volume.users.push(user);
        Ok(())
    };
    for worker in &workload.manifest.workers {
        // Those of the app are in the image.
        for mount in worker.grants.mounts.iter().filter(|mount| mount.app.is_none()) {
            let user = format!("mount {} of worker {}", mount.guest, worker.name);
            need(&mount.host.to_string_lossy(), user, mount.write)?;
        }
        for (store, value) in &worker.grants.kv {
            let place = match value {
                Value::Fixed(text) => Some(text.as_str()),
                Value::Host(variable) => {
                    let found = environment.iter().find(|known| known.name == variable.from);
                    found.and_then(Variable::value)
                }
            };
            // A place that is still in a Secret may be a folder, but is a server's URL as a rule.
            if let Some(Ok(StorePlace::Folder(folder))) = place.map(str::parse) {
                need(&folder.to_string_lossy(), format!("kv {store} of worker {}", worker.name), true)?;
            }
        }
    }
    for (path, source) in &workload.volumes {
        let given = "--volume".to_owned();
        let path = in_container(path).ok().flatten().ok_or_else(|| error(path, &given))?;
        let volume = volumes.entry(path.clone()).or_insert_with(|| Volume {
            name: String::new(),
            source: VolumeSource::EmptyDir,
            writer: None,
            users: Vec::new(),
        });
        if let Some(user) = volume.writer.clone().filter(|_| !source.is_writable()) {
            return Err(KubernetesError::ReadOnly { given: (*source).clone(), path, user });
        }
        volume.source = (*source).clone();
    }
    name_all(&mut volumes);
    Ok(Volumes(volumes))
}

fn error(path: &str, user: &str) -> KubernetesError {
    KubernetesError::Path { path: path.to_owned(), user: user.to_owned() }
}

/// A host's path as one of the container, whose working directory is `/`. None:
/// it is the image's own.
fn in_container(path: &str) -> Result<Option<String>, ()> {
    // Kubernetes takes no colon there.
    if path.contains(':') {
        return Err(());
    }
    let mut absolute = String::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => {
                absolute.push('/');
                absolute.push_str(&name.to_string_lossy());
            }
            Component::RootDir | Component::CurDir => {}
            _ => return Err(()),
        }
    }
    let of_image =
        absolute.is_empty() || Path::new(&absolute).starts_with("/app") || absolute == "/wharf-host";
    Ok((!of_image).then_some(absolute))
}

/// Names each volume by its path, and by a number where two would have one name.
fn name_all(volumes: &mut BTreeMap<String, Volume>) {
    let mut taken = Vec::new();
    for (path, volume) in volumes {
        let base = Name::of_repository(&path.trim_start_matches('/').replace('/', "-"));
        // Room for a number.
        let base: String = base.as_str().chars().take(56).collect();
        let mut name = base.clone();
        let mut number = 1;
        while taken.contains(&name) {
            number += 1;
            name = format!("{base}-{number}");
        }
        taken.push(name.clone());
        volume.name = name;
    }
}

impl Volumes {
    /// Whether a disk outlives the pod that writes to it.
    pub(super) fn keep_data(&self) -> bool {
        self.0.values().any(|volume| matches!(volume.source, VolumeSource::Claim(_)))
    }

    /// Of the pod.
    pub(super) fn sources(&self) -> Option<Node> {
        let sources = self.0.iter().map(|(path, volume)| {
            let (kind, source) = volume.source.to_yaml();
            let item = Item::from(Map::new().with("name", volume.name.as_str()).with(kind, source));
            match (&volume.source, &volume.writer) {
                (VolumeSource::EmptyDir, Some(_)) => {
                    item.comment(format!("Ends with the pod; to keep it: --volume {path}=claim:NAME"))
                }
                (VolumeSource::EmptyDir, None) => item.comment(format!(
                    "Empty, and nobody writes to it: --volume {path}=claim:NAME or configmap:NAME"
                )),
                _ => item,
            }
        });
        (!self.0.is_empty()).then(|| sources.collect())
    }

    /// Of the container.
    pub(super) fn mounts(&self) -> Option<Node> {
        let mounts = self.0.iter().map(|(path, volume)| {
            let mount = Map::new()
                .with("name", volume.name.as_str())
                .with("mountPath", path.as_str())
                .with_some("readOnly", volume.writer.is_none().then_some(true));
            match volume.users.as_slice() {
                [] => mount.into(),
                users => Item::from(mount).comment(format!("For {}.", users.join(", "))),
            }
        });
        (!self.0.is_empty()).then(|| mounts.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_host_is_one_of_the_container() {
        assert_eq!(in_container("/data//kv/."), Ok(Some("/data/kv".into())));
        assert_eq!(in_container("data"), Ok(Some("/data".into())));
        for of_image in ["/", ".", "/app/site", "app"] {
            assert_eq!(in_container(of_image), Ok(None), "{of_image}");
        }
        assert_eq!(in_container("/application"), Ok(Some("/application".into())));
        for no in ["/data/../etc", "/a:b"] {
            assert_eq!(in_container(no), Err(()), "{no}");
        }
    }

    #[test]
    fn a_source_is_read_as_it_is_written() {
        for text in ["emptydir", "claim:data", "configmap:shop.v2", "secret:a-1"] {
            assert_eq!(text.parse::<VolumeSource>().unwrap().to_string(), text);
        }
        for text in ["", "claim", "claim:", "claim:A", "claim:a..b", "claim:-a", "disk:a", "secret:a b"] {
            assert!(text.parse::<VolumeSource>().is_err(), "{text:?}");
        }
    }
}
