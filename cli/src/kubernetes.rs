//! An image as Kubernetes runs it: RuntimeClass, Service and Deployment, made of
//! what `wharf.json` says and nothing else. The same app and options give the
//! same bytes. It talks to no cluster.

mod environment;
mod name;
mod resources;
mod volumes;

use std::collections::BTreeMap;
use std::time::Duration;

use wharf_app::Manifest;

use crate::yaml::{self, Item, Map, Node};

pub(crate) use environment::Variable;
pub(crate) use name::Name;
pub(crate) use resources::Quantities;
pub(crate) use volumes::VolumeSource;

/// The name by which containerd's configuration knows the shim: see
/// `deploy/containerd`.
const HANDLER: &str = "wasm";

/// The user and group of images, and the group that volumes are given to.
const USER: u64 = 65532;

/// Where the host listens, in images.
const PORT: u64 = 8080;

/// Where its probes and metrics are: what docs/operations.md names.
const ADMIN_PORT: u64 = 9090;

/// Between the stop of a pod and the end of accepting: kube-proxy and ingresses
/// need a moment to learn of it.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

/// For requests in flight, after that: as long as a worker may take, within these.
const DRAIN_TIMEOUTS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(300)];

/// What one image becomes.
pub(crate) struct Workload<'a> {
    pub(crate) manifest: &'a Manifest,
    /// As the kubelet pulls it.
    pub(crate) image: String,
    /// The image's tag.
    pub(crate) version: Option<&'a str>,
    pub(crate) name: &'a Name,
    pub(crate) namespace: Option<&'a Name>,
    pub(crate) replicas: u64,
    /// None on nodes without the shim: the image brings its own server.
    pub(crate) runtime_class: Option<&'a Name>,
    /// Labels of the nodes that have the shim.
    pub(crate) node_selector: &'a BTreeMap<String, String>,
    /// The service's.
    pub(crate) port: u64,
    /// Set to these values.
    pub(crate) variables: BTreeMap<&'a str, &'a str>,
    /// Where all others come from.
    pub(crate) secret: &'a Name,
    pub(crate) volumes: BTreeMap<&'a str, &'a VolumeSource>,
    /// In place of what the manifest's limits say.
    pub(crate) requests: &'a Quantities,
    pub(crate) limits: &'a Quantities,
}

/// What of an app Kubernetes can't run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubernetesError {
    /// Not a name of a variable there.
    #[error(
        "cannot set environment variable {name:?} of {user}: expected letters, digits, \"_\", \"-\" and \
         \".\", no digit first"
    )]
    Variable {
        /// Its name.
        name: String,
        /// Who wants it.
        user: String,
    },
    /// It has a meaning in the manifests already.
    #[error("cannot set {name}: the probes and the end of a pod depend on its value")]
    Reserved {
        /// The variable.
        name: String,
    },
    /// Not a path where a volume can be.
    #[error("cannot mount a volume at {path:?} of {user}: expected a path without \"..\" and \":\"")]
    Path {
        /// The path.
        path: String,
        /// Who wants it.
        user: String,
    },
    /// The app writes where the volume can't be written.
    #[error("cannot mount {given} at {path}: {user} writes there")]
    ReadOnly {
        /// What was asked for.
        given: VolumeSource,
        /// The path.
        path: String,
        /// Who writes.
        user: String,
    },
}

impl KubernetesError {
    /// What the user can do.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Variable { .. } => {
                Some("give the variable another name in wharf.toml: from = \"…\"".into())
            }
            Self::Reserved { .. } => Some("edit the manifests after `wharf kube` has printed them".into()),
            Self::Path { .. } => Some("name the folder by another path in wharf.toml".into()),
            Self::ReadOnly { path, .. } => Some(format!("--volume {path}=claim:NAME")),
        }
    }
}

