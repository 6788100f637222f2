//! Plain WebAssembly programs: a file of the image, or an image that has no
//! files but consists of WebAssembly.

use std::io;
use std::os::fd::OwnedFd;

use oci_spec::runtime::Spec;
use wharf_app::{Component, InvalidSha256, Sha256, Wasi};

use super::CreateRequest;
use super::create::user;
use crate::aot::{AotError, Cache, Progress};
use crate::containerd::{Client, ContainerdError, Descriptor, ImageError};
use crate::executor::Host;
use crate::node::{self, NodeError};
use crate::recognition::Program;
use crate::rootfs::Rootfs;
use crate::spec::{self, SpecError};
use crate::stdio::Streams;

/// Layers that are WebAssembly: of the OCI's guidance for it, of those that
/// Bytecode Alliance's tools make, and of runwasi's.
const LAYERS: [&str; 4] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.bytecodealliance.component.layer.v0+wasm",
];

/// Why a program can't be run.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Host(#[from] NodeError),
    #[error("cannot read program {path:?}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot prepare program {path:?}")]
    Precompile {
        path: String,
        #[source]
        source: AotError,
    },
    #[error("cannot find the image of program {path:?}")]
    Image {
        path: String,
        #[source]
        source: ImageError,
    },
    #[error("the image has {count} layers of WebAssembly: expected one, the program")]
    Layers { count: usize },
    #[error(transparent)]
    Digest(#[from] InvalidSha256),
    #[error("cannot pass files to the container")]
    Descriptors(#[source] io::Error),
}

/// Has the container run a file of it by the node's host.
pub(super) fn prepare(
    program: &Program,
    spec: &mut Spec,
    rootfs: &Rootfs,
    streams: &Streams,
) -> Result<Host, ProgramError> {
    let read_error = |source| ProgramError::Read { path: program.path.clone(), source };
    let file = rootfs.read(&program.path).map_err(read_error)?;
    let (sha256, size) = Sha256::of_reader(&file).map_err(read_error)?;
    let component = Component { file: program.path.clone(), size, sha256, wasi: Wasi::default() };
    run(program, spec, &component, || rootfs.read(&program.path), streams)
}

/// The same if its image is such a program. Nothing if it is not, or if
/// containerd does not know: then there simply is no such program.
pub(super) fn prepare_of_layer(
    program: &Program,
    spec: &mut Spec,
    request: &CreateRequest,
) -> Result<Option<Host>, ProgramError> {
    let image_error = |source| ProgramError::Image { path: program.path.clone(), source };
    let containerd = &request.containerd;
    let Ok(client) = Client::connect(&containerd.address, &containerd.namespace) else {
        return Ok(None);
    };
    let layers = match wasm_layers(&client, &request.id) {
        Ok(layers) => layers,
        // Docker's own store is none of containerd's business.
        Err(ImageError::Containerd(error)) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(image_error(error)),
    };
    let layer = match layers.as_slice() {
        [] => return Ok(None),
        [layer] => layer,
        several => return Err(ProgramError::Layers { count: several.len() }),
    };
    let sha256 = layer.digest.strip_prefix("sha256:").unwrap_or(&layer.digest).parse()?;
    let component = Component { file: program.path.clone(), size: layer.size, sha256, wasi: Wasi::default() };
    let source = || client.blob(&layer.digest).map_err(|error: ContainerdError| io::Error::other(error));
    run(program, spec, &component, source, &request.streams).map(Some)
}

fn wasm_layers(client: &Client, container: &str) -> Result<Vec<Descriptor>, ImageError> {
    let container = client.container(container)?;
    if container.image.is_empty() {
        return Ok(Vec::new());
    }
    let image = client.image(&container.image)?;
    let mut layers = client.manifest(&image.target)?.layers;
    layers.retain(|layer| LAYERS.contains(&layer.media_type.as_str()));
    Ok(layers)
}

fn run<R: io::Read>(
    program: &Program,
    spec: &mut Spec,
    component: &Component,
    source: impl FnOnce() -> io::Result<R>,
    streams: &Streams,
) -> Result<Host, ProgramError> {
    let host = node::open_host(user(spec)?)?;
    let precompile = || Cache::open()?.get(component, source, &mut Progress::of_container(streams));
    let code: OwnedFd =
        precompile().map_err(|source| ProgramError::Precompile { path: program.path.clone(), source })?;
    spec::run_program(spec, program, &component.sha256)?;
    Host::new(&host.into(), &[code]).map_err(ProgramError::Descriptors)
}
