//! Images of plain WebAssembly, as others make them for runwasi's shims. No
//! part of wharf makes them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::layout::hex;
use crate::process::run;

/// How a program lies in its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As a file of a Linux image: `FROM scratch`, `COPY`.
    File,
    /// As the image's only layer, of this media type.
    Layer(&'static str),
}

/// An archive of an image with one program, `/program.wasm`.
///
/// # Panics
/// If it can't be made.
#[must_use]
pub fn archive(folder: &Path, name: &str, form: Form, wasm: &[u8]) -> PathBuf {
    let work = TempDir::new_in(folder).expect("a folder can be made");
    let layout = work.path().join("layout");
    fs_err::create_dir_all(layout.join("blobs/sha256")).expect("a folder can be made");
    let (media_type, layer) = match form {
        Form::Layer(media_type) => (media_type, wasm.to_vec()),
        Form::File => {
            fs_err::write(work.path().join("program.wasm"), wasm).expect("a file can be written");
            let layer = work.path().join("layer.tar");
            tar(&layer, work.path(), "program.wasm");
            ("application/vnd.oci.image.layer.v1.tar", fs_err::read(layer).expect("the layer was made"))
        }
    };
    let (os, architecture) = match form {
        Form::File => ("linux", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
        Form::Layer(_) => ("wasi", "wasm"),
    };
    let layer = keep(&layout, media_type, &layer);
    // containerd counts only what it unpacks.
    let unpacked = match form {
        Form::File => vec![layer["digest"].clone()],
        Form::Layer(_) => Vec::new(),
    };
    let config = json!({
        "architecture": architecture,
        "os": os,
        "config": { "Entrypoint": ["/program.wasm"], "Env": ["GIVEN=by the image"] },
        "rootfs": { "type": "layers", "diff_ids": unpacked },
    });
    let config = keep(&layout, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] });
    let mut manifest = keep(&layout, media_type, manifest.to_string().as_bytes());
    manifest["platform"] = json!({ "os": os, "architecture": architecture });
    manifest["annotations"] =
        json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs_err::write(layout.join("index.json"), index.to_string()).expect("a file can be written");
    fs_err::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("a file can be written");
    let archive = folder.join(format!("{}.tar", &hex(&Sha256::digest(name))[..16]));
    tar(&archive, &layout, ".");
    archive
}

fn tar(archive: &Path, folder: &Path, what: &str) {
    run(Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(folder).arg(what)).succeeded();
}

/// Writes a blob: its descriptor.
fn keep(layout: &Path, media_type: &str, content: &[u8]) -> Value {
    let digest = hex(&Sha256::digest(content));
    fs_err::write(layout.join("blobs/sha256").join(&digest), content).expect("a blob can be written");
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": content.len() })
}
