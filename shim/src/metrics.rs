//! A container's use of CPU, memory, process ids and disks, as containerd's clients
//! expect it: cgroup v1's message or cgroup v2's, after what the node has.

use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, Message, MessageField};
use containerd_shim_protos::{cgroups::metrics as v1, cgroups_v2::metrics as v2};

use crate::cgroup::Cgroup;

/// Nanoseconds in a tick of `cpuacct.stat`: `USER_HZ` is 100 on every Linux
/// architecture that we build for.
const NANOSECONDS_A_TICK: u64 = 10_000_000;

/// The metrics of `cgroup`.
///
/// # Errors
/// The message can't be encoded.
pub(crate) fn read(cgroup: &Cgroup) -> protobuf::Result<Any> {
    let folders = cgroup.folders();
    match v1_metrics(folders) {
        Some(metrics) => pack("io.containerd.cgroups.v1.Metrics", &metrics),
        None => pack("io.containerd.cgroups.v2.Metrics", &v2_metrics(folders)),
    }
}

/// An `Any` as containerd writes it: with the message's bare name. The name is
/// given, because protobuf's own knowledge of it fills a megabyte once asked.
pub(crate) fn pack(name: &str, message: &impl Message) -> protobuf::Result<Any> {
    Ok(Any { type_url: name.to_owned(), value: message.write_to_bytes()?, ..Any::default() })
}

/// Nothing unless the cgroup has a controller of version 1.
fn v1_metrics(folders: &[PathBuf]) -> Option<v1::Metrics> {
    let with = |file: &str| folders.iter().find(|folder| folder.join(file).exists());
    let accounting = with("cpuacct.usage");
    let memory = with("memory.usage_in_bytes");
    if accounting.is_none() && memory.is_none() {
        return None;
    }
    let throttling = with("cpu.cfs_quota_us").map(|folder| {
        let stat = Stat::read(folder, "cpu.stat");
        v1::Throttle {
            periods: stat.get("nr_periods"),
            throttled_periods: stat.get("nr_throttled"),
            throttled_time: stat.get("throttled_time"),
            ..v1::Throttle::default()
        }
    });
    Some(v1::Metrics {
        cpu: MessageField::some(v1::CPUStat {
            usage: accounting.map(|folder| v1_usage(folder)).into(),
            throttling: throttling.into(),
            ..v1::CPUStat::default()
        }),
        memory: memory.map(|folder| v1_memory(folder)).into(),
        memory_oom_control: memory.map(|folder| v1_oom_control(folder)).into(),
        pids: with("pids.current")
            .map(|folder| v1::PidsStat {
                current: number(folder, "pids.current"),
                // 0 for "max", as containerd's own shim has it.
                limit: number(folder, "pids.max"),
                ..v1::PidsStat::default()
            })
            .into(),
        blkio: with("blkio.throttle.io_serviced").map(|folder| v1_blkio(folder)).into(),
        ..v1::Metrics::default()
    })
}

/// Of all disks; of processes below too, where the kernel counts them.
fn v1_blkio(folder: &Path) -> v1::BlkIOStat {
    let entries = |name: &str| {
        let file = [format!("blkio.throttle.{name}_recursive"), format!("blkio.throttle.{name}")];
        let file = file.iter().find(|file| folder.join(file).exists());
        let text = file.map(|file| text(folder, file)).unwrap_or_default();
        text.lines().filter_map(v1_blkio_entry).collect()
    };
    v1::BlkIOStat {
        io_service_bytes_recursive: entries("io_service_bytes"),
        io_serviced_recursive: entries("io_serviced"),
        ..v1::BlkIOStat::default()
    }
}

/// Reads `MAJOR:MINOR OPERATION VALUE`.
fn v1_blkio_entry(line: &str) -> Option<v1::BlkIOEntry> {
    let mut fields = line.split_whitespace();
    let (device, operation) = (fields.next()?, fields.next()?);
    let (major, minor) = device.split_once(':')?;
    Some(v1::BlkIOEntry {
        op: operation.to_owned(),
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        value: fields.next()?.parse().ok()?,
        ..v1::BlkIOEntry::default()
    })
}

fn v1_usage(folder: &Path) -> v1::CPUUsage {
    let stat = Stat::read(folder, "cpuacct.stat");
    let each = text(folder, "cpuacct.usage_percpu");
    v1::CPUUsage {
        total: number(folder, "cpuacct.usage"),
        kernel: stat.get("system") * NANOSECONDS_A_TICK,
        user: stat.get("user") * NANOSECONDS_A_TICK,
        per_cpu: each.split_whitespace().filter_map(|value| value.parse().ok()).collect(),
        ..v1::CPUUsage::default()
    }
}

