//! Registry → layout: the index or manifest, its children, their blobs, and
//! last the name.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderValue, Method, StatusCode};
use reqwest::Response;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::error::{RequestError, Tried};
use super::transport::Request;
use super::{Progress, RegistryError, Session, Transfer};
use crate::layout::{BlobWriter, FinishedBlob, Layout, LayoutError};
use crate::{Descriptor, Digest, Index, Manifest, MediaType, Target};

const PULL: Tried = Tried::image("pull from");
const PULL_BLOB: Tried = Tried::new("pull a blob from");
/// Parts between network and disk, for each blob.
const PARTS_AHEAD: usize = 4;
/// Most manifests of an index that are fetched: no image has so many platforms.
const MOST_MANIFESTS: usize = 256;
/// Most bytes of an index's manifests together.
const MOST_DOCUMENTS: u64 = 16 << 20;
/// Most layers of a manifest that are fetched: engines take at most 127.
const MOST_LAYERS: usize = 1024;

pub(super) async fn pull(
    session: &Session,
    layout: &Layout,
    progress: Arc<dyn Progress>,
) -> Result<Descriptor, RegistryError> {
    let kept = layout.clone();
    blocking(session, move || kept.use_blobs()).await??;
    let (image, content) = fetch(session, session.reference.target(), None).await?;
    let mut documents: Vec<(Descriptor, Bytes)> = Vec::new();
    if image.media_type.is_index() {
        let mut children = parse::<Index>(session, &content)?.manifests;
        if children.len() > MOST_MANIFESTS {
            let text = format!("{} manifests in an index: expected at most {MOST_MANIFESTS}", children.len());
            return Err(invalid(session, serde::de::Error::custom(text)));
        }
        children = once_each(children, "manifest")?;
        // All are in memory until their blobs have come.
        let total = children.iter().fold(0_u64, |total, child| total.saturating_add(child.size));
        if total > MOST_DOCUMENTS {
            let text = format!("{total} bytes of manifests in an index: expected at most {MOST_DOCUMENTS}");
            return Err(invalid(session, serde::de::Error::custom(text)));
        }
        if let Some(child) = children.iter().find(|child| !child.media_type.is_manifest()) {
            return Err(not_an_image(session, &child.media_type));
        }
        documents = stream::iter(&children)
            .map(async |child| {
                // What the layout has need not come again.
                let content = match layout.contains(child) {
                    true => layout.read_blob(child).ok().map(Bytes::from),
                    false => None,
                };
                match content {
                    Some(content) => Ok((child.clone(), content)),
                    None => fetch(session, &Target::Digest(child.digest), Some(child)).await,
                }
            })
            .buffered(session.concurrency())
            .try_collect()
            .await?;
    } else {
        documents.push((image.clone(), content.clone()));
    }

    let mut blobs = Vec::new();
    for (_, content) in &documents {
        let manifest: Manifest = parse(session, content)?;
        if manifest.layers.len() > MOST_LAYERS {
            let text =
                format!("{} layers in a manifest: expected at most {MOST_LAYERS}", manifest.layers.len());
            return Err(invalid(session, serde::de::Error::custom(text)));
        }
        blobs.extend(manifest.blobs().cloned());
    }
    let mut blobs = once_each(blobs, "blob")?;
    blobs.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    pull_blobs(session, layout, &blobs, &progress).await?;

    // After what they need, so that a document in the layout is never without it.
    documents.push((image.clone(), content));
    for (descriptor, content) in documents {
        layout.write_blob(descriptor.media_type, &content)?;
    }
    layout.tag(&session.reference, &image)?;
    tracing::info!(reference = %session.reference, digest = %image.digest, "image pulled");
    Ok(image)
}

/// The same without what is there twice. One digest has one size.
fn once_each(descriptors: Vec<Descriptor>, noun: &'static str) -> Result<Vec<Descriptor>, RegistryError> {
    let mut sizes = BTreeMap::new();
    let mut once = Vec::new();
    for descriptor in descriptors {
        match sizes.insert(descriptor.digest, descriptor.size) {
            None => once.push(descriptor),
            Some(expected) if expected == descriptor.size => {}
            Some(expected) => {
                let (digest, found) = (descriptor.digest, descriptor.size);
                return Err(RegistryError::SizeDiffers { noun, digest, expected, found });
            }
        }
    }
    Ok(once)
}

