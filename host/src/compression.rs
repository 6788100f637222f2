//! Workers' answers, encoded on their way out.
//!
//! Static files are compressed when the app is built, here is what workers make
//! for a request: text of at least 1 KiB, or of unknown length, unless the worker
//! encoded it, or forbade it by `Cache-Control: no-transform`. What has arrived
//! is sent on before the next is waited for, so that streams such as server-sent
//! events are as quick as without.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderValue, VARY,
};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use wharf_app::Coding;
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::body::Body;
use crate::negotiation::Accepted;

/// Shorter bodies fit into a packet as they are, in bytes.
const SMALLEST: u64 = 1 << 10;

/// Bytes encoded at a time.
const STEP: usize = 64 << 10;

/// Bytes encoded before other requests of this thread have their turn.
const TURN: usize = 256 << 10;

/// Encoded bytes that are worth a frame of their own.
const FRAME: usize = 16 << 10;

/// Bytes that Brotli and Zstandard look back, as a power of two: 256 KiB. Each
/// response in flight has as much memory several times over.
const WINDOW: u32 = 18;

/// Each coding's level where a second of encoding saves the most: those of
/// nginx, Caddy and Cloudflare are near.
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 5;

/// What of a request bears on the encoding of its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    coding: Option<Coding>,
    has_body: bool,
}

impl Terms {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let coding = Accepted::of(request.headers()).prefer();
        Self { coding, has_body: request.method() != Method::HEAD }
    }
}

/// Encodes `response` as it is sent, if it should be. To HEAD it says what it
/// would to GET (RFC 9110, 9.3.2), and so no length (8.6).
pub(crate) fn compress(mut response: Response<Body>, terms: Terms) -> Response<Body> {
    if !may_compress(&response, terms) {
        return response;
    }
    let headers = response.headers_mut();
    add_vary(headers);
    let Some(coding) = terms.coding else { return response };
    let encoder = match terms.has_body.then(|| Encoder::new(coding)).transpose() {
        Ok(encoder) => encoder,
        Err(_) => return response,
    };
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    headers.remove(CONTENT_LENGTH);
    // Its ranges were those of the bytes as they were.
    headers.remove(ACCEPT_RANGES);
    weaken_tag(headers);
    // Without an encoder it is at its end, but hides how long the body would be:
    // hyper would tell.
    response.map(|body| {
        Body::pieces(Compressed { body, encoder, input: Bytes::new(), waiting: false, trailers: None })
    })
}

fn may_compress(response: &Response<Body>, terms: Terms) -> bool {
    let headers = response.headers();
    let status = response.status();
    // Without content, or a part of something whose other parts are elsewhere.
    let whole = !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT);
    let stated = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let there = response.body().size_hint().exact();
    let length = if terms.has_body {
        there.or(stated)
    } else {
        // What GET would get: that a worker sends nothing to HEAD tells nothing.
        stated.or(there.filter(|length| *length > 0))
    };
    let untouched = !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        // A digest of the bytes that are sent (RFC 9530).
        && !headers.contains_key("content-digest");
    let forbids = |value: &HeaderValue| {
        let directives = value.to_str().unwrap_or_default().split(',');
        directives.map(str::trim).any(|directive| directive.eq_ignore_ascii_case("no-transform"))
    };
    whole
        && untouched
        && length.is_none_or(|length| length >= SMALLEST)
        && headers.get(CONTENT_TYPE).is_some_and(is_compressible)
        && !headers.get_all(CACHE_CONTROL).iter().any(forbids)
}

