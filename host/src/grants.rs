//! What a worker may do beyond computing: opened once, when the app is
//! loaded, and handed to each instance.
//!
//! [`Granter`] opens what an app's workers are granted and fails where the
//! machine can't give it; [`Grants`] is one worker's share; [`Granted`] is what
//! the store of an instance holds. All of it is denied by default: an instance
//! without grants has clocks, randomness, and stdout and stderr to the log. It
//! deliberately knows nothing of routes and limits.

mod address;
mod egress;
mod environment;
mod key_value;
mod mounts;
mod resolver;
mod sockets;

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::timeout;
use tracing::warn;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error as HttpError, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};
use wharf_app::{MissingVariable, Outbound, Worker};

use self::egress::{Egress, TlsError};
use self::key_value::{KeyValue, Network, Stores};
use self::mounts::{MountError, Writable};
use self::resolver::Resolver;
use self::sockets::Sockets;
use crate::app::SiteRoot;

pub(crate) use self::key_value::{Changed, Error as StateError, StoreError};

/// Names a PEM file of certificate authorities, as for OpenSSL and Go.
const CERTIFICATES: &str = "SSL_CERT_FILE";

const CERTIFICATES_HINT: &str = "SSL_CERT_FILE names a file of PEM certificates to trust, or none";

/// Denied requests of one instance that the log tells of; a guest could fill
/// the log with more.
const DENIALS_TOLD: u8 = 4;

/// Opens what the workers of one app are granted.
pub(crate) struct Granter<'a> {
    site: &'a SiteRoot,
    /// Where the app's own folders are.
    files: &'a Path,
    variable: fn(&str) -> Option<String>,
    resolver: Arc<Resolver>,
    stores: Stores,
    /// The folders that workers so far write to.
    writable: Vec<Writable>,
}

/// What one worker is granted: made once, when the app is loaded.
pub(crate) struct Grants {
    worker: String,
    env: Vec<(String, String)>,
    /// The mounted folders, open; `None` if there are none.
    filesystem: Option<WasiFilesystemCtx>,
    config: WasiConfigVariables,
    key_value: KeyValue,
    /// `None`: all outbound requests are denied.
    egress: Option<Arc<Egress>>,
    /// `None`: there are no sockets.
    sockets: Option<Arc<Sockets>>,
    /// Whether it writes to folders.
    writes: bool,
}

/// One instance's hold on what its worker is granted.
pub(crate) struct Granted {
    grants: Arc<Grants>,
    denials_left: u8,
}

/// The state of a store whose guest is given grants.
pub(crate) trait GrantsView: Send + 'static {
    /// What is granted, and the store's resources.
    fn granted(&mut self) -> (&mut Granted, &mut ResourceTable);
}

/// Why a worker can't be given what it is granted.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// A variable of the host's environment is missing.
    #[error("worker {worker:?} can't have {setting}")]
    Variable {
        /// The worker.
        worker: String,
        /// What needs the variable: `env "DATABASE_URL"`.
        setting: String,
        /// The variable.
        #[source]
        source: MissingVariable,
    },
    /// A folder can't be mounted.
    #[error("worker {worker:?} can't have the folder {folder:?}")]
    Mount {
        /// The worker.
        worker: String,
        /// The host's folder.
        folder: String,
        /// What is wrong with it.
        #[source]
        source: MountError,
    },
    /// A key-value store can't be opened.
    #[error("worker {worker:?} can't have the key-value store {store:?}")]
    Store {
        /// The worker.
        worker: String,
        /// The name that the worker opens it by.
        store: String,
        /// What is wrong with it.
        #[source]
        source: StoreError,
    },
    /// There are no certificate authorities.
    #[error("worker {worker:?} can't send requests by https")]
    Tls {
        /// The worker.
        worker: String,
        /// What is wrong.
        #[source]
        source: TlsError,
    },
}

impl GrantError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Variable { source: MissingVariable(name), .. } => Some(format!(
                "set it where the host starts (docker run -e {name}=…), or say `optional = true` beside it in wharf.toml"
            )),
            Self::Mount { folder, source, .. } => source.hint(folder),
            Self::Store { source, .. } => source.hint(),
            Self::Tls { .. } => Some(CERTIFICATES_HINT.into()),
        }
    }
}

impl<'a> Granter<'a> {
    /// For an app whose static files are those of `site`, and whose folders for workers
    /// lie in `files`; variables are
    /// looked up in this process's environment.
    pub(crate) fn new(site: &'a SiteRoot, files: &'a Path) -> Self {
        Self::with_environment((site, files), |name| std::env::var(name).ok())
    }

