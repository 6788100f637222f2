//! Projects of Wasm Workers Server, as they are: `X.toml` beside a worker, and
//! `.wws.toml`.
//!
//! What its settings mean is said in wharf's own, so that nothing beyond this file
//! knows of them. Its server reads such a file only if it says `version = "1"`; what
//! it silently ignores is told here, since a setting that does nothing may be one that
//! protects. See docs/from-wws.md.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use tracing::warn;

use crate::config::WorkerConfig;
use crate::grants::{HostVariable, Mount, MountError, Mounts, Outbound, OutboundError, Value};
use crate::project::WorkerSource;

/// Where a project says which interpreters it needs.
const RUNTIMES_FILE: &str = ".wws.toml";

/// Extensions of workers that need no runtime in `.wws.toml`, and of those that do.
const ALWAYS: [&str; 2] = ["js", "wasm"];
const LANGUAGES: [&str; 2] = ["py", "rb"];

/// The only version of `X.toml`.
const VERSION: &str = "1";

/// Methods that `allowed_hosts` means where there are no `allowed_methods`.
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// Below it the namespaces of key-value stores are folders; in images it is `/data/kv`.
const KEY_VALUE: &str = "data/kv";

/// Why a project can't be taken as it is.
#[derive(Debug, thiserror::Error)]
pub enum WwsError {
    /// A file can't be read; the cause names it.
    #[error("cannot read settings of a worker")]
    Read(#[source] io::Error),
    /// It is not TOML of this form; the cause shows the line.
    #[error("cannot parse {file}")]
    Parse {
        /// Path below the project.
        file: String,
        /// The line, and what was expected there.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Machine learning.
    #[error("{file} asks for features.wasi_nn, and wharf has no machine learning")]
    Learning {
        /// Path below the project.
        file: String,
    },
    /// A runtime that nobody here has.
    #[error(".wws.toml has the runtime {name:?} for .{extension} files: expected one for .py or .rb")]
    Runtime {
        /// Its name.
        name: String,
        /// Whose files.
        extension: String,
    },
    /// A host that can be none.
    #[error("{file}: malformed allowed_hosts")]
    Host {
        /// Path below the project.
        file: String,
        /// What is wrong.
        #[source]
        source: OutboundError,
    },
    /// A folder that can't be mounted.
    #[error("{file}: malformed [[folders]]")]
    Folder {
        /// Path below the project.
        file: String,
        /// What is wrong.
        #[source]
        source: MountError,
    },
    /// A folder of another place than the project.
    #[error("{file}: cannot mount {from:?}: expected a folder of the project")]
    Elsewhere {
        /// Path below the project.
        file: String,
        /// `from` of the folder.
        from: String,
    },
    /// Settings of a worker in two files.
    #[error("worker {worker:?} has settings in {file} and in wharf.toml: expected one of them")]
    Twice {
        /// The worker.
        worker: String,
        /// Path below the project.
        file: String,
    },
}

/// `X.toml`.
#[derive(Deserialize)]
struct Settings {
    version: String,
    /// For the log of its server.
    #[allow(dead_code)]
    name: Option<String>,
    #[serde(default)]
    vars: BTreeMap<String, String>,
    #[serde(default)]
    data: Data,
    #[serde(default)]
    folders: Vec<Folder>,
    #[serde(default)]
    features: Features,
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

#[derive(Default, Deserialize)]
struct Data {
    kv: Option<Namespace>,
}

#[derive(Deserialize)]
struct Namespace {
    namespace: String,
}

#[derive(Deserialize)]
struct Folder {
    from: String,
    to: String,
}

#[derive(Default, Deserialize)]
struct Features {
    http_requests: Option<Requests>,
    wasi_nn: Option<toml::Value>,
}

#[derive(Deserialize)]
struct Requests {
    #[serde(default)]
    allowed_hosts: Vec<String>,
    allowed_methods: Option<Vec<String>>,
    #[serde(default)]
    allow_http: bool,
}

/// `.wws.toml`, as far as it says anything.
#[derive(Deserialize)]
struct Runtimes {
    #[serde(default)]
    repositories: Vec<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    #[serde(default)]
    runtimes: Vec<Runtime>,
}

#[derive(Deserialize)]
struct Runtime {
    name: String,
    #[serde(default)]
    extensions: Vec<String>,
}

/// Settings by the worker's name, with the file that has them.
pub(crate) type All = BTreeMap<String, (String, WorkerConfig)>;

/// The settings of the workers in `dir`, by name, if it is a project of Wasm Workers
/// Server; none if it isn't. What its server takes for no worker goes.
///
/// # Errors
/// [`WwsError`]: a file has no meaning, or asks for what there is not.
pub(crate) fn settings(dir: &Path, workers: &mut Vec<WorkerSource>) -> Result<Option<All>, WwsError> {
    let extensions = extensions(dir)?;
    let mut found = BTreeMap::new();
    for worker in &*workers {
        let file = format!("{}.toml", worker.name);
        let text = match fs_err::read_to_string(dir.join(&file)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(WwsError::Read(error)),
        };
        if let Some(settings) = Settings::parse(&text, &file)? {
            found.insert(worker.name.clone(), (file.clone(), settings.translate(worker, dir, &file)?));
        }
    }
    if found.is_empty() && extensions.is_none() {
        return Ok(None);
    }
    let mut extensions = extensions.unwrap_or_else(|| LANGUAGES.map(str::to_owned).into());
    extensions.extend(ALWAYS.map(str::to_owned));
    // Beside a `.wasm` there may lie what it was built from.
    workers.retain(|worker| {
        let extension = worker.path.rsplit_once('.').map_or("", |(_, extension)| extension);
        extensions.contains(extension)
    });
    found.retain(|name, _| workers.iter().any(|worker| worker.name == *name));
    Ok(Some(found))
}

/// Of which files `.wws.toml` makes workers, if there is one.
fn extensions(dir: &Path) -> Result<Option<BTreeSet<String>>, WwsError> {
    let text = match fs_err::read_to_string(dir.join(RUNTIMES_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(WwsError::Read(error)),
    };
    let runtimes: Runtimes = toml::from_str(&text)
        .map_err(|source| WwsError::Parse { file: RUNTIMES_FILE.into(), source: Box::new(source) })?;
    let mut extensions = BTreeSet::new();
    for runtime in runtimes.repositories.into_iter().flat_map(|repository| repository.runtimes) {
        for extension in runtime.extensions {
            // Its interpreters are not used: those of `wharf runtimes` are.
            if !LANGUAGES.iter().chain(&ALWAYS).any(|known| *known == extension) {
                return Err(WwsError::Runtime { name: runtime.name, extension });
            }
            extensions.insert(extension);
        }
    }
    Ok(Some(extensions))
}

impl WwsError {
    /// What the user can do about it, if that isn't plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Host { .. } => {
                Some("a host is a name or an address, as in allowed_hosts = [\"api.example.com\"]".into())
            }
            Self::Elsewhere { .. } => {
                Some("`from` is relative to the folder of the worker, and goes into images with it".into())
            }
            Self::Runtime { .. } => Some("build the workers to .wasm files".into()),
            _ => None,
        }
    }
}

impl Settings {
    /// None: a file of someone else's, without wws's version.
    fn parse(text: &str, file: &str) -> Result<Option<Self>, WwsError> {
        let invalid = |source| WwsError::Parse { file: file.to_owned(), source: Box::new(source) };
        let table: toml::Table = toml::from_str(text).map_err(invalid)?;
        if table.get("version").and_then(toml::Value::as_str) != Some(VERSION) {
            return Ok(None);
        }
        toml::from_str(text).map(Some).map_err(invalid)
    }

