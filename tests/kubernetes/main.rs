//! An app on Kubernetes: what its users see through a rolling update, and after
//! containerd and every shim were killed. `make test-kubernetes`: root,
//! tests/testbed/{setup,kubernetes}.sh, and `WHARF_BIN_DIR` as for the other tests.

mod load;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use wharf_tests::cluster::{Cluster, NODE};
use wharf_tests::engine::Generation;
use wharf_tests::fixture::push_busybox;
use wharf_tests::http;
use wharf_tests::process::{send, wait_for};
use wharf_tests::project::Project;
use wharf_tests::registry::{ADDRESS, Registry};
use wharf_tests::testbed;
use wharf_tests::wharf::{Wharf, text};

use crate::load::Load;

#[test]
fn an_app_is_updated_without_a_failure_and_comes_back_on_containerd_1_7() {
    lives(Generation::Trixie);
}

#[test]
fn an_app_is_updated_without_a_failure_and_comes_back_on_containerd_2_1() {
    lives(Generation::Forky);
}

const REPLICAS: usize = 3;

fn lives(generation: Generation) {
    let mut cluster = Cluster::start(generation);
    let registry = Registry::start(cluster.network());
    let sidecar = push_busybox(cluster.network());
    let [first, second] = ["one", "two"].map(|version| push_version(&cluster, version));
    for manifest in [runtime_class(), service(), deployment(&first, &sidecar)] {
        cluster.apply(&manifest);
    }
    roll_out(&cluster);
    let url = format!("http://{}", cluster_ip(&cluster));
    let page = http::get_when_up(cluster.network(), &url);
    assert!(page.status == 200 && page.body.contains("one"), "{page:?}");
    by_our_shim(&cluster);
    debugged(&cluster, &sidecar);
    measured(&cluster);
    started_anew(&cluster);

    // While somebody asks, every pod is replaced.
    let load = Load::start(cluster.network(), &cluster_ip(&cluster));
    cluster.kubectl(&["set", "image", "deployment/hello", &format!("app={second}")]).succeeded();
    roll_out(&cluster);
    let answers = load.finish();
    assert!(
        answers.failures.is_empty(),
        "of {} requests some failed: {:#?}",
        answers.total,
        answers.failures
    );
    assert!(answers.total > 100, "only {} requests were made", answers.total);
    let page = http::get(cluster.network(), &url);
    assert!(page.body.contains("two"), "{page:?}");
    only_pods(&cluster, REPLICAS);

    // What a node that breaks down and comes back finds: no containerd, no shim, and
    // here the containers' processes, which nobody serves any more.
    let old = inits(&cluster);
    assert_eq!(old.len(), 2 * REPLICAS, "{old:?}");
    let shims = cluster.node().shims();
    cluster.node_mut().restart_when(Signal::SIGKILL, || {
        for shim in shims {
            send(shim, Signal::SIGKILL);
        }
    });
    let gone = || old.iter().all(|init| !Path::new(&format!("/proc/{init}")).exists()).then_some(());
    assert!(wait_for(Duration::from_secs(60), gone).is_some(), "processes of before are left: {old:?}");
    let whole = || (inits(&cluster).len() == 2 * REPLICAS).then_some(());
    assert!(wait_for(Duration::from_secs(180), whole).is_some(), "{:?}", inits(&cluster));
    roll_out(&cluster);
    let page = http::get_when_up(cluster.network(), &url);
    assert!(page.status == 200 && page.body.contains("two"), "{page:?}");

    for kind in ["deployment", "service"] {
        cluster.kubectl(&["delete", kind, "hello"]).succeeded();
    }
    only_pods(&cluster, 0);
    as_wharf_kube_says(&cluster);
    knows_what_is_delivered(&cluster);
    let nothing = || cluster.traces().is_empty().then_some(());
    assert!(wait_for(Duration::from_secs(60), nothing).is_some(), "the pods left {:#?}", cluster.traces());
    drop(registry);
}

/// What `wharf kube` prints is taken as it is, by a cluster that takes nothing unknown,
/// and serves the app.
#[track_caller]
fn as_wharf_kube_says(cluster: &Cluster) {
    let reference = format!("{ADDRESS}/hello:kube");
    let wharf = Wharf::new();
    let _ = wharf.build(Project::hello().path(), &reference);
    wharf.run_in(cluster.network(), &["push", &reference]).succeeded();
    let manifests = wharf.scratch().join("kube.yaml");
    let printed = wharf.run(&["kube", &reference, "--replicas", "2"]).output();
    fs_err::write(&manifests, printed).expect("the manifests can be written");
    let on_all = |verb: &str, options: &[&str]| {
        let file = ["--filename", text(&manifests)];
        cluster.kubectl(&[&[verb], options, &file].concat()).succeeded();
    };
    on_all("apply", &["--validate=strict"]);
    cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout", "120s"]).succeeded();
    only_pods(cluster, 2);
    let answer = http::get(cluster.network(), &format!("http://{}/api/hello?name=kube", cluster_ip(cluster)));
    assert!(answer.status == 200 && answer.body.contains("kube"), "{answer:?}");
    on_all("delete", &[]);
    only_pods(cluster, 0);
}

