//! Containers of ordinary Linux programs are by our shim what they are by runc: the
//! same program looks around in both, and must see the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use wharf_tests::cri::messages::{
    Capability, ContainerConfig, Device, Int64Value, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount,
    NamespaceOption, SecurityProfile,
};
use wharf_tests::engine::{Container, Generation, Handler, Node};
use wharf_tests::fixture::push_busybox;
use wharf_tests::process::{run, wait_for};
use wharf_tests::registry::Registry;

#[test]
fn native_containers_are_as_runc_makes_them_on_containerd_1_7() {
    compare(Generation::Trixie);
}

#[test]
fn native_containers_are_as_runc_makes_them_on_containerd_2_1() {
    compare(Generation::Forky);
}

/// What a program sees of where it is. Numbers that differ with each container are
/// made alike: those of namespaces, of mounts' peers, and ids.
const LOOK: &str = r#"
id; umask; pwd; hostname; env | sort
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status
echo oom_score_adj $(cat /proc/self/oom_score_adj)
sed 's/  */ /g' /proc/self/limits
for name in cgroup ipc mnt net pid user uts; do echo $name $(readlink /proc/self/ns/$name); done
stat -c '%A %u:%g %t,%T %n' /dev /dev/* /proc /sys
for link in fd stdin ptmx; do readlink /dev/$link; done
while read id parent device root point options rest; do
    echo "mount $point $options $(echo " $rest" | sed -E 's/(shared|master):[0-9]+/\1/g; s/ - ([^ ]+) .*/ \1/')"
done < /proc/self/mountinfo | sort
for file in memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us \
    cpuset/cpuset.cpus pids/pids.max devices/devices.list; do
    for line in $(tr ' ' _ < /sys/fs/cgroup/$file 2>/dev/null | sort); do echo "$file $line"; done
done
for file in kernel/shm_rmid_forced net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range kernel/msgmax; do
    echo $file $(cat /proc/sys/$file)
done
for path in /proc/sys/kernel/msgmax /proc/kcore /proc/sysrq-trigger /sys/firmware / /tmp /data; do
    [ -r $path ] && echo "$path is read"; [ -w $path ] && echo "$path is written"
done
(echo 100000000 >/sys/fs/cgroup/memory/memory.soft_limit_in_bytes) 2>/dev/null && echo "its limits are written"
touch /made 2>&1 && echo "the root is written"
touch /data/made 2>&1 && rm /data/made && echo "the mount is written"
mkdir -p /tmp/place && mount -t tmpfs none /tmp/place 2>&1 && echo "mounts"
unshare -U true 2>&1 && echo "new users"
chmod 4755 /bin/busybox 2>&1
ls /sys /proc/sys 2>/dev/null | tr '\n' ' '
"#;

/// Looks, and then stays while others look.
fn look_and_stay() -> String {
    format!("{LOOK}\necho; echo {LOOKED}; trap 'exit 0' TERM; while :; do sleep 0.1; done")
}

const LOOKED: &str = "looked-around";

/// Something that a pod asks for, and what may then be different.
struct Wish {
    name: &'static str,
    pod: LinuxPodSandboxConfig,
    container: ContainerConfig,
}

#[track_caller]
fn compare(generation: Generation) {
    let node = Node::start(generation, Handler::Runc);
    let registry = Registry::start(node.network());
    let busybox = push_busybox(node.network());
    node.pull(&busybox);
    // By what one sees and the other does not: for which wishes.
    let mut differences = BTreeMap::<String, Vec<&str>>::new();
    let wishes = wishes(&node, &busybox);
    for wish in &wishes {
        let [runc, ours] = [Handler::Runc, Handler::Wasm].map(|handler| look(&node, wish, handler));
        assert!(runc.len() > 40, "{}: runc's container sees nothing: {runc:#?}", wish.name);
        if ours.len() == 1 {
            differences.entry(ours.into_iter().collect()).or_default().push(wish.name);
            continue;
        }
        for (sign, line) in runc
            .difference(&ours)
            .map(|line| ('-', line))
            .chain(ours.difference(&runc).map(|line| ('+', line)))
        {
            differences.entry(format!("{sign} {line}")).or_default().push(wish.name);
        }
    }
    drop(registry);
    let mut report = String::new();
    for (line, names) in &differences {
        let names = if names.len() == wishes.len() { "always".to_owned() } else { names.join(", ") };
        let _ = writeln!(report, "{line} ({names})");
    }
    assert!(report.is_empty(), "runc's containers (-) and ours (+) differ\n{report}");
}