    fn translate(self, worker: &WorkerSource, dir: &Path, file: &str) -> Result<WorkerConfig, WwsError> {
        debug_assert_eq!(self.version, VERSION);
        for key in self.unknown.keys() {
            warn!(file, key, "setting has no meaning");
        }
        if self.features.wasi_nn.is_some() {
            return Err(WwsError::Learning { file: file.to_owned() });
        }
        let outbound = match &self.features.http_requests {
            Some(requests) => {
                requests.patterns().map_err(|source| WwsError::Host { file: file.to_owned(), source })?
            }
            None => Vec::new(),
        };
        let mounts = self.folders.iter().map(|folder| folder.mount(worker, dir, file));
        let mounts = mounts.collect::<Result<Vec<_>, _>>()?;
        let kv = self.data.kv.map(|kv| {
            // One part of a path, whatever it is called.
            let name =
                percent_encoding::utf8_percent_encode(&kv.namespace, percent_encoding::NON_ALPHANUMERIC);
            let folder = format!("{KEY_VALUE}/{name}");
            ("default".to_owned(), Value::Fixed(folder))
        });
        Ok(WorkerConfig {
            env: self.vars.into_iter().map(|(name, text)| (name, variable(text))).collect(),
            mounts: Mounts::try_from(mounts)
                .map_err(|source| WwsError::Folder { file: file.to_owned(), source })?,
            outbound,
            kv: kv.into_iter().collect(),
            ..WorkerConfig::default()
        })
    }
}

/// `$NAME` and `${NAME}` are variables of the host, empty if it has none.
fn variable(text: String) -> Value {
    let name = text.strip_prefix('$').filter(|name| !name.contains(' '));
    let name =
        name.map(|name| name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name));
    match name {
        Some(name) if !name.is_empty() && !name.contains(['=', '\0']) => {
            Value::Host(HostVariable { from: name.to_owned(), optional: false, default: Some(String::new()) })
        }
        _ => Value::Fixed(text),
    }
}

