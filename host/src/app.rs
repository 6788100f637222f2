//! An app, loaded and ready to answer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use wasmtime::component::Component;
use wharf_app::{MANIFEST_FILE, Manifest, ManifestError, RouteError, Routes, Target};

use crate::code::{CodeDir, CodeError, HostCode};
use crate::engine::Runtime;
use crate::message;
use crate::outcome::{Body, Outcome};
use crate::site::Site;
use crate::worker::{Shared, Worker};

/// What an app is made of.
#[derive(Debug)]
pub struct AppSource {
    /// The app as data.
    pub manifest: Manifest,
    /// The contents of its static files.
    pub site: SiteRoot,
    /// The machine code of its components.
    pub code: HostCode,
}

/// Where the contents of static files are.
#[derive(Debug)]
pub enum SiteRoot {
    /// A folder that nobody changes: an image's, or one unpacked from it.
    Sealed(PathBuf),
    /// A project's files, in the order of the manifest, read anew each time.
    Live(Vec<PathBuf>),
}

/// A loaded app.
pub struct App {
    manifest: Manifest,
    routes: Routes,
    site: Site,
    workers: Vec<Worker>,
}

/// Why an app can't be served.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There is no valid manifest.
    #[error("cannot load app from {}", dir.display())]
    Manifest {
        /// The app's folder.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// The routes contradict each other.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The site's folder can't be opened; the cause names it.
    #[error("cannot open site")]
    Site(#[source] io::Error),
    /// A component has no code.
    #[error("cannot load workers")]
    Code(#[from] CodeError),
    /// A component that answers no HTTP.
    #[error(
        "cannot load worker {source_file:?}: expected a component that exports wasi:http/incoming-handler"
    )]
    Worker {
        /// The worker's source.
        source_file: String,
        /// What it lacks, or asks for in vain.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The thread that interrupts guests can't be started.
    #[error("cannot start the epoch thread")]
    Thread(#[source] io::Error),
}

impl AppSource {
    /// The app in the folder `dir`, as it lies in an image under `/app`:
    /// `wharf.json`, `site/`, and machine code by `code`.
    ///
    /// # Errors
    /// [`AppError::Manifest`]: there is no valid manifest.
    pub fn sealed(dir: &Path, code: HostCode) -> Result<Self, AppError> {
        let manifest = Manifest::read(&dir.join(MANIFEST_FILE))
            .map_err(|source| AppError::Manifest { dir: dir.to_owned(), source })?;
        Ok(Self { manifest, site: SiteRoot::Sealed(dir.join("site")), code })
    }

    /// A project: its manifest, the site's files in the manifest's order, and
    /// the folder of its code.
    #[must_use]
    pub const fn live(manifest: Manifest, files: Vec<PathBuf>, code: CodeDir) -> Self {
        Self { manifest, site: SiteRoot::Live(files), code: HostCode::Image(code) }
    }
}

impl App {
    /// Loads all that requests will need.
    ///
    /// # Errors
    /// [`AppError`]: something that the manifest names is missing or malformed.
    pub fn load(runtime: &Runtime, source: AppSource) -> Result<Self, AppError> {
        let AppSource { manifest, site, code } = source;
        let routes = Routes::new(&manifest)?;
        let site = Site::open(site, &manifest.site.files).map_err(AppError::Site)?;
        let components = manifest.components.iter().map(|component| code.load(runtime, &component.sha256));
        let components = components.collect::<Result<Vec<Component>, _>>()?;
        let shared = Arc::new(Shared::new(runtime.engine()).map_err(AppError::Thread)?);
        let workers = manifest.workers.iter().map(|worker| {
            let component = &components[worker.component];
            Worker::new(worker.clone(), component, Arc::clone(&shared)).map_err(|error| AppError::Worker {
                source_file: worker.source.clone(),
                source: error.into(),
            })
        });
        let workers = workers.collect::<Result<_, _>>()?;
        Ok(Self { manifest, routes, site, workers })
    }

    /// The app as data.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where requests go.
    #[must_use]
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Answers one request.
    pub(crate) async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        if !message::is_sound(&request) {
            return message::refusal();
        }
        let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
        let outcome = match decode_path(request.uri().path()) {
            Some(path) => self.answer(&path, request).await,
            None => Outcome::BadPath,
        };
        outcome.into_response(&query, self.manifest.site.isolated)
    }

    async fn answer(&self, path: &str, request: Request<Incoming>) -> Outcome {
        let files = &self.manifest.site.files;
        match self.routes.resolve(path) {
            Target::Asset(index) => self.site.answer(index, &files[index], &request.into_parts().0),
            Target::Worker(index, params) => self.workers[index].answer(request, &params).await,
            Target::Redirect(path) => Outcome::Redirect(path),
            Target::NotFound(Some(page)) => self.site.not_found(page, &files[page], request.headers()),
            Target::NotFound(None) => Outcome::NotFound,
        }
    }
}

/// The path of a request, decoded once; `None` where it can't name anything:
/// not UTF-8, a NUL, a backslash, or a segment that is `.` or `..`.
fn decode_path(path: &str) -> Option<String> {
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let harmless = path.starts_with('/')
        && !path.contains(['\0', '\\'])
        && path.split('/').all(|segment| segment != "." && segment != "..");
    harmless.then(|| path.into_owned())
}

#[cfg(test)]
mod tests {
    use super::decode_path;

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(decode_path("/a%20b/%40x").as_deref(), Some("/a b/@x"));
        assert_eq!(decode_path("/%2561").as_deref(), Some("/%61"));
        assert_eq!(decode_path("/").as_deref(), Some("/"));
    }

    #[test]
    fn paths_that_lead_out_or_name_nothing_are_refused() {
        for path in ["/../x", "/a/%2e%2E/x", "/%00", "/a%5cb", "/%ff", "*", "/a/./b", "/.."] {
            assert_eq!(decode_path(path), None, "{path}");
        }
    }
}
