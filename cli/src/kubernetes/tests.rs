use wharf_app::{Component, Grants, HostVariable, Limits, Sha256, Site, Value, Worker};

use super::*;

const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// An app that takes all that it can from its host.
fn shop() -> Manifest {
    let mut manifest = Manifest::new("shop".into(), Site::default());
    let component = |size| Component {
        file: "workers/a.wasm".into(),
        size,
        sha256: Sha256::of(b"a"),
        wasi: Default::default(),
    };
    manifest.components = vec![component(2 << 20), component(1)];
    let from =
        |name: &str, optional| Value::Host(HostVariable { from: name.into(), optional, default: None });
    let mounts = serde_json::json!([
        {"host": "/data/files", "guest": "/data", "write": true},
        {"host": "etc/shop", "guest": "/etc"},
        {"host": "/app/site", "guest": "/site"},
    ]);
    let worker = |name: &str| Worker {
        name: name.into(),
        pattern: format!("/{name}"),
        source: format!("{name}.wasm"),
        component: 0,
        abi: Default::default(),
        env: BTreeMap::new(),
        grants: Grants::default(),
        limits: Limits::default(),
        reuse: 1,
    };
    let mut cart = worker("api/cart");
    cart.env = [("GREETING".into(), "hi".into()), ("TOKEN".into(), from("API_TOKEN", false))].into();
    cart.grants = Grants {
        mounts: serde_json::from_value(mounts).unwrap(),
        outbound: Vec::new(),
        kv: [
            ("default".into(), "/data/kv".into()),
            ("sessions".into(), from("SESSIONS", false)),
            ("cache".into(), "redis://cache:6379/0".into()),
        ]
        .into(),
        config: [("level".into(), from("LEVEL", true)), ("token".into(), from("API_TOKEN", true))].into(),
    };
    cart.limits = Limits { timeout_ms: 20_500, memory: 64 << 20, ..Limits::default() };
    let mut stock = worker("api/stock");
    stock.limits = Limits { timeout_ms: 1_000, memory: 16 << 20, ..Limits::default() };
    manifest.workers = vec![cart, stock];
    manifest
}

/// What the command line would give.
struct Options {
    name: Name,
    runtime_class: Option<Name>,
    namespace: Option<Name>,
    nodes: BTreeMap<String, String>,
    variables: Vec<(&'static str, &'static str)>,
    volumes: Vec<(&'static str, VolumeSource)>,
    requests: Quantities,
    limits: Quantities,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "shop".parse().unwrap(),
            runtime_class: Some("wasm".parse().unwrap()),
            namespace: None,
            nodes: BTreeMap::new(),
            variables: Vec::new(),
            volumes: Vec::new(),
            requests: Quantities::default(),
            limits: Quantities::default(),
        }
    }
}

fn yaml(manifest: &Manifest, options: &Options) -> Result<String, KubernetesError> {
    let workload = Workload {
        manifest,
        image: format!("registry.example/shop@{DIGEST}"),
        version: Some("1.2"),
        name: &options.name,
        namespace: options.namespace.as_ref(),
        replicas: 1,
        runtime_class: options.runtime_class.as_ref(),
        node_selector: &options.nodes,
        port: 80,
        variables: options.variables.iter().copied().collect(),
        secret: &options.name,
        volumes: options.volumes.iter().map(|(path, source)| (*path, source)).collect(),
        requests: &options.requests,
        limits: &options.limits,
    };
    workload.to_yaml()
}

/// Compares with a file of golden/; `WHARF_GOLDEN=write` writes them.
#[track_caller]
fn is_golden(name: &str, found: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kubernetes/golden").join(name);
    if std::env::var_os("WHARF_GOLDEN").is_some_and(|value| value == "write") {
        fs_err::write(&file, found).unwrap();
    }
    let expected = fs_err::read_to_string(&file).unwrap();
    assert!(found == expected, "expected what is in {}, found\n{found}", file.display());
}