impl Requests {
    fn patterns(&self) -> Result<Vec<Outbound>, OutboundError> {
        let methods = match &self.allowed_methods {
            Some(methods) => methods.join(","),
            None => METHODS.join(","),
        };
        if methods.is_empty() {
            return Ok(Vec::new());
        }
        let schemes: &[&str] = if self.allow_http { &["https", "http"] } else { &["https"] };
        let mut hosts = Vec::new();
        for host in &self.allowed_hosts {
            hosts.push(host.clone());
            // A name of this machine needs its address as well.
            if host == "localhost" {
                hosts.extend(["127.0.0.1".to_owned(), "[::1]".to_owned()]);
            }
        }
        // Its server compares hosts alone, whatever the port.
        let pattern = |host: &String| {
            let of_schemes = schemes.iter().map(|scheme| format!("{methods} {scheme}://{host}:*").parse());
            of_schemes.collect::<Vec<_>>()
        };
        hosts.iter().flat_map(pattern).collect()
    }
}

impl Folder {
    /// A folder beside the worker, which goes into images with it.
    fn mount(&self, worker: &WorkerSource, dir: &Path, file: &str) -> Result<Mount, WwsError> {
        let elsewhere = || WwsError::Elsewhere { file: file.to_owned(), from: self.from.clone() };
        let from = self.from.replace('\\', "/");
        let beside = worker.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let absolute = Path::new(&from).strip_prefix(dir);
        let from = match absolute {
            Ok(below) => below.to_owned(),
            Err(_) => Path::new(beside).join(&from),
        };
        let mut path = PathBuf::new();
        for part in from.components() {
            match part {
                Component::Normal(name) => path.push(name),
                Component::CurDir => {}
                Component::ParentDir if path.pop() => {}
                _ => return Err(elsewhere()),
            }
        }
        if !dir.join(&path).is_dir() {
            return Err(elsewhere());
        }
        let to = self.to.trim_end_matches('/');
        let guest = if to.starts_with('/') { to.to_owned() } else { format!("/{to}") };
        Ok(Mount { host: PathBuf::new(), app: Some(path), guest, write: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, content).unwrap();
        }
        folder
    }

    fn settings_of(files: &[(&str, &str)]) -> Result<Option<WorkerConfig>, WwsError> {
        let folder = project(files);
        let dir = fs_err::canonicalize(folder.path()).unwrap();
        let mut workers = vec![WorkerSource::of_file("api/x.js".into(), Language::JavaScript).unwrap()];
        Ok(settings(&dir, &mut workers)?
            .and_then(|mut all| all.remove("api/x"))
            .map(|(_, settings)| settings))
    }

