//! What the node's administrator may set, in containerd's environment, which
//! shims inherit. Everything has a default.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use super::AotError;

/// The cache's folder.
const FOLDER: &str = "WHARF_CACHE_DIR";

/// The cache's folder if that is not set.
const DEFAULT_FOLDER: &str = "/var/cache/wharf/aot";

/// Bytes that all entries together may have.
const SIZE: &str = "WHARF_CACHE_SIZE";

/// That, if it is not set and a tenth of the file system is not less.
const DEFAULT_SIZE: u64 = 4 << 30;

/// Memory that the compiler may take.
pub(super) const MEMORY: &str = "WHARF_COMPILE_MEMORY";

/// That, if it is not set and half of the machine's is not less. A Python
/// component of 20 MB takes 340 MB.
const DEFAULT_MEMORY: u64 = 2 << 30;

/// CPUs that the compiler may keep busy. Half of the machine's, but two at
/// least where there are two, if it is not set: who waits is a user.
const CPUS: &str = "WHARF_COMPILE_CPUS";

/// Time that the compiler may take.
pub(super) const TIME: &str = "WHARF_COMPILE_TIMEOUT";

/// That, if it is not set. A Python component of 20 MB takes 12 s of one CPU.
const DEFAULT_TIME: Duration = Duration::from_secs(600);

/// Everything that can be set.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) folder: PathBuf,
    /// Given, or to be decided when the folder is known to be there.
    size: Option<u64>,
    pub(super) limits: Limits,
}

/// What one run of the compiler may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Limits {
    /// In bytes.
    pub(super) memory: u64,
    /// In thousandths of a CPU.
    pub(super) cpu: u32,
    pub(super) time: Duration,
}

impl Settings {
    /// Those of this process's environment.
    ///
    /// # Errors
    /// [`AotError::Setting`].
    pub(super) fn from_env() -> Result<Self, AotError> {
        Self::read(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, AotError> {
        let bytes = |name| {
            let parse = |text: &str| text.parse::<ByteSize>().ok().filter(|size| size.0 > 0);
            parsed(name, variable(name), parse, "a size, as \"2GiB\"").map(|size| size.map(|size| size.0))
        };
        let cpu = |text: &str| {
            let cpus: f64 = text.parse().ok().filter(|cpus| (0.01..=4096.0).contains(cpus))?;
            // In the range of a u32 by the line above.
            Some((cpus * 1000.0) as u32)
        };
        let time = |text: &str| {
            let seconds = text.parse().map(Duration::from_secs).ok();
            seconds.or_else(|| humantime::parse_duration(text).ok()).filter(|time| !time.is_zero())
        };
        let limits = Limits {
            memory: bytes(MEMORY)?.unwrap_or_else(default_memory),
            cpu: parsed(CPUS, variable(CPUS), cpu, "a number of CPUs, as \"1.5\"")?
                .unwrap_or_else(default_cpu),
            time: parsed(TIME, variable(TIME), time, "a time, as \"10m\"")?.unwrap_or(DEFAULT_TIME),
        };
        let folder = variable(FOLDER).unwrap_or_else(|| DEFAULT_FOLDER.to_owned());
        Ok(Self { folder: folder.into(), size: bytes(SIZE)?, limits })
    }

    /// These, with the defaults of tests.
    #[cfg(test)]
    pub(super) fn at(folder: PathBuf, size: u64) -> Self {
        let limits = Limits { memory: 256 << 20, cpu: 2000, time: Duration::from_secs(60) };
        Self { folder, size: Some(size), limits }
    }

    /// Bytes that all entries together may have.
    pub(super) fn size(&self) -> u64 {
        self.size.unwrap_or_else(|| {
            let tenth = statvfs(&self.folder).map(|disk| disk.blocks() * disk.fragment_size() / 10);
            tenth.unwrap_or(DEFAULT_SIZE).min(DEFAULT_SIZE)
        })
    }
}

impl Limits {
    /// Threads that can make use of its CPUs.
    pub(super) fn threads(&self) -> u32 {
        self.cpu.div_ceil(1000).max(1)
    }
}

fn parsed<T>(
    name: &'static str,
    value: Option<String>,
    parse: impl Fn(&str) -> Option<T>,
    expected: &'static str,
) -> Result<Option<T>, AotError> {
    let Some(value) = value else { return Ok(None) };
    match parse(value.trim()) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(AotError::Setting { name, value, expected }),
    }
}

fn default_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|total| total.split_whitespace().next()?.parse::<u64>().ok());
    total.map_or(DEFAULT_MEMORY, |kilobytes| (kilobytes * 1024 / 2).min(DEFAULT_MEMORY))
}

fn default_cpu() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    u32::try_from(cpus).unwrap_or(1).saturating_mul(500).max(1000 * u32::try_from(cpus.min(2)).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Settings, AotError> {
        Settings::read(|asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn what_is_not_set_has_a_default() {
        let settings = Settings::read(|_| None).unwrap();
        assert_eq!(settings.folder, PathBuf::from(DEFAULT_FOLDER));
        assert_eq!(settings.limits.time, Duration::from_secs(600));
        assert!(settings.limits.cpu >= 1000);
        assert!(settings.limits.memory <= DEFAULT_MEMORY);
        assert!(settings.size() <= DEFAULT_SIZE);
    }

    #[test]
    fn what_is_set_counts() {
        assert_eq!(read("WHARF_CACHE_SIZE", "100MiB").unwrap().size(), 100 << 20);
        assert_eq!(read("WHARF_COMPILE_MEMORY", "1GiB").unwrap().limits.memory, 1 << 30);
        assert_eq!(read("WHARF_COMPILE_TIMEOUT", "90s").unwrap().limits.time, Duration::from_secs(90));
        assert_eq!(read("WHARF_COMPILE_TIMEOUT", "90").unwrap().limits.time, Duration::from_secs(90));
        let limits = read("WHARF_COMPILE_CPUS", "1.5").unwrap().limits;
        assert_eq!((limits.cpu, limits.threads()), (1500, 2));
    }

    #[test]
    fn a_setting_that_is_none_is_named() {
        let error = read("WHARF_COMPILE_MEMORY", "much").unwrap_err().to_string();
        assert_eq!(error, "WHARF_COMPILE_MEMORY is \"much\": expected a size, as \"2GiB\"");
        for (name, value) in [
            ("WHARF_CACHE_SIZE", "0"),
            ("WHARF_COMPILE_CPUS", "0"),
            ("WHARF_COMPILE_CPUS", "-1"),
            ("WHARF_COMPILE_CPUS", "NaN"),
            ("WHARF_COMPILE_TIMEOUT", "10 x"),
            ("WHARF_COMPILE_TIMEOUT", "0s"),
        ] {
            assert!(read(name, value).is_err(), "{name}={value}");
        }
    }
}
