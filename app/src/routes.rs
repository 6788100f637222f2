//! Which request goes where: the one place that knows precedence.

use std::collections::HashMap;

use crate::headers::HEADERS_FILE;
use crate::manifest::{Manifest, Worker};
use crate::pattern::{InvalidPattern, Params, Pattern};
use crate::redirects::{REDIRECTS_FILE, Redirect, Redirects, Rewritten};
use crate::rules::{RuleProblem, encode_path};

/// Files at the top of a site that are listed one by one at most.
const MOST_FILES_LISTED: usize = 50;

/// The routes of an app, ready to be asked.
///
/// Precedence: a redirect, a worker at exactly this path, a static file, a
/// worker with parameters (the most specific first), a catch-all worker, a
/// rewrite. A request that a file can't answer, such as a POST, goes to a worker
/// of any kind before a file.
#[derive(Debug)]
pub struct Routes {
    redirects: Redirects,
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
    /// A redirect of the user's.
    Elsewhere {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// A URL; if it has no query, that of the request belongs to it.
        location: String,
    },
    /// Nothing is there; perhaps a page that says so, with status 404.
    NotFound(Option<usize>),
}

/// Whether a request only reads: GET or HEAD, which a file answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// A file may answer it.
    Yes,
    /// A worker may.
    No,
}

/// Where a request goes, and under which address.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// What answers it.
    pub target: Target,
    /// Path and query (encoded) that a rewrite made of the request's.
    pub rewritten: Option<String>,
}

/// One line of `wharf routes`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RouteLine {
    /// What requests it answers.
    pub pattern: String,
    /// `redirect`, `worker` or `static`.
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
    /// A redirect or a rule for headers is malformed.
    #[error("cannot load rule for {pattern:?}: {problem}")]
    Rule {
        /// Its pattern.
        pattern: String,
        /// What is wrong with it.
        problem: RuleProblem,
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
        let rule = |(pattern, problem)| RouteError::Rule { pattern, problem };
        let redirects = Redirects::new(&manifest.site.redirects).map_err(rule)?;
        let pages = manifest.site.files.iter().filter_map(|asset| asset.path.strip_suffix("404.html"));
        let deepest_not_found = pages.map(str::len).max().unwrap_or(0);
        let assets = manifest.site.files.iter().enumerate().filter(|(_, asset)| is_served(&asset.path));
        Ok(Self {
            redirects,
            assets: assets.map(|(index, asset)| (asset.path.clone(), index)).collect(),
            exact,
            dynamic,
            deepest_not_found,
        })
    }

    /// Where a request goes. `host` is its authority, `path` is decoded, with
    /// its leading slash; `reads` tells whether its method is GET or HEAD.
    #[must_use]
    pub fn find(&self, host: &str, path: &str, reads: Reads) -> Found {
        let plain = |target| Found { target, rewritten: None };
        let resolve = |path: &str| match reads {
            Reads::Yes => self.resolve(path),
            Reads::No => self.resolve_worker(path).unwrap_or_else(|| self.resolve(path)),
        };
        let (path, query, missing) = match self.redirects.find(host, path) {
            None => return plain(resolve(path)),
            Some(Rewritten::Elsewhere { status, location }) => {
                return plain(Target::Elsewhere { status, location });
            }
            Some(Rewritten::Here { path: to, query, missing, force }) => {
                // A rewrite gives way to what is there.
                if !force {
                    let target = resolve(path);
                    if !matches!(target, Target::NotFound(_)) {
                        return plain(target);
                    }
                }
                // As in a path that is asked for: who made such a segment of
                // placeholders wants out of the folder that the rule names.
                if !is_harmless(&to) {
                    return plain(Target::NotFound(self.nearest_not_found_page(path)));
                }
                (to, query, missing)
            }
        };
        let target = match resolve(&path) {
            // Nobody sees the address, so the slash need not be there.
            Target::Redirect(folder) => self.resolve(&folder),
            target => target,
        };
        let target = match target {
            Target::Asset(page) if missing => Target::NotFound(Some(page)),
            target => target,
        };
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        Found { target, rewritten: Some(encode_path(&path) + &query) }
    }

    /// The file that answers navigations to what isn't there, in a
    /// single-page app.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        self.assets.get("index.html").copied()
    }

    /// Where a GET for `path` goes without redirects: decoded, with its
    /// leading slash.
    #[must_use]
    pub fn resolve(&self, path: &str) -> Target {
        if let Some(&worker) = self.exact.get(path) {
            return Target::Worker(worker, Params::new());
        }
        if let Some(target) = self.resolve_static(path) {
            return target;
        }
        self.resolve_worker(path).unwrap_or_else(|| Target::NotFound(self.nearest_not_found_page(path)))
    }

    /// The worker that `path` has, whatever file there is.
    fn resolve_worker(&self, path: &str) -> Option<Target> {
        let without_slash = || path.strip_suffix('/').and_then(|path| self.exact.get(path));
        if let Some(&worker) = self.exact.get(path).or_else(without_slash) {
            return Some(Target::Worker(worker, Params::new()));
        }
        let dynamic = self.dynamic.iter();
        let mut matches = dynamic.filter_map(|(pattern, worker)| Some((*worker, pattern.matches(path)?)));
        matches.next().map(|(worker, params)| Target::Worker(worker, params))
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
        let (first, last): (Vec<_>, Vec<_>) =
            manifest.site.redirects.iter().partition(|redirect| redirect.force || redirect.status / 100 == 3);
        let redirect = |redirect: &Redirect| RouteLine {
            pattern: redirect.from.clone(),
            kind: "redirect",
            source: format!("{} {}", redirect.status, redirect.to),
        };
        let mut lines: Vec<RouteLine> = first.into_iter().map(redirect).collect();
        let mut exact: Vec<_> = self.exact.iter().collect();
        exact.sort();
        lines.extend(exact.into_iter().map(|(pattern, &index)| worker(pattern.clone(), index)));
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
        lines.extend(last.into_iter().map(redirect));
        lines
    }
}

/// Whether `path` (decoded) can name something. Not with a NUL, a backslash (a slash
/// to some clients), or a segment that is `.` or `..`: a client removes these before it
/// asks (RFC 3986, 5.2.4), so they were hidden on purpose.
#[must_use]
pub fn is_harmless(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains(['\0', '\\'])
        && path.split('/').all(|segment| segment != "." && segment != "..")
}

/// Whether the file at `path` has an address: hidden ones have none, but for
/// `.well-known` (RFC 8615), and neither have the files of rules.
fn is_served(path: &str) -> bool {
    !path.split('/').any(|part| part.starts_with('.') && part != ".well-known")
        && path != HEADERS_FILE
        && path != REDIRECTS_FILE
}

fn parse(worker: &Worker) -> Result<Pattern, RouteError> {
    worker.pattern.parse().map_err(|source| RouteError::Pattern { worker: worker.name.clone(), source })
}

#[cfg(test)]
mod tests;
