//! Which request goes where: the one place that knows precedence.

use std::collections::HashMap;

use crate::manifest::{Manifest, Worker};
use crate::pattern::{InvalidPattern, Params, Pattern};

/// Files at the top of a site that are listed one by one at most.
const MOST_FILES_LISTED: usize = 50;

/// The routes of an app, ready to be asked.
///
/// Precedence: a worker at exactly this path, a static file, a worker with
/// parameters (the most specific first), a catch-all worker.
#[derive(Debug)]
pub struct Routes {
    assets: HashMap<String, usize>,
    exact: HashMap<String, usize>,
    /// Sorted by precedence.
    dynamic: Vec<(Pattern, usize)>,
    /// Length of the longest folder's path that has a page for what is missing.
    deepest_not_found: usize,
}

/// Where a request goes. Indices are those of the manifest's lists.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// A static file.
    Asset(usize),
    /// A worker, and the parameters of its route.
    Worker(usize, Params),
    /// This path, with the query of the request kept: 308.
    Redirect(String),
    /// Nothing is there; perhaps a page that says so, with status 404.
    NotFound(Option<usize>),
}

/// One line of `wharf routes`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RouteLine {
    /// What requests it answers.
    pub pattern: String,
    /// `worker` or `static`.
    pub kind: &'static str,
    /// The file behind it.
    pub source: String,
}

/// A manifest whose routes contradict themselves.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// A worker's pattern is malformed.
    #[error("cannot load route of worker {worker:?}")]
    Pattern {
        /// The worker's name.
        worker: String,
        /// What is wrong with the pattern.
        #[source]
        source: InvalidPattern,
    },
    /// Two workers answer the same requests.
    #[error("workers {first:?} and {second:?} both answer {pattern}: expected one")]
    Conflict {
        /// The source of the first.
        first: String,
        /// The source of the second.
        second: String,
        /// The pattern that they share.
        pattern: String,
    },
}

impl Routes {
    /// The routes of `manifest`.
    ///
    /// # Errors
    /// [`RouteError`]: a pattern is malformed, or two workers have the same.
    pub fn new(manifest: &Manifest) -> Result<Self, RouteError> {
        let mut exact = HashMap::new();
        let mut dynamic: Vec<(Pattern, usize)> = Vec::new();
        for (index, worker) in manifest.workers.iter().enumerate() {
            let pattern = parse(worker)?;
            let previous = if pattern.is_exact() {
                exact.insert(pattern.to_string(), index)
            } else {
                let same = dynamic.iter().find(|(other, _)| *other == pattern);
                let same = same.map(|(_, index)| *index);
                dynamic.push((pattern.clone(), index));
                same
            };
            if let Some(previous) = previous {
                return Err(RouteError::Conflict {
                    first: manifest.workers[previous].source.clone(),
                    second: worker.source.clone(),
                    pattern: pattern.to_string(),
                });
            }
        }
        dynamic.sort();
        let pages = manifest.site.files.iter().filter_map(|asset| asset.path.strip_suffix("404.html"));
        let deepest_not_found = pages.map(str::len).max().unwrap_or(0);
        let assets = manifest.site.files.iter().enumerate();
        Ok(Self {
            assets: assets.map(|(index, asset)| (asset.path.clone(), index)).collect(),
            exact,
            dynamic,
            deepest_not_found,
        })
    }

    /// Where a request for `path` goes: decoded, with its leading slash.
    #[must_use]
    pub fn resolve(&self, path: &str) -> Target {
        if let Some(&worker) = self.exact.get(path) {
            return Target::Worker(worker, Params::new());
        }
        if let Some(target) = self.resolve_static(path) {
            return target;
        }
        if let Some(&worker) = path.strip_suffix('/').and_then(|path| self.exact.get(path)) {
            return Target::Worker(worker, Params::new());
        }
        let dynamic = self.dynamic.iter();
        let mut matches = dynamic.filter_map(|(pattern, worker)| Some((*worker, pattern.matches(path)?)));
        match matches.next() {
            Some((worker, params)) => Target::Worker(worker, params),
            None => Target::NotFound(self.nearest_not_found_page(path)),
        }
    }