impl Workload<'_> {
    /// The documents, in the order in which `kubectl apply` should take them.
    ///
    /// # Errors
    /// [`KubernetesError`].
    pub(crate) fn to_yaml(&self) -> Result<String, KubernetesError> {
        let environment = environment::of(self)?;
        let volumes = volumes::of(self, &environment)?;
        let mut text = yaml::comment(&self.preamble(&environment));
        let runtime_class = self.runtime_class.map(|name| self.runtime_class(name));
        let documents =
            runtime_class.into_iter().chain([self.service(), self.deployment(&environment, &volumes)]);
        for document in documents {
            text.push_str("---\n");
            text.push_str(&yaml::document(&document));
        }
        Ok(text)
    }

    fn preamble(&self, environment: &[Variable<'_>]) -> Vec<String> {
        let mut lines = vec![format!("App {}, by wharf kube.", self.manifest.name)];
        let wanted: Vec<_> = environment.iter().filter_map(Variable::secret_key).collect();
        if !wanted.is_empty() {
            let namespace = self.namespace.map(|name| format!(" -n {name}")).unwrap_or_default();
            let literals: Vec<_> = wanted.iter().map(|key| format!(" --from-literal={key}=…")).collect();
            lines.push("Before it starts, it needs:".into());
            lines.push(format!(
                "  kubectl create secret generic {}{namespace}{}",
                self.secret,
                literals.concat()
            ));
        }
        lines
    }

    fn metadata(&self) -> Map {
        Map::new()
            .with("name", self.name.as_str())
            .with_some("namespace", self.namespace.map(Name::as_str))
            .with("labels", self.labels())
    }

    /// What tells this workload's pods from others.
    fn selector(&self) -> Map {
        Map::new().with("app.kubernetes.io/name", self.name.as_str())
    }

    fn labels(&self) -> Map {
        let version = self.version.filter(|version| name::is_label_value(version));
        self.selector().with_some("app.kubernetes.io/version", version)
    }

    fn runtime_class(&self, name: &Name) -> Map {
        let nodes = self.node_selector.iter();
        let nodes = nodes.fold(Map::new(), |map, (key, value)| map.with(key, value.as_str()));
        let scheduling = (!self.node_selector.is_empty()).then(|| Map::new().with("nodeSelector", nodes));
        Map::new()
            .with("apiVersion", "node.k8s.io/v1")
            .with("kind", "RuntimeClass")
            .with("metadata", Map::new().with("name", name.as_str()))
            .with("handler", HANDLER)
            .with_some("scheduling", scheduling)
    }

    fn service(&self) -> Map {
        let port = Map::new()
            .with("name", "http")
            .with("port", self.port)
            .with("targetPort", "http")
            .with("protocol", "TCP");
        Map::new()
            .with("apiVersion", "v1")
            .with("kind", "Service")
            .with("metadata", self.metadata())
            .with("spec", Map::new().with("selector", self.selector()).with("ports", Node::from_iter([port])))
    }

    fn deployment(&self, environment: &[Variable<'_>], volumes: &volumes::Volumes) -> Map {
        let template = Map::new()
            .with("metadata", Map::new().with("labels", self.labels()).with("annotations", scraped()))
            .with("spec", self.pod(environment, volumes));
        let spec = Map::new()
            .with("replicas", self.replicas)
            .with("selector", Map::new().with("matchLabels", self.selector()))
            .with_item("strategy", strategy(volumes))
            .with("template", template);
        Map::new()
            .with("apiVersion", "apps/v1")
            .with("kind", "Deployment")
            .with("metadata", self.metadata())
            .with("spec", spec)
    }

    fn pod(&self, environment: &[Variable<'_>], volumes: &volumes::Volumes) -> Map {
        let security = Map::new()
            .with("runAsNonRoot", true)
            .with("runAsUser", USER)
            .with("runAsGroup", USER)
            .with("fsGroup", USER)
            .with("seccompProfile", Map::new().with("type", "RuntimeDefault"));
        // The end: the host's own delay and timeout, and a moment to log it.
        let grace = DRAIN_DELAY + self.drain_timeout() + Duration::from_secs(5);
        Map::new()
            .with_some("runtimeClassName", self.runtime_class.map(Name::as_str))
            .with("automountServiceAccountToken", false)
            .with("enableServiceLinks", false)
            .with("securityContext", security)
            .with("terminationGracePeriodSeconds", grace.as_secs())
            .with("containers", Node::from_iter([self.container(environment, volumes)]))
            .with_some("volumes", volumes.sources())
    }

    fn container(&self, environment: &[Variable<'_>], volumes: &volumes::Volumes) -> Map {
        let port = |name: &str, number| Map::new().with("name", name).with("containerPort", number);
        let security = Map::new()
            .with("allowPrivilegeEscalation", false)
            .with("readOnlyRootFilesystem", true)
            .with("capabilities", Map::new().with("drop", Node::from_iter(["ALL"])));
        Map::new()
            .with("name", "app")
            .with("image", self.image.as_str())
            // As it is for a digest, also for an image by tag that only the node has.
            .with("imagePullPolicy", "IfNotPresent")
            .with("ports", Node::from_iter([port("http", PORT), port("admin", ADMIN_PORT)]))
            .with("env", environment.iter().map(Variable::to_yaml).collect::<Node>())
            // Asked each second: the app is there at once, its machine code may have to be compiled.
            .with("startupProbe", probe("/readyz").with("periodSeconds", 1).with("failureThreshold", 120))
            .with("readinessProbe", probe("/readyz").with("periodSeconds", 5))
            .with("livenessProbe", probe("/healthz").with("periodSeconds", 10))
            .with_item("resources", self.resources())
            .with("securityContext", security)
            .with_some("volumeMounts", volumes.mounts())
    }

    fn resources(&self) -> Item {
        let derived = resources::of(self);
        let resources = Map::new()
            .with("requests", derived.requests.overridden(self.requests).to_yaml())
            .with("limits", derived.limits.overridden(self.limits).to_yaml());
        derived.reasons.iter().fold(Item::from(resources), Item::comment)
    }

    /// How long requests in flight may take once a pod is to end.
    fn drain_timeout(&self) -> Duration {
        let [least, most] = DRAIN_TIMEOUTS;
        let longest = self.manifest.workers.iter().map(|worker| worker.limits.timeout()).max();
        // A pod's grace period is in whole seconds.
        Duration::from_secs(longest.unwrap_or(least).clamp(least, most).as_millis().div_ceil(1000) as u64)
    }
}

/// By convention, for a Prometheus that looks for them.
fn scraped() -> Map {
    Map::new()
        .with("prometheus.io/path", "/metrics")
        .with("prometheus.io/port", ADMIN_PORT.to_string())
        .with("prometheus.io/scrape", "true")
}

fn probe(path: &str) -> Map {
    Map::new().with("httpGet", Map::new().with("path", path).with("port", "admin"))
}

/// One pod after the other where two can't have the same disk.
fn strategy(volumes: &volumes::Volumes) -> Item {
    if volumes.keep_data() {
        return Item::from(Map::new().with("type", "Recreate"))
            .comment("A claim is most often for one node: the old pod ends before the new one starts.");
    }
    let rolling = Map::new().with("maxUnavailable", 0).with("maxSurge", 1);
    Map::new().with("type", "RollingUpdate").with("rollingUpdate", rolling).into()
}

#[cfg(test)]
mod tests;
