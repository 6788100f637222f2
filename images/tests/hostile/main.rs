//! Images that nobody means well with: pulled from a registry, loaded from an
//! archive, unpacked into a folder. Each is refused with words that say why,
//! and leaves nothing.

// A failing helper is a failing test.
#![allow(clippy::unwrap_used)]

mod archives;
mod layers;
mod layouts;
mod pulls;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::*;
use tar::{EntryType, Header};
use wharf_images::{
    ArchiveError, ContainerConfig, Descriptor, Digest, Entry, ImageBuilder, Layer, Layout, LayoutError,
    MediaType, Platform, Reference, RegistryError, UnpackError, UnpackOptions, Unpacked, load, unpack,
};

const MIB: usize = 1 << 20;
const REPOSITORY: &str = "demo/app";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len() })
}

fn manifest(config: &Value, layers: &[Value]) -> Vec<u8> {
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    manifest.to_string().into_bytes()
}

fn index(manifests: &[Value]) -> Vec<u8> {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string().into_bytes()
}

/// A descriptor of something that nobody has, another one for each number.
fn nothing(media_type: &str, number: usize) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{number:064x}"), "size": 1 })
}

fn assert_plain(text: &str) {
    assert!(!text.contains(|character: char| character.is_control()), "{text:?}");
}

/// A tar of plain files.
fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        archive.extend(entry(EntryType::Regular, name.as_bytes(), b"", content));
    }
    archive
}

/// A header with its content, which no honest tool need have written.
fn entry(kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// An archive with this `index.json` and these blobs.
fn layout_archive(index: &[u8], blobs: &[&[u8]]) -> Vec<u8> {
    let mut files = vec![
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index.to_vec()),
    ];
    files.extend(
        blobs.iter().map(|blob| (format!("blobs/sha256/{}", Digest::of(blob).encoded()), blob.to_vec())),
    );
    archive(&files)
}

fn named(media_type: &str, content: &[u8], name: &str) -> Value {
    let mut descriptor = descriptor(media_type, content);
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    descriptor
}

fn loaded(archive: &[u8]) -> (tempfile::TempDir, Layout, Result<Vec<Entry>, ArchiveError>) {
    let (folder, layout) = empty();
    let path = folder.path().join("archive.tar");
    fs::write(&path, archive).unwrap();
    let before = listing(folder.path());
    let began = Instant::now();
    let result = load(&layout, &path);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    if let Err(error) = &result {
        assert_eq!(listing(folder.path()), before, "{}", words(error));
    }
    (folder, layout, result)
}

/// A header alone, which says that much comes after it.
fn announced(kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn extension(kind: EntryType, content: &[u8]) -> Vec<u8> {
    entry(kind, b"extension", b"", content)
}

/// An entry with a pax record before it.
fn pax(key: &str, value: &str, entry: Vec<u8>) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    [extension(EntryType::XHeader, format!("{length}{rest}").as_bytes()), entry].concat()
}