/// Text in any of its forms, and what else isn't compressed in itself.
fn is_compressible(media_type: &HeaderValue) -> bool {
    const ALSO: [&str; 18] = [
        "application/ecmascript",
        "application/geojson",
        "application/graphql",
        "application/javascript",
        "application/json",
        "application/jsonl",
        "application/rtf",
        "application/toml",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/x-javascript",
        "application/x-ndjson",
        "application/x-yaml",
        "application/xml",
        "application/yaml",
        "font/otf",
        "font/ttf",
        "image/bmp",
    ];
    let Ok(text) = media_type.to_str() else { return false };
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("text/")
        || ["+json", "+xml", "+text", "+yaml"].iter().any(|suffix| essence.ends_with(suffix))
        || ALSO.contains(&essence.as_str())
}

/// Tells caches what the encoding was chosen by (RFC 9110, 12.5.5).
fn add_vary(headers: &mut HeaderMap) {
    let values = headers.get_all(VARY).iter().filter_map(|value| value.to_str().ok());
    let mut names = values.flat_map(|value| value.split(',')).map(str::trim);
    if !names.any(|name| name == "*" || name.eq_ignore_ascii_case("accept-encoding")) {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// The worker's strong tag is of other bytes (RFC 9110, 8.8.3.3).
fn weaken_tag(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) {
        match HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()) {
            Ok(weak) => _ = headers.insert(ETAG, weak),
            Err(_) => _ = headers.remove(ETAG),
        }
    }
}

enum Encoder {
    Br(Box<CompressorWriter<Vec<u8>>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Br => {
                Self::Br(Box::new(CompressorWriter::new(Vec::new(), FRAME, BROTLI_QUALITY, WINDOW)))
            }
            Coding::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(WINDOW)?;
                Self::Zstd(encoder)
            }
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Br(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
        }
    }

    /// So that the client can decode all that was written.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Br(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Gzip(encoder) => encoder.flush(),
        }
    }

    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Br(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
        }
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(self.output()).into()
    }

    /// What is left to send.
    fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Br(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Gzip(encoder) => encoder.finish()?,
        }
        .into())
    }
}

/// A body, encoded.
struct Compressed {
    body: Body,
    /// Until the end.
    encoder: Option<Encoder>,
    /// What of the last frame isn't encoded yet.
    input: Bytes,
    /// Whether the encoder holds something back.
    waiting: bool,
    /// The last frame, if it isn't data.
    trailers: Option<Frame<Bytes>>,
}

impl http_body::Body for Compressed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        let mut turn = 0;
        loop {
            if let Some(trailers) = this.trailers.take() {
                return Poll::Ready(Some(Ok(trailers)));
            }
            let Some(encoder) = &mut this.encoder else { return Poll::Ready(None) };
            if !this.input.is_empty() {
                if turn >= TURN {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let step = this.input.split_to(this.input.len().min(STEP));
                turn += step.len();
                if let Err(error) = encoder.write(&step) {
                    return this.fail(error);
                }
                this.waiting = true;
                if encoder.output().len() >= FRAME {
                    return Poll::Ready(Some(Ok(Frame::data(encoder.take()))));
                }
                continue;
            }
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending if !this.waiting => return Poll::Pending,
                Poll::Pending => {
                    this.waiting = false;
                    if let Err(error) = encoder.flush() {
                        return this.fail(error);
                    }
                    // The task is woken for the next frame, and asks again.
                    let output = encoder.take();
                    return if output.is_empty() {
                        Poll::Pending
                    } else {
                        Poll::Ready(Some(Ok(Frame::data(output))))
                    };
                }
                Poll::Ready(Some(Err(error))) => return this.fail(error),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.input = data,
                    Err(trailers) => {
                        this.trailers = Some(trailers);
                        return this.finish();
                    }
                },
                Poll::Ready(None) => return this.finish(),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Compressed {
    fn finish(&mut self) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let rest = self.encoder.take().map(Encoder::finish);
        Poll::Ready(rest.map(|rest| rest.map(Frame::data)))
    }

    /// The connection breaks: a truncated answer must not look whole.
    fn fail(&mut self, error: io::Error) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.encoder = None;
        Poll::Ready(Some(Err(error)))
    }
}

#[cfg(test)]
mod tests;
