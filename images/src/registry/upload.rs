//! One blob to a registry: mounted from another repository if it is there,
//! else in one streamed PUT, in chunks if the registry wants them, and from
//! where it broke off if it can tell where that was.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use reqwest::{Body, Response, Url};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::error::{RequestError, Tried};
use super::push::is_there;
use super::transport::{Activity, Request, SendError, Transport};
use super::{Progress, RegistryError, Session, Transfer};
use crate::Descriptor;
use crate::layout::{BlobReader, Layout, LayoutError};

const TRIED: Tried = Tried::repository("push a blob to");
/// Bytes read from disk at a time.
const PART: usize = 256 << 10;
/// Parts between disk and network, for each blob.
const PARTS_AHEAD: usize = 4;
/// The chunk where one is wanted: what every registry takes (GHCR refuses more
/// than 4 MiB).
const CHUNK: u64 = 3 << 20;
/// The least that a registry wants of each chunk (distribution-spec, end-4a).
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// A blob on its way.
pub(super) struct Upload<'a> {
    pub(super) session: &'a Session,
    pub(super) layout: &'a Layout,
    pub(super) blob: &'a Descriptor,
    /// A repository of the same registry that may have it.
    pub(super) mount_from: Option<&'a str>,
    pub(super) progress: &'a Arc<dyn Progress>,
}

/// What the registry knows of an upload.
struct Begun {
    location: Url,
    /// Bytes that it has.
    offset: u64,
    /// The least that it wants of a chunk.
    least: u64,
}

enum Beginning {
    Mounted,
    Begun(Begun),
}

/// Why an upload did not end well.
enum Trouble {
    /// It wants smaller parts.
    TooLarge(RequestError),
    /// It knows nothing of this upload any more.
    Lost(RequestError),
    /// It may go on.
    Passing(RequestError),
    /// It will not.
    Final(RegistryError),
}

impl From<RegistryError> for Trouble {
    fn from(error: RegistryError) -> Self {
        Self::Final(error)
    }
}

