//! Credentials, where Docker keeps them: `config.json` and its helpers.

use std::path::PathBuf;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;

use super::RegistryError;
use crate::Reference;

/// Docker Hub's key in Docker's configuration, for historical reasons.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// What helpers print when they have nothing (docker-credential-helpers,
/// credentials/error.go).
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Credentials that are configured and cannot be had.
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
    /// Something else, in the words of the crate that reads the file.
    #[error("{0}")]
    Other(String),
    /// An identity token must be exchanged by OAuth2, which is not done yet.
    #[error("expected a user and password, found an identity token, which is not supported yet")]
    IdentityToken,
}

/// What Docker would send to the registry; anonymous if it has nothing. Never
/// anonymous because something failed.
pub(super) async fn find(reference: &Reference) -> Result<RegistryAuth, RegistryError> {
    let registry = reference.registry().to_owned();
    let failed = |source| RegistryError::Credentials { registry: reference.registry().into(), source };
    // A helper is a process to wait for.
    tokio::task::spawn_blocking(move || read(&registry))
        .await
        .unwrap_or_else(|error| Err(CredentialsError::Other(error.to_string())))
        .map_err(failed)
}

fn read(registry: &str) -> Result<RegistryAuth, CredentialsError> {
    let config = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")))
        .map(|folder| folder.join("config.json"));
    // The crate does not tell a missing file from a malformed one.
    let Some(path) = config.filter(|path| path.exists()) else { return Ok(RegistryAuth::Anonymous) };
    let key = if registry == "docker.io" { DOCKER_HUB_KEY } else { registry };
    match docker_credential::get_credential(key) {
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
        Ok(DockerCredential::IdentityToken(_)) => Err(CredentialsError::IdentityToken),
        Err(CredentialRetrievalError::NoCredentialConfigured | CredentialRetrievalError::ConfigNotFound) => {
            Ok(RegistryAuth::Anonymous)
        }
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if stdout.contains(NOT_FOUND) || stderr.contains(NOT_FOUND) =>
        {
            Ok(RegistryAuth::Anonymous)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
            let message = if stderr.trim().is_empty() { stdout } else { stderr };
            Err(CredentialsError::HelperFailed { helper, message: message.trim().into() })
        }
        Err(CredentialRetrievalError::ConfigReadError) => Err(CredentialsError::InvalidConfig { path }),
        Err(other) => Err(CredentialsError::Other(other.to_string().to_lowercase())),
    }
}