    fn resolve_static(&self, path: &str) -> Option<Target> {
        let path = path.strip_prefix('/')?;
        let asset = |path: &str| self.assets.get(path).copied();
        if path.is_empty() || path.ends_with('/') {
            return asset(&format!("{path}index.html")).map(Target::Asset);
        }
        if let Some(file) = asset(path) {
            return Some(Target::Asset(file));
        }
        // Relative links of a folder's page resolve against the folder only
        // with the slash: `/dist` is answered by `/dist/`.
        if asset(&format!("{path}/index.html")).is_some() {
            return Some(Target::Redirect(format!("/{path}/")));
        }
        asset(&format!("{path}.html")).map(Target::Asset)
    }

    /// `404.html` of the folder of `path`, or of the nearest one above.
    fn nearest_not_found_page(&self, path: &str) -> Option<usize> {
        self.folders_with_a_page(path).find_map(|folder| {
            let slash = if folder.is_empty() { "" } else { "/" };
            self.assets.get(&format!("{folder}{slash}404.html")).copied()
        })
    }

    /// The folders around `path`, the nearest first, that are short enough to
    /// have a page of their own. A path of nothing but slashes has tens of
    /// thousands of others, each as long as a request may be.
    fn folders_with_a_page<'a>(&self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let above = |folder: &&'a str| {
            let folder: &'a str = folder;
            (!folder.is_empty()).then(|| folder.rsplit_once('/').map_or("", |(above, _)| above))
        };
        let path = path.strip_prefix('/').unwrap_or(path);
        let nearest = path.rsplit_once('/').map_or("", |(above, _)| above);
        let longest = self.deepest_not_found;
        std::iter::successors(Some(nearest), above).filter(move |folder| folder.len() <= longest)
    }

    /// All routes of `manifest` in order of precedence, static files as one
    /// line for each folder at the top of the site.
    #[must_use]
    pub fn lines(&self, manifest: &Manifest) -> Vec<RouteLine> {
        let worker = |pattern: String, index: usize| RouteLine {
            pattern,
            kind: "worker",
            source: manifest.workers[index].source.clone(),
        };
        let mut exact: Vec<_> = self.exact.iter().collect();
        exact.sort();
        let mut lines: Vec<RouteLine> =
            exact.into_iter().map(|(pattern, &index)| worker(pattern.clone(), index)).collect();
        let top = manifest.site.files.iter().filter(|asset| !asset.path.contains('/')).count();
        let mut folders: Vec<(String, usize)> = Vec::new();
        for asset in &manifest.site.files {
            let pattern = match asset.path.split_once('/') {
                Some((folder, _)) => format!("/{folder}/*"),
                None if top > MOST_FILES_LISTED => "/*".to_owned(),
                None => format!("/{}", asset.path),
            };
            // The files are sorted, so those of a folder follow each other.
            match folders.last_mut() {
                Some((last, count)) if *last == pattern => *count += 1,
                _ => folders.push((pattern, 1)),
            }
        }
        lines.extend(folders.into_iter().map(|(pattern, count)| RouteLine {
            source: if pattern.ends_with("/*") {
                let files = if count == 1 { "file" } else { "files" };
                format!("public{} ({count} {files})", pattern.trim_end_matches('*'))
            } else {
                format!("public{pattern}")
            },
            kind: "static",
            pattern,
        }));
        let dynamic = self.dynamic.iter();
        lines.extend(dynamic.map(|(pattern, index)| worker(pattern.to_string(), *index)));
        lines
    }
}

