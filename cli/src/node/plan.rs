//! Which files of a node change, by its distribution.
//!
//! A file of ours, imported, is best: nobody's text is touched. But containerd 1.7
//! does not merge what it imports: the last file that has a section of a plugin
//! replaces the section of all others. There (`version = 2`) our runtime goes into
//! that last file, and only if no file has the section, into one of ours.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::configuration::{self, Configuration, Version};
use super::{Distribution, Place, Root, Wish, files};

/// Our own file's name, in folders that are imported.
const DROP_IN: &str = "wharf.toml";

/// One file, as it is and as it should be. None is no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    path: PathBuf,
    before: Option<String>,
    after: Option<String>,
}

impl Change {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    pub(super) fn apply(&self, root: &Root) -> Result<()> {
        if let Some(before) = &self.before {
            files::write(&root.at(&self.backup()), before.as_bytes())?;
        }
        put(root, &self.path, self.after.as_deref())
    }

    pub(super) fn revert(&self, root: &Root) -> Result<()> {
        put(root, &self.path, self.before.as_deref())?;
        self.forget(root)
    }

    /// Removes the copy of what was there.
    pub(super) fn forget(&self, root: &Root) -> Result<()> {
        files::remove(&root.at(&self.backup()))
    }

    /// For people, should we be killed between the change and the check.
    fn backup(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".before-wharf");
        name.into()
    }

    fn is_needed(&self) -> bool {
        match (&self.before, &self.after) {
            // A comment more or a space less is no reason to restart containerd.
            (Some(before), Some(after)) => before != after && !configuration::is_same(before, after),
            (before, after) => before != after,
        }
    }
}

fn put(root: &Root, path: &Path, content: Option<&str>) -> Result<()> {
    match content {
        Some(content) => files::write(&root.at(path), content.as_bytes()),
        None => files::remove(&root.at(path)),
    }
}

/// The changes that make a node so, in the order in which they are to be made: no
/// file is imported before it is there.
///
/// # Errors
/// A file can't be read, or is not what it should be.
pub(super) fn changes(place: &Place, root: &Root, shim: &Path, wish: Wish) -> Result<Vec<Change>> {
    let plan = Plan { root, shim, wish };
    let changes = match place.distribution {
        Distribution::Containerd => plan.containerd(&place.config)?,
        Distribution::K0s => plan.k0s(&place.config)?,
        Distribution::K3s | Distribution::Rke2 => plan.k3s(&place.config)?,
        Distribution::Microk8s => vec![plan.in_place(&place.config)?],
    };
    let mut changes: Vec<_> = changes.into_iter().filter(Change::is_needed).collect();
    // What goes, goes when nobody imports it any more.
    changes.sort_by_key(|change| change.after.is_none());
    Ok(changes)
}

struct Plan<'a> {
    root: &'a Root,
    shim: &'a Path,
    wish: Wish,
}