/// The node installer's manifests have nothing that Kubernetes does not know.
#[track_caller]
fn knows_what_is_delivered(cluster: &Cluster) {
    // A dry run makes no namespace for what is in it.
    cluster.kubectl(&["create", "namespace", "wharf-system"]).succeeded();
    for file in ["runtimeclass.yaml", "node-installer/install.yaml", "node-installer/uninstall.yaml"] {
        let file = testbed::repository().join("deploy").join(file);
        let check = ["apply", "--dry-run=server", "--validate=strict", "--filename", text(&file)];
        cluster.kubectl(&check).succeeded();
    }
}

/// Builds examples/hello with a page of its own and pushes it: its reference.
fn push_version(cluster: &Cluster, version: &str) -> String {
    let reference = format!("{ADDRESS}/hello:{version}");
    let wharf = Wharf::new();
    let project = Project::hello().with("public/index.html", format!("<p>{version}</p>\n"));
    let _ = wharf.build(project.path(), &reference);
    wharf.run_in(cluster.network(), &["push", &reference]).succeeded();
    reference
}

fn runtime_class() -> Value {
    json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": "wasm" }, "handler": "wasm",
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "hello" },
        "spec": { "selector": { "app": "hello" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    })
}

fn deployment(app: &str, sidecar: &str) -> Value {
    let probe = |path| json!({ "httpGet": { "path": path, "port": 8080 }, "periodSeconds": 1 });
    let resources =
        json!({ "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "256Mi" } });
    let exec = json!({ "exec": { "command": ["/bin/sh", "-c", "exit 0"] }, "periodSeconds": 2 });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "hello" },
        "spec": {
            "replicas": REPLICAS,
            "selector": { "matchLabels": { "app": "hello" } },
            "strategy": { "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
            "template": {
                "metadata": { "labels": { "app": "hello" } },
                "spec": {
                    "runtimeClassName": "wasm",
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": 20,
                    "containers": [
                        {
                            "name": "app", "image": app, "ports": [{ "containerPort": 8080 }],
                            "readinessProbe": probe("/"), "livenessProbe": probe("/api/hello"),
                            "resources": resources,
                            // What the strictest of Pod Security Standards asks for.
                            "securityContext": {
                                "runAsNonRoot": true, "readOnlyRootFilesystem": true,
                                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                                "seccompProfile": { "type": "RuntimeDefault" },
                            },
                            // Until every proxy has heard that this pod ends.
                            "lifecycle": { "preStop": { "sleep": { "seconds": 3 } } },
                        },
                        {
                            "name": "sidecar", "image": sidecar,
                            "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; echo begins; while :; do sleep 0.2; done"],
                            "livenessProbe": exec,
                        },
                    ],
                },
            },
        },
    })
}

#[track_caller]
fn roll_out(cluster: &Cluster) {
    let replicas = format!("{REPLICAS} {REPLICAS} {REPLICAS} ");
    let path = "jsonpath={.status.updatedReplicas} {.status.replicas} {.status.availableReplicas} {.status.unavailableReplicas}";
    cluster.kubectl(&["rollout", "status", "deployment/hello", "--timeout", "240s"]).succeeded();
    cluster.wait_for("all are available", &["get", "deployment", "hello", "--output", path], replicas.trim());
}

#[track_caller]
fn only_pods(cluster: &Cluster, count: usize) {
    let names = || cluster.kubectl(&["get", "pods", "--output", "name"]).output();
    let only = || (names().lines().count() == count).then_some(());
    assert!(wait_for(Duration::from_secs(90), only).is_some(), "expected {count} pods: {}", names());
}

fn cluster_ip(cluster: &Cluster) -> String {
    cluster.kubectl(&["get", "service", "hello", "--output", "jsonpath={.spec.clusterIP}"]).output()
}

/// The processes that the deployment's containers began with.
fn inits(cluster: &Cluster) -> BTreeSet<u32> {
    cluster.node().inits().into_iter().collect()
}

