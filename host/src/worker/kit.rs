//! Outbound HTTP for core modules by the language kits of Wasm Workers Server.
//!
//! Their host gave them one function, `http.send-http-request` (its wit/core/http.wit),
//! lowered by the canonical ABI of the component model as it was before components: a
//! core module imports it, and exports `canonical_abi_realloc` for what it returns. What
//! may be sent is what the worker is granted, as for all others.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use tracing::debug;
use wasmtime::{Caller, Extern, Linker, Memory, Result, TypedFunc, format_err};
use wasmtime_wasi_http::{Error as HttpError, WasiHttpHooks as _};

use super::AbortOnDrop;
use super::command::ModuleState;

/// Most bytes of a response's body: 32 MiB, as a worker may answer with.
const LARGEST_BODY: usize = super::wws::LARGEST_OUTPUT;

/// Most headers of a request.
const MOST_HEADERS: u32 = 1000;

/// `method` of the interface, in its order.
const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::HEAD];

/// `error` of the interface, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    InvalidRequest = 0,
    InvalidResponseBody = 2,
    NotAllowed = 3,
    InternalError = 4,
    Timeout = 5,
}

/// `request` of the interface, flattened: whether there is a body, and where it is, how
/// many there are of what, and where.
#[derive(Clone, Copy)]
struct Lowered {
    has_body: u32,
    body: (u32, u32),
    headers: (u32, u32),
    method: u32,
    uri: (u32, u32),
}

/// What came back.
struct Received {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

/// The guest's memory, and its way to get more of it.
struct Heap {
    memory: Memory,
    realloc: TypedFunc<(u32, u32, u32, u32), u32>,
}

/// Lets modules import the function. Who is granted no outbound request is told so.
pub(super) fn add_to_linker(linker: &mut Linker<ModuleState>) -> Result<()> {
    type Flat = (u32, u32, u32, u32, u32, u32, u32, u32, u32, u32, u32);
    linker.func_wrap_async("http", "send-http-request", |mut caller, flat: Flat| {
        // The parameters of a form, which its host never read, are left out.
        let (has_body, body, body_length, headers, header_count, method, _, _, uri, uri_length, result) =
            flat;
        let lowered = Lowered {
            has_body,
            body: (body, body_length),
            headers: (headers, header_count),
            method,
            uri: (uri, uri_length),
        };
        Box::new(async move {
            let heap = Heap::of(&mut caller)?;
            let received = match heap.request(&caller, lowered)? {
                Ok(request) => send(&mut caller, request).await,
                Err(text) => Err((Kind::InvalidRequest, text)),
            };
            heap.write(&mut caller, result, received).await
        })
    })?;
    Ok(())
}

async fn send(
    caller: &mut Caller<'_, ModuleState>,
    request: Request<Bytes>,
) -> std::result::Result<Received, (Kind, String)> {
    let request = request.map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync());
    let granted = &mut caller.data_mut().granted;
    let sent = granted.send_request(request, None, Box::new(async { Ok(()) }));
    let (response, connection) = Box::into_pin(sent).await.map_err(|error| failure(&error))?;
    // It is what the body comes by, and ends with this call.
    let _connection = AbortOnDrop(Some(tokio::spawn(Box::into_pin(connection)).abort_handle()));
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LARGEST_BODY).collect().await.map_err(|error| {
        debug!(error, "body of a response can't be read");
        (Kind::InvalidResponseBody, "the body of the response cannot be read".to_owned())
    })?;
    Ok(Received { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes() })
}

fn failure(error: &HttpError) -> (Kind, String) {
    let kind = match error {
        HttpError::HttpRequestDenied | HttpError::DestinationIpProhibited => Kind::NotAllowed,
        HttpError::HttpRequestUriInvalid | HttpError::HttpRequestMethodInvalid => Kind::InvalidRequest,
        HttpError::ConnectionTimeout
        | HttpError::ConnectionReadTimeout
        | HttpError::ConnectionWriteTimeout
        | HttpError::HttpResponseTimeout
        | HttpError::DnsTimeout => Kind::Timeout,
        _ => Kind::InternalError,
    };
    let text = match kind {
        Kind::NotAllowed => "the request is not allowed: see `outbound`, or allowed_hosts".to_owned(),
        _ => error.to_string(),
    };
    (kind, text)
}