    pub(crate) fn with_environment(
        (site, files): (&'a SiteRoot, &'a Path),
        variable: fn(&str) -> Option<String>,
    ) -> Self {
        Self {
            site,
            files,
            variable,
            resolver: Arc::default(),
            stores: Stores::default(),
            writable: Vec::new(),
        }
    }

    /// Opens what `worker` is granted.
    ///
    /// # Errors
    /// [`GrantError`]: something is missing on this machine.
    pub(crate) fn grants(&mut self, worker: &Worker) -> Result<Arc<Grants>, GrantError> {
        let name = || worker.name.clone();
        let granted = &worker.grants;
        let variable = self.variable;
        let env = environment::resolve(&worker.env, variable).map_err(|(key, source)| {
            GrantError::Variable { worker: name(), setting: format!("env {key:?}"), source }
        })?;
        let config = environment::resolve(&granted.config, variable).map_err(|(key, source)| {
            GrantError::Variable { worker: name(), setting: format!("config {key:?}"), source }
        })?;
        let filesystem =
            mounts::open(&granted.mounts, (self.site, self.files)).map_err(|(folder, source)| {
                GrantError::Mount { worker: name(), folder: folder.display().to_string(), source }
            })?;
        self.writable.extend(mounts::writable(&worker.name, &granted.mounts));
        let place = |name: &str| variable(name).filter(|place| !place.is_empty());
        let places = environment::resolve(&granted.kv, place).map_err(|(key, source)| {
            GrantError::Variable { worker: name(), setting: format!("kv {key:?}"), source }
        })?;
        let places = self.stores.find(places).map_err(|(store, source)| GrantError::Store {
            worker: name(),
            store,
            source,
        })?;
        // Of all workers so far, and before a store is opened: what a guest
        // made of its folder is not read.
        for folder in self.stores.folders() {
            if let Some(writable) = self.writable.iter().find(|writable| writable.reaches(folder)) {
                return Err(writable.refused(folder));
            }
        }
        let certificates = variable(CERTIFICATES).filter(|path| !path.is_empty());
        let certificates = certificates.as_deref().map(Path::new);
        let network = Network { resolver: &self.resolver, certificates };
        let key_value = self.stores.open(places, &network).map_err(|(store, source)| GrantError::Store {
            worker: name(),
            store,
            source,
        })?;
        let egress = match granted.outbound.as_slice() {
            entries if !entries.iter().all(Outbound::is_tcp) => {
                let egress = Egress::new(entries.to_vec(), Arc::clone(&self.resolver), certificates)
                    .map_err(|source| GrantError::Tls { worker: name(), source })?;
                Some(Arc::new(egress))
            }
            _ => None,
        };
        let sockets = Sockets::new(&worker.name, &granted.outbound, &self.resolver);
        let config = config.into_iter().collect();
        let writes = granted.mounts.iter().any(|mount| mount.write);
        Ok(Arc::new(Grants { worker: name(), env, filesystem, config, key_value, egress, sockets, writes }))
    }
}

impl Grants {
    /// A WASI context with what is granted, from a builder that has the rest.
    pub(crate) fn context(&self, builder: &mut WasiCtxBuilder) -> WasiCtx {
        self.environment(builder);
        let mut context = builder.build();
        self.mount(&mut context);
        context
    }

    /// Adds the environment variables, for those who build a context
    /// themselves; they call [`Grants::mount`] afterwards.
    pub(crate) fn environment(&self, builder: &mut WasiCtxBuilder) {
        if !self.env.is_empty() {
            builder.envs(&self.env);
        }
        self.network(builder);
    }

    /// Adds what TCP is granted, for those who add the environment variables
    /// themselves.
    pub(crate) fn network(&self, builder: &mut WasiCtxBuilder) {
        match &self.sockets {
            Some(sockets) => sockets.allow(builder),
            // As every address is denied there is nothing that a socket is good for.
            None => _ = builder.allow_tcp(false).allow_udp(false),
        }
    }

    /// The environment variables by name.
    pub(crate) fn variables(&self) -> &[(String, String)] {
        &self.env
    }

    /// Adds the mounted folders: without a syscall, as they are open already.
    pub(crate) fn mount(&self, context: &mut WasiCtx) {
        if let Some(filesystem) = &self.filesystem {
            context.filesystem().clone_from(filesystem);
        }
    }

    /// What the worker's `default` store holds as text, all of it; `None`: it has none.
    ///
    /// # Errors
    /// The store can't be read.
    pub(crate) async fn state(&self) -> Result<Option<BTreeMap<String, String>>, StateError> {
        self.key_value.state().await
    }

