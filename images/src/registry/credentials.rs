//! Credentials, where Docker and podman keep them: `config.json`, `auth.json`
//! and their helpers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Docker Hub's key in Docker's configuration, for historical reasons.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// What helpers print when they have nothing (docker-credential-helpers,
/// credentials/error.go).
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Who someone is to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password, or an access token in its place.
    Password {
        /// The user.
        user: String,
        /// The secret.
        password: String,
    },
    /// A token to exchange for others by OAuth2.
    IdentityToken(String),
}

impl Credential {
    /// A user and a password.
    pub fn password(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Password { user: user.into(), password: password.into() }
    }
}

/// Without the secret.
impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Password { .. } => "Password { .. }",
            Self::IdentityToken(_) => "IdentityToken(..)",
        })
    }
}

/// Credentials that are configured and cannot be had, or cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file is malformed or unreadable.
    #[error("expected Docker's configuration in {path:?}, found a file that cannot be read as such")]
    InvalidConfig {
        /// The file.
        path: PathBuf,
    },
    /// The helper failed.
    #[error("{helper} failed: {message}")]
    HelperFailed {
        /// The helper's program.
        helper: String,
        /// What it printed.
        message: String,
    },
    /// The file cannot be written.
    #[error("cannot write {path:?}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Neither `DOCKER_CONFIG` nor `HOME` says where the file is.
    #[error("expected a folder for Docker's configuration in DOCKER_CONFIG or HOME, found neither")]
    NoFolder,
    /// Something else, in the words of the crate that reads the file.
    #[error("{0}")]
    Other(String),
}

/// What Docker, or else podman, would send to the registry for a repository of
/// it; none if they have nothing. Never none because something failed.
pub(super) fn find(registry: &str, repository: &str) -> Result<Option<Credential>, CredentialsError> {
    for path in files() {
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if is_absent(&error) => continue,
            Err(_) => return Err(CredentialsError::InvalidConfig { path }),
        };
        // podman makes an empty file.
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let invalid = |_| CredentialsError::InvalidConfig { path: path.clone() };
        let mut document: Value = serde_json::from_slice(&text).map_err(invalid)?;
        // Docker leaves `{}` behind for what a helper has, others an empty text.
        if let Some(Value::Object(auths)) = document.get_mut("auths") {
            auths.retain(|_, entry| holds_something(entry));
        }
        let text = document.to_string();
        let config: Config = serde_json::from_value(document).map_err(invalid)?;
        for key in config.keys(registry, repository) {
            if let Some(credential) = read(&path, text.as_bytes(), &key)? {
                return Ok(Some(credential));
            }
        }
    }
    Ok(None)
}

/// Also where `HOME` is no folder.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Where credentials may be, the first that has any counts.
fn files() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The user's own word is not second to anything.
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = variable("HOME");
    let docker = docker_folder();
    let runtime = variable("XDG_RUNTIME_DIR");
    let config = variable("XDG_CONFIG_HOME").or_else(|| home.map(|home| home.join(".config")));
    docker
        .map(|folder| folder.join("config.json"))
        .into_iter()
        .chain(runtime.into_iter().chain(config).map(|folder| folder.join("containers/auth.json")))
        .collect()
}

fn docker_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")))
}

/// What of the file decides which of its keys is a registry's.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: Option<BTreeMap<String, Value>>,
    cred_helpers: Option<BTreeMap<String, Value>>,
}

impl Config {
    /// The keys that may be a repository's, in the order in which they count:
    /// podman's of a namespace, the longest first, Docker's of a registry in each
    /// of its spellings. The registry's own is among them though the file lacks
    /// it, since a helper may have it.
    fn keys(&self, registry: &str, repository: &str) -> Vec<String> {
        let plain = key_of(registry);
        let has = |key: &str| {
            self.auths.as_ref().is_some_and(|auths| auths.contains_key(key))
                || self.cred_helpers.as_ref().is_some_and(|helpers| helpers.contains_key(key))
        };
        let whole = format!("{registry}/{repository}");
        let namespaces = whole.rmatch_indices('/').map(|(slash, _)| whole[..slash].to_owned());
        let named = std::iter::once(whole.clone()).chain(namespaces).chain(spellings(registry));
        let mut keys: Vec<String> = Vec::new();
        for key in named.filter(|key| key == plain || has(key)) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}

/// Whether an entry of `auths` is more than a note that a helper has it.
fn holds_something(entry: &Value) -> bool {
    let texts = entry.as_object().into_iter().flat_map(Map::values);
    texts.filter_map(Value::as_str).any(|text| !text.is_empty())
}

fn read(path: &Path, text: &[u8], key: &str) -> Result<Option<Credential>, CredentialsError> {
    match docker_credential::get_credential_from_reader(text, key) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(Credential::Password { user, password }))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Credential::IdentityToken(token))),
        Err(CredentialRetrievalError::NoCredentialConfigured | CredentialRetrievalError::ConfigNotFound) => {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if stdout.contains(NOT_FOUND) || stderr.contains(NOT_FOUND) =>
        {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
            let message = if stderr.trim().is_empty() { stdout } else { stderr };
            Err(CredentialsError::HelperFailed { helper, message: message.trim().into() })
        }
        Err(CredentialRetrievalError::ConfigReadError) => {
            Err(CredentialsError::InvalidConfig { path: path.into() })
        }
        Err(other) => Err(CredentialsError::Other(other.to_string().to_lowercase())),
    }
}

