//! Layout → registry: blobs, then manifests, then the index.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::HeaderValue;
use oci_client::errors::OciDistributionError;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::{CHUNK, CHUNKS_AHEAD, Progress, RegistryError, Session, Transfer};
use crate::layout::{BlobReader, Layout, LayoutError};
use crate::{Descriptor, Digest, Target};

pub(super) async fn push(
    session: &Session,
    layout: &Layout,
    image: Descriptor,
    progress: Arc<dyn Progress>,
) -> Result<Descriptor, RegistryError> {
    let manifests = layout.manifests(&image)?;
    let blobs: BTreeMap<Digest, &Descriptor> =
        manifests.iter().flat_map(|(_, manifest)| manifest.blobs()).map(|blob| (blob.digest, blob)).collect();
    stream::iter(blobs.into_values())
        .map(|blob| push_blob(session, layout, blob, &progress))
        .buffer_unordered(session.concurrency)
        .try_collect::<()>()
        .await?;
    for (child, _) in manifests.iter().filter(|(child, _)| child.digest != image.digest) {
        push_manifest(session, layout, child, &Target::Digest(child.digest)).await?;
    }
    push_manifest(session, layout, &image, session.reference.target()).await?;
    tracing::info!(reference = %session.reference, digest = %image.digest, "image pushed");
    Ok(image)
}

async fn push_blob(
    session: &Session,
    layout: &Layout,
    blob: &Descriptor,
    progress: &Arc<dyn Progress>,
) -> Result<(), RegistryError> {
    progress.started(blob);
    let reader = layout.open_blob(blob)?;
    let target = session.target(session.reference.target());
    let digest = blob.digest.to_string();
    let is_there = session
        .protocol
        .blob_exists(&target, &digest)
        .await
        .map_err(|error| session.error("ask for a blob in", error))?;
    if is_there {
        progress.finished(&blob.digest, Transfer::AlreadyThere);
        return Ok(());
    }
    let damage = Arc::new(Mutex::new(None));
    let content = content(reader, blob, Arc::clone(progress), Arc::clone(&damage));
    let sent = session.protocol.push_blob_stream(&target, content, &digest, Some(blob.size)).await;
    // The cause, where the error of the request only says that its body failed.
    if let Some(error) = damage.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(RegistryError::Layout(error));
    }
    sent.map_err(|error| session.error("push a blob to", error))?;
    progress.finished(&blob.digest, Transfer::Complete);
    tracing::debug!(digest = %blob.digest, size = blob.size, "blob pushed");
    Ok(())
}

/// A blob's content, read ahead on a thread for blocking work. Its last chunk
/// is held back until all of it is verified: a damaged blob ends in an error,
/// and the registry never has the whole of it.
fn content(
    mut reader: BlobReader,
    blob: &Descriptor,
    progress: Arc<dyn Progress>,
    damage: Arc<Mutex<Option<LayoutError>>>,
) -> impl stream::Stream<Item = Result<Bytes, OciDistributionError>> + Send + 'static {
    let digest = blob.digest;
    let mut left = blob.size;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, OciDistributionError>>(CHUNKS_AHEAD);
    drop(spawn_blocking(move || {
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let mut chunk = vec![0; length];
            left -= length as u64;
            let read = reader.read_exact(&mut chunk).map_err(|source| LayoutError::Read { source });
            let checked = match left {
                0 => reader.verify().and(read),
                _ => read,
            };
            let failed = checked.is_err();
            let item = checked.map(|()| Bytes::from(chunk)).map_err(|error| {
                let message = error.to_string();
                *damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                OciDistributionError::GenericError(Some(message))
            });
            // Nobody listens any more when the request has failed.
            if sender.blocking_send(item).is_err() || failed {
                return;
            }
        }
    }));
    stream::unfold(receiver, move |mut receiver| {
        let progress = Arc::clone(&progress);
        async move {
            let item = receiver.recv().await?;
            if let Ok(chunk) = &item {
                progress.advanced(&digest, chunk.len() as u64);
            }
            Some((item, receiver))
        }
    })
}

/// Sends a document's own bytes, so that its digest is the same over there.
async fn push_manifest(
    session: &Session,
    layout: &Layout,
    descriptor: &Descriptor,
    target: &Target,
) -> Result<(), RegistryError> {
    let content = layout.read_blob(descriptor)?;
    let not_an_image = |_| {
        RegistryError::Layout(LayoutError::NotAnImage {
            digest: descriptor.digest,
            found: descriptor.media_type.to_string(),
        })
    };
    let media_type = HeaderValue::from_str(descriptor.media_type.as_str()).map_err(not_an_image)?;
    session
        .protocol
        .push_manifest_raw(&session.target(target), content, media_type)
        .await
        .map_err(|error| session.error("push a manifest to", error))?;
    Ok(())
}
