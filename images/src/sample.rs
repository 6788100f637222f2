//! A small universal image, for this crate's tests.

use tempfile::TempDir;

use crate::*;

pub(crate) const HTML: &str = "<h1>hello</h1>\n";

pub(crate) struct Sample {
    pub(crate) layout: Layout,
    pub(crate) index: Descriptor,
    pub(crate) site: Layer,
    pub(crate) reference: Reference,
    pub(crate) folder: TempDir,
}

/// linux/amd64 with a program, wasi/wasm without it, in a fresh layout.
pub(crate) fn universal() -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("layout")).unwrap();
    let mut native = LayerBuilder::new(Timestamp::EPOCH);
    native.add_bytes("wharf-host", "program", FileMode::Executable).unwrap();
    let native = native.write(&layout).unwrap();
    let mut site = LayerBuilder::new(Timestamp::EPOCH);
    site.add_bytes("app/site/index.html", HTML, FileMode::Regular).unwrap();
    site.add_bytes("app/site/data.bin", vec![7; 3 << 19], FileMode::Regular).unwrap();
    let site = site.write(&layout).unwrap();

    let linux = ImageBuilder::new(Platform::linux_amd64(), config("/wharf-host"))
        .layer(native, "native")
        .layer(site.clone(), "site")
        .write(&layout)
        .unwrap();
    let wasi = ImageBuilder::new(Platform::wasi_wasm(), config("/app/wharf.json"))
        .layer(site.clone(), "site")
        .write(&layout)
        .unwrap();
    let index = IndexBuilder::new().manifest(linux).manifest(wasi).write(&layout).unwrap();
    let reference: Reference = "127.0.0.1:5000/hello:1".parse().unwrap();
    layout.tag(&reference, &index).unwrap();
    Sample { layout, index, site, reference, folder }
}

fn config(entrypoint: &str) -> ContainerConfig {
    ContainerConfig {
        entrypoint: vec![entrypoint.into()],
        user: Some("65532:65532".into()),
        exposed_ports: ["8080/tcp".to_owned()].into(),
        stop_signal: Some("SIGTERM".into()),
        working_dir: Some("/".into()),
        ..ContainerConfig::default()
    }
}

/// Every file below a folder, with its content.
pub(crate) fn files(folder: &std::path::Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap_or_default());
            }
        }
    }
    found
}

/// Bytes neither all alike nor random, from a fixed seed.
pub(crate) fn text(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..length)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if at % 3 == 0 { b'a' + (state >> 28) as u8 } else { b' ' }
        })
        .collect()
}