fn parse(worker: &Worker) -> Result<Pattern, RouteError> {
    worker.pattern.parse().map_err(|source| RouteError::Pattern { worker: worker.name.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Sha256;
    use crate::manifest::{Asset, Component, Limits, Site};

    fn manifest(files: &[&str], patterns: &[&str]) -> Manifest {
        let mut manifest = Manifest::new("test".into(), Site::default());
        manifest.site.files = files
            .iter()
            .map(|path| Asset {
                path: (*path).into(),
                size: 0,
                sha256: Sha256::of(b""),
                media_type: "text/plain".into(),
                encodings: Vec::new(),
            })
            .collect();
        manifest.components.push(Component {
            file: "workers/x.wasm".into(),
            size: 0,
            sha256: Sha256::of(b""),
        });
        manifest.workers = patterns
            .iter()
            .map(|pattern| Worker {
                name: (*pattern).into(),
                pattern: (*pattern).into(),
                source: format!("{pattern}.py"),
                component: 0,
                abi: Default::default(),
                env: Default::default(),
                limits: Limits::default(),
            })
            .collect();
        manifest
    }

    fn routes(files: &[&str], patterns: &[&str]) -> Routes {
        Routes::new(&manifest(files, patterns)).unwrap()
    }

    #[test]
    fn exact_worker_then_file_then_dynamic_worker_then_catch_all() {
        let routes = routes(&["index.html", "a/file.txt", "a/x"], &["/[...all]", "/a/[id]", "/a/x", "/"]);
        assert_eq!(routes.resolve("/"), Target::Worker(3, vec![]));
        assert_eq!(routes.resolve("/a/x"), Target::Worker(2, vec![]));
        assert_eq!(routes.resolve("/a/file.txt"), Target::Asset(1));
        assert_eq!(routes.resolve("/a/7"), Target::Worker(1, vec![("id".into(), "7".into())]));
        assert_eq!(routes.resolve("/b/c"), Target::Worker(0, vec![("all".into(), "b/c".into())]));
    }

    #[test]
    fn a_folder_is_redirected_to_its_slash() {
        let routes = routes(&["dist/index.html", "about.html"], &[]);
        assert_eq!(routes.resolve("/dist"), Target::Redirect("/dist/".into()));
        assert_eq!(routes.resolve("/dist/"), Target::Asset(0));
        assert_eq!(routes.resolve("/about"), Target::Asset(1));
        assert_eq!(routes.resolve("/"), Target::NotFound(None));
    }

    #[test]
    fn the_nearest_not_found_page_is_shown() {
        let routes = routes(&["404.html", "docs/404.html"], &[]);
        assert_eq!(routes.resolve("/docs/a/b"), Target::NotFound(Some(1)));
        assert_eq!(routes.resolve("/other/a"), Target::NotFound(Some(0)));
        assert_eq!(routes.resolve("/docs"), Target::NotFound(Some(0)));
    }

    #[test]
    fn a_path_of_nothing_but_slashes_costs_no_more_lookups_than_pages_are_deep() {
        let routes = routes(&["404.html", "a/404.html"], &[]);
        let slashes = "/".repeat(65_000);
        assert_eq!(routes.resolve(&slashes), Target::NotFound(Some(0)));
        assert!(routes.folders_with_a_page(&slashes).count() <= 3);
    }

    #[test]
    fn the_list_has_workers_by_precedence_and_a_line_for_each_folder() {
        let manifest = manifest(&["a.txt", "d/1", "d/e/2", "z.txt"], &["/[id]", "/x"]);
        let lines = Routes::new(&manifest).unwrap().lines(&manifest);
        let lines: Vec<String> =
            lines.iter().map(|line| format!("{} {}", line.pattern, line.source)).collect();
        assert_eq!(
            lines,
            [
                "/x /x.py",
                "/a.txt public/a.txt",
                "/d/* public/d/ (2 files)",
                "/z.txt public/z.txt",
                "/[id] /[id].py"
            ]
        );
    }

    #[test]
    fn many_files_at_the_top_are_one_line() {
        let names: Vec<String> = (0..1000).map(|n| format!("{n:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let manifest = manifest(&names, &[]);
        let lines = Routes::new(&manifest).unwrap().lines(&manifest);
        assert_eq!((lines.len(), lines[0].source.as_str()), (1, "public/ (1000 files)"));
    }

    #[test]
    fn two_workers_with_the_same_route_are_refused() {
        for patterns in [["/a", "/a"], ["/[id]", "/[name]"]] {
            let error = Routes::new(&manifest(&[], &patterns)).unwrap_err();
            assert!(matches!(error, RouteError::Conflict { .. }));
        }
    }
}
