//! What the kernel knows of a process, from `/proc`.

/// A process's share of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// Bytes in memory, shared pages counted whole.
    pub(super) resident: u64,
    /// Bytes in memory, each shared page divided by those who share it.
    pub(super) proportional: u64,
    /// Descriptors that are open.
    pub(super) descriptors: u64,
    /// CPU time, in clock ticks of a hundredth of a second.
    pub(super) ticks: u64,
}

impl Usage {
    /// Of the process `id`; what can't be read is zero.
    pub(super) fn of(id: u64) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
        let (status, rollup) = (read("status"), read("smaps_rollup"));
        let resident = kilobytes(&status, "VmRSS:").unwrap_or_default();
        let descriptors =
            std::fs::read_dir(format!("/proc/{id}/fd")).map_or(0, |entries| entries.count() as u64);
        Self {
            resident,
            // Before Linux 4.14, or where it is forbidden, there is none.
            proportional: kilobytes(&rollup, "Pss:").unwrap_or(resident),
            descriptors,
            ticks: ticks(&read("stat")).unwrap_or_default(),
        }
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            resident: self.resident + other.resident,
            proportional: self.proportional + other.proportional,
            descriptors: self.descriptors + other.descriptors,
            ticks: self.ticks + other.ticks,
        }
    }
}

/// The line `name` of a file of `/proc`, in bytes.
fn kilobytes(file: &str, name: &str) -> Option<u64> {
    let line = file.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// User and system time of `/proc/PID/stat`, its own and that of children that
/// have ended, or the sum would fall with them: the 14th to 17th field. The
/// second one, a name in parentheses, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()? + next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let usage = Usage::of(std::process::id().into());
        assert!(usage.resident > 100_000, "{usage:?}");
        assert!(usage.proportional > 100_000 && usage.proportional <= usage.resident, "{usage:?}");
        assert!(usage.descriptors >= 3, "{usage:?}");
    }

    #[test]
    fn cpu_time_is_found_behind_a_name_with_parentheses() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 100 0 0 0 70 30 4 1 20 0 1 0";
        assert_eq!(ticks(stat), Some(105));
        assert_eq!(ticks(""), None);
    }
}
