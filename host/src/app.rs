//! An app, loaded and ready to answer.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::header::{ACCEPT, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use wharf_app::{
    Abi, Found, MANIFEST_FILE, Manifest, ManifestError, Reads, RouteError, Routes, Target, is_harmless,
};

use crate::body::Body;
use crate::code::{CodeDir, CodeError, HostCode};
use crate::compression;
use crate::engine::Runtime;
use crate::grants::{GrantError, Granter};
use crate::message;
use crate::metrics::Route;
use crate::observe::RequestContext;
use crate::outcome::Outcome;
use crate::site::Site;
use crate::site_headers::SiteHeaders;
use crate::worker::{Shared, Worker};

/// Longest path, in bytes as it is sent: longer than any that people have, and
/// what nginx takes by default. Past it: 414.
const LONGEST_PATH: usize = 8 << 10;

/// What an app is made of.
#[derive(Debug)]
pub struct AppSource {
    /// The app as data.
    pub manifest: Manifest,
    /// The contents of its static files.
    pub site: SiteRoot,
    /// Where the folders are that workers mount from the app.
    pub files: PathBuf,
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
    headers: SiteHeaders,
    /// Whether any rule may ask for the host of a request.
    asks_for_host: bool,
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
    /// A component that lacks what its ABI needs.
    #[error("cannot load worker {source_file:?}: expected a component that {}", match abi {
        Abi::Http => "exports wasi:http/incoming-handler or wasi:http/handler",
        Abi::Cgi | Abi::Wws => "exports wasi:cli/run",
    })]
    Worker {
        /// The worker's source.
        source_file: String,
        /// How it was to be spoken to.
        abi: Abi,
        /// What it lacks, or asks for in vain.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A worker can't be given what it is granted.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The thread that interrupts guests can't be started.
    #[error("cannot start the epoch thread")]
    Thread(#[source] io::Error),
}

impl AppError {
    /// What the user can do about it, if that isn't plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Grant(error) => error.hint(),
            _ => None,
        }
    }
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
        Ok(Self { manifest, site: SiteRoot::Sealed(dir.join("site")), files: dir.join("files"), code })
    }

    /// The project in `dir`: its manifest, the site's files in the manifest's order, and
    /// the folder of its code.
    #[must_use]
    pub const fn live(dir: PathBuf, manifest: Manifest, site: Vec<PathBuf>, code: CodeDir) -> Self {
        Self { manifest, site: SiteRoot::Live(site), files: dir, code: HostCode::Image(code) }
    }
}