impl Upload<'_> {
    pub(super) async fn run(&self) -> Result<Transfer, RegistryError> {
        let transport = &self.session.transport;
        let mut in_chunks = self.session.wants_chunks();
        let (mut attempt, mut furthest) = (0, 0);
        let mut begun: Option<Begun> = None;
        loop {
            let mut upload = match begun.take() {
                Some(upload) => upload,
                None => match self.begin().await? {
                    Beginning::Mounted => return Ok(Transfer::Mounted),
                    Beginning::Begun(upload) => upload,
                },
            };
            let sent = if in_chunks || upload.offset > 0 {
                self.put_chunks(&mut upload, in_chunks).await
            } else {
                self.put_whole(&upload).await
            };
            let (error, asked) = match sent {
                Ok(()) => return Ok(Transfer::Complete),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::TooLarge(_)) if !in_chunks => {
                    tracing::debug!(digest = %self.blob.digest, "the registry wants chunks");
                    in_chunks = true;
                    self.session.remember_chunks();
                    continue;
                }
                Err(Trouble::TooLarge(error)) => return Err(transport.failed(TRIED, error)),
                Err(Trouble::Lost(error)) => (error, None),
                Err(Trouble::Passing(error)) => {
                    let asked = error.pause();
                    (error, asked)
                }
            };
            // Each byte that came through is worth new patience.
            if upload.offset > furthest {
                (attempt, furthest) = (0, upload.offset);
            }
            let Some(pause) = transport.backoff(asked, attempt) else {
                return Err(transport.failed(TRIED, error));
            };
            tracing::debug!(digest = %self.blob.digest, %error, ?pause, attempt, "uploading again");
            // What is in between may cut off long requests without a word.
            in_chunks |= attempt > 0 && matches!(error, RequestError::Network(_));
            attempt += 1;
            sleep(pause).await;
            begun = self.ask(&upload).await?;
            let kept = begun.as_ref().map_or(0, |begun| begun.offset);
            self.progress.withdrawn(&self.blob.digest, upload.offset.saturating_sub(kept));
            // It may all be there, and only the answer was lost.
            if begun.is_none() && is_there(self.session, self.blob).await? {
                return Ok(Transfer::Complete);
            }
        }
    }

    /// Begins an upload, or has the blob mounted.
    async fn begin(&self) -> Result<Beginning, RegistryError> {
        let transport = &self.session.transport;
        let mut url = transport.url("blobs/uploads/");
        let plain = url.clone();
        if let Some(repository) = self.mount_from {
            url.query_pairs_mut()
                .append_pair("mount", &self.blob.digest.to_string())
                .append_pair("from", repository);
        }
        let mut is_mount = self.mount_from.is_some();
        let mut answer = transport.send(Request::new(Method::POST, url), TRIED).await;
        // That it may not be mounted is no reason not to send it.
        if is_mount && !answer.as_ref().is_ok_and(|answer| answer.status().is_success()) {
            is_mount = false;
            answer = transport.send(Request::new(Method::POST, plain), TRIED).await;
        }
        let answer = answer?;
        match answer.status() {
            StatusCode::CREATED if is_mount => Ok(Beginning::Mounted),
            StatusCode::ACCEPTED => {
                let least = number(&answer, &CHUNK_MIN_LENGTH).unwrap_or(0);
                let location =
                    Transport::location(&answer).map_err(|error| transport.failed(TRIED, error))?;
                Ok(Beginning::Begun(Begun { location, offset: 0, least }))
            }
            _ => Err(transport.refused(TRIED, answer).await),
        }
    }

    /// How much the registry has, if it knows.
    async fn ask(&self, upload: &Begun) -> Result<Option<Begun>, RegistryError> {
        let transport = &self.session.transport;
        let request = Request::new(Method::GET, upload.location.clone());
        // Once: without an answer, it begins anew.
        let Some(answer) = transport.send_once(request).await? else { return Ok(None) };
        if !matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::ACCEPTED) {
            return Ok(None);
        }
        let end = answer.headers().get(RANGE).and_then(|range| range.to_str().ok()).and_then(range_end);
        let Ok(location) = goes_on(&answer, upload) else { return Ok(None) };
        Ok(match end {
            // "0-0" is one byte, and what some registries say when they have none.
            Some(end) if end > 0 && end < self.blob.size => {
                tracing::debug!(digest = %self.blob.digest, offset = end + 1, "upload goes on");
                Some(Begun { location, offset: end + 1, least: upload.least })
            }
            _ => None,
        })
    }

    /// The whole blob in one request.
    async fn put_whole(&self, upload: &Begun) -> Result<(), Trouble> {
        let url = self.last(&upload.location);
        let answer = self.send(Method::PUT, url, None, 0, self.blob.size).await?;
        self.check(answer, &[StatusCode::CREATED, StatusCode::OK, StatusCode::NO_CONTENT]).await?;
        Ok(())
    }

    /// What is left of it in parts, and that this was all.
    async fn put_chunks(&self, upload: &mut Begun, in_chunks: bool) -> Result<(), Trouble> {
        let transport = &self.session.transport;
        // All at once, if that was not what the registry refused.
        let most = if in_chunks { CHUNK.max(upload.least) } else { u64::MAX };
        while upload.offset < self.blob.size {
            let length = (self.blob.size - upload.offset).min(most);
            let end = upload.offset + length - 1;
            let range = format!("{}-{end}", upload.offset);
            let url = upload.location.clone();
            let answer = self.send(Method::PATCH, url, Some(range), upload.offset, length).await?;
            // ECR says 201.
            let answer = self.check(answer, &[StatusCode::ACCEPTED, StatusCode::CREATED]).await?;
            upload.location =
                goes_on(&answer, upload).map_err(|error| Trouble::Final(transport.failed(TRIED, error)))?;
            upload.offset += length;
        }
        let request = Request::new(Method::PUT, self.last(&upload.location));
        let answer = transport.send(request, TRIED).await?;
        self.check(answer, &[StatusCode::CREATED, StatusCode::OK, StatusCode::NO_CONTENT]).await?;
        Ok(())
    }

    /// Where the last part goes. `Location` may have a query of its own.
    fn last(&self, location: &Url) -> Url {
        let mut url = location.clone();
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        url
    }

    /// Sends a part of the blob as it is read from disk.
    async fn send(
        &self,
        method: Method,
        url: Url,
        range: Option<String>,
        offset: u64,
        length: u64,
    ) -> Result<Response, Trouble> {
        let mut request = Request::new(method, url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
            request = request.header(CONTENT_RANGE, range);
        }
        let part = Part {
            activity: Arc::new(Activity::new()),
            damage: Arc::default(),
            moved: Arc::new(AtomicU64::new(0)),
            over: Arc::new(AtomicBool::new(false)),
        };
        let body = part.read(self, offset, length).await?;
        let sent = self.session.transport.send_stream(request, body, length, &part.activity).await;
        // The cause, where the error of the request only says that its body failed.
        if let Some(error) = part.damage.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Trouble::Final(RegistryError::Layout(error)));
        }
        let is_refused = !matches!(&sent, Ok(answer) if answer.status().is_success());
        if is_refused {
            // Or hyper would send the rest of it all the same.
            part.over.store(true, Ordering::Relaxed);
            self.progress.withdrawn(&self.blob.digest, part.moved.load(Ordering::Relaxed));
        }
        match sent {
            Ok(answer)
                if answer.status() == StatusCode::UNAUTHORIZED
                    && self.session.transport.is_ours(answer.url()) =>
            {
                // There is a new token now, but the stream is spent.
                Err(Trouble::Lost(RequestError::refused(StatusCode::UNAUTHORIZED, None, b"")))
            }
            Ok(answer) => Ok(answer),
            Err(SendError::Final(error)) => Err(Trouble::Final(error)),
            Err(SendError::Request(error)) if error.is_passing() => Err(Trouble::Passing(error)),
            Err(SendError::Request(error)) => {
                Err(Trouble::Final(self.session.transport.failed(TRIED, error)))
            }
        }
    }

    /// Sorts what the registry says to a part.
    async fn check(&self, answer: Response, good: &[StatusCode]) -> Result<Response, Trouble> {
        let transport = &self.session.transport;
        let status = answer.status();
        if good.contains(&status) {
            return Ok(answer);
        }
        let passes = super::transport::is_passing(status);
        let error = transport.read_refusal(answer).await;
        Err(match status.as_u16() {
            405 | 413 => Trouble::TooLarge(error),
            _ if error.has_code("BLOB_UPLOAD_UNKNOWN") || error.has_code("BLOB_UPLOAD_INVALID") => {
                Trouble::Lost(error)
            }
            // 416: what it has is not what we think that it has.
            404 | 416 => Trouble::Lost(error),
            _ if passes => Trouble::Passing(error),
            _ => Trouble::Final(transport.failed(TRIED, error)),
        })
    }
}

