//! containerd and Docker: do they answer, do they find us, does Kubernetes know
//! of us?

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use toml::{Table, Value};

use super::Finding;
use crate::arguments::PROGRAM;

/// What `docker run --runtime=io.containerd.wasm` looks for.
const OTHER_NAME: &str = "containerd-shim-containerd-wasm";

/// Our runtime's name, in containerd's configuration.
const RUNTIME: &str = "io.containerd.wasm.v1";

const CONFIG: &str = "/etc/containerd/config.toml";

/// Where containerd listens, by distribution.
const SOCKETS: [&str; 4] = [
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
];

const DAEMON: &str = "/etc/docker/daemon.json";

/// What is known of containerd.
#[derive(Debug)]
struct Containerd {
    pid: Option<u32>,
    program: Option<PathBuf>,
    config: Option<PathBuf>,
    address: Option<PathBuf>,
    /// Its PATH.
    path: OsString,
}

pub(super) fn examine(config: Option<&str>, address: Option<&str>) -> Vec<Finding> {
    // As ctr has it.
    let variable = std::env::var("CONTAINERD_ADDRESS").ok().filter(|address| !address.is_empty());
    let address = address.or(variable.as_deref());
    let mut containerd = Containerd::running(address).unwrap_or_else(Containerd::stopped);
    if let Some(config) = config {
        containerd.config = Some(config.into());
    }
    if let Some(address) = address {
        containerd.address = Some(address.into());
    }
    let dumped = containerd.dump();
    let runtimes = dumped.as_ref().map(runtimes).unwrap_or_default();
    let mut findings = vec![containerd.answers()];
    findings.extend(containerd.finds_us(&runtimes));
    findings.push(containerd.serves_kubernetes(dumped.as_ref(), &runtimes));
    findings.push(docker(Path::new(DAEMON)));
    findings
}

impl Containerd {
    /// The containerd of this machine, that at `address` if one is given.
    fn running(address: Option<&str>) -> Option<Self> {
        let processes = std::fs::read_dir("/proc").ok()?.flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let all = pids.filter_map(Self::of_process);
        all.min_by_key(|found| {
            let asked = address.is_some_and(|address| found.address.as_deref() == Some(Path::new(address)));
            // The first one of a machine is the machine's own.
            (!asked, found.pid)
        })
    }