/// Fetches an index or manifest and compares it with what is known of it.
pub(super) async fn fetch(
    session: &Session,
    target: &Target,
    expected: Option<&Descriptor>,
) -> Result<(Descriptor, Bytes), RegistryError> {
    let Some(content) = session.read_document(target, PULL).await? else {
        let reference = match target {
            Target::Digest(digest) => session.reference.with_digest(*digest),
            Target::Tag(_) => session.reference.clone(),
        };
        let registry = session.reference.registry().into();
        return Err(RegistryError::NoSuchImage { reference: reference.familiar(), registry });
    };
    let (digest, found) = (Digest::of(&content), content.len() as u64);
    let noun = "manifest";
    match target {
        Target::Digest(wanted) if *wanted != digest => {
            return Err(RegistryError::DigestDiffers { noun, digest: *wanted, found: digest });
        }
        _ => {}
    }
    if let Some(expected) = expected {
        if expected.size != found {
            return Err(RegistryError::SizeDiffers { noun, digest, expected: expected.size, found });
        }
        return Ok((expected.clone(), content));
    }
    let media_type = media_type(session, &content)?;
    Ok((Descriptor::new(media_type, digest, found), content))
}

/// What a document is, by what it says or, where OCI lets it be silent, by its
/// members.
fn media_type(session: &Session, content: &[u8]) -> Result<MediaType, RegistryError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outline {
        media_type: Option<MediaType>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let outline: Outline = serde_json::from_slice(content).map_err(|error| invalid(session, error))?;
    let media_type = outline.media_type.unwrap_or(match outline.manifests {
        Some(_) => MediaType::Index,
        None => MediaType::Manifest,
    });
    match media_type.is_index() || media_type.is_manifest() {
        true => Ok(media_type),
        false => Err(not_an_image(session, &media_type)),
    }
}

/// Fetches what the layout lacks, and puts it there when all has come. If the
/// network fails in between, what came is kept for the next time; if anything
/// of it is wrong, nothing is.
async fn pull_blobs(
    session: &Session,
    layout: &Layout,
    blobs: &[Descriptor],
    progress: &Arc<dyn Progress>,
) -> Result<(), RegistryError> {
    let mut pulled = Vec::new();
    let mut failure = None;
    // Closed when the last of those who write has ended.
    let (writing, mut written) = mpsc::channel::<Infallible>(1);
    {
        let mut transfers = pin!(
            stream::iter(blobs)
                .map(|blob| pull_blob(session, layout, blob, progress, writing.clone()))
                .buffer_unordered(session.concurrency())
        );
        while let Some(blob) = transfers.next().await {
            match blob {
                Ok(blob) => pulled.extend(blob),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
    }
    drop(writing);
    // Threads outlive what waits for them: none may leave a file behind.
    while written.recv().await.is_some() {}
    if failure.as_ref().is_none_or(RegistryError::is_of_the_network) {
        blocking(session, move || {
            pulled.into_iter().try_for_each(|(blob, media_type)| blob.commit(media_type).map(drop))
        })
        .await??;
    }
    failure.map_or(Ok(()), Err)
}

/// Fetches a blob and checks it; none if the layout has it.
async fn pull_blob(
    session: &Session,
    layout: &Layout,
    blob: &Descriptor,
    progress: &Arc<dyn Progress>,
    writing: mpsc::Sender<Infallible>,
) -> Result<Option<(FinishedBlob, MediaType)>, RegistryError> {
    progress.started(blob);
    let (there, wanted) = (layout.clone(), blob.clone());
    if blocking(session, move || there.holds(&wanted)).await? {
        progress.finished(&blob.digest, Transfer::AlreadyThere);
        return Ok(None);
    }
    let finished = receive(session, layout.blob_writer()?, blob, progress, writing).await?;
    let (noun, digest, expected) = ("blob", blob.digest, blob.size);
    if finished.size != expected {
        return Err(RegistryError::SizeDiffers { noun, digest, expected, found: finished.size });
    }
    if finished.digest != digest {
        return Err(RegistryError::DigestDiffers { noun, digest, found: finished.digest });
    }
    progress.finished(&blob.digest, Transfer::Complete);
    tracing::debug!(%digest, size = blob.size, "blob pulled");
    Ok(Some((finished, blob.media_type.clone())))
}

/// Writes a blob to disk, on a thread for blocking work, while it comes.
async fn receive(
    session: &Session,
    writer: BlobWriter,
    blob: &Descriptor,
    progress: &Arc<dyn Progress>,
    writing: mpsc::Sender<Infallible>,
) -> Result<FinishedBlob, RegistryError> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PARTS_AHEAD);
    let written = blocking(session, move || -> Result<FinishedBlob, LayoutError> {
        // Declared first, dropped last.
        let _writing = writing;
        let mut writer = writer;
        while let Some(part) = receiver.blocking_recv() {
            writer.write_all(&part).map_err(|source| LayoutError::Write { source })?;
        }
        writer.finish()
    });
    let (received, written) = futures_util::join!(download(session, blob, sender, progress), written);
    received?;
    Ok(written??)
}

