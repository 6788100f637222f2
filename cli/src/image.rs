//! From a built app to an image: which files make which layer.
//!
//! Layers, bottom first: native (linux only), workers, site, app, and the
//! machine code (linux only). The middle three are the same in all manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use wharf_app::{
    BuiltApp, LARGEST_MANIFEST, MANIFEST_FILE, Manifest, ManifestError, Sha256, StorePlace, Value,
};
use wharf_host::{Architecture, CodeCache, CompilerTarget};
use wharf_images::{
    Compression, ContainerConfig, Descriptor, Digest, FileMode, ImageBuilder, IndexBuilder, Layer,
    LayerBuilder, LayerCache, Layout, Platform, Timestamp,
};

use crate::metadata::Metadata;
use crate::native::Native;
use crate::progress::Progress;

/// The user and group of the host in a container: no one's, by convention.
const USER: &str = "65532:65532";

/// Folders at the top of a container that are the image's own, or the kernel's.
const RESERVED: [&str; 5] = ["app", "dev", "proc", "sys", "wharf-host"];

/// Part of each layer's fingerprint: raise it when layers change in form.
const FORM: &str = "wharf layer 1";

/// What an image names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// An index of the platforms.
    Index,
    /// The manifest of the first platform, for tools that know no index.
    Manifest,
}

/// What an image is made of.
pub(crate) struct Packing<'a> {
    pub(crate) app: &'a BuiltApp,
    pub(crate) metadata: &'a Metadata,
    pub(crate) shape: Shape,
    pub(crate) compression: Compression,
    /// `wharf-host` for each linux platform.
    pub(crate) natives: &'a BTreeMap<Architecture, Native>,
    pub(crate) wasi: bool,
    pub(crate) layout: &'a Layout,
    pub(crate) layers: &'a LayerCache,
    pub(crate) code: &'a MachineCode,
    pub(crate) progress: &'a Progress,
}

/// The files with the machine code of an app's components, in their order.
pub(crate) type MachineCode = BTreeMap<Architecture, Vec<PathBuf>>;

/// Compiles an app's components for any machine of each architecture. What is
/// no valid component shows here, before anything is written.
pub(crate) fn compile(
    app: &BuiltApp,
    architectures: impl Iterator<Item = Architecture>,
    cache: &CodeCache,
    progress: &Progress,
) -> Result<MachineCode> {
    let compiled = architectures.map(|architecture| {
        let compiler = cache.compiler(CompilerTarget::Portable(architecture))?;
        let described = app.manifest.components.iter().zip(&app.components);
        let files = described.map(|(component, wasm)| {
            if !cache.contains(&compiler, &component.sha256) {
                progress.step(format!("compiling {} for linux/{architecture}", component.file));
            }
            Ok(cache.ensure(&compiler, &component.sha256, wasm)?)
        });
        Ok((architecture, files.collect::<Result<_>>()?))
    });
    compiled.collect()
}

/// A file of a layer, with what its content is known by.
struct Entry {
    path: String,
    content: Content,
    mode: FileMode,
}

enum Content {
    File(PathBuf, Sha256),
    Bytes(Vec<u8>),
    /// A folder that the host may write to, whatever user it runs as.
    Folder,
}