fn v1_memory(folder: &Path) -> v1::MemoryStat {
    let stat = Stat::read(folder, "memory.stat");
    let entry = |kind: &str| {
        let value = |name: &str| number(folder, &format!("memory.{kind}{name}"));
        MessageField::some(v1::MemoryEntry {
            limit: value("limit_in_bytes"),
            usage: value("usage_in_bytes"),
            max: value("max_usage_in_bytes"),
            failcnt: value("failcnt"),
            ..v1::MemoryEntry::default()
        })
    };
    v1::MemoryStat {
        cache: stat.get("cache"),
        rss: stat.get("rss"),
        rss_huge: stat.get("rss_huge"),
        mapped_file: stat.get("mapped_file"),
        dirty: stat.get("dirty"),
        writeback: stat.get("writeback"),
        pg_pg_in: stat.get("pgpgin"),
        pg_pg_out: stat.get("pgpgout"),
        pg_fault: stat.get("pgfault"),
        pg_maj_fault: stat.get("pgmajfault"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        hierarchical_memory_limit: stat.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: stat.get("hierarchical_memsw_limit"),
        total_cache: stat.get("total_cache"),
        total_rss: stat.get("total_rss"),
        total_rss_huge: stat.get("total_rss_huge"),
        total_mapped_file: stat.get("total_mapped_file"),
        total_dirty: stat.get("total_dirty"),
        total_writeback: stat.get("total_writeback"),
        total_pg_pg_in: stat.get("total_pgpgin"),
        total_pg_pg_out: stat.get("total_pgpgout"),
        total_pg_fault: stat.get("total_pgfault"),
        total_pg_maj_fault: stat.get("total_pgmajfault"),
        total_inactive_anon: stat.get("total_inactive_anon"),
        total_active_anon: stat.get("total_active_anon"),
        total_inactive_file: stat.get("total_inactive_file"),
        total_active_file: stat.get("total_active_file"),
        total_unevictable: stat.get("total_unevictable"),
        usage: entry(""),
        swap: entry("memsw."),
        kernel: entry("kmem."),
        kernel_tcp: entry("kmem.tcp."),
        ..v1::MemoryStat::default()
    }
}

fn v1_oom_control(folder: &Path) -> v1::MemoryOomControl {
    let control = Stat::read(folder, "memory.oom_control");
    v1::MemoryOomControl {
        oom_kill_disable: control.get("oom_kill_disable"),
        under_oom: control.get("under_oom"),
        oom_kill: control.get("oom_kill"),
        ..v1::MemoryOomControl::default()
    }
}

fn v2_metrics(folders: &[PathBuf]) -> v2::Metrics {
    let Some(folder) = folders.first() else {
        return v2::Metrics::default();
    };
    let cpu = Stat::read(folder, "cpu.stat");
    let events = Stat::read(folder, "memory.events");
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat {
            current: number(folder, "pids.current"),
            limit: number(folder, "pids.max"),
            ..v2::PidsStat::default()
        }),
        cpu: MessageField::some(v2::CPUStat {
            usage_usec: cpu.get("usage_usec"),
            user_usec: cpu.get("user_usec"),
            system_usec: cpu.get("system_usec"),
            nr_periods: cpu.get("nr_periods"),
            nr_throttled: cpu.get("nr_throttled"),
            throttled_usec: cpu.get("throttled_usec"),
            ..v2::CPUStat::default()
        }),
        memory: MessageField::some(v2_memory(folder)),
        memory_events: MessageField::some(v2::MemoryEvents {
            low: events.get("low"),
            high: events.get("high"),
            max: events.get("max"),
            oom: events.get("oom"),
            oom_kill: events.get("oom_kill"),
            ..v2::MemoryEvents::default()
        }),
        io: MessageField::some(v2::IOStat {
            usage: text(folder, "io.stat").lines().filter_map(v2_io_entry).collect(),
            ..v2::IOStat::default()
        }),
        ..v2::Metrics::default()
    }
}

/// Reads `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …`.
fn v2_io_entry(line: &str) -> Option<v2::IOEntry> {
    let (device, rest) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let value = |name: &str| {
        let mut fields = rest.split_whitespace().filter_map(|field| field.split_once('='));
        let value = fields.find(|(found, _)| *found == name).and_then(|(_, value)| value.parse().ok());
        value.unwrap_or(0)
    };
    Some(v2::IOEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        rbytes: value("rbytes"),
        wbytes: value("wbytes"),
        rios: value("rios"),
        wios: value("wios"),
        ..v2::IOEntry::default()
    })
}