/// Passes a blob's bytes on; after a fault that may pass, from where it broke off.
async fn download(
    session: &Session,
    blob: &Descriptor,
    sender: mpsc::Sender<Bytes>,
    progress: &Arc<dyn Progress>,
) -> Result<(), RegistryError> {
    let transport = &session.transport;
    let url = transport.url(&format!("blobs/{}", blob.digest));
    let (mut received, mut attempt) = (0, 0);
    loop {
        let mut request = Request::new(Method::GET, url.clone());
        if received > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={received}-"))
        {
            request = request.header(RANGE, range);
        }
        let answer = transport.send(request, PULL_BLOB).await?;
        // Whoever knows no ranges begins anew: what is here already is skipped.
        let mut skip = match answer.status() {
            StatusCode::PARTIAL_CONTENT if begins_at(&answer, received) => 0,
            StatusCode::OK => received,
            _ => return Err(transport.refused(PULL_BLOB, answer).await),
        };
        let before = received;
        let Err(error) = pass_on(session, answer, blob, &mut received, &mut skip, &sender, progress).await?
        else {
            return Ok(());
        };
        // All of it came, and only the end of the answer did not.
        if received == blob.size {
            return Ok(());
        }
        if received > before {
            attempt = 0;
        }
        let pause = match error.is_passing() {
            true => transport.backoff(None, attempt),
            false => None,
        };
        let Some(pause) = pause else { return Err(transport.failed(PULL_BLOB, error)) };
        tracing::debug!(digest = %blob.digest, %error, received, ?pause, "downloading again");
        attempt += 1;
        sleep(pause).await;
    }
}

/// Whether a part of the content is the one that was asked for.
fn begins_at(answer: &Response, offset: u64) -> bool {
    let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-'));
    offset > 0 && start.is_some_and(|(start, _)| start.trim().parse() == Ok(offset))
}

/// Passes one answer's bytes on. What is wrong with the connection is the inner
/// error.
async fn pass_on(
    session: &Session,
    mut answer: Response,
    blob: &Descriptor,
    received: &mut u64,
    skip: &mut u64,
    sender: &mpsc::Sender<Bytes>,
    progress: &Arc<dyn Progress>,
) -> Result<Result<(), RequestError>, RegistryError> {
    let (noun, digest, expected) = ("blob", blob.digest, blob.size);
    loop {
        let mut part = match session.transport.next_chunk(&mut answer).await {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        let skipped = usize::try_from(*skip).unwrap_or(usize::MAX).min(part.len());
        *skip -= skipped as u64;
        let part = part.split_off(skipped);
        *received += part.len() as u64;
        if *received > expected {
            return Err(RegistryError::SizeDiffers { noun, digest, expected, found: *received });
        }
        progress.advanced(&digest, part.len() as u64);
        // The writer has failed, and its own error says why.
        if sender.send(part).await.is_err() {
            return Ok(Ok(()));
        }
    }
}

async fn blocking<T: Send + 'static>(
    session: &Session,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RegistryError> {
    spawn_blocking(work).await.map_err(|_| RegistryError::Interrupted {
        operation: "pull from",
        registry: session.reference.registry().into(),
    })
}

pub(super) fn parse<'a, T: Deserialize<'a>>(
    session: &Session,
    content: &'a [u8],
) -> Result<T, RegistryError> {
    serde_json::from_slice(content).map_err(|error| invalid(session, error))
}

fn invalid(session: &Session, source: serde_json::Error) -> RegistryError {
    RegistryError::InvalidDocument { reference: session.reference.familiar(), source }
}

fn not_an_image(session: &Session, found: &MediaType) -> RegistryError {
    RegistryError::NotAnImage { reference: session.reference.familiar(), found: found.to_string() }
}
