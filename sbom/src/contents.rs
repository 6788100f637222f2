//! Everything in an app, and what needs what.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use wharf_app::{BuiltApp, Language, Project, Sha256, default_release};

use crate::package::{Package, read};
use crate::{npm, python, ruby, wasm};

/// Largest component that is looked into, in bytes.
const LARGEST_COMPONENT: u64 = 1 << 30;

/// The packages of an app, each once, and who needs them.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// By package URL.
    pub(crate) packages: BTreeMap<String, Package>,
    /// The components of the workers, in the manifest's order.
    pub(crate) workers: Vec<Worker>,
    /// Package URLs of what lies in the site.
    pub(crate) site: BTreeSet<String>,
    /// Package URL → those of what it needs.
    pub(crate) needs: BTreeMap<String, BTreeSet<String>>,
}

/// A component.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) file: String,
    pub(crate) sha256: Sha256,
    pub(crate) producers: BTreeSet<(String, String)>,
    /// Package URLs of what is in it.
    pub(crate) packages: BTreeSet<String>,
}

/// What made the component of a language's workers.
pub(crate) fn toolchain(project: &Project, language: Language) -> Option<Package> {
    let release = project.lock().release(language).unwrap_or(default_release(language));
    match language {
        Language::Python => Package::pypi("componentize-py", release),
        Language::JavaScript => Package::npm("@bytecodealliance/componentize-js", release),
        Language::Ruby => Package::npm("@ruby/4.0-wasm-wasi", release),
        // A Go program's `producers` say it; others are made elsewhere.
        Language::Go | Language::Wasm => None,
    }
}

impl Contents {
    pub(crate) fn of(project: &Project, app: &BuiltApp) -> Self {
        let mut contents = Self::default();
        contents.add_workers(project, app);
        contents.add_site(app);
        contents
    }

    fn add_workers(&mut self, project: &Project, app: &BuiltApp) {
        let languages: HashMap<usize, Language> = project
            .workers()
            .iter()
            .zip(&app.manifest.workers)
            .map(|(source, worker)| (worker.component, source.language))
            .collect();
        for (place, (component, file)) in app.manifest.components.iter().zip(&app.components).enumerate() {
            let found = match read(file, LARGEST_COMPONENT) {
                Ok(content) => wasm::contents(&content),
                Err(error) => {
                    tracing::warn!(file = component.file, %error, "not looked into for the SBOM");
                    wasm::Contents::default()
                }
            };
            let mut packages = BTreeSet::new();
            for crates in found.crates {
                packages.extend(self.add_crates(crates));
            }
            let language = languages.get(&place).copied();
            // It brings the interpreter and the standard library along.
            let toolchain = language.and_then(|language| toolchain(project, language));
            let imported = match language {
                Some(Language::Python) => {
                    let installed = app.lock.python_packages().filter_map(|(name, version, sha256)| {
                        Some(Package { sha256, ..Package::pypi(name, version)? })
                    });
                    installed.chain(python::vendored(project.dir())).collect()
                }
                Some(Language::JavaScript) => npm::installed(project.dir()),
                Some(Language::Ruby) => ruby::vendored(project.dir()),
                _ => Vec::new(),
            };
            for package in toolchain.into_iter().chain(imported) {
                packages.insert(self.add(package));
            }
            self.workers.push(Worker {
                file: component.file.clone(),
                sha256: component.sha256,
                producers: found.producers,
                packages,
            });
        }
    }

    /// The crates of a module: the package URL of its own, or of all if it
    /// doesn't say which that is.
    fn add_crates(&mut self, crates: wasm::Crates) -> Vec<String> {
        let purls: Vec<String> = crates.packages.into_iter().map(|package| self.add(package)).collect();
        for (purl, needs) in purls.iter().zip(crates.needs) {
            let needs = needs.into_iter().filter_map(|place| purls.get(place)).filter(|need| *need != purl);
            self.needs.entry(purl.clone()).or_default().extend(needs.cloned());
        }
        match crates.root.and_then(|root| purls.get(root)) {
            Some(root) => vec![root.clone()],
            None => purls,
        }
    }

    fn add_site(&mut self, app: &BuiltApp) {
        let files = || app.manifest.site.files.iter().zip(&app.assets);
        let hashes: HashMap<&str, Sha256> =
            app.manifest.site.files.iter().map(|asset| (asset.path.as_str(), asset.sha256)).collect();
        for (asset, file) in files() {
            let (folder, name) = asset.path.rsplit_once('/').map_or(("", asset.path.as_str()), |parts| parts);
            let found = packages_of(name, &asset.path, file, asset.sha256, |sibling| {
                let path = if folder.is_empty() { sibling.to_owned() } else { format!("{folder}/{sibling}") };
                hashes.get(path.as_str()).copied()
            });
            for package in found {
                let purl = self.add(package);
                self.site.insert(purl);
            }
        }
    }

    /// Keeps a package; of two of one name, what is known of either.
    fn add(&mut self, package: Package) -> String {
        let purl = package.purl.clone();
        match self.packages.get_mut(&purl) {
            Some(known) => {
                known.licence = known.licence.take().or(package.licence);
                known.sha256 = known.sha256.or(package.sha256);
                known.build_only &= package.build_only;
            }
            None => {
                self.packages.insert(purl.clone(), package);
            }
        }
        purl
    }
}

/// The packages that a file of the site is, or tells of.
fn packages_of(
    name: &str,
    path: &str,
    file: &Path,
    sha256: Sha256,
    sibling: impl Fn(&str) -> Option<Sha256>,
) -> Vec<Package> {
    match name {
        "package.json" => npm::package(file).into_iter().collect(),
        "pyodide-lock.json" => python::locked(file, sibling),
        _ if name.ends_with("third-party-licenses.json") => npm::bundled(file),
        _ if name.ends_with(".whl") => python::wheel(file, sha256).into_iter().collect(),
        _ if path.ends_with(python::METADATA) => python::installed(file).into_iter().collect(),
        _ => Vec::new(),
    }
}
