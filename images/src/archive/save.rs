//! Layout → archive.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::Serialize;

use super::ArchiveError;
use crate::layout::{Layout, LayoutError, REFERRERS};
use crate::tarball::TarWriter;
use crate::{Descriptor, Digest, Index, Manifest, Platform, Reference, Timestamp};

const BUFFER: usize = 256 << 10;
const MODE: u32 = 0o644;

/// One image in Docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes an image to the file `path`, in one step: an existing file is
/// replaced when all is well. One image gives one sequence of bytes.
///
/// # Errors
///
/// The image is not in the layout or damaged, or the file cannot be written.
pub fn save(layout: &Layout, reference: &Reference, path: &Path) -> Result<(), ArchiveError> {
    layout.use_blobs()?;
    let descriptor = layout.resolve(reference)?;
    let manifests = layout.manifests(&descriptor)?;
    let write = |source| ArchiveError::Write { path: path.into(), source };

    let referrers = layout.referrers(&descriptor.digest)?;

    let mut blobs: BTreeMap<Digest, &Descriptor> = BTreeMap::from([(descriptor.digest, &descriptor)]);
    for (child, manifest) in manifests.iter().chain(&referrers) {
        blobs.insert(child.digest, child);
        blobs.extend(manifest.blobs().map(|blob| (blob.digest, blob)));
    }
    // A device or pipe would be replaced by the file, not written to.
    if fs_err::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let text = "expected the name of a regular file, or of none";
        return Err(write(io::Error::new(io::ErrorKind::InvalidInput, text)));
    }
    let index = Index::new(vec![crate::layout::named(reference, &descriptor)]);

    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new()
        .prefix(".saving-")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(write)?;
    let mut tar = TarWriter::new(BufWriter::with_capacity(BUFFER, file), Timestamp::EPOCH);
    let mut document = |name: &str, content: &[u8]| {
        tar.file(name, MODE, content.len() as u64, &mut &*content).map_err(write)
    };
    document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    document("index.json", &json(&index).map_err(write)?)?;
    if !referrers.is_empty() {
        let list = Index::new(referrers.iter().map(|(referrer, _)| referrer.clone()).collect());
        document(REFERRERS, &json(&list).map_err(write)?)?;
    }
    if let Some(image) = docker_image(layout, &descriptor, &manifests, reference)? {
        document("manifest.json", &json(&[image]).map_err(write)?)?;
    }
    tar.directory("blobs", 0o755).map_err(write)?;
    tar.directory("blobs/sha256", 0o755).map_err(write)?;
    for blob in blobs.into_values() {
        let mut reader = layout.open_blob(blob)?;
        tar.file(&entry(blob), MODE, blob.size, &mut reader.by_ref()).map_err(write)?;
        reader.verify()?;
    }
    let mut file = tar.finish().map_err(write)?;
    file.flush().map_err(write)?;
    let file = file.into_inner().map_err(|error| write(error.into_error()))?;
    file.as_file().sync_all().map_err(write)?;
    file.persist(path).map_err(|error| write(error.error))?;
    Ok(())
}

/// What Docker's classic store loads: it knows one platform only, of which
/// linux/amd64 is the commonest. None for an image that Linux cannot run.
fn docker_image(
    layout: &Layout,
    descriptor: &Descriptor,
    manifests: &[(Descriptor, Manifest)],
    reference: &Reference,
) -> Result<Option<DockerImage>, LayoutError> {
    let linux = match layout.select(descriptor, &[Platform::linux_amd64()]) {
        Ok((_, manifest)) => Some(manifest),
        Err(LayoutError::NoSuchPlatform { .. }) => manifests
            .iter()
            .find(|(child, _)| child.platform.as_ref().is_some_and(|platform| platform.os == "linux"))
            .map(|(_, manifest)| manifest.clone()),
        Err(error) => return Err(error),
    };
    Ok(linux.map(|manifest| DockerImage {
        config: entry(&manifest.config),
        repo_tags: reference.tag().map(|_| reference.familiar()).into_iter().collect(),
        layers: manifest.layers.iter().map(entry).collect(),
    }))
}

fn entry(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest.encoded())
}

fn json<T: Serialize + ?Sized>(document: &T) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(document)?)
}