    fn of_process(pid: u32) -> Option<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        let name = std::fs::read_to_string(folder.join("comm")).ok()?;
        if name.trim_end() != "containerd" {
            return None;
        }
        let words = split(&std::fs::read(folder.join("cmdline")).ok()?);
        let environment = split(&std::fs::read(folder.join("environ")).unwrap_or_default());
        let path = environment.into_iter().find_map(|pair| {
            pair.into_vec().strip_prefix(b"PATH=").map(|path| OsString::from_vec(path.to_vec()))
        });
        let config = flag(&words, &["--config", "-c"]).unwrap_or_else(|| CONFIG.into());
        Some(Self {
            pid: Some(pid),
            program: std::fs::read_link(folder.join("exe")).ok(),
            address: flag(&words, &["--address", "-a"]).or_else(|| configured_address(&config)),
            config: Some(config),
            path: path.unwrap_or_default(),
        })
    }

    fn stopped() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Self {
            pid: None,
            program: find(&path, "containerd"),
            address: configured_address(Path::new(CONFIG)),
            config: Some(CONFIG.into()),
            path,
        }
    }

    /// The whole configuration, imports and all, as containerd has it.
    fn dump(&self) -> Option<Table> {
        let mut command = Command::new(self.program.as_ref()?);
        if let Some(config) = self.config.as_ref().filter(|config| config.exists()) {
            command.arg("--config").arg(config);
        }
        let output = command.args(["config", "dump"]).stdin(Stdio::null()).stderr(Stdio::null()).output();
        let dumped = output.ok().filter(|output| output.status.success());
        dumped.and_then(|output| String::from_utf8(output.stdout).ok()?.parse().ok())
    }

    fn answers(&self) -> Finding {
        const CHECK: &str = "containerd";
        let sockets: Vec<PathBuf> = match &self.address {
            Some(address) => vec![address.clone()],
            None => SOCKETS.iter().map(PathBuf::from).collect(),
        };
        let places = sockets.iter().map(|socket| socket.display().to_string()).collect::<Vec<_>>().join(", ");
        let program = self.program.as_ref().map(|program| program.display().to_string());
        match sockets.iter().find(|socket| UnixStream::connect(socket).is_ok()) {
            Some(socket) => Finding::ok(
                CHECK,
                format!("{} at {}", program.unwrap_or_else(|| "answers".into()), socket.display()),
            ),
            None if program.is_none() => Finding::problem(
                CHECK,
                format!("neither the program nor a socket was found: searched PATH and {places}"),
                "install containerd 1.7 or 2.x, or say where it is: --address, --config",
            ),
            None => Finding::problem(
                CHECK,
                format!("nobody answers at {places}"),
                "start it (`systemctl start containerd`), or say where it listens: --address",
            ),
        }
    }

    /// Whether both our names are where containerd looks.
    fn finds_us(&self, runtimes: &[Runtime]) -> Vec<Finding> {
        const CHECK: &str = "shim on containerd's PATH";
        let own = std::env::current_exe().and_then(|path| path.canonicalize()).unwrap_or_default();
        let whose = if self.pid.is_some() { "containerd's PATH" } else { "this PATH" };
        [PROGRAM, OTHER_NAME]
            .into_iter()
            .map(|name| match find(&self.path, name) {
                Some(path) if path.canonicalize().is_ok_and(|path| path == own) => {
                    Finding::ok(CHECK, format!("{name} is {}", path.display()))
                }
                Some(path) => Finding::warning(
                    CHECK,
                    format!("{name} is {}, which is not this program, {}", path.display(), own.display()),
                    "remove the one that is of no use",
                ),
                None if runtimes.iter().any(|runtime| runtime.path.is_some()) => Finding::ok(
                    CHECK,
                    format!("{name} is not, and runtime_path of the configuration does without"),
                ),
                None => {
                    let found = format!("{name} is in no folder of {whose}, {:?}", self.path);
                    let todo = format!("link {} there, and restart containerd", own.display());
                    match name {
                        PROGRAM => Finding::problem(CHECK, found, todo),
                        _ => Finding::warning(
                            CHECK,
                            found,
                            format!("for --runtime=io.containerd.wasm, {todo}"),
                        ),
                    }
                }
            })
            .collect()
    }

    fn serves_kubernetes(&self, dumped: Option<&Table>, runtimes: &[Runtime]) -> Finding {
        const CHECK: &str = "runtime of Kubernetes";
        let config = self.config.as_deref().unwrap_or(Path::new(CONFIG)).display();
        let Some(dumped) = dumped else {
            return Finding::warning(
                CHECK,
                format!("not known: `containerd config dump` of {config} fails, or there is none"),
                "run it yourself: it says which line is wrong",
            );
        };
        let disabled = dumped.get("disabled_plugins").and_then(Value::as_array).into_iter().flatten();
        let disabled: Vec<_> = disabled.filter_map(Value::as_str).filter(|name| is_cri(name)).collect();
        if let Some(name) = disabled.first() {
            return Finding::warning(
                CHECK,
                format!("{config} has {name:?} in disabled_plugins"),
                "nothing, if this node is for Docker or ctr alone; else take it out of the list",
            );
        }
        let missing =
            runtimes.iter().find_map(|runtime| runtime.path.as_ref().filter(|path| !path.is_file()));
        match runtimes {
            _ if missing.is_some() => Finding::problem(
                CHECK,
                format!(
                    "runtime_path of {config} is {}, which is not there",
                    missing.map_or(Path::new(""), |path| path).display()
                ),
                "install wharf there, or take runtime_path out",
            ),
            [] => Finding::warning(
                CHECK,
                format!("no runtime of {config} has runtime_type {RUNTIME:?}"),
                "nothing, if this node is for Docker or ctr alone; else `wharf node install`, or import \
                 share/wharf/containerd/config-v2.toml (1.7) or config-v3.toml (2.x) as they say",
            ),
            _ => {
                let names: Vec<_> = runtimes.iter().map(|runtime| format!("{:?}", runtime.name)).collect();
                Finding::ok(CHECK, format!("{} of {config} (handler of a RuntimeClass)", names.join(", ")))
            }
        }
    }
}

/// Where a configuration says that containerd listens.
fn configured_address(config: &Path) -> Option<PathBuf> {
    let config: Table = std::fs::read_to_string(config).ok()?.parse().ok()?;
    Some(config.get("grpc")?.get("address")?.as_str()?.into())
}

/// A runtime of CRI that is ours.
#[derive(Debug, PartialEq, Eq)]
struct Runtime {
    name: String,
    path: Option<PathBuf>,
}

fn is_cri(plugin: &str) -> bool {
    matches!(plugin, "cri" | "io.containerd.grpc.v1.cri" | "io.containerd.cri.v1.runtime")
}

