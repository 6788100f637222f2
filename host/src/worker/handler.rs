//! Components that handle HTTP, of either WASI.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Request, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::{Accessor, InstancePre};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::bindings::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p3::Request as ServiceRequest;
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};
use wasmtime_wasi_http::{Error as HttpError, WasiBody, WasiHttpView as _};
use wharf_app::Wasi;

use super::GuestResponse;
use super::instance::State;

/// A component, linked.
#[derive(Clone)]
pub(super) enum Handler {
    /// It exports `wasi:http/incoming-handler`.
    V02(ProxyPre<State>),
    /// It exports `wasi:http/handler`.
    V03(ServicePre<State>),
}

/// An instance of it.
pub(super) enum Guest {
    V02(Proxy),
    V03(Service),
}

impl Handler {
    /// # Errors
    /// The component lacks the handler of that WASI.
    pub(super) fn new(pre: InstancePre<State>, wasi: Wasi) -> wasmtime::Result<Self> {
        match wasi {
            Wasi::V01 | Wasi::V02 => ProxyPre::new(pre).map(Self::V02),
            Wasi::V03 => ServicePre::new(pre).map(Self::V03),
        }
    }

    pub(super) fn engine(&self) -> &wasmtime::Engine {
        match self {
            Self::V02(pre) => pre.engine(),
            Self::V03(pre) => pre.engine(),
        }
    }

    pub(super) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Guest> {
        match self {
            Self::V02(pre) => pre.instantiate_async(store).await.map(Guest::V02),
            Self::V03(pre) => pre.instantiate_async(store).await.map(Guest::V03),
        }
    }
}

impl Guest {
    /// Lets the guest answer `request`, and returns when it is done. It gives
    /// its response to `sender` before.
    pub(super) async fn handle(
        &self,
        store: &mut Store<State>,
        scheme: Scheme,
        request: Request<WasiBody>,
        sender: oneshot::Sender<GuestResponse>,
    ) -> wasmtime::Result<()> {
        match self {
            Self::V02(proxy) => {
                let request = store.data_mut().http().new_incoming_request(scheme, request)?;
                let out = store.data_mut().http().new_response_outparam(sender)?;
                proxy.wasi_http_incoming_handler().call_handle(store, request, out).await
            }
            Self::V03(service) => {
                let scheme = match scheme {
                    Scheme::Https => http::uri::Scheme::HTTPS,
                    _ => http::uri::Scheme::HTTP,
                };
                let request = absolute(request, scheme)?;
                store.run_concurrent(async |accessor| serve(accessor, service, request, sender).await).await?
            }
        }
    }
}

/// Runs the guest within the store's event loop, until no task of it is left:
/// those that write the body may outlive the call.
async fn serve(
    accessor: &Accessor<State>,
    service: &Service,
    request: Request<WasiBody>,
    sender: oneshot::Sender<GuestResponse>,
) -> wasmtime::Result<()> {
    let (request, received) = accessor.with(|mut store| {
        let (request, received) = ServiceRequest::from_http(store.data_mut().http().hooks, request);
        let received: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(received);
        (request, received)
    });
    let (ending, ended) = oneshot::channel();
    let response = match service.handle(accessor, request).await? {
        Ok(response) => {
            let response = accessor.with(|store| response.into_http(store, received))?;
            Ok(response.map(|body| match body.is_end_stream() {
                // Nobody will ask for what is in it.
                true => body,
                false => Awaited { body, ending: Some(ending) }.boxed_unsync(),
            }))
        }
        Err(code) => {
            // There is no body to wait for.
            drop(ending);
            Err(ErrorCode::InternalError(Some(format!("{code:?}"))))
        }
    };
    // A client that went away is no error of the worker.
    let _ = sender.send(response);
    let _ = ended.await;
    poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
    Ok(())
}

/// A body that the call waits for: what the host itself writes to it, as of a file,
/// is written by the store, which no task of the guest may need any more. It ends
/// with the call, also one that is the request's or another server's.
struct Awaited {
    body: HyperOutgoingBody,
    ending: Option<oneshot::Sender<()>>,
}

impl Body for Awaited {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.ending.as_mut().is_some_and(|ending| ending.poll_closed(cx).is_ready()) {
            return Poll::Ready(Some(Err(HttpError::HttpResponseIncomplete)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            // Nobody waits if the call was given up just now.
            self.ending.take().map(|ending| ending.send(()));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The request with all of its address in one place, as WASI 0.3 has it.
fn absolute(
    mut request: Request<WasiBody>,
    scheme: http::uri::Scheme,
) -> wasmtime::Result<Request<WasiBody>> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.clone(),
        None => host(request.headers())?,
    };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    // `OPTIONS *` does not come this far.
    parts.path_and_query.get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(parts)?;
    Ok(request)
}

fn host(headers: &HeaderMap) -> wasmtime::Result<Authority> {
    let host = headers.get(HOST).map(http::HeaderValue::as_bytes).unwrap_or_default();
    Ok(Authority::try_from(host)?)
}