/// A part of a blob that is being sent.
struct Part {
    activity: Arc<Activity>,
    /// Why it could not be read.
    damage: Arc<Mutex<Option<LayoutError>>>,
    moved: Arc<AtomicU64>,
    /// Whether nobody wants the rest any more.
    over: Arc<AtomicBool>,
}

impl Part {
    /// Reads ahead on a thread for blocking work. The end of a blob is held back
    /// until all of it is verified: a damaged one ends in an error, and the
    /// registry never has the whole of it.
    async fn read(&self, upload: &Upload<'_>, offset: u64, length: u64) -> Result<Body, RegistryError> {
        let mut reader = upload.layout.open_blob(upload.blob)?;
        let is_last = offset + length == upload.blob.size;
        if is_last && offset > 0 {
            // What the registry has already is read all the same, for the digest;
            // now, as no request may wait for that.
            let skipped = spawn_blocking(move || {
                io::copy(&mut (&mut reader).take(offset), &mut io::sink()).map(|_| reader)
            });
            reader = match skipped.await {
                Ok(reader) => reader.map_err(|source| LayoutError::Read { source })?,
                Err(error) => return Err(LayoutError::Read { source: io::Error::other(error) }.into()),
            };
        }
        let path = upload.layout.blob_path(&upload.blob.digest);
        let (sender, receiver) = mpsc::channel::<Result<Bytes, io::Error>>(PARTS_AHEAD);
        let damage = Arc::clone(&self.damage);
        drop(spawn_blocking(move || {
            let read = |source| LayoutError::Read { source };
            let sent = || -> Result<(), LayoutError> {
                if !is_last {
                    let mut file = fs_err::File::open(path).map_err(read)?;
                    file.seek(SeekFrom::Start(offset)).map_err(read)?;
                    return pass_on(&mut file, length, &sender, |_| Ok(()));
                }
                pass_on(&mut reader, length, &sender, BlobReader::verify)
            }();
            if let Err(error) = sent {
                let message = io::Error::other(error.to_string());
                *damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // Nobody listens any more when the request has failed.
                let _ = sender.blocking_send(Err(message));
            }
        }));
        let (activity, moved) = (Arc::clone(&self.activity), Arc::clone(&self.moved));
        let over = Arc::clone(&self.over);
        let (digest, progress) = (upload.blob.digest, Arc::clone(upload.progress));
        Ok(Body::wrap_stream(stream::unfold(receiver, move |mut receiver| {
            activity.seen();
            let (activity, moved, over) = (Arc::clone(&activity), Arc::clone(&moved), Arc::clone(&over));
            let progress = Arc::clone(&progress);
            async move {
                if over.load(Ordering::Relaxed) {
                    return Some((Err(io::Error::other("not wanted any more")), receiver));
                }
                let item = receiver.recv().await?;
                activity.seen();
                if let Ok(part) = &item {
                    let gone = moved.fetch_add(part.len() as u64, Ordering::Relaxed) + part.len() as u64;
                    progress.advanced(&digest, part.len() as u64);
                    if gone == length {
                        activity.end();
                    }
                }
                Some((item, receiver))
            }
        })))
    }
}

