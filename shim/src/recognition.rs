//! What a container is: an app, which the node's own host serves, or any
//! other program, which runs as runc would run it.

use std::io::{self, Read};

use oci_spec::runtime::Spec;
use wharf_app::{LARGEST_MANIFEST, Manifest, ManifestError};

use crate::rootfs::Rootfs;

/// Where an app's manifest lies in its image.
pub(crate) const MANIFEST: &str = "/app/wharf.json";

/// The host in a Linux image, and the name that the node's host is given.
pub(crate) const HOST: &str = "/wharf-host";

/// What the host does beside serving: for `exec` in an app, which has no
/// shell.
pub(crate) const HOST_COMMANDS: [&str; 3] = ["routes", "health", "dump"];

/// Environment variable of the container that overrides recognition.
const MODE: &str = "WHARF_MODE";

/// containerd's mark of a pod's first container, which holds its namespaces.
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";

/// What a container is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A program of the image.
    Native,
    /// An app; the node's host serves it.
    App(Box<Manifest>),
}

/// Why a container can't be what it asks to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecognitionError {
    /// An unknown value of `WHARF_MODE`.
    #[error("invalid {MODE} {0:?}: expected \"native\" or \"wasm\"")]
    Mode(String),
    /// Asked for, but there is no manifest.
    #[error("{MODE}=wasm, but the image is not an app: it has no {MANIFEST}")]
    NotAnApp(#[source] io::Error),
    /// The image's entrypoint is the manifest, or it was asked for, and the
    /// manifest can't be used.
    #[error("cannot use {MANIFEST} of the image")]
    Manifest(#[source] ManifestError),
}

/// How sure a container is to be an app.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// `WHARF_MODE=wasm`.
    Demanded,
    /// Its entrypoint is the manifest, which is no program.
    Entrypoint,
    /// Its entrypoint is the host, which the image has too.
    Possible,
}

/// Says what the container with `spec` and `rootfs` is.
///
/// # Errors
/// [`RecognitionError`].
pub(crate) fn recognise(spec: &Spec, rootfs: &Rootfs) -> Result<Kind, RecognitionError> {
    let Some(claim) = claim(spec)? else {
        return Ok(Kind::Native);
    };
    match read_manifest(rootfs) {
        Ok(Ok(manifest)) => Ok(Kind::App(Box::new(manifest))),
        _ if claim == Claim::Possible => Ok(Kind::Native),
        Ok(Err(error)) => Err(RecognitionError::Manifest(error)),
        Err(error) if claim == Claim::Demanded => Err(RecognitionError::NotAnApp(error)),
        // Running it natively says that there is no such program.
        Err(_) => Ok(Kind::Native),
    }
}

/// Whether the container can be an app at all, from its spec alone.
fn claim(spec: &Spec) -> Result<Option<Claim>, RecognitionError> {
    let annotations = spec.annotations().as_ref();
    let container_type = annotations.and_then(|all| all.get(CONTAINER_TYPE));
    if container_type.is_some_and(|container_type| container_type == "sandbox") {
        return Ok(None);
    }
    let Some(process) = spec.process() else {
        return Ok(None);
    };
    let mut environment = process.env().iter().flatten();
    let mode = environment.find_map(|entry| entry.strip_prefix(MODE)?.strip_prefix('='));
    match mode {
        Some("native") => return Ok(None),
        Some("wasm") => return Ok(Some(Claim::Demanded)),
        Some("") | None => {}
        Some(other) => return Err(RecognitionError::Mode(other.to_owned())),
    }
    let program = process.args().as_ref().and_then(|arguments| arguments.first());
    Ok(match program.map(String::as_str) {
        Some(MANIFEST) => Some(Claim::Entrypoint),
        Some(HOST) => Some(Claim::Possible),
        _ => None,
    })
}

fn read_manifest(rootfs: &Rootfs) -> io::Result<Result<Manifest, ManifestError>> {
    let file = rootfs.read(MANIFEST)?;
    let size = file.metadata()?.len();
    if size > LARGEST_MANIFEST {
        return Ok(Err(ManifestError::TooLarge { size }));
    }
    let mut json = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(LARGEST_MANIFEST).read_to_end(&mut json)?;
    Ok(Manifest::parse(&json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_app::Site;

    /// Recognises a container with this entrypoint, environment and manifest.
    fn recognised(
        program: &str,
        mode: Option<&str>,
        manifest: Option<&[u8]>,
    ) -> Result<&'static str, RecognitionError> {
        let folder = tempfile::tempdir().unwrap();
        if let Some(manifest) = manifest {
            std::fs::create_dir(folder.path().join("app")).unwrap();
            std::fs::write(folder.path().join("app/wharf.json"), manifest).unwrap();
        }
        let mut spec = Spec::default();
        let process = spec.process_mut().as_mut().unwrap();
        process.set_args(Some(vec![program.to_owned()]));
        let mode = mode.map(|mode| format!("WHARF_MODE={mode}"));
        process.set_env(Some(mode.into_iter().collect()));
        let rootfs = Rootfs::open(folder.path()).unwrap();
        Ok(match recognise(&spec, &rootfs)? {
            Kind::Native => "native",
            Kind::App(_) => "app",
        })
    }

    fn valid() -> Vec<u8> {
        Manifest::new("hello".into(), Site::default()).to_json()
    }

    #[test]
    fn an_app_needs_both_manifest_and_entrypoint() {
        let valid = valid();
        assert_eq!(recognised("/wharf-host", None, Some(&valid)).unwrap(), "app");
        assert_eq!(recognised("/app/wharf.json", None, Some(&valid)).unwrap(), "app");
        assert_eq!(recognised("/bin/sh", None, Some(&valid)).unwrap(), "native");
        assert_eq!(recognised("/wharf-host", None, None).unwrap(), "native");
        assert_eq!(recognised("/app/wharf.json", None, None).unwrap(), "native");
    }

    #[test]
    fn a_damaged_manifest_matters_only_to_what_must_be_an_app() {
        let damaged = Some(b"{".as_slice());
        assert_eq!(recognised("/wharf-host", None, damaged).unwrap(), "native");
        let error = recognised("/app/wharf.json", None, damaged).unwrap_err();
        assert!(matches!(error, RecognitionError::Manifest(_)));
    }

    #[test]
    fn the_mode_overrides() {
        let valid = valid();
        assert_eq!(recognised("/wharf-host", Some("native"), Some(&valid)).unwrap(), "native");
        assert_eq!(recognised("/bin/sh", Some("wasm"), Some(&valid)).unwrap(), "app");
        let error = recognised("/bin/sh", Some("wasm"), None).unwrap_err();
        let expected = "WHARF_MODE=wasm, but the image is not an app: it has no /app/wharf.json";
        assert_eq!(error.to_string(), expected);
        let error = recognised("/bin/sh", Some("fast"), None).unwrap_err();
        assert!(matches!(error, RecognitionError::Mode(_)));
    }

    #[test]
    fn a_pods_sandbox_is_native() {
        let mut spec = Spec::default();
        let process = spec.process_mut().as_mut().unwrap();
        process.set_args(Some(vec![HOST.to_owned()]));
        let annotations = [(CONTAINER_TYPE.to_owned(), "sandbox".to_owned())];
        spec.set_annotations(Some(annotations.into()));
        assert!(claim(&spec).unwrap().is_none());
    }
}