    /// Makes the `default` store `new` where it is different from `old`, in one step.
    /// [`Changed::No`]: another has changed some of that meanwhile. Not of a worker that
    /// also does what can't be done twice: its changes count, whatever they overwrite.
    ///
    /// # Errors
    /// The store can't be written to, or not with such keys and values.
    pub(crate) async fn change_state(
        &self,
        old: BTreeMap<String, String>,
        new: BTreeMap<String, String>,
    ) -> Result<Changed, StateError> {
        let is_repeatable = self.egress.is_none() && self.sockets.is_none() && !self.writes;
        self.key_value.change(old, new, is_repeatable).await
    }

    /// What the store of one instance holds.
    pub(crate) fn granted(self: &Arc<Self>) -> Granted {
        Granted { grants: Arc::clone(self), denials_left: DENIALS_TOLD }
    }
}

/// Lets guests import `wasi:config` and `wasi:keyvalue`, and look names up. All
/// may: who was granted nothing finds nothing there.
pub(crate) fn add_to_linker<T: GrantsView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    wasmtime_wasi_config::add_to_linker(linker, |state: &mut T| {
        WasiConfig::new(&state.granted().0.grants.config)
    })?;
    sockets::add_to_linker(linker)?;
    key_value::add_to_linker(linker)
}

type Sent<T> = Box<dyn Future<Output = Result<T, HttpError>> + Send>;

/// Bytes of a request's body that are read though the request has failed.
const DRAINED: usize = 1 << 20;

/// How long that waits for the next of it.
const DRAINING: Duration = Duration::from_millis(100);

/// A body that somebody else sends, and that can be read on when that has failed.
struct Lent(Arc<Mutex<WasiBody>>);

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        Pin::new(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

/// The same request, and its body for when it could not be sent.
fn lend(request: Request<WasiBody>) -> (Request<WasiBody>, Lent) {
    let (parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body));
    (Request::from_parts(parts, Lent(Arc::clone(&body)).boxed_unsync()), Lent(body))
}

/// Reads some of what the guest still writes, before it is told that the request has
/// failed: the engine of JavaScript workers waits for its writing first, and for ever.
async fn drain<B: HttpBody<Data = Bytes> + Unpin>(mut body: B) {
    let mut left = DRAINED;
    // Who wants the answer first, and writes afterwards, gets it.
    while let Ok(Some(Ok(frame))) = timeout(DRAINING, body.frame()).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl WasiHttpHooks for Granted {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        /// One for all: it is asked for with each set of headers.
        static FILTER: LazyLock<ForbiddenHeaderFilter> =
            LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name)));
        Arc::clone(&FILTER)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Sent<()>,
    ) -> Sent<(http::Response<WasiBody>, Sent<()>)> {
        let told = self.denials_left > 0;
        let destination = match &self.grants.egress {
            Some(egress) => egress.check(&request).map(|destination| (Arc::clone(egress), destination)),
            None => Err(egress::Denied::NotGranted),
        };
        let (egress, destination) = match destination {
            Ok(allowed) => allowed,
            Err(denied) => {
                if told {
                    self.denials_left -= 1;
                    let (worker, method) = (&self.grants.worker, request.method());
                    let origin = egress::origin(request.uri());
                    warn!(worker, %method, origin, reason = %denied, "outbound request denied");
                }
                return Box::new(async move {
                    drain(request.into_body()).await;
                    Err(denied.into())
                });
            }
        };
        // Only the addresses behind a name can now deny it.
        self.denials_left = self.denials_left.saturating_sub(1);
        let worker = told.then(|| self.grants.worker.clone());
        Box::new(async move {
            let (request, body) = lend(request);
            let (response, connection) =
                match egress.send(destination, request, options.unwrap_or_default()).await {
                    Ok(sent) => sent,
                    Err(error) => {
                        if let (Some(worker), Some(origin)) = (worker, error.denied()) {
                            warn!(worker, origin, reason = %error, "outbound request denied");
                        }
                        drain(body).await;
                        return Err(error.into());
                    }
                };
            let connection: Sent<()> = Box::new(async move {
                connection.await;
                Ok(())
            });
            Ok((response, connection))
        })
    }

    /// A body of up to 64 KiB, as most are, is written whole before anybody
    /// reads it: then its guest is done at once, and its instance free.
    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        16
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        64 << 10
    }

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        egress::error_code(error)
    }
}

#[cfg(test)]
mod tests;