impl Packing<'_> {
    /// Writes the image, and all below it, to the layout.
    pub(crate) fn write(&self) -> Result<Descriptor> {
        let shared = [
            ("workers", self.layer("workers", self.workers())?),
            ("site", self.layer("site", self.site())?),
            ("app", self.layer("app", self.manifest()?)?),
        ];
        let mut manifests = Vec::new();
        for (architecture, native) in self.natives {
            let mut image = self.image(linux(*architecture), "/wharf-host");
            let native = self.layer("native", program(native))?;
            let code = self.layer("aot", self.machine_code(*architecture))?;
            let layers = [("native", native)].into_iter().chain(shared.clone()).chain([("aot", code)]);
            for (name, layer) in layers {
                if let Some(layer) = layer {
                    image = image.layer(layer, format!("wharf build: {name}"));
                }
            }
            manifests.push(image.write(self.layout)?);
        }
        if self.wasi {
            let mut image = self.image(Platform::wasi_wasm(), "/app/wharf.json");
            for (name, layer) in shared {
                if let Some(layer) = layer {
                    image = image.layer(layer, format!("wharf build: {name}"));
                }
            }
            manifests.push(image.write(self.layout)?);
        }
        if let (Shape::Manifest, Some(manifest)) = (self.shape, manifests.first()) {
            return Ok(manifest.clone());
        }
        let index = manifests.into_iter().fold(IndexBuilder::new(), IndexBuilder::manifest);
        let annotations = self.metadata.annotations.iter();
        let index = annotations.fold(index, |index, (key, value)| index.annotation(key, value));
        Ok(index.write(self.layout)?)
    }

    fn image(&self, platform: Platform, entrypoint: &str) -> ImageBuilder {
        let config = ContainerConfig {
            user: Some(USER.into()),
            exposed_ports: ["8080/tcp".to_owned()].into(),
            entrypoint: vec![entrypoint.into()],
            working_dir: Some("/".into()),
            stop_signal: Some("SIGTERM".into()),
            labels: self.metadata.labels.clone(),
            ..ContainerConfig::default()
        };
        let image = ImageBuilder::new(platform, config).created(self.metadata.created());
        let annotations = self.metadata.annotations.iter();
        annotations.fold(image, |image, (key, value)| image.annotation(key, value))
    }

    fn workers(&self) -> Vec<Entry> {
        let described = self.app.manifest.components.iter().zip(&self.app.components);
        let components =
            described.map(|(component, file)| below_app(&component.file, file, component.sha256));
        let files = self.app.files.iter();
        let files = files.map(|file| below_app(&format!("files/{}", file.path), &file.source, file.sha256));
        components.chain(files).collect()
    }

    fn site(&self) -> Vec<Entry> {
        let files = &self.app.manifest.site.files;
        let described = files.iter().zip(&self.app.assets);
        let files_themselves =
            described.map(|(asset, file)| below_app(&format!("site/{}", asset.path), file, asset.sha256));
        let encodings = files.iter().flat_map(|asset| asset.encodings.iter().map(move |form| (asset, form)));
        let siblings = encodings.zip(&self.app.encodings).map(|((asset, form), file)| {
            below_app(&format!("site/{}", form.coding.sibling(&asset.path)), file, form.sha256)
        });
        files_themselves.chain(siblings).collect()
    }

    fn manifest(&self) -> Result<Vec<Entry>> {
        let json = self.app.manifest.to_json();
        let size = json.len() as u64;
        // No host would read it.
        if size > LARGEST_MANIFEST {
            return Err(ManifestError::TooLarge { size }.into());
        }
        let content = Content::Bytes(json);
        let mut entries =
            vec![Entry { path: format!("app/{MANIFEST_FILE}"), content, mode: FileMode::Regular }];
        let folders = data_folders(&self.app.manifest).into_iter();
        entries.extend(folders.map(|path| Entry { path, content: Content::Folder, mode: FileMode::Regular }));
        Ok(entries)
    }

    fn machine_code(&self, architecture: Architecture) -> Vec<Entry> {
        let files = self.code.get(&architecture).into_iter().flatten();
        let described = self.app.manifest.components.iter().zip(files);
        let entries = described.map(|(component, code)| {
            // Known by its name, which has the compiler and the component: what these make is
            // always the same, and twice the component's size.
            let known = Sha256::of(code.as_os_str().as_encoded_bytes());
            below_app(&format!("aot/{}.cwasm", component.sha256), code, known)
        });
        entries.collect()
    }

    /// The layer of these files: made before from the same ones, or made now;
    /// none of none.
    fn layer(&self, name: &str, entries: Vec<Entry>) -> Result<Option<Layer>> {
        if entries.is_empty() {
            return Ok(None);
        }
        let created = self.metadata.created();
        let fingerprint = fingerprint(&entries, created, self.compression);
        if let Some(layer) = self.layers.get(self.layout, &fingerprint) {
            return Ok(Some(layer));
        }
        self.progress.step(format!("compressing layer {name}"));
        let mut builder = LayerBuilder::new(created).compression(self.compression);
        for Entry { path, content, mode } in entries {
            match content {
                Content::File(source, _) => builder.add_file(&path, source, mode)?,
                Content::Bytes(bytes) => builder.add_bytes(&path, bytes, mode)?,
                Content::Folder => builder.add_shared_directory(&path)?,
            }
        }
        let layer = builder.write(self.layout)?;
        self.layers.put(&fingerprint, &layer)?;
        Ok(Some(layer))
    }
}

