//! Requests to one registry: authorised, tried again where that may help,
//! redirected without credentials, and never waiting forever.
//!
//! Owns what all requests share. Knows nothing of blobs and manifests.

use std::fs;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Body, Certificate, Response, Url};
use tokio::time::{sleep, timeout};

use super::authority::Authority;
use super::error::{RequestError, Tried};
use super::{ClientOptions, RegistryError};
use crate::Reference;

const USER_AGENT: &str = concat!("wharf/", env!("CARGO_PKG_VERSION"));
/// Redirects of one request that are followed.
const MOST_REDIRECTS: usize = 5;
/// Longest pause that a registry may ask for; past it, waiting is the user's choice.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Longest text of an error that is read.
const LONGEST_ERROR: usize = 64 << 10;

/// The way to a registry.
pub(super) struct Transport {
    reference: Reference,
    base: Url,
    options: ClientOptions,
    plain: OnceLock<reqwest::Client>,
    tls: OnceLock<reqwest::Client>,
    authority: Authority,
    /// Whether it ever answered: what never did is more likely a wrong name
    /// than a fault that passes.
    reached: AtomicBool,
}

/// A request that can be sent more than once.
#[derive(Clone)]
pub(super) struct Request {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

impl Request {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(super) fn accept(mut self, media_types: &[&str]) -> Self {
        // Several types in one header: some registries read the first header only.
        if let Ok(value) = HeaderValue::try_from(media_types.join(", ")) {
            self.headers.insert(ACCEPT, value);
        }
        self
    }

    pub(super) fn header(mut self, name: http::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }
}

impl Transport {
    pub(super) fn new(
        reference: &Reference,
        options: &ClientOptions,
        authority: Authority,
    ) -> Result<Self, RegistryError> {
        let registry = reference.registry();
        // Docker Hub's name and its registry's host differ, for historical reasons.
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let is_plain = options.insecure || (reference.is_loopback() && options.ca_certificates.is_empty());
        let scheme = if is_plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/"))
            .map_err(|_| RegistryError::InvalidAddress { registry: registry.into() })?;
        Ok(Self {
            reference: reference.clone(),
            base,
            options: options.clone(),
            plain: OnceLock::new(),
            tls: OnceLock::new(),
            authority,
            reached: AtomicBool::new(false),
        })
    }

    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// `/v2/`, to which all else is relative.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// `/v2/REPOSITORY/PATH`. A reference's parts need no escapes.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{path}", self.reference.repository()));
        url
    }

    /// What the `Location` of an answer means. Never a way out of TLS: a registry
    /// behind a proxy that ends TLS often names itself without it, and is meant.
    pub(super) fn location(answer: &Response) -> Result<Url, RequestError> {
        let text = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let url = text.and_then(|text| answer.url().join(text).ok());
        let mut url =
            url.filter(|url| matches!(url.scheme(), "http" | "https")).ok_or(RequestError::NoLocation)?;
        if answer.url().scheme() == "https" && url.scheme() == "http" {
            let is_itself = url.host() == answer.url().host() && url.port().is_none();
            if !is_itself || url.set_scheme("https").is_err() {
                return Err(RequestError::LeavesTls { host: url.host_str().unwrap_or_default().into() });
            }
        }
        Ok(url)
    }

    /// Sends a request until it is answered with something else than "later",
    /// with credentials if the registry wants them. The answer may be an error.
    pub(super) async fn send(&self, request: Request, tried: Tried) -> Result<Response, RegistryError> {
        let mut renewed = false;
        loop {
            let permit = self.authority.permit(self).await?;
            let answer = self
                .patiently(|| self.follow(&request, permit.header()))
                .await
                .map_err(|error| self.failed(tried, error))?;
            match answer.status() {
                // Once, since a token may have ended in between.
                // And only of the registry itself: another host, to which it
                // redirects, must not choose where credentials go.
                StatusCode::UNAUTHORIZED if !renewed && self.is_ours(answer.url()) => {
                    renewed = true;
                    self.authority.renew(self, &permit, answer.headers()).await?;
                }
                _ => return Ok(answer),
            }
        }
    }

    /// Sends a request a single time; none if there is no answer.
    pub(super) async fn send_once(&self, request: Request) -> Result<Option<Response>, RegistryError> {
        let permit = self.authority.permit(self).await?;
        Ok(self.follow(&request, permit.header()).await.ok())
    }

    /// Sends a request that wants no credentials of the registry, as to its
    /// token service.
    pub(super) async fn send_elsewhere(&self, request: Request) -> Result<Response, RequestError> {
        self.patiently(|| self.follow(&request, None)).await
    }

