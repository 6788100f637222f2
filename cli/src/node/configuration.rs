//! containerd's configuration: read and changed as TOML, so that comments and
//! order stay, and what we add is found again.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use toml_edit::{Array, DocumentMut, Item, Table, value};

use super::{HANDLER, Root};

/// Our runtime's name, as containerd resolves it.
const RUNTIME: &str = "io.containerd.wasm.v1";

/// In front of all that we add.
const MARK: &str = "# By `wharf node install`";

/// Of a file's first line.
const HEADER: &str = "# By `wharf node install`, and gone with `wharf node uninstall`.\n";

/// Around our part of a template.
const BLOCK: [&str; 2] = ["# BEGIN wharf node install\n", "# END wharf node install\n"];

/// The version of a file: what its sections are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// containerd 1.7; 2.x reads it too.
    Two,
    /// containerd 2.x.
    Three,
}

impl Version {
    fn number(self) -> i64 {
        match self {
            Self::Two => 2,
            Self::Three => 3,
        }
    }

    /// The plugin that has the runtimes of Kubernetes.
    fn section(self) -> &'static str {
        match self {
            Self::Two => "io.containerd.grpc.v1.cri",
            Self::Three => "io.containerd.cri.v1.runtime",
        }
    }
}

/// One file.
#[derive(Debug)]
pub(super) struct Configuration(DocumentMut);

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether two texts say the same, and have the same of ours.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let parsed = |text: &str| text.parse::<toml::Table>().ok();
    let marks = |text: &str| text.matches(MARK).count();
    let value = parsed(one);
    value.is_some() && value == parsed(other) && marks(one) == marks(other)
}

/// Whether we have made the file.
pub(super) fn is_ours(text: &str) -> bool {
    text.starts_with(MARK)
}

/// A file of our own.
pub(super) fn drop_in(version: Version, shim: &Path) -> String {
    let mut made = Configuration(DocumentMut::new());
    made.ensure_version_of(version);
    // Nothing is in the way in an empty one.
    let _ = made.add_runtime(version, shim);
    format!("{HEADER}{made}")
}

/// A template without our part.
pub(super) fn without_block(text: &str) -> String {
    let [begin, end] = BLOCK;
    match text.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1))) {
        // The empty line in front of it is ours, too.
        Some((before, after)) => format!("{}{after}", before.strip_suffix("\n").unwrap_or(before)),
        None => text.to_owned(),
    }
}

/// Whether a template has our part.
pub(super) fn has_block(text: &str) -> bool {
    text.contains(BLOCK[0])
}

/// A template with our part at its end. Its own text is Go's, so it is not parsed;
/// `base` names runc.
pub(super) fn with_block(others: &str, version: Version, shim: &Path) -> String {
    let [begin, end] = BLOCK;
    let break_line = if others.ends_with('\n') { "" } else { "\n" };
    let (section, shim) = (version.section(), value(shim.display().to_string()));
    format!(
        "{others}{break_line}\n{begin}[plugins.'{section}'.containerd.runtimes.{HANDLER}]\n  \
         runtime_type = \"{RUNTIME}\"\n  runtime_path = {}\n{end}",
        shim.to_string().trim()
    )
}

impl Configuration {
    pub(super) fn parse(text: &str) -> Result<Self> {
        Ok(Self(text.parse().context("expected TOML")?))
    }

    /// Its version; the newest that both containerds read, if it says nothing at all.
    pub(super) fn version(&self) -> Result<Version> {
        match self.0.get("version").map(Item::as_integer) {
            Some(Some(2)) => Ok(Version::Two),
            Some(Some(3)) => Ok(Version::Three),
            None if self.is_empty() => Ok(Version::Two),
            found => {
                let found = found.flatten().map_or_else(|| "none".to_owned(), |number| number.to_string());
                bail!("expected version = 2 or 3, found {found}: `containerd config migrate` writes it anew")
            }
        }
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_table().is_empty()
    }

    /// Whether it has nothing but a version that we wrote.
    pub(super) fn is_bare(&self) -> bool {
        let others = self.0.as_table().iter().any(|(key, _)| key != "version");
        !others && self.has_mark("version")
    }

    fn has_mark(&self, key: &str) -> bool {
        let prefix = self.0.as_table().key(key).and_then(|key| key.leaf_decor().prefix()?.as_str());
        prefix.is_some_and(|prefix| prefix.contains(MARK))
    }

    /// Says the version in a file that has none, for there is nothing else in it.
    pub(super) fn ensure_version(&mut self, is_new: bool) {
        if !self.is_empty() {
            return;
        }
        self.ensure_version_of(Version::Two);
        if let Some(mut key) = self.0.as_table_mut().key_mut("version") {
            let mark = if is_new { HEADER.to_owned() } else { format!("{MARK}.\n") };
            key.leaf_decor_mut().set_prefix(mark);
        }
    }

    /// Takes the version out again, if there is still nothing else.
    pub(super) fn remove_version(&mut self) {
        if self.is_bare() {
            self.0.remove("version");
        }
    }

    fn ensure_version_of(&mut self, version: Version) {
        self.0.insert("version", value(version.number()));
    }

    /// Whether it has a section of the CRI plugin.
    pub(super) fn has_cri(&self, version: Version) -> bool {
        let plugins = self.0.get("plugins").and_then(Item::as_table_like);
        plugins.is_some_and(|plugins| plugins.contains_key(version.section()))
    }