impl App {
    /// Loads all that requests will need.
    ///
    /// # Errors
    /// [`AppError`]: something that the manifest names is missing or malformed.
    pub fn load(runtime: &Runtime, source: AppSource) -> Result<Self, AppError> {
        let AppSource { manifest, site, files, code } = source;
        let routes = Routes::new(&manifest)?;
        let headers = SiteHeaders::new(&manifest.site.headers)?;
        let asks_for_host = !headers.is_empty() || !manifest.site.redirects.is_empty();
        let mut granter = Granter::new(&site, &files);
        let grants = manifest.workers.iter().map(|worker| granter.grants(worker));
        let grants = grants.collect::<Result<Vec<_>, _>>()?;
        let site = Site::open(site, &manifest.site.files).map_err(AppError::Site)?;
        let programs = manifest.components.iter().map(|component| code.load(runtime, component));
        let programs = programs.collect::<Result<Vec<_>, _>>()?;
        let shared = Arc::new(Shared::new(programs.clone()).map_err(AppError::Thread)?);
        let workers = manifest.workers.iter().zip(grants).enumerate().map(|(index, (worker, grants))| {
            let program = &programs[worker.component];
            let wasi = manifest.components[worker.component].wasi;
            Worker::new(index, worker.clone(), (program, wasi), grants, Arc::clone(&shared)).map_err(
                |error| AppError::Worker {
                    source_file: worker.source.clone(),
                    abi: worker.abi,
                    source: error.into(),
                },
            )
        });
        let workers = workers.collect::<Result<_, _>>()?;
        Ok(Self { manifest, routes, site, headers, asks_for_host, workers })
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
    pub(crate) async fn respond(
        &self,
        request: Request<Incoming>,
        context: &RequestContext,
    ) -> Response<Body> {
        if !message::is_sound(&request) {
            return message::refusal();
        }
        // Both share the request's buffer: nothing is copied.
        let uri = request.uri().clone();
        let host = self.asks_for_host.then(|| host_of(&request)).flatten();
        let host = host.as_ref().map_or("", Host::as_str);
        let isolated = self.manifest.site.isolated;
        let path = match decode_path(uri.path()) {
            Ok(path) => path,
            Err(_) if uri.path() == "*" && request.method() == Method::OPTIONS => {
                return Outcome::Options.into_response(None, isolated);
            }
            Err(refused) => return Outcome::from(refused).into_response(None, isolated),
        };
        let mut outcome = self.answer(host, &path, request, context).await;
        context.became(&outcome);
        if let Some(file) = outcome.file_mut() {
            file.media_type = self.headers.media_type(host, &path, file.status, file.media_type.take());
        }
        let is_static = !matches!(outcome, Outcome::Worker(_));
        let mut response = outcome.into_response(uri.query(), isolated);
        if is_static {
            context.sign(&mut response);
        }
        // As on Pages: a worker's headers are its own, and so are our failures.
        if is_static && !self.headers.is_empty() && !response.status().is_server_error() {
            self.headers.apply(host, &path, &mut response);
        }
        response
    }

    async fn answer(
        &self,
        host: &str,
        path: &str,
        mut request: Request<Incoming>,
        context: &RequestContext,
    ) -> Outcome {
        let site = &self.manifest.site;
        let (method, headers) = (request.method(), request.headers());
        let reads = if matches!(*method, Method::GET | Method::HEAD) { Reads::Yes } else { Reads::No };
        let Found { target, rewritten } = self.routes.find(host, path, reads);
        context.routed(match target {
            Target::Asset(_) => Route::Static,
            Target::Worker(index, _) => Route::Worker(u32::try_from(index).unwrap_or_default()),
            Target::Redirect(_) | Target::Elsewhere { .. } => Route::Redirect,
            Target::NotFound(_) => Route::NotFound,
        });
        match target {
            Target::Asset(index) => self.site.answer(index, &site.files[index], method, headers),
            Target::Worker(index, params) => {
                if let Some(rewritten) = rewritten {
                    rewrite(request.uri_mut(), rewritten);
                }
                let terms = compression::Terms::of(&request);
                match self.workers[index].answer(request, &params, context).await {
                    Outcome::Worker(response) => Outcome::Worker(compression::compress(response, terms)),
                    other => other,
                }
            }
            Target::Redirect(path) => Outcome::Redirect(path),
            Target::Elsewhere { status, location } => Outcome::Elsewhere { status, location },
            Target::NotFound(page) => {
                let not_found = || match page {
                    Some(page) => self.site.not_found(page, &site.files[page], headers),
                    None => Outcome::NotFound,
                };
                match self.routes.index().filter(|_| site.spa && reads == Reads::Yes) {
                    None => not_found(),
                    Some(index) => Outcome::OfNavigation(Box::new(if is_navigation(path, headers) {
                        self.site.answer(index, &site.files[index], method, headers)
                    } else {
                        not_found()
                    })),
                }
            }
        }
    }
}

/// The authority of a request: HTTP/2 has it in the address, HTTP/1.1 in a field.
enum Host {
    Address(Uri),
    Field(HeaderValue),
}

impl Host {
    fn as_str(&self) -> &str {
        match self {
            Self::Address(uri) => uri.authority().map_or("", http::uri::Authority::as_str),
            Self::Field(value) => value.to_str().unwrap_or_default(),
        }
    }
}

fn host_of(request: &Request<Incoming>) -> Option<Host> {
    match request.uri().authority() {
        Some(_) => Some(Host::Address(request.uri().clone())),
        None => request.headers().get(HOST).cloned().map(Host::Field),
    }
}

/// Gives `uri` the path and query of a rewrite; without a query, its own stays.
fn rewrite(uri: &mut Uri, mut rewritten: String) {
    if let Some(query) = uri.query().filter(|_| !rewritten.contains('?')) {
        rewritten.push('?');
        rewritten.push_str(query);
    }
    let mut parts = std::mem::take(uri).into_parts();
    // It is encoded, so it is one; else the address is that of the root.
    parts.path_and_query = rewritten.parse().ok().or(Some(http::uri::PathAndQuery::from_static("/")));
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Whether a browser goes to a page, rather than loads something for one: a
/// script that is missing must not be answered by a page.
///
/// `Sec-Fetch-Mode` (Fetch Metadata) says so; of clients without it, who asks
/// for HTML by name does, and who takes anything does if the last part of the
/// path has no extension.
fn is_navigation(path: &str, headers: &HeaderMap) -> bool {
    if let Some(mode) = headers.get("sec-fetch-mode") {
        return mode == "navigate";
    }
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let types = accepts.flat_map(|value| value.split(',')).map(|part| {
        let essence = part.split(';').next().unwrap_or_default();
        essence.trim()
    });
    let (mut any, mut count) = (false, 0);
    for essence in types {
        if essence.eq_ignore_ascii_case("text/html") {
            return true;
        }
        any |= essence == "*/*";
        count += 1;
    }
    let has_extension = path.rsplit('/').next().is_some_and(|name| name.contains('.'));
    (any || count == 0) && !has_extension
}

/// Why a path is not looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefusedPath {
    Malformed,
    TooLong,
}

impl From<RefusedPath> for Outcome {
    fn from(refused: RefusedPath) -> Self {
        match refused {
            RefusedPath::Malformed => Self::BadPath,
            RefusedPath::TooLong => Self::PathTooLong,
        }
    }
}

/// The path of a request, decoded once. An encoded slash is a slash, as in
/// nginx.
///
/// Refused is what can't name anything: what is not UTF-8, or not [`is_harmless`].
fn decode_path(path: &str) -> Result<Cow<'_, str>, RefusedPath> {
    if path.len() > LONGEST_PATH {
        return Err(RefusedPath::TooLong);
    }
    let path = percent_decode_str(path).decode_utf8().map_err(|_| RefusedPath::Malformed)?;
    if is_harmless(&path) { Ok(path) } else { Err(RefusedPath::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once() {
        let decoded = |path| decode_path(path).ok();
        assert_eq!(decoded("/a%20b/%40x").as_deref(), Some("/a b/@x"));
        assert_eq!(decoded("/%2561").as_deref(), Some("/%61"));
        assert_eq!(decoded("/a%2Fb").as_deref(), Some("/a/b"));
        assert!(matches!(decoded("/a/b"), Some(Cow::Borrowed("/a/b"))), "copied without need");
    }

    #[test]
    fn paths_that_lead_out_or_name_nothing_are_refused() {
        for path in
            ["/../x", "/a/%2e%2E/x", "/%00", "/a%5cb", "/%ff", "*", "/a/./b", "/..", "/a%2f..%2fb", ""]
        {
            assert!(matches!(decode_path(path), Err(RefusedPath::Malformed)), "{path}");
        }
        let long = |length| format!("/{}", "a".repeat(length - 1));
        assert!(decode_path(&long(LONGEST_PATH)).is_ok());
        assert!(matches!(decode_path(&long(LONGEST_PATH + 1)), Err(RefusedPath::TooLong)));
    }

    #[test]
    fn a_navigation_is_told_from_a_load() {
        let is = |path: &str, fields: &[(&'static str, &'static str)]| {
            let field =
                |&(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value));
            is_navigation(path, &fields.iter().map(field).collect())
        };
        let page = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        assert!(is("/user/john.doe", &[page]));
        assert!(is("/a", &[("accept", "*/*")]));
        assert!(is("/a", &[]));
        assert!(is("/a.b", &[("sec-fetch-mode", "navigate"), ("accept", "*/*")]));
        assert!(!is("/a", &[("sec-fetch-mode", "no-cors"), page]));
        assert!(!is("/a.js", &[("accept", "*/*")]));
        assert!(!is("/a.js", &[]));
        assert!(!is("/a", &[("accept", "application/json")]));
    }

    #[test]
    fn a_rewrite_keeps_the_query_unless_it_has_its_own() {
        let rewritten = |uri: &str, to: &str| {
            let mut uri: Uri = uri.parse().unwrap();
            rewrite(&mut uri, to.into());
            uri.to_string()
        };
        assert_eq!(rewritten("/a?x=1", "/b"), "/b?x=1");
        assert_eq!(rewritten("/a?x=1", "/b?y=2"), "/b?y=2");
        assert_eq!(rewritten("http://h:1/a", "/%C3%A4"), "http://h:1/%C3%A4");
    }
}