fn v2_memory(folder: &Path) -> v2::MemoryStat {
    let stat = Stat::read(folder, "memory.stat");
    v2::MemoryStat {
        anon: stat.get("anon"),
        file: stat.get("file"),
        kernel_stack: stat.get("kernel_stack"),
        slab: stat.get("slab"),
        sock: stat.get("sock"),
        shmem: stat.get("shmem"),
        file_mapped: stat.get("file_mapped"),
        file_dirty: stat.get("file_dirty"),
        file_writeback: stat.get("file_writeback"),
        anon_thp: stat.get("anon_thp"),
        inactive_anon: stat.get("inactive_anon"),
        active_anon: stat.get("active_anon"),
        inactive_file: stat.get("inactive_file"),
        active_file: stat.get("active_file"),
        unevictable: stat.get("unevictable"),
        slab_reclaimable: stat.get("slab_reclaimable"),
        slab_unreclaimable: stat.get("slab_unreclaimable"),
        pgfault: stat.get("pgfault"),
        pgmajfault: stat.get("pgmajfault"),
        usage: number(folder, "memory.current"),
        usage_limit: limit(folder, "memory.max"),
        max_usage: number(folder, "memory.peak"),
        swap_usage: number(folder, "memory.swap.current"),
        swap_limit: limit(folder, "memory.swap.max"),
        ..v2::MemoryStat::default()
    }
}

/// A file of `name value` lines.
struct Stat(String);

impl Stat {
    fn read(folder: &Path, file: &str) -> Self {
        Self(text(folder, file))
    }

    fn get(&self, name: &str) -> u64 {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(' '));
        let value = lines.find(|(found, _)| *found == name);
        value.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
    }
}

/// The file's text; empty where the kernel has no such file.
fn text(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap_or_default()
}

fn number(folder: &Path, file: &str) -> u64 {
    text(folder, file).trim().parse().unwrap_or(0)
}

/// A number for which "max" is no limit.
fn limit(folder: &Path, file: &str) -> u64 {
    match text(folder, file).trim() {
        "max" => u64::MAX,
        value => value.parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroup) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let cgroup = Cgroup::new(vec![folder.path().to_owned()]);
        (folder, cgroup)
    }

    #[test]
    fn version_1_is_read_with_its_limits() {
        let (_folder, cgroup) = cgroup(&[
            ("cpuacct.usage", "5000000\n"),
            ("cpuacct.stat", "user 3\nsystem 2\n"),
            ("memory.usage_in_bytes", "4096\n"),
            ("memory.limit_in_bytes", "1048576\n"),
            ("memory.stat", "cache 1\ntotal_inactive_file 7\n"),
            ("pids.current", "2\n"),
            ("pids.max", "max\n"),
            ("blkio.throttle.io_serviced", "8:0 Read 3\nTotal 3\n"),
            ("blkio.throttle.io_service_bytes", "8:0 Read 4096\n8:0 Write 512\nTotal 4608\n"),
        ]);
        let any = read(&cgroup).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let metrics = v1::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.cpu.usage.total, 5_000_000);
        assert_eq!(metrics.cpu.usage.user, 30_000_000);
        assert_eq!(metrics.memory.usage.usage, 4096);
        assert_eq!(metrics.memory.usage.limit, 1 << 20);
        assert_eq!(metrics.memory.total_inactive_file, 7);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (2, 0));
        let written = &metrics.blkio.io_service_bytes_recursive[1];
        assert_eq!((written.major, written.minor, written.op.as_str(), written.value), (8, 0, "Write", 512));
    }

    #[test]
    fn version_2_is_read_with_its_limits() {
        let (_folder, cgroup) = cgroup(&[
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 1\ninactive_file 7\n"),
            ("pids.current", "2\n"),
            ("pids.max", "10\n"),
            ("io.stat", "8:16 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0\n"),
        ]);
        let any = read(&cgroup).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = v2::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.cpu.usage_usec, 5);
        assert_eq!(metrics.memory.usage, 4096);
        assert_eq!(metrics.memory.usage_limit, u64::MAX);
        assert_eq!(metrics.memory.inactive_file, 7);
        assert_eq!((metrics.pids.current, metrics.pids.limit), (2, 10));
        let disk = &metrics.io.usage[0];
        assert_eq!((disk.minor, disk.rbytes, disk.wbytes, disk.wios), (16, 4096, 512, 2));
    }
}
