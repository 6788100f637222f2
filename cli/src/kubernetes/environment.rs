//! The variables of the container: the host's settings, and what the app's
//! workers take from the host's environment by name. Of those the image has no
//! values, so they come from the command line or from a Secret.

use std::collections::BTreeMap;

use wharf_app::Value;

use super::{ADMIN_PORT, DRAIN_DELAY, KubernetesError, Workload, resources};
use crate::yaml::{Item, Map};

/// What the manifests rely on.
const RESERVED: [&str; 4] = ["WHARF_ADDR", "WHARF_ADMIN_ADDR", "WHARF_DRAIN_DELAY", "WHARF_DRAIN_TIMEOUT"];

/// One variable of the container.
pub(crate) struct Variable<'a> {
    pub(super) name: &'a str,
    value: Source<'a>,
    /// Which settings of which workers take it.
    users: Vec<String>,
}

enum Source<'a> {
    Value(String),
    Secret { name: &'a str, optional: bool },
}

impl Variable<'_> {
    /// The key that the Secret must have for it.
    pub(super) fn secret_key(&self) -> Option<&str> {
        matches!(self.value, Source::Secret { optional: false, .. }).then_some(self.name)
    }

    /// Its value, if that is known now.
    pub(super) fn value(&self) -> Option<&str> {
        match &self.value {
            Source::Value(value) => Some(value),
            Source::Secret { .. } => None,
        }
    }

    pub(super) fn to_yaml(&self) -> Item {
        let map = Map::new().with("name", self.name);
        let map = match &self.value {
            Source::Value(value) => map.with("value", value.as_str()),
            Source::Secret { name, optional } => {
                let key = Map::new()
                    .with("name", *name)
                    .with("key", self.name)
                    .with_some("optional", optional.then_some(true));
                map.with("valueFrom", Map::new().with("secretKeyRef", key))
            }
        };
        match self.users.as_slice() {
            [] => map.into(),
            users => Item::from(map).comment(format!("For {}.", users.join(", "))),
        }
    }
}

/// The variables, those of the host first.
pub(super) fn of<'a>(workload: &'a Workload<'a>) -> Result<Vec<Variable<'a>>, KubernetesError> {
    if let Some(name) = RESERVED.iter().find(|name| workload.variables.contains_key(*name)) {
        return Err(KubernetesError::Reserved { name: (*name).to_owned() });
    }
    let of_the_host = [
        ("WHARF_ADMIN_ADDR", format!("0.0.0.0:{ADMIN_PORT}")),
        ("WHARF_DRAIN_DELAY", format!("{}s", DRAIN_DELAY.as_secs())),
        ("WHARF_DRAIN_TIMEOUT", format!("{}s", workload.drain_timeout().as_secs())),
        ("WHARF_PROCESSES", resources::PROCESSES.to_string()),
    ];
    let mut variables: BTreeMap<&str, Variable<'a>> = BTreeMap::new();
    let wanted = wanted(workload);
    for (name, want) in &wanted {
        let value = Source::Secret { name: workload.secret.as_str(), optional: want.optional };
        variables.insert(name, Variable { name, value, users: want.users.clone() });
    }
    for (name, value) in &workload.variables {
        let users = wanted.get(name).map(|want| want.users.clone()).unwrap_or_default();
        let value = Source::Value((*value).to_owned());
        variables.insert(name, Variable { name, value, users });
    }
    let mut all = Vec::new();
    for (name, value) in of_the_host {
        // What the command line or a Secret says, and the manifests don't rely on, wins.
        if !variables.contains_key(name) || RESERVED.contains(&name) {
            variables.remove(name);
            all.push(Variable { name, value: Source::Value(value), users: Vec::new() });
        }
    }
    all.extend(variables.into_values());
    match all.iter().find(|variable| !is_name(variable.name)) {
        None => Ok(all),
        Some(Variable { name, users, .. }) => {
            let user = users.first().cloned().unwrap_or_else(|| "--env".into());
            Err(KubernetesError::Variable { name: (*name).to_owned(), user })
        }
    }
}

struct Want {
    optional: bool,
    users: Vec<String>,
}

/// What the workers take from the host's environment.
fn wanted<'a>(workload: &Workload<'a>) -> BTreeMap<&'a str, Want> {
    let mut wanted: BTreeMap<&str, Want> = BTreeMap::new();
    for worker in &workload.manifest.workers {
        let grants = &worker.grants;
        for (kind, values) in [("env", &worker.env), ("config", &grants.config), ("kv", &grants.kv)] {
            for (setting, value) in values {
                let Value::Host(variable) = value else { continue };
                let want = Want { optional: true, users: Vec::new() };
                let want = wanted.entry(variable.from.as_str()).or_insert(want);
                want.optional &= variable.optional;
                want.users.push(format!("{kind} {setting} of worker {}", worker.name));
            }
        }
    }
    wanted
}

/// A name that every version of Kubernetes takes, for a variable and for the key
/// of a Secret.
fn is_name(name: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    // Keys may not be what means a folder.
    !name.is_empty()
        && !name.starts_with("..")
        && name != "."
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(inside)
}