/// Ours among the runtimes of a configuration, of whichever version.
fn runtimes(config: &Table) -> Vec<Runtime> {
    let plugins = config.get("plugins").and_then(Value::as_table).into_iter().flatten();
    let sections = plugins.filter(|(name, _)| is_cri(name)).map(|(_, section)| section);
    let tables = sections.filter_map(|section| section.get("containerd")?.get("runtimes")?.as_table());
    let text = |runtime: &Value, key: &str| runtime.get(key)?.as_str().map(str::to_owned);
    let ours =
        tables.flatten().filter(|(_, runtime)| text(runtime, "runtime_type").as_deref() == Some(RUNTIME));
    ours.map(|(name, runtime)| {
        let path = text(runtime, "runtime_path").filter(|path| !path.is_empty());
        Runtime { name: name.clone(), path: path.map(PathBuf::from) }
    })
    .collect()
}

/// Docker needs no configuration; a daemon.json that is none keeps it from starting.
fn docker(daemon: &Path) -> Finding {
    const CHECK: &str = "Docker";
    let shown = daemon.display();
    match std::fs::read_to_string(daemon) {
        Err(_) => Finding::ok(CHECK, "--runtime=io.containerd.wasm needs no configuration"),
        Ok(text) => match serde_json::from_str::<serde_json::Value>(&text) {
            Err(error) => Finding::warning(
                CHECK,
                format!("{shown} is not JSON: {error}"),
                "mend it: dockerd does not start with it",
            ),
            Ok(settings) => {
                let runtimes =
                    settings.get("runtimes").and_then(serde_json::Value::as_object).into_iter().flatten();
                let ours = runtimes.filter(|(_, runtime)| {
                    runtime.get("runtimeType").and_then(serde_json::Value::as_str) == Some(RUNTIME)
                });
                let names: Vec<_> = ours.map(|(name, _)| format!("--runtime={name}")).collect();
                Finding::ok(
                    CHECK,
                    [vec!["--runtime=io.containerd.wasm".to_owned()], names].concat().join(", "),
                )
            }
        },
    }
}

/// The parts of a file of /proc that end with NUL.
fn split(bytes: &[u8]) -> Vec<OsString> {
    let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    parts.map(|part| OsString::from_vec(part.to_vec())).collect()
}

/// The value of a flag, as a word of its own or after `=`.
fn flag(words: &[OsString], names: &[&str]) -> Option<PathBuf> {
    words.iter().enumerate().find_map(|(number, word)| {
        let word = word.to_str()?;
        match word.split_once('=') {
            Some((name, value)) if names.contains(&name) => Some(value.into()),
            _ if names.contains(&word) => words.get(number + 1).map(PathBuf::from),
            _ => None,
        }
    })
}

/// The program as a shell would find it.
fn find(path: &OsString, name: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_runtime_is_found_in_configurations_of_both_versions() {
        for (section, path) in
            [("io.containerd.grpc.v1.cri", ""), ("io.containerd.cri.v1.runtime", "/opt/shim")]
        {
            let config = format!(
                "[plugins.'{section}'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n\
                 [plugins.'{section}'.containerd.runtimes.web]\nruntime_type = '{RUNTIME}'\nruntime_path = '{path}'\n"
            );
            let path = Some(PathBuf::from(path)).filter(|path| path.is_absolute());
            assert_eq!(runtimes(&config.parse().unwrap()), [Runtime { name: "web".into(), path }]);
        }
        assert_eq!(runtimes(&"version = 2".parse().unwrap()), []);
    }

    #[test]
    fn flags_are_read_in_both_forms() {
        let words = split(b"containerd\0--config=/a\0-a\0/b\0");
        assert_eq!(flag(&words, &["--config", "-c"]), Some("/a".into()));
        assert_eq!(flag(&words, &["--address", "-a"]), Some("/b".into()));
        assert_eq!(flag(&words, &["--root"]), None);
    }

    #[test]
    fn a_broken_daemon_json_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("daemon.json");
        let level = |finding: Finding| (finding.level, finding.found);
        assert_eq!(docker(&file).level, super::super::Level::Ok);
        std::fs::write(&file, format!("{{\"runtimes\": {{\"w\": {{\"runtimeType\": \"{RUNTIME}\"}}}}}}"))
            .unwrap();
        assert!(docker(&file).found.ends_with("--runtime=w"), "{:?}", docker(&file));
        std::fs::write(&file, "{").unwrap();
        let (level, found) = level(docker(&file));
        assert!(level == super::super::Level::Warning && found.contains("daemon.json"), "{found}");
    }
}