/// Sends `length` bytes on; before the last of them, `check` has its say.
fn pass_on<R: io::Read>(
    reader: &mut R,
    length: u64,
    sender: &mpsc::Sender<Result<Bytes, io::Error>>,
    check: impl FnOnce(&mut R) -> Result<(), LayoutError>,
) -> Result<(), LayoutError> {
    let mut left = length;
    let mut check = Some(check);
    while left > 0 {
        let mut part = vec![0; usize::try_from(left).unwrap_or(PART).min(PART)];
        left -= part.len() as u64;
        let read = reader.read_exact(&mut part).map_err(|source| LayoutError::Read { source });
        // A short file is better told by its digest and size than by a short read.
        match check.take_if(|_| left == 0 || read.is_err()) {
            Some(check) => check(reader).and(read)?,
            None => read?,
        }
        if sender.blocking_send(Ok(part.into())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Where an upload goes on: at the same place, if the registry names no other.
fn goes_on(answer: &Response, upload: &Begun) -> Result<Url, RequestError> {
    match Transport::location(answer) {
        Err(RequestError::NoLocation) => Ok(upload.location.clone()),
        location => location,
    }
}

fn number(answer: &Response, name: &HeaderName) -> Option<u64> {
    answer.headers().get(name)?.to_str().ok()?.parse().ok()
}

/// The end of `0-1023`, also with `bytes=` before it, as some write it.
fn range_end(range: &str) -> Option<u64> {
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (start, end) = range.split_once('-')?;
    (start.trim() == "0").then(|| end.trim().parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::range_end;

    #[test]
    fn a_range_tells_its_end() {
        assert_eq!(range_end("0-1023"), Some(1023));
        assert_eq!(range_end("bytes=0-0"), Some(0));
        for malformed in ["", "5", "1-5", "0-x", "0--1", "-"] {
            assert_eq!(range_end(malformed), None, "{malformed}");
        }
    }
}