    /// Adds our runtime, with where our shim is.
    pub(super) fn add_runtime(&mut self, version: Version, shim: &Path) -> Result<()> {
        let mut table = self.0.as_table_mut();
        for key in ["plugins", version.section(), "containerd", "runtimes"] {
            let new = || {
                let mut table = Table::new();
                table.set_implicit(true);
                Item::Table(table)
            };
            table = table
                .entry(key)
                .or_insert_with(new)
                .as_table_mut()
                .with_context(|| format!("expected {key:?} to be a section of its own"))?;
        }
        if let Some(known) = table.get(HANDLER) {
            let kind = known.as_table_like().and_then(|known| known.get("runtime_type")?.as_str());
            // By hand, as the documentation has it.
            if kind == Some(RUNTIME) {
                return Ok(());
            }
            bail!("a runtime {HANDLER:?} is there, of type {:?}", kind.unwrap_or_default());
        }
        // containerd 1.7 forgets its own runc where any runtime is listed.
        if table.is_empty() && version == Version::Two {
            table.insert("runc", runtime("io.containerd.runc.v2", None));
        }
        table.insert(HANDLER, runtime(RUNTIME, Some(shim)));
        Ok(())
    }

    /// Takes out what we have added.
    pub(super) fn remove_runtimes(&mut self) {
        for version in [Version::Two, Version::Three] {
            let runtimes = ["plugins", version.section(), "containerd", "runtimes"]
                .into_iter()
                .try_fold(self.0.as_item_mut(), |item, key| item.as_table_like_mut()?.get_mut(key));
            let Some(runtimes) = runtimes.and_then(Item::as_table_mut) else { continue };
            runtimes.retain(|_, runtime| {
                let prefix = runtime.as_table().and_then(|table| table.decor().prefix()?.as_str());
                !prefix.is_some_and(|prefix| prefix.contains(MARK))
            });
            self.remove_empty(version);
        }
    }

    /// Takes out sections that are written nowhere, from the innermost on.
    fn remove_empty(&mut self, version: Version) {
        let keys = ["plugins", version.section(), "containerd", "runtimes"];
        for depth in (0..keys.len()).rev() {
            let parent = keys[..depth]
                .iter()
                .try_fold(self.0.as_item_mut(), |item, key| item.as_table_like_mut()?.get_mut(key));
            let Some(parent) = parent.and_then(Item::as_table_mut) else { continue };
            let nothing =
                |item: &Item| item.as_table().is_some_and(|table| table.is_implicit() && table.is_empty());
            if parent.get(keys[depth]).is_some_and(nothing) {
                parent.remove(keys[depth]);
            }
        }
    }

    fn imports(&self) -> Vec<&str> {
        let imports = self.0.get("imports").and_then(Item::as_array);
        imports.into_iter().flatten().filter_map(toml_edit::Value::as_str).collect()
    }

    /// The folders of which every `*.toml` is imported.
    pub(super) fn imported_folders(&self, own: &Path) -> Vec<PathBuf> {
        let folders = self.imports().into_iter().filter_map(|pattern| pattern.strip_suffix("/*.toml"));
        folders.filter(|folder| !folder.contains(['*', '?', '['])).map(|folder| own.join(folder)).collect()
    }

    /// The files that are imported, in the order in which containerd reads them. A
    /// relative path is one from the file's own folder.
    pub(super) fn imported_files(&self, own: &Path, root: &Root) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for pattern in self.imports() {
            let Some(folder) = pattern.strip_suffix("/*.toml") else {
                anyhow::ensure!(
                    !pattern.contains(['*', '?', '[']),
                    "cannot tell which files {pattern:?} of imports means: expected FOLDER/*.toml or a file"
                );
                files.push(own.join(pattern));
                continue;
            };
            let folder = own.join(folder);
            let names = std::fs::read_dir(root.at(&folder)).into_iter().flatten().flatten();
            let names = names.map(|entry| entry.file_name());
            let toml =
                names.filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "toml"));
            let mut found: Vec<_> = toml.map(|name| folder.join(name)).collect();
            found.sort();
            files.extend(found);
        }
        Ok(files)
    }

    /// Imports one more file.
    pub(super) fn add_import(&mut self, file: &Path) -> Result<()> {
        let file = file.display().to_string();
        match self.0.get_mut("imports") {
            Some(imports) => imports.as_array_mut().context("expected imports to be a list")?.push(file),
            None => {
                self.0.insert("imports", value(Array::from_iter([file])));
                if let Some(mut key) = self.0.as_table_mut().key_mut("imports") {
                    key.leaf_decor_mut().set_prefix(format!("{MARK}.\n"));
                }
            }
        }
        Ok(())
    }

    /// Imports it no more.
    pub(super) fn remove_import(&mut self, file: &Path) {
        let file = file.display().to_string();
        let Some(imports) = self.0.get_mut("imports").and_then(Item::as_array_mut) else { return };
        imports.retain(|path| path.as_str() != Some(&file));
        if imports.is_empty() && self.has_mark("imports") {
            self.0.remove("imports");
        }
    }
}

fn runtime(kind: &str, shim: Option<&Path>) -> Item {
    let mut table = Table::new();
    table.decor_mut().set_prefix(format!("\n{MARK}.\n"));
    table.insert("runtime_type", value(kind));
    if let Some(shim) = shim {
        table.insert("runtime_path", value(shim.display().to_string()));
    }
    Item::Table(table)
}
