//! `wharf kube`: an image as Kubernetes runs it.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use wharf_images::{Layout, LayoutError, Platform, Reference};

use crate::arguments::Global;
use crate::kubernetes::{Name, Quantities, VolumeSource, Workload};
use crate::output;
use crate::places::Places;
use crate::progress::Progress;
use crate::target::Target;
use crate::transfer::{Way, runtime};

/// Print a RuntimeClass, a Service and a Deployment for an image, ready for `kubectl apply`.
///
/// The image is that of the local store, else that of its registry; the manifests
/// name it by digest. Environment variables that its workers take from their host
/// come from a Secret, folders that they name are volumes. docs/kubernetes.md says
/// how the rest is derived.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharf kube registry.example/app:1 | kubectl apply -f -\n  \
    wharf kube registry.example/app:1 --replicas 3 --volume /data/kv=claim:shop --env LEVEL=info")]
pub(crate) struct Kube {
    /// The image's name, or an OCI layout or a saved archive of it.
    #[arg(value_name = "REF|LAYOUT|ARCHIVE")]
    target: String,
    /// Of Service and Deployment [default: the last part of the repository].
    #[arg(long)]
    name: Option<Name>,
    /// Their namespace [default: the one that kubectl has].
    #[arg(long, short)]
    namespace: Option<Name>,
    /// Pods.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    replicas: u32,
    /// Port of the Service.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The RuntimeClass of nodes with wharf's shim.
    #[arg(long, default_value = "wasm", value_name = "NAME")]
    runtime_class: Name,
    /// For nodes without the shim: the server that is in the image runs.
    #[arg(long, conflicts_with_all = ["runtime_class", "node_selector"])]
    no_runtime_class: bool,
    /// Label of the nodes that have the shim, for the RuntimeClass; may be repeated.
    #[arg(long, value_name = "LABEL=VALUE")]
    node_selector: Vec<Pair<String>>,
    /// Set an environment variable, of the app or of the host; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<Pair<String>>,
    /// The Secret that has all other variables which the app needs [default: as --name].
    #[arg(long, value_name = "NAME")]
    secret: Option<Name>,
    /// What is mounted at PATH: claim:NAME, configmap:NAME, secret:NAME or
    /// emptydir; may be repeated [default: emptydir for each folder of the app].
    #[arg(long, value_name = "PATH=SOURCE")]
    volume: Vec<Pair<VolumeSource>>,
    /// For example cpu=100m,memory=64Mi [default: derived from the workers' limits].
    #[arg(long, value_name = "QUANTITIES")]
    requests: Option<Quantities>,
    /// For example memory=512Mi [default: derived from the workers' limits].
    #[arg(long, value_name = "QUANTITIES")]
    limits: Option<Quantities>,
    /// Name the image by its tag, for images that no registry has.
    #[arg(long)]
    by_tag: bool,
    #[command(flatten)]
    way: Way,
}

/// `KEY=VALUE` of the command line.
#[derive(Clone, Debug)]
struct Pair<T>(String, T);

impl<T: FromStr<Err: ToString>> FromStr for Pair<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) =
            text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("expected \"=\" after a name")?;
        let value = value.parse().map_err(|error: T::Err| error.to_string())?;
        Ok(Self(key.to_owned(), value))
    }
}

pub(crate) fn run(args: &Kube, global: &Global) -> Result<ExitCode> {
    let places = Places::from_env()?;
    let progress = Arc::new(Progress::new(global));
    let target = find(args, &places, &progress)?;
    let (layout, descriptor) = match &target {
        Target::Image(layout, image) | Target::Archive(layout, image, _) => (layout, image),
        Target::Project(_) | Target::Cloned(..) => {
            bail!("{} is a project folder: expected an image, an OCI layout or an archive", args.target)
        }
    };
    layout.use_blobs()?;
    // A kubelet's runtime takes its node's platform, whatever the RuntimeClass.
    layout.select(descriptor, &[Platform::linux_amd64(), Platform::linux_arm64()])?;
    let Some(reference) = reference(&args.target, layout)? else {
        bail!("{} has no name that a registry could know: expected one, as by `wharf build -t`", args.target);
    };
    let manifest = target
        .manifest(&places, &progress)
        .with_context(|| format!("cannot read the app of {}", args.target))?;
    progress.clear();

    let name = args.name.clone().unwrap_or_else(|| Name::of_repository(reference.repository()));
    let image = if args.by_tag { reference.clone() } else { reference.with_digest(descriptor.digest) };
    let defaults = Quantities::default();
    let workload = Workload {
        manifest: &manifest,
        image: image.to_string(),
        version: reference.tag(),
        name: &name,
        namespace: args.namespace.as_ref(),
        replicas: args.replicas.into(),
        runtime_class: (!args.no_runtime_class).then_some(&args.runtime_class),
        node_selector: &args
            .node_selector
            .iter()
            .map(|Pair(key, value)| (key.clone(), value.clone()))
            .collect(),
        port: args.port.into(),
        variables: args.env.iter().map(|Pair(name, value)| (name.as_str(), value.as_str())).collect(),
        secret: args.secret.as_ref().unwrap_or(&name),
        volumes: args
            .volume
            .iter()
            .map(|Pair(path, source)| (path.as_str(), source))
            .collect::<BTreeMap<_, _>>(),
        requests: args.requests.as_ref().unwrap_or(&defaults),
        limits: args.limits.as_ref().unwrap_or(&defaults),
    };
    output::line(workload.to_yaml()?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// The image here, or else that of its registry, for as long as the result lives.
fn find(args: &Kube, places: &Places, progress: &Arc<Progress>) -> Result<Target> {
    let error = match Target::find(&args.target, places) {
        Err(error) if matches!(error.downcast_ref(), Some(LayoutError::NoSuchImage { .. })) => error,
        found => return found,
    };
    let Ok(reference) = args.target.parse::<Reference>() else { return Err(error) };
    progress.step(format!("reading {}", reference.familiar()));
    let folder = tempfile::tempdir()?;
    let layout = Layout::create(folder.path().join("layout"))?;
    let transfers = Arc::clone(progress) as _;
    let pulled = runtime()?.block_on(args.way.client().pull(&layout, &reference, transfers));
    match pulled {
        Ok(image) => Ok(Target::Archive(layout, image, folder)),
        Err(remote) => Err(anyhow::Error::from(remote).context(error.to_string())),
    }
}

/// The image's name: as given, else as the layout has it.
fn reference(target: &str, layout: &Layout) -> Result<Option<Reference>> {
    if std::path::Path::new(target).exists() {
        return Ok(layout.sole()?.reference);
    }
    Ok(Some(target.parse()?))
}