/// What the program of a container of `handler` sees, and one that is run beside it.
#[track_caller]
fn look(node: &Node, wish: &Wish, handler: Handler) -> BTreeSet<String> {
    let pod = node.run_pod_with("alike", handler, wish.pod.clone());
    let seen = match node.try_start_container(&pod, &wish.container) {
        Ok(container) => {
            let looked = || container.log().contains(LOOKED).then_some(());
            let log = wait_for(Duration::from_secs(20), looked).map(|()| container.log());
            let log = log.unwrap_or_else(|| {
                panic!(
                    "{} by {}: {:?}\n{}",
                    wish.name,
                    handler.name(),
                    node.status(&container),
                    container.log()
                )
            });
            // A line of a log begins with the stream and whether it is whole.
            let own = log.lines().filter_map(|line| line.splitn(3, ' ').nth(2)).map(alike);
            let beside = node.exec(&container, &["/bin/sh", "-c", LOOK]);
            let beside =
                beside.stdout.lines().map(|line| format!("exec: {}", alike(line))).collect::<Vec<_>>();
            // The next one of this name would add to it.
            fs_err::remove_file(container.log_file()).expect("the container has a log");
            own.chain(beside).collect()
        }
        Err(status) => BTreeSet::from([format!("refused: {}", status.message)]),
    };
    node.remove_pod(&pod);
    seen
}

/// A line without the numbers of namespaces: whether they are this machine's.
fn alike(line: &str) -> String {
    let line = line.trim_end();
    let Some((name, _)) = line.split_once(' ').filter(|(name, rest)| rest.starts_with(&format!("{name}:[")))
    else {
        return line.to_owned();
    };
    let link = fs_err::read_link(format!("/proc/self/ns/{name}")).expect("a process has namespaces");
    let is_machines = line.ends_with(&link.display().to_string());
    format!("{name} {}", if is_machines { "of the machine" } else { "of its own" })
}