impl Heap {
    fn of(caller: &mut Caller<'_, ModuleState>) -> Result<Self> {
        let memory = caller.get_export("memory").and_then(Extern::into_memory);
        let memory = memory.ok_or_else(|| format_err!("the module exports no memory"))?;
        let realloc = caller.get_export("canonical_abi_realloc").and_then(Extern::into_func);
        let realloc = realloc.ok_or_else(|| format_err!("the module exports no canonical_abi_realloc"))?;
        Ok(Self { memory, realloc: realloc.typed(&*caller)? })
    }

    /// The request, or what is wrong with it.
    fn request(
        &self,
        caller: &Caller<'_, ModuleState>,
        lowered: Lowered,
    ) -> Result<std::result::Result<Request<Bytes>, String>> {
        let memory = self.memory.data(caller);
        let bytes = |(start, length): (u32, u32)| {
            let end = (start as usize).checked_add(length as usize);
            let range = end.and_then(|end| memory.get(start as usize..end));
            range.ok_or_else(|| format_err!("a request lies outside of the memory"))
        };
        let (start, count) = lowered.headers;
        if count > MOST_HEADERS {
            return Ok(Err(format!("{count} headers: expected at most {MOST_HEADERS}")));
        }
        let mut headers = HeaderMap::new();
        for pair in bytes((start, count * 16))?.chunks_exact(16) {
            let word = |at: usize| u32::from_le_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]);
            let (name, value) = (bytes((word(0), word(4)))?, bytes((word(8), word(12)))?);
            let parsed = HeaderName::from_bytes(name).ok().zip(HeaderValue::from_bytes(value).ok());
            let Some((name, value)) = parsed else {
                return Ok(Err(format!("malformed header {:?}", String::from_utf8_lossy(name))));
            };
            headers.append(name, value);
        }
        let Ok(uri) = Uri::try_from(bytes(lowered.uri)?) else { return Ok(Err("malformed URI".into())) };
        let Some(method) = METHODS.get(lowered.method as usize) else {
            return Ok(Err("unknown method".into()));
        };
        let body = if lowered.has_body == 0 { &[] } else { bytes(lowered.body)? };
        let mut request = Request::new(Bytes::copy_from_slice(body));
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method.clone(), uri, headers);
        Ok(Ok(request))
    }

    /// Puts the `result<response, error>` to where the guest wants it.
    async fn write(
        &self,
        caller: &mut Caller<'_, ModuleState>,
        result: u32,
        received: std::result::Result<Received, (Kind, String)>,
    ) -> Result<()> {
        let words = match received {
            Ok(Received { status, headers, body }) => {
                let body = self.put(caller, 1, &body).await?;
                let mut pairs = Vec::with_capacity(headers.len() * 16);
                for (name, value) in &headers {
                    for text in [name.as_str().as_bytes(), value.as_bytes()] {
                        // Texts of the interface are UTF-8, and a guest takes them as such.
                        let text = String::from_utf8_lossy(text);
                        let (start, length) = self.put(caller, 1, text.as_bytes()).await?;
                        pairs.extend_from_slice(&start.to_le_bytes());
                        pairs.extend_from_slice(&length.to_le_bytes());
                    }
                }
                let (start, _) = self.put(caller, 4, &pairs).await?;
                let count = u32::try_from(headers.len())?;
                [0, 1, body.0, body.1, start, count, u32::from(status)]
            }
            Err((kind, text)) => {
                let (start, length) = self.put(caller, 1, text.as_bytes()).await?;
                [1, kind as u32, start, length, 0, 0, 0]
            }
        };
        let words = words.map(u32::to_le_bytes);
        self.memory.write(caller, result as usize, words.as_flattened())?;
        Ok(())
    }

    /// Where the guest has `bytes` now, and how many they are.
    async fn put(
        &self,
        caller: &mut Caller<'_, ModuleState>,
        align: u32,
        bytes: &[u8],
    ) -> Result<(u32, u32)> {
        let length = u32::try_from(bytes.len())?;
        let start = self.realloc.call_async(&mut *caller, (0, 0, align, length)).await?;
        self.memory.write(&mut *caller, start as usize, bytes)?;
        Ok((start, length))
    }
}