    #[test]
    fn settings_beside_a_worker_become_its_settings() {
        let text = r#"
            name = "x"
            version = "1"
            [vars]
            A = "text"
            B = "$HOST_B"
            C = "${HOST_C}"
            D = "$ not a name"
            [data.kv]
            namespace = "books"
            [[folders]]
            from = "../_libs"
            to = "/src/libs"
            [features.http_requests]
            allowed_hosts = ["api.example.com"]
            allowed_methods = ["GET", "POST"]
        "#;
        let settings = settings_of(&[("api/x.toml", text), ("_libs/a.py", "")]).unwrap().unwrap();
        let host = |name: &str| (name == "HOST_B").then(|| "b".to_owned());
        let value = |name: &str| settings.env[name].resolve(host).unwrap().unwrap();
        assert_eq!(["A", "B", "C", "D"].map(value), ["text", "b", "", "$ not a name"]);
        assert_eq!(settings.kv["default"], Value::from("data/kv/books"));
        let mounts: Vec<_> = settings.mounts.iter().map(|mount| (mount.app.clone(), &*mount.guest)).collect();
        assert_eq!(mounts, [(Some(PathBuf::from("_libs")), "/src/libs")]);
        let outbound: Vec<_> = settings.outbound.iter().map(ToString::to_string).collect();
        assert_eq!(outbound, ["GET,POST https://api.example.com:*"]);
    }

    #[test]
    fn files_of_others_beside_a_worker_are_left_alone() {
        for text in ["[package]\nname = \"x\"\nversion = \"0.1.0\"\n", "a = 1\n", "version = 1\n"] {
            assert!(settings_of(&[("api/x.toml", text)]).unwrap().is_none(), "{text}");
        }
    }

    #[test]
    fn what_there_is_not_is_refused_by_name() {
        for (text, expected) in [
            ("[features.wasi_nn]\nallowed_backends = [\"openvino\"]", "no machine learning"),
            ("[[folders]]\nfrom = \"../../x\"\nto = \"/x\"", "expected a folder of the project"),
            ("[[folders]]\nfrom = \"/etc\"\nto = \"/x\"", "expected a folder of the project"),
            ("[features.http_requests]\nallowed_hosts = [\"a b\"]", "malformed allowed_hosts"),
            ("[vars]\nA = 1", "cannot parse api/x.toml"),
        ] {
            let error = settings_of(&[("api/x.toml", &format!("version = \"1\"\n{text}"))]).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let lua = "version = 1\n[[repositories]]\nname = \"w\"\n\
            [[repositories.runtimes]]\nname = \"lua\"\nextensions = [\"lua\"]\n";
        let error = settings_of(&[(".wws.toml", lua)]).unwrap_err();
        assert!(error.to_string().contains("\"lua\" for .lua files"), "{error}");
    }

    #[test]
    fn sources_beside_programs_are_no_workers_of_their_own() {
        let folder = project(&[(".wws.toml", "version = 1\n")]);
        let mut workers = vec![
            WorkerSource::of_file("x.wasm".into(), Language::Wasm).unwrap(),
            WorkerSource::of_file("x.go".into(), Language::Go).unwrap(),
        ];
        assert!(settings(folder.path(), &mut workers).unwrap().is_some_and(|all| all.is_empty()));
        assert_eq!(workers.len(), 1);
    }

    #[test]
    fn files_are_workers_if_their_runtime_is_named() {
        let python = "[[repositories]]\nname = \"w\"\n\
            [[repositories.runtimes]]\nname = \"python\"\nextensions = [\"py\"]\n";
        let names = |files: &[(&str, &str)]| {
            let folder = project(files);
            let mut workers = vec![
                WorkerSource::of_file("x.py".into(), Language::Python).unwrap(),
                WorkerSource::of_file("y.rb".into(), Language::Ruby).unwrap(),
                WorkerSource::of_file("z.js".into(), Language::JavaScript).unwrap(),
            ];
            settings(folder.path(), &mut workers).unwrap();
            workers.into_iter().map(|worker| worker.name).collect::<String>()
        };
        assert_eq!(names(&[]), "xyz");
        assert_eq!(names(&[("z.toml", "version = \"1\"")]), "xyz");
        assert_eq!(names(&[(".wws.toml", python)]), "xz");
    }
}
