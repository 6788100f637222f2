//! What a container is: an app, which the node's own host serves, a plain
//! WebAssembly program, which it runs, or any other program, which runs as runc
//! would run it.

use std::io::{self, Read};
use std::path::Path;

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
    /// A WebAssembly program in the root file system; the node's host runs it.
    Program(Program),
    /// No program that there is. It may be one of an image that has no files,
    /// but consists of WebAssembly.
    Absent(Program),
}

/// A plain WebAssembly program, as an image's entrypoint names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Its path in the container.
    pub(crate) path: String,
    /// The function to call in place of its main function.
    pub(crate) function: Option<String>,
}

/// How WebAssembly begins.
const MAGIC: [u8; 4] = *b"\0asm";

/// Ends the name of a WebAssembly program.
const EXTENSION: &str = "wasm";

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
        return Ok(plain(spec, rootfs));
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

/// A WebAssembly program, if the entrypoint is one; else a native one.
fn plain(spec: &Spec, rootfs: &Rootfs) -> Kind {
    let Some(process) = spec.process().as_ref().filter(|_| !is_forced_native(spec)) else {
        return Kind::Native;
    };
    let Some(first) = process.args().as_ref().and_then(|arguments| arguments.first()) else {
        return Kind::Native;
    };
    // As runwasi has it: `/program.wasm#function`.
    let (path, function) = match first.split_once('#') {
        Some((path, function)) => (path, Some(function.to_owned())),
        None => (first.as_str(), None),
    };
    let program = Program { path: path.to_owned(), function };
    if Path::new(path).extension().is_some_and(|extension| extension == EXTENSION) {
        let path = process.cwd().join(path);
        let mut magic = [0; 4];
        let file = path.to_str().and_then(|path| rootfs.read(path).ok());
        if file.is_some_and(|mut file| file.read_exact(&mut magic).is_ok()) && magic == MAGIC {
            let path = path.to_string_lossy().into_owned();
            return Kind::Program(Program { path, ..program });
        }
    }
    let found = if path.contains('/') {
        process.cwd().join(path).to_str().is_some_and(|path| rootfs.has(path))
    } else {
        let mut environment = process.env().iter().flatten();
        let folders = environment.find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        folders.split(':').any(|folder| rootfs.has(&format!("{folder}/{path}")))
    };
    if found { Kind::Native } else { Kind::Absent(program) }
}

fn is_sandbox(spec: &Spec) -> bool {
    let container_type = spec.annotations().as_ref().and_then(|all| all.get(CONTAINER_TYPE));
    container_type.is_some_and(|container_type| container_type == "sandbox")
}

fn mode(spec: &Spec) -> Option<&str> {
    let mut environment = spec.process().as_ref()?.env().iter().flatten();
    environment.find_map(|entry| entry.strip_prefix(MODE)?.strip_prefix('='))
}

fn is_forced_native(spec: &Spec) -> bool {
    is_sandbox(spec) || mode(spec) == Some("native")
}

/// Whether the container can be an app at all, from its spec alone.
fn claim(spec: &Spec) -> Result<Option<Claim>, RecognitionError> {
    if is_sandbox(spec) {
        return Ok(None);
    }
    let Some(process) = spec.process() else {
        return Ok(None);
    };
    match mode(spec) {
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
            Kind::Program(_) => "program",
            Kind::Absent(_) => "absent",
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
        assert_eq!(recognised("/bin/sh", None, Some(&valid)).unwrap(), "absent");
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
    fn a_program_is_webassembly_by_name_and_content() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(bin.join("real.wasm"), b"\0asm\x01\0\0\0").unwrap();
        std::fs::write(bin.join("text.wasm"), "text").unwrap();
        std::fs::write(bin.join("sh"), "#!").unwrap();
        let rootfs = Rootfs::open(folder.path()).unwrap();
        let kind = |words: &str, cwd: &str, environment: &[&str]| {
            let mut spec = Spec::default();
            let process = spec.process_mut().as_mut().unwrap();
            process.set_args(Some(words.split(' ').map(str::to_owned).collect())).set_cwd(cwd.into());
            process.set_env(Some(environment.iter().map(|entry| (*entry).to_owned()).collect()));
            recognise(&spec, &rootfs).unwrap()
        };
        let program = |path: &str, function: Option<&str>| Program {
            path: path.to_owned(),
            function: function.map(str::to_owned),
        };
        let Kind::Program(found) = kind("/bin/real.wasm --flag", "/", &[]) else { panic!("no program") };
        assert_eq!(found, program("/bin/real.wasm", None));
        let Kind::Program(found) = kind("real.wasm#go", "/bin", &[]) else { panic!("no program") };
        assert_eq!(found, program("/bin/real.wasm", Some("go")));
        assert!(matches!(kind("/bin/real.wasm", "/", &["WHARF_MODE=native"]), Kind::Native));
        assert!(matches!(kind("/bin/text.wasm", "/", &[]), Kind::Native));
        assert!(matches!(kind("sh -c x", "/", &["PATH=/sbin:/bin"]), Kind::Native));
        assert!(matches!(kind("bash", "/", &["PATH=/bin"]), Kind::Absent(_)));
        assert!(matches!(kind("/hello.wasm", "/", &[]), Kind::Absent(_)));
    }

    #[test]
    fn a_pods_sandbox_is_native() {
        let mut spec = Spec::default();
        let process = spec.process_mut().as_mut().unwrap();
        process.set_args(Some(vec![HOST.to_owned()]));
        let annotations = [(CONTAINER_TYPE.to_owned(), "sandbox".to_owned())];
        spec.set_annotations(Some(annotations.into()));
        assert!(claim(&spec).unwrap().is_none());
        assert!(is_forced_native(&spec));
    }
}