fn program(native: &Native) -> Vec<Entry> {
    let content = Content::File(native.path.clone(), native.sha256);
    vec![Entry { path: "wharf-host".into(), content, mode: FileMode::Executable }]
}

/// The folders that workers write to, as far as the app itself says where they are: the
/// host needs no volume to start, and a volume takes their permissions.
fn data_folders(manifest: &Manifest) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for worker in &manifest.workers {
        let mounts = worker.grants.mounts.iter().filter(|mount| mount.write && mount.app.is_none());
        let stores = worker.grants.kv.values().filter_map(|place| match place {
            Value::Fixed(place) => place.parse().ok(),
            Value::Host(_) => None,
        });
        let stores = stores.filter_map(|place| match place {
            StorePlace::Folder(path) => Some(path),
            StorePlace::Redis(_) => None,
        });
        // A relative path is one from `/` (the image's working directory).
        let places = mounts.map(|mount| mount.host.clone()).chain(stores);
        folders.extend(places.filter_map(|place| {
            let place = place.strip_prefix("/").unwrap_or(&place);
            let is_plain = place.components().all(|part| matches!(part, Component::Normal(_)));
            let top = place.components().next()?;
            let is_taken = RESERVED.iter().any(|name| top.as_os_str() == *name);
            (is_plain && !is_taken).then(|| place.to_str().map(ToOwned::to_owned))?
        }));
    }
    folders
}

fn below_app(path: &str, file: &Path, sha256: Sha256) -> Entry {
    let content = Content::File(file.to_owned(), sha256);
    Entry { path: format!("app/{path}"), content, mode: FileMode::Regular }
}

/// Names all that goes into a layer. What files hold was hashed when the app was built,
/// but for machine code, whose name says it; the layer's writer fails on one that changed
/// since in size.
fn fingerprint(entries: &[Entry], created: Timestamp, compression: Compression) -> Digest {
    let mut text = format!("{FORM}, {compression:?}, created {}\n", created.seconds());
    for Entry { path, content, mode } in entries {
        let sha256 = match content {
            Content::File(_, sha256) => *sha256,
            Content::Bytes(bytes) => Sha256::of(bytes),
            Content::Folder => Sha256::of(b"folder"),
        };
        text.push_str(&format!("{path:?} {mode:?} {sha256}\n"));
    }
    Digest::of(text.as_bytes())
}

fn linux(architecture: Architecture) -> Platform {
    match architecture {
        Architecture::Amd64 => Platform::linux_amd64(),
        Architecture::Arm64 => Platform::linux_arm64(),
    }
}

#[cfg(test)]
mod tests {
    use wharf_app::{Abi, Grants, Limits, Site, Worker};

    use super::*;

    #[test]
    fn folders_of_data_are_those_that_the_app_itself_names() {
        let mut manifest = Manifest::new("x".into(), Site::default());
        let grants = r#"{"mounts": [{"host": "data", "guest": "/data", "write": true},
            {"host": "/only/read", "guest": "/r"}, {"host": "../up", "guest": "/u", "write": true},
            {"host": "/app/x", "guest": "/x", "write": true}],
            "kv": {"default": "/data/kv", "b": "redis://h", "c": {"from": "KV"}, "d": "/"}}"#;
        let grants: Grants = serde_json::from_str(grants).unwrap();
        manifest.workers.push(Worker {
            name: "x".into(),
            pattern: "/".into(),
            source: "x.wasm".into(),
            component: 0,
            abi: Abi::Http,
            env: BTreeMap::new(),
            grants,
            limits: Limits::default(),
            reuse: 1,
        });
        assert_eq!(data_folders(&manifest).into_iter().collect::<Vec<_>>(), ["data", "data/kv"]);
    }
}
