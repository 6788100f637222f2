//! What of the kernel containers need.

use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, openat2};
use nix::sys::utsname::uname;

use super::Finding;
use crate::sys;

/// Controllers that limits of a container need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Namespaces that a container is put into.
const NAMESPACES: [&str; 6] = ["mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// `CAP_SYS_RESOURCE` of capabilities(7).
const SYS_RESOURCE: u32 = 24;

pub(super) fn examine() -> Vec<Finding> {
    vec![
        release(),
        privileges(),
        cgroups(),
        namespaces(),
        user_namespaces(),
        seccomp(),
        overlay(),
        read_only_mounts(),
    ]
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn release() -> Finding {
    const CHECK: &str = "kernel";
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    // As libcontainer opens a rootfs's files.
    let mut how = OpenHow::new();
    how = how.flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    match openat2(nix::fcntl::AT_FDCWD, "/", how) {
        Ok(_) => Finding::ok(CHECK, format!("{release}, with openat2")),
        Err(error) => Finding::problem(
            CHECK,
            format!("{release}: openat2 fails ({})", error.desc()),
            "boot Linux 5.10 or later; in a container, let its seccomp profile allow openat2",
        ),
    }
}

fn privileges() -> Finding {
    const CHECK: &str = "privileges";
    if !nix::unistd::geteuid().is_root() {
        return Finding::warning(
            CHECK,
            "not root: what follows may be incomplete",
            "run `sudo containerd-shim-wasm-v1 doctor`",
        );
    }
    match has_capability(&read("/proc/self/status"), SYS_RESOURCE) {
        true => Finding::ok(CHECK, "root"),
        false => Finding::warning(
            CHECK,
            "root without CAP_SYS_RESOURCE: negative values of oom_score_adj are not set",
            "nothing for apps; for pods by runc, `restrict_oom_score_adj = true` in containerd's CRI section",
        ),
    }
}

fn has_capability(status: &str, capability: u32) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_none_or(|set| set >> capability & 1 == 1)
}

fn cgroups() -> Finding {
    const CHECK: &str = "cgroups";
    let (version, available) = match std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        Ok(unified) => (2, unified.split_whitespace().map(str::to_owned).collect()),
        Err(_) => (1, mounted_controllers(&read("/proc/self/mountinfo"))),
    };
    let missing: Vec<_> =
        CONTROLLERS.into_iter().filter(|name| !available.iter().any(|found| found == name)).collect();
    if missing.is_empty() {
        return Finding::ok(CHECK, format!("version {version} with {}", CONTROLLERS.join(", ")));
    }
    let found = format!("version {version} without {}", missing.join(", "));
    if version == 1 && available.is_empty() {
        return Finding::problem(
            CHECK,
            "none are mounted",
            "mount cgroup2 at /sys/fs/cgroup, as systemd does",
        );
    }
    let todo = "take cgroup_disable= off the kernel's command line; limits of such a kind fail until then";
    Finding::problem(CHECK, found, todo)
}

/// The controllers of cgroup v1 that are mounted.
fn mounted_controllers(mounts: &str) -> Vec<String> {
    let cgroup = mounts.lines().filter_map(|line| line.split_once(" - cgroup "));
    let options = cgroup.filter_map(|(_, rest)| rest.split(' ').next_back());
    options.flat_map(|options| options.split(',')).map(str::to_owned).collect()
}

fn namespaces() -> Finding {
    const CHECK: &str = "namespaces";
    let missing: Vec<_> = NAMESPACES
        .into_iter()
        .filter(|name| std::fs::symlink_metadata(format!("/proc/self/ns/{name}")).is_err())
        .collect();
    match missing.as_slice() {
        [] => Finding::ok(CHECK, NAMESPACES.join(", ")),
        _ => Finding::problem(
            CHECK,
            format!("the kernel has none of kind {}", missing.join(", ")),
            "boot a kernel with CONFIG_NAMESPACES and all below it",
        ),
    }
}

fn user_namespaces() -> Finding {
    const CHECK: &str = "user namespaces";
    let most = read("/proc/sys/user/max_user_namespaces");
    match most.trim().parse() {
        Ok(0) | Err(_) => Finding::warning(
            CHECK,
            "not allowed here",
            "only pods with hostUsers: false need them: sysctl user.max_user_namespaces=10000",
        ),
        Ok(most) => {
            let most: u64 = most;
            Finding::ok(CHECK, format!("at most {most}"))
        }
    }
}

fn seccomp() -> Finding {
    const CHECK: &str = "seccomp";
    match std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("errno") => Finding::ok(CHECK, "filters"),
        _ => Finding::problem(
            CHECK,
            "the kernel has no filters",
            "boot a kernel with CONFIG_SECCOMP_FILTER: containers by default have a profile",
        ),
    }
}

fn overlay() -> Finding {
    const CHECK: &str = "overlayfs";
    if read("/proc/filesystems").split_whitespace().any(|word| word == "overlay") {
        return Finding::ok(CHECK, "there");
    }
    // containerd's snapshotter has it loaded when it starts.
    Finding::warning(CHECK, "not loaded", "modprobe overlay, unless containerd has another snapshotter")
}

/// By which containers get our programs: see `sys::open_read_only`.
fn read_only_mounts() -> Finding {
    const CHECK: &str = "read-only mounts";
    let program = std::env::current_exe().unwrap_or_else(|_| Path::new("/proc/self/exe").to_owned());
    match sys::can_clone_read_only(&program) {
        Ok(()) => Finding::ok(CHECK, "open_tree and mount_setattr"),
        Err(error) => Finding::warning(
            CHECK,
            format!("open_tree or mount_setattr fails ({error})"),
            "boot Linux 5.12 or later, and run as root: until then a container's root could open the \
             node's wharf-host for writing",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_of_version_1_are_read_from_the_mounts() {
        let mounts = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      41 31 0:38 / /sys/fs/cgroup/cpu rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
                      42 31 0:39 / / rw - ext4 /dev/root rw,memory\n";
        let found = mounted_controllers(mounts);
        assert!(found.contains(&"cpu".to_owned()) && !found.contains(&"memory".to_owned()), "{found:?}");
    }

    #[test]
    fn a_capability_is_read_from_the_status() {
        let status = |hex: &str| format!("Name:\tx\nCapEff:\t{hex}\n");
        assert!(has_capability(&status("000001ffffffffff"), SYS_RESOURCE));
        assert!(!has_capability(&status("000001fffeffffff"), SYS_RESOURCE));
        assert!(has_capability("", SYS_RESOURCE), "not known: nothing to say");
    }
}