/// Where credentials were put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// With this helper.
    Helper(String),
    /// In this file, in plain text but for base64.
    File(PathBuf),
}

/// Keeps a credential for Docker and for `wharf` to find, with Docker's
/// credential helper if one is configured.
pub(super) fn store(registry: &str, user: &str, password: &str) -> Result<Kept, CredentialsError> {
    let key = key_of(registry);
    let (path, mut config) = kept_config()?;
    if let Some(helper) = helper_of(&config, key) {
        let secret = serde_json::json!({ "ServerURL": key, "Username": user, "Secret": password });
        run_helper(&helper, "store", &secret.to_string())?;
        // An older one in the file would be found first.
        if forget(&mut config, registry) {
            write(&path, &config)?;
        }
        return Ok(Kept::Helper(helper));
    }
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    forget(&mut config, registry);
    let auths = config.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(auths) = auths else { return Err(CredentialsError::InvalidConfig { path }) };
    auths.insert(key.into(), serde_json::json!({ "auth": encoded }));
    write(&path, &config)?;
    Ok(Kept::File(path))
}

/// Forgets a registry's credential. Whether there was one.
pub(super) fn erase(registry: &str) -> Result<bool, CredentialsError> {
    let (path, mut config) = kept_config()?;
    // First what lies open.
    let mut found = forget(&mut config, registry);
    if found {
        write(&path, &config)?;
    }
    if let Some(helper) = helper_of(&config, key_of(registry)) {
        match run_helper(&helper, "erase", key_of(registry)) {
            Ok(()) => found = true,
            Err(CredentialsError::HelperFailed { message, .. }) if message.contains(NOT_FOUND) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The name of a registry in Docker's configuration.
fn key_of(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_HUB_KEY } else { registry }
}

/// All names under which tools have kept a registry.
fn spellings(registry: &str) -> [String; 4] {
    [
        key_of(registry).to_owned(),
        format!("https://{registry}"),
        format!("https://{registry}/v1/"),
        format!("https://{registry}/v2/"),
    ]
}

/// Takes a registry's own entries out of the file's. Whether there were any.
fn forget(config: &mut Map<String, Value>, registry: &str) -> bool {
    let Some(Value::Object(auths)) = config.get_mut("auths") else { return false };
    spellings(registry).iter().filter(|key| auths.remove(key.as_str()).is_some()).count() > 0
}

/// The file that credentials are kept in, and what it holds.
fn kept_config() -> Result<(PathBuf, Map<String, Value>), CredentialsError> {
    let named = std::env::var_os("REGISTRY_AUTH_FILE").filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = named
        .or_else(|| docker_folder().map(|folder| folder.join("config.json")))
        .ok_or(CredentialsError::NoFolder)?;
    let config = match fs::read(&path) {
        Ok(text) if text.iter().all(u8::is_ascii_whitespace) => Map::new(),
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|_| CredentialsError::InvalidConfig { path: path.clone() })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
        Err(_) => return Err(CredentialsError::InvalidConfig { path }),
    };
    Ok((path, config))
}

/// The helper that Docker would ask: the registry's own, or the one for all.
fn helper_of(config: &Map<String, Value>, key: &str) -> Option<String> {
    let own = config.get("credHelpers").and_then(|helpers| helpers.get(key));
    let name = own.or_else(|| config.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| format!("docker-credential-{name}"))
}

fn run_helper(helper: &str, verb: &str, input: &str) -> Result<(), CredentialsError> {
    let failed = |message: String| CredentialsError::HelperFailed { helper: helper.into(), message };
    let mut child = Command::new(helper)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that reads nothing says why when it ends.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = if output.stderr.is_empty() { output.stdout } else { output.stderr };
    Err(failed(String::from_utf8_lossy(&text).trim().into()))
}

/// Replaces the file in one step; none but its owner may read it.
fn write(path: &Path, config: &Map<String, Value>) -> Result<(), CredentialsError> {
    let failed = |source| CredentialsError::Write { path: path.into(), source };
    // A link stays one, as people keep their configuration elsewhere.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(failed)?;
    let mut text = serde_json::to_vec_pretty(config).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(&path).map_err(|error| failed(error.error))?;
    Ok(())
}