impl Plan<'_> {
    fn read(&self, path: &Path) -> Result<(Option<String>, Configuration)> {
        let before = self.root.read(path)?;
        let parsed = Configuration::parse(before.as_deref().unwrap_or_default());
        let parsed = parsed.with_context(|| format!("cannot change {}", path.display()))?;
        Ok((before, parsed))
    }

    fn change(&self, path: PathBuf, after: Option<String>) -> Result<Change> {
        Ok(Change { before: self.root.read(&path)?, path, after })
    }

    /// A file of ours: there, or gone. One of that name by others is an error.
    fn drop_in(&self, path: PathBuf, content: Option<String>) -> Result<Option<Change>> {
        let change = self.change(path, content)?;
        let ours = change.before.as_deref().is_none_or(configuration::is_ours);
        if !ours && self.wish == Wish::Installed {
            anyhow::bail!("{} is there, and not by wharf: expected none", change.path.display());
        }
        Ok(ours.then_some(change))
    }

    fn containerd(&self, path: &Path) -> Result<Vec<Change>> {
        let (before, mut main) = self.read(path)?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let at_conf_d = folder.join("conf.d").join(DROP_IN);
        main.remove_import(&at_conf_d);
        main.remove_runtimes();
        let folders = main.imported_folders(folder);
        // Where one of ours is or may have been, whoever imported it.
        let mut drop_ins: Vec<PathBuf> = folders.iter().map(|folder| folder.join(DROP_IN)).collect();
        if !drop_ins.contains(&at_conf_d) {
            drop_ins.push(at_conf_d.clone());
        }
        let mut imported = Vec::new();
        for file in main.imported_files(folder, self.root)? {
            // One that is not there is nothing to 2.x, and keeps 1.7 from starting.
            if !drop_ins.contains(&file)
                && let (Some(_), mut parsed) = self.read(&file)?
            {
                parsed.remove_runtimes();
                imported.push((file, parsed));
            }
        }
        let mut content = None;
        if self.wish == Wish::Installed {
            let version = main.version().with_context(|| format!("cannot change {}", path.display()))?;
            let winner = imported.iter_mut().rev().map(|(file, parsed)| (file.as_path(), parsed));
            let mut winner = winner.chain([(path, &mut main)]).find(|(_, parsed)| parsed.has_cri(version));
            match (version, &mut winner) {
                (Version::Two, Some((file, parsed))) => parsed
                    .add_runtime(version, self.shim)
                    .with_context(|| format!("cannot change {}", file.display()))?,
                _ => {
                    content = Some(configuration::drop_in(version, self.shim));
                    if folders.is_empty() {
                        main.ensure_version(before.is_none());
                        main.add_import(&at_conf_d)
                            .with_context(|| format!("cannot change {}", path.display()))?;
                    }
                }
            }
        }
        let mut changes = Vec::new();
        for (number, drop_in) in drop_ins.into_iter().enumerate() {
            // The first one: of a folder that is imported already, or our own.
            let content = content.take_if(|_| number == 0);
            changes.extend(self.drop_in(drop_in, content)?);
        }
        for (file, parsed) in imported {
            changes.push(self.change(file, Some(parsed.to_string()))?);
        }
        if self.wish == Wish::Removed {
            // A file that we have made goes with us, if it has nothing else by now.
            let is_ours = before.as_deref().is_some_and(configuration::is_ours) && main.is_bare();
            main.remove_version();
            let gone = is_ours || before.is_none();
            changes.push(self.change(path.to_owned(), (!gone).then(|| main.to_string()))?);
        } else {
            let untouched = before.is_none() && main.is_empty();
            changes.push(self.change(path.to_owned(), (!untouched).then(|| main.to_string()))?);
        }
        Ok(changes)
    }

    /// k0s imports what lies in a folder, and merges it itself; but not into a
    /// configuration that somebody else keeps.
    fn k0s(&self, path: &Path) -> Result<Vec<Change>> {
        let text = self.root.read(path)?;
        if text.as_deref().is_some_and(|text| !text.contains("k0s_managed=true")) {
            return self.containerd(path);
        }
        let version = Configuration::parse(text.as_deref().unwrap_or_default())?.version()?;
        let folder = path.parent().unwrap_or(Path::new("/")).join("containerd.d");
        let content = (self.wish == Wish::Installed).then(|| configuration::drop_in(version, self.shim));
        Ok(self.drop_in(folder.join(DROP_IN), content)?.into_iter().collect())
    }

    /// k3s writes `config.toml` at each start: from a template of ours, if there is
    /// one, which may have its own (`base`) in it. Newer ones import a folder.
    fn k3s(&self, path: &Path) -> Result<Vec<Change>> {
        const NEW: &str = "{{ template \"base\" . }}\n";
        let (before, generated) = self.read(path)?;
        anyhow::ensure!(before.is_some(), "cannot read {}: expected k3s to have written it", path.display());
        let version = generated.version()?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let template = folder.join(match version {
            Version::Two => "config.toml.tmpl",
            Version::Three => "config-v3.toml.tmpl",
        });
        let wanted = self.wish == Wish::Installed;
        let mut changes = Vec::new();
        let imported =
            generated.imported_folders(folder).into_iter().next().filter(|_| version == Version::Three);
        if let Some(imported) = &imported {
            let content = wanted.then(|| configuration::drop_in(version, self.shim));
            changes.extend(self.drop_in(imported.join(DROP_IN), content)?);
        }
        let text = self.root.read(&template)?;
        let others = configuration::without_block(text.as_deref().unwrap_or_default());
        let after = if wanted && imported.is_none() {
            let others = if others.is_empty() { NEW.to_owned() } else { others };
            Some(configuration::with_block(&others, version, self.shim))
        } else {
            // One that has nothing but k3s' own was made by us.
            (!others.is_empty() && others != NEW).then_some(others)
        };
        let untouched = text.as_deref().is_none_or(|text| !configuration::has_block(text));
        if !(untouched && (imported.is_some() || !wanted)) {
            changes.push(self.change(template, after)?);
        }
        Ok(changes)
    }

    /// In a template that is no template of Go's, and may be edited.
    fn in_place(&self, path: &Path) -> Result<Change> {
        let (before, mut parsed) = self.read(path)?;
        anyhow::ensure!(before.is_some(), "cannot read {}: expected a file", path.display());
        parsed.remove_runtimes();
        if self.wish == Wish::Installed {
            let version = parsed.version()?;
            parsed
                .add_runtime(version, self.shim)
                .with_context(|| format!("cannot change {}", path.display()))?;
        }
        self.change(path.to_owned(), Some(parsed.to_string()))
    }
}