    /// Sends a body that can be read only once; `activity` says when a part of
    /// it was read. The answer may be an error, also 401.
    pub(super) async fn send_stream(
        &self,
        request: Request,
        body: Body,
        length: u64,
        activity: &Activity,
    ) -> Result<Response, SendError> {
        let permit = self.authority.permit(self).await.map_err(SendError::Final)?;
        let Request { method, url, mut headers, .. } = request;
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        let mut builder = self.client(&url)?.request(method, url.clone()).headers(headers).body(body);
        if let Some(header) = permit.header().filter(|_| self.is_ours(&url)) {
            builder = builder.header(AUTHORIZATION, header);
        }
        let limit = self.options.read_timeout;
        let answer = tokio::select! {
            answer = builder.send() => answer.map_err(RequestError::from)?,
            () = activity.stalled(limit) => return Err(RequestError::Silent { limit }.into()),
        };
        if answer.status() == StatusCode::UNAUTHORIZED && self.is_ours(&url) {
            self.authority.renew(self, &permit, answer.headers()).await.map_err(SendError::Final)?;
        }
        Ok(answer)
    }

    /// The pause before trying again after `attempt` tries (from 0), for as long
    /// as the registry asks at least; none if enough was tried, or it asks for
    /// more than anybody would wait.
    pub(super) fn backoff(&self, asked: Option<Duration>, attempt: u32) -> Option<Duration> {
        if attempt >= self.options.retries || asked.is_some_and(|pause| pause > LONGEST_PAUSE) {
            return None;
        }
        let backoff = self.options.backoff.saturating_mul(1 << attempt.min(10)).min(LONGEST_PAUSE);
        // Between half of it and all, so that many clients do not come back at once.
        let jittered = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
        Some(asked.unwrap_or_default().max(jittered))
    }

    /// What a failure of the network, or an answer that is an error, means for
    /// the user.
    pub(super) fn failed(&self, tried: Tried, error: RequestError) -> RegistryError {
        RegistryError::from_request(tried, &self.reference, error)
    }

    /// Reads an answer that is an error.
    pub(super) async fn refused(&self, tried: Tried, answer: Response) -> RegistryError {
        let error = self.read_refusal(answer).await;
        self.failed(tried, error)
    }

    pub(super) async fn read_refusal(&self, answer: Response) -> RequestError {
        let (status, pause) = (answer.status(), retry_after(answer.headers()));
        // What cannot be read explains nothing, and the status is known.
        let text = self.read(answer, LONGEST_ERROR).await.unwrap_or_default();
        RequestError::refused(status, pause, &text)
    }

    /// Reads an answer's body of at most `most` bytes.
    pub(super) async fn read(&self, mut answer: Response, most: usize) -> Result<Bytes, RequestError> {
        let too_large = |found| RequestError::TooLarge { most: most as u64, found };
        if let Some(length) = answer.content_length().filter(|length| *length > most as u64) {
            return Err(too_large(length));
        }
        let mut content = BytesMut::new();
        while let Some(chunk) = self.next_chunk(&mut answer).await? {
            if content.len() + chunk.len() > most {
                return Err(too_large((content.len() + chunk.len()) as u64));
            }
            content.extend_from_slice(&chunk);
        }
        Ok(content.freeze())
    }

    /// The next part of an answer's body, within the time that a registry may be silent.
    pub(super) async fn next_chunk(&self, answer: &mut Response) -> Result<Option<Bytes>, RequestError> {
        let limit = self.options.read_timeout;
        match timeout(limit, answer.chunk()).await {
            Ok(chunk) => Ok(chunk?),
            Err(_) => Err(RequestError::Silent { limit }),
        }
    }

    /// Sends a request and reads its answer's body, of at most `most` bytes, also
    /// when a connection is lost in the middle of it. Answers that are errors are
    /// given back unread.
    pub(super) async fn fetch(
        &self,
        request: Request,
        tried: Tried,
        most: usize,
    ) -> Result<Result<(HeaderMap, Bytes), Response>, RegistryError> {
        let mut attempt = 0;
        loop {
            let answer = self.send(request.clone(), tried).await?;
            if !answer.status().is_success() {
                return Ok(Err(answer));
            }
            let headers = answer.headers().clone();
            let error = match self.read(answer, most).await {
                Ok(content) => return Ok(Ok((headers, content))),
                Err(error) => error,
            };
            let pause = if error.is_passing() { self.backoff(None, attempt) } else { None };
            let Some(pause) = pause else { return Err(self.failed(tried, error)) };
            attempt += 1;
            sleep(pause).await;
        }
    }

    /// Tries until there is an answer that counts.
    async fn patiently<F>(&self, mut send: impl FnMut() -> F) -> Result<Response, RequestError>
    where
        F: Future<Output = Result<Response, RequestError>>,
    {
        let mut attempt = 0;
        loop {
            let outcome = send().await;
            let pause = match &outcome {
                Ok(answer) => {
                    self.reached.store(true, Ordering::Relaxed);
                    match is_passing(answer.status()) {
                        true => self.backoff(retry_after(answer.headers()), attempt),
                        false => None,
                    }
                }
                Err(error) if error.is_passing() && self.reached.load(Ordering::Relaxed) => {
                    // A silence has cost its own time already.
                    attempt += u32::from(matches!(error, RequestError::Silent { .. }));
                    self.backoff(None, attempt)
                }
                Err(_) => None,
            };
            let Some(pause) = pause else { return outcome };
            tracing::debug!(registry = self.reference.registry(), ?pause, attempt, "trying again");
            sleep(pause).await;
            attempt += 1;
        }
    }