/// Each pod has one shim, ours, for all that is in it.
#[track_caller]
fn by_our_shim(cluster: &Cluster) {
    let shims = cluster.node().shims();
    assert_eq!(shims.len(), REPLICAS, "{shims:?}");
    for shim in shims {
        let name = fs_err::read_to_string(format!("/proc/{shim}/cmdline")).expect("the shim runs");
        assert!(name.contains("containerd-shim-wasm-v1"), "{name:?}");
    }
}

/// What somebody does who looks for a fault.
#[track_caller]
fn debugged(cluster: &Cluster, tools: &str) {
    let exec = "kubectl exec deployment/hello -c sidecar";
    assert_eq!(cluster.shell(&format!("{exec} -- echo out")).output(), "out");
    let failed = cluster.shell(&format!("{exec} -- sh -c 'exit 3'"));
    assert_eq!(failed.code, 3, "{}", failed.report());
    // The end of its input ends it.
    assert_eq!(cluster.shell(&format!("echo in | {exec} -i -- cat")).output(), "in");
    let long = cluster.shell(&format!("head -c 5000000 /dev/zero | {exec} -i -- wc -c"));
    assert_eq!(long.output(), "5000000");
    let script = "wget -q -O - http://127.0.0.1:8080/api/hello?name=pod";
    assert!(cluster.shell(&format!("{exec} -- {script}")).output().contains("pod"));
    assert_eq!(cluster.kubectl(&["logs", "deployment/hello", "-c", "sidecar"]).output(), "begins");
    let forward = "kubectl port-forward deployment/hello 18080:8080 >/dev/null & \
                   trap 'kill $!' EXIT; curl --silent --fail --retry 20 --retry-connrefused --retry-delay 1 \
                   http://127.0.0.1:18080/api/hello?name=forwarded";
    let forwarded = cluster.shell(forward);
    assert!(forwarded.stdout.contains("forwarded"), "{}", forwarded.report());
    // A container that is added, and sees the app's processes.
    let look = "cat /proc/1/cmdline; wget -q -O - http://127.0.0.1:8080/";
    let debug = format!(
        "pod=$(kubectl get pods --selector app=hello --output name | head -n 1) && kubectl debug $pod --quiet \
         --image {tools} --target app --container debug --profile general --attach -- sh -c '{look}'"
    );
    let seen = cluster.shell(&debug);
    assert!(seen.stdout.contains("wharf-host") && seen.stdout.contains("<p>one</p>"), "{}", seen.report());
}

/// A container that dies is started anew beside the others of its pod.
#[track_caller]
fn started_anew(cluster: &Cluster) {
    let restarts = "jsonpath={range .items[*].status.containerStatuses[*]}{.restartCount}{end}";
    let all = ["get", "pods", "--selector", "app=hello", "--output", restarts];
    assert_eq!(cluster.kubectl(&all).output(), "000000");
    let before = inits(cluster);
    let is_app = |init: &&u32| {
        let line = fs_err::read(format!("/proc/{init}/cmdline")).expect("a container runs");
        String::from_utf8_lossy(&line).contains("wharf")
    };
    let app = *before.iter().find(is_app).expect("one of them is an app");
    send(app, Signal::SIGKILL);
    cluster.wait_for(
        "it is started anew",
        &["get", "deployment", "hello", "--output", "jsonpath={.status.availableReplicas}"],
        "3",
    );
    let whole = || {
        let now = inits(cluster);
        (now.len() == 2 * REPLICAS && !now.contains(&app)).then_some(now)
    };
    let now = wait_for(Duration::from_secs(60), whole).expect("all containers run");
    assert_eq!(now.difference(&before).count(), 1, "{before:?} {now:?}");
    roll_out(cluster);
}

/// What an autoscaler is told: CPU and memory of each container.
#[track_caller]
fn measured(cluster: &Cluster) {
    let path = format!("/api/v1/nodes/{NODE}/proxy/metrics/resource");
    let read = || cluster.kubectl(&["get", "--raw", &path]).stdout;
    let count = |metrics: &str, name: &str, container: &str| {
        let start = format!("{name}{{container=\"{container}\",namespace=\"default\",pod=\"hello-");
        let lines = metrics.lines().filter(|line| line.starts_with(&start));
        // Name, labels, value, time.
        let values = lines.filter_map(|line| line.split(' ').nth(1)?.parse::<f64>().ok());
        values.filter(|value| *value > 0.0).count()
    };
    let all = || {
        let metrics = read();
        let has = |name: &str| ["app", "sidecar"].iter().all(|of| count(&metrics, name, of) == REPLICAS);
        (has("container_cpu_usage_seconds_total") && has("container_memory_working_set_bytes")).then_some(())
    };
    assert!(wait_for(Duration::from_secs(60), all).is_some(), "{}", read());
}