/// Each of Kubernetes' ways to ask for more or less than the usual.
fn wishes(node: &Node, busybox: &str) -> Vec<Wish> {
    let data = node.folder().join("data");
    fs_err::create_dir_all(&data).expect("a folder can be made");
    // One whose mounts others may follow, which those of this machine may not be. It
    // ends with the node.
    let mount = |arguments: &[&str]| run(Command::new("mount").args(arguments).arg(&data)).succeeded();
    mount(&["-t", "tmpfs", "none"]);
    mount(&["--make-shared"]);
    let base = || Container::of(busybox, "look", &["/bin/sh", "-c", &look_and_stay()]);
    let usual = || NamespaceOption { pid: 1, ..NamespaceOption::default() };
    let with = |context: LinuxContainerSecurityContext| {
        let context = LinuxContainerSecurityContext {
            namespace_options: Some(context.namespace_options.unwrap_or_else(usual)),
            ..context
        };
        let linux = LinuxContainerConfig { security_context: Some(context), ..Default::default() };
        ContainerConfig { linux: Some(linux), ..base() }
    };
    let on_node = NamespaceOption { network: 2, pid: 2, ipc: 2 };
    let pod = |options: NamespaceOption, privileged| LinuxPodSandboxConfig {
        security_context: Some(LinuxSandboxSecurityContext { namespace_options: Some(options), privileged }),
        ..Default::default()
    };
    let number = |value| Some(Int64Value { value });
    let context = LinuxContainerSecurityContext::default;
    let mount = |propagation, readonly| Mount {
        container_path: "/data".to_owned(),
        host_path: data.display().to_string(),
        readonly,
        propagation,
    };
    let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let wish = |name, container| Wish { name, pod: pod(usual(), false), container };
    let seccomp = |profile_type| Some(SecurityProfile { profile_type });
    vec![
        wish("nothing", base()),
        wish(
            "a root that is only read",
            with(LinuxContainerSecurityContext { readonly_rootfs: true, ..context() }),
        ),
        wish(
            "another user",
            with(LinuxContainerSecurityContext {
                run_as_user: number(1234),
                run_as_group: number(2345),
                supplemental_groups: vec![10, 3456],
                no_new_privs: true,
                ..context()
            }),
        ),
        wish(
            "capabilities",
            with(LinuxContainerSecurityContext {
                capabilities: Some(Capability {
                    add_capabilities: texts(&["NET_ADMIN", "SYS_ADMIN"]),
                    drop_capabilities: texts(&["CHOWN", "NET_RAW"]),
                }),
                ..context()
            }),
        ),
        wish(
            "no capabilities",
            with(LinuxContainerSecurityContext {
                capabilities: Some(Capability {
                    add_capabilities: Vec::new(),
                    drop_capabilities: texts(&["ALL"]),
                }),
                run_as_user: number(65532),
                ..context()
            }),
        ),
        wish(
            "the runtime's seccomp",
            with(LinuxContainerSecurityContext { seccomp: seccomp(0), ..context() }),
        ),
        wish("no seccomp", with(LinuxContainerSecurityContext { seccomp: seccomp(1), ..context() })),
        wish(
            "other paths masked",
            with(LinuxContainerSecurityContext {
                masked_paths: texts(&["/proc/kcore", "/sys/firmware", "/proc/not-there"]),
                readonly_paths: texts(&["/proc/sys", "/tmp"]),
                ..context()
            }),
        ),
        wish("a mount", ContainerConfig { mounts: vec![mount(0, false)], ..base() }),
        wish("a mount that is only read", ContainerConfig { mounts: vec![mount(0, true)], ..base() }),
        wish("a mount that follows the node's", ContainerConfig { mounts: vec![mount(1, false)], ..base() }),
        wish(
            "a device",
            ContainerConfig {
                devices: vec![Device {
                    container_path: "/dev/nothing".to_owned(),
                    host_path: "/dev/null".to_owned(),
                    permissions: "rw".to_owned(),
                }],
                ..base()
            },
        ),
        wish(
            "an environment and a folder",
            ContainerConfig {
                envs: vec![KeyValue { key: "A".to_owned(), value: "b c".to_owned() }],
                working_dir: "/made/at/start".to_owned(),
                ..base()
            },
        ),
        wish("a terminal", ContainerConfig { tty: true, stdin: true, ..base() }),
        wish("limits", {
            let resources = LinuxContainerResources {
                cpu_period: 50_000,
                cpu_quota: 25_000,
                cpu_shares: 512,
                memory_limit_in_bytes: 64 << 20,
            };
            ContainerConfig {
                linux: Some(LinuxContainerConfig { resources: Some(resources), ..Default::default() }),
                ..base()
            }
        }),
        Wish {
            name: "settings of the kernel",
            pod: LinuxPodSandboxConfig {
                sysctls: [("kernel.shm_rmid_forced", "1"), ("net.ipv4.ip_unprivileged_port_start", "99")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
                ..pod(usual(), false)
            },
            container: base(),
        },
        Wish {
            name: "the node's namespaces",
            pod: pod(on_node.clone(), false),
            container: with(LinuxContainerSecurityContext { namespace_options: Some(on_node), ..context() }),
        },
        Wish {
            name: "a mount that both follow",
            pod: pod(usual(), true),
            container: ContainerConfig {
                mounts: vec![mount(2, false)],
                ..with(LinuxContainerSecurityContext { privileged: true, ..context() })
            },
        },
        Wish {
            name: "privileges",
            pod: pod(usual(), true),
            container: ContainerConfig {
                mounts: vec![mount(0, false)],
                ..with(LinuxContainerSecurityContext { privileged: true, ..context() })
            },
        },
    ]
}