    /// Sends a request once, and on to where it is redirected.
    async fn follow(
        &self,
        request: &Request,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RequestError> {
        let mut url = request.url.clone();
        let limit = self.options.read_timeout;
        for _ in 0..=MOST_REDIRECTS {
            let mut headers = request.headers.clone();
            if url.origin() != request.url.origin() {
                headers.remove(AUTHORIZATION);
            }
            let mut builder =
                self.client(&url)?.request(request.method.clone(), url.clone()).headers(headers);
            if !matches!(request.method, Method::GET | Method::HEAD) {
                // Some registries refuse an empty POST without a length.
                builder =
                    builder.header(CONTENT_LENGTH, request.body.len() as u64).body(request.body.clone());
            }
            // Nowhere else: a redirect must not carry credentials off (CVE-2020-15157).
            if let Some(header) = authorization.filter(|_| self.is_ours(&url)) {
                builder = builder.header(AUTHORIZATION, header);
            }
            let answer =
                timeout(limit, builder.send()).await.map_err(|_| RequestError::Silent { limit })??;
            let goes_on = match answer.status().as_u16() {
                307 | 308 => true,
                301..=303 => matches!(request.method, Method::GET | Method::HEAD),
                _ => false,
            };
            if !goes_on {
                return Ok(answer);
            }
            let next = Self::location(&answer)?;
            // A body may hold a secret, such as the token to exchange for another one.
            if !request.body.is_empty() && next.origin() != url.origin() {
                return Ok(answer);
            }
            url = next;
        }
        Err(RequestError::RedirectLoop)
    }

    /// Whether credentials may go there: same scheme, host and port.
    pub(super) fn is_ours(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Plain HTTP and TLS apart: reading the system's certificates takes longer
    /// than a push that has nothing to send.
    fn client(&self, url: &Url) -> Result<&reqwest::Client, RequestError> {
        let (slot, is_tls) = if url.scheme() == "https" { (&self.tls, true) } else { (&self.plain, false) };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = if is_tls { self.tls_client()? } else { self.builder().tls_certs_only([]).build()? };
        Ok(slot.get_or_init(|| client))
    }

    fn tls_client(&self) -> Result<reqwest::Client, RequestError> {
        let mut extra = Vec::new();
        for path in &self.options.ca_certificates {
            let invalid = |source| RequestError::CaCertificates { path: path.clone(), source };
            let text = fs::read(path).map_err(|error| invalid(Box::new(error) as _))?;
            let certificates =
                Certificate::from_pem_bundle(&text).map_err(|error| invalid(Box::new(error) as _))?;
            if certificates.is_empty() {
                return Err(invalid("expected PEM certificates, found none".into()));
            }
            extra.extend(certificates);
        }
        match self.builder().tls_certs_merge(extra.clone()).build() {
            // A machine without authorities of its own, but with the one that counts.
            Err(_) if !extra.is_empty() => Ok(self.builder().tls_certs_only(extra).build()?),
            Err(error) => Err(RequestError::NoTls(error)),
            Ok(client) => Ok(client),
        }
    }

    fn builder(&self) -> reqwest::ClientBuilder {
        install_crypto_provider();
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(self.options.connect_timeout)
            .redirect(Policy::none())
            // A connection a blob: over one of HTTP/2 all share its window.
            .http1_only();
        // As Go's clients, so as Docker.
        if self.reference.is_loopback() { builder.no_proxy() } else { builder }
    }
}

/// A stream that could not be sent.
pub(super) enum SendError {
    /// The request failed, which may pass.
    Request(RequestError),
    /// There is no permission, and no other try.
    Final(RegistryError),
}

impl From<RequestError> for SendError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// When something last moved on a request whose body is long.
pub(super) struct Activity {
    start: Instant,
    last: AtomicU64,
    /// Whether all of the body has gone.
    ended: AtomicBool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0), ended: AtomicBool::new(false) }
    }

    pub(super) fn seen(&self) {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }

    /// The body is out of our hands. What the registry does with a large one
    /// before it answers takes some of them minutes.
    pub(super) fn end(&self) {
        self.seen();
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Returns when nothing has moved for `limit`, or ten times that after the end.
    async fn stalled(&self, limit: Duration) {
        loop {
            let limit = if self.ended.load(Ordering::Relaxed) { limit * 10 } else { limit };
            let deadline = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep_until(deadline.into()).await;
        }
    }
}

/// Whether the same request may be answered otherwise a little later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

/// rustls wants one chosen for the process. ring builds with a C compiler alone
/// and links statically; if the program has chosen another one, that stays.
fn install_crypto_provider() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}