#[test]
fn a_site_needs_no_volume_and_no_secret() {
    let site = Manifest::new("site".into(), Site::default());
    is_golden("site.yaml", &yaml(&site, &Options::default()).unwrap());
}

#[test]
fn an_app_gets_what_it_names_from_a_secret_and_volumes() {
    is_golden("shop.yaml", &yaml(&shop(), &Options::default()).unwrap());
}

#[test]
fn what_the_command_line_says_wins() {
    let options = Options {
        runtime_class: None,
        namespace: Some("web".parse().unwrap()),
        variables: vec![
            ("API_TOKEN", "yes"),
            ("SESSIONS", "/data/sessions"),
            ("WHARF_ACCESS_LOG", "json"),
            ("WHARF_PROCESSES", "2"),
        ],
        volumes: vec![
            ("/data/kv", VolumeSource::Claim("kv".into())),
            ("/etc/shop", VolumeSource::ConfigMap("shop".into())),
            ("/tls", VolumeSource::Secret("shop-tls".into())),
        ],
        requests: "cpu=1".parse().unwrap(),
        limits: "cpu=2,memory=1Gi".parse().unwrap(),
        ..Options::default()
    };
    is_golden("options.yaml", &yaml(&shop(), &options).unwrap());
}

#[test]
fn a_runtime_class_is_for_the_nodes_that_are_named() {
    let nodes = [("wharf.dev/shim".to_owned(), "true".to_owned())].into();
    let text = yaml(&shop(), &Options { nodes, ..Options::default() }).unwrap();
    let class = "handler: wasm\nscheduling:\n  nodeSelector:\n    wharf.dev/shim: \"true\"\n---\n";
    assert!(text.contains(class), "{text}");
}

#[test]
fn the_end_of_a_pod_is_as_long_as_its_workers_may_take() {
    let grace = |timeout_ms| {
        let mut manifest = shop();
        manifest.workers[0].limits.timeout_ms = timeout_ms;
        let text = yaml(&manifest, &Options::default()).unwrap();
        let (_, rest) = text.split_once("terminationGracePeriodSeconds: ").unwrap();
        rest.lines().next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!([grace(0), grace(10_001), grace(300_000), grace(u64::MAX)], [20, 21, 310, 310]);
}

#[test]
fn what_kubernetes_would_refuse_is_named() {
    let error = |change: &dyn Fn(&mut Manifest, &mut Options)| {
        let (mut manifest, mut options) = (shop(), Options::default());
        change(&mut manifest, &mut options);
        yaml(&manifest, &options).unwrap_err().to_string()
    };
    let variable =
        |from: &str| Value::Host(HostVariable { from: from.into(), optional: false, default: None });
    let found = error(&|manifest, _| {
        manifest.workers[1].env.insert("A".into(), variable("A B"));
    });
    assert!(
        found.starts_with("cannot set environment variable \"A B\" of env A of worker api/stock"),
        "{found}"
    );
    let found = error(&|_, options| options.variables.push(("WHARF_ADMIN_ADDR", "off")));
    assert!(found.starts_with("cannot set WHARF_ADMIN_ADDR: the probes"), "{found}");
    let found = error(&|_, options| options.volumes.push(("/data/../etc", VolumeSource::EmptyDir)));
    assert!(found.starts_with("cannot mount a volume at \"/data/../etc\" of --volume"), "{found}");
    let found = error(&|_, options| options.volumes.push(("/data/kv", VolumeSource::ConfigMap("a".into()))));
    assert_eq!(found, "cannot mount configmap:a at /data/kv: kv default of worker api/cart writes there");
}

#[test]
fn a_name_from_elsewhere_gets_out_of_no_comment_and_no_text() {
    let mut manifest = shop();
    manifest.name = "x\n---\nkind: Secret".into();
    manifest.workers[0].name = "a\nkind: Secret".into();
    let text = yaml(&manifest, &Options::default()).unwrap();
    let kinds: Vec<_> = text.lines().filter(|line| line.starts_with("kind:")).collect();
    assert_eq!(kinds, ["kind: RuntimeClass", "kind: Service", "kind: Deployment"]);
}
