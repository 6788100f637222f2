//! Registry → layout: the index or manifest, its children, their blobs, and
//! last the name.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use oci_client::client::SizedStream;
use oci_client::errors::OciDistributionError;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::{CHUNKS_AHEAD, Progress, RegistryError, Session, Transfer};
use crate::layout::{BlobWriter, FinishedBlob, LARGEST_DOCUMENT, Layout, LayoutError};
use crate::{Descriptor, Digest, Index, Manifest, MediaType, Target};

const PULL_FROM: &str = "pull from";

/// A document that came and is not in the layout yet.
struct Document {
    descriptor: Descriptor,
    content: Bytes,
}

/// Most manifests of an index that are fetched: no image has so many platforms.
const MOST_MANIFESTS: usize = 256;

pub(super) async fn pull(
    session: &Session,
    layout: &Layout,
    progress: Arc<dyn Progress>,
) -> Result<Descriptor, RegistryError> {
    let kept = layout.clone();
    blocking(session, move || kept.use_blobs()).await??;
    let image = fetch(session, session.reference.target(), None).await?;
    let mut documents: Vec<Document> = Vec::new();
    if image.descriptor.media_type.is_index() {
        let children = parse::<Index>(session, &image)?.manifests;
        if children.len() > MOST_MANIFESTS {
            let text = format!("{} manifests in an index: expected at most {MOST_MANIFESTS}", children.len());
            return Err(invalid(session, serde::de::Error::custom(text)));
        }
        for child in children {
            if documents.iter().any(|known| known.descriptor.digest == child.digest) {
                continue;
            }
            if !child.media_type.is_manifest() {
                return Err(not_an_image(session, &child.media_type));
            }
            documents.push(fetch(session, &Target::Digest(child.digest), Some(&child)).await?);
        }
    } else {
        documents.push(Document { descriptor: image.descriptor.clone(), content: image.content.clone() });
    }

    let mut blobs = BTreeMap::new();
    for document in &documents {
        let manifest: Manifest = parse(session, document)?;
        blobs.extend(manifest.blobs().map(|blob| (blob.digest, blob.clone())));
    }
    stream::iter(blobs.values())
        .map(|blob| pull_blob(session, layout, blob, &progress))
        .buffer_unordered(session.concurrency)
        .try_collect::<()>()
        .await?;

    // After what they need, so that a document in the layout is never without it.
    documents.push(Document { descriptor: image.descriptor.clone(), content: image.content });
    for Document { descriptor, content } in documents {
        layout.write_blob(descriptor.media_type, &content)?;
    }
    layout.tag(&session.reference, &image.descriptor)?;
    tracing::info!(reference = %session.reference, digest = %image.descriptor.digest, "image pulled");
    Ok(image.descriptor)
}

/// Fetches an index or manifest and compares it with what is known of it.
async fn fetch(
    session: &Session,
    target: &Target,
    expected: Option<&Descriptor>,
) -> Result<Document, RegistryError> {
    let accepted = [MediaType::Index, MediaType::Manifest, MediaType::DockerIndex, MediaType::DockerManifest];
    let accepted: Vec<&str> = accepted.iter().map(MediaType::as_str).collect();
    let (content, _) =
        session.protocol.pull_manifest_raw(&session.target(target), &session.auth, &accepted).await.map_err(
            |error| match target {
                Target::Digest(digest) if session.reference.target() != target => {
                    let child = session.reference.with_digest(*digest);
                    RegistryError::from_protocol(PULL_FROM, &child, error)
                }
                _ => session.error(PULL_FROM, error),
            },
        )?;
    let (digest, found) = (Digest::of(&content), content.len() as u64);
    let noun = "manifest";
    if found > LARGEST_DOCUMENT {
        let reference = session.reference.familiar();
        return Err(RegistryError::TooLarge { noun, reference, limit: LARGEST_DOCUMENT, found });
    }
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
        return Ok(Document { descriptor: expected.clone(), content });
    }
    let media_type = media_type(session, &content)?;
    Ok(Document { descriptor: Descriptor::new(media_type, digest, found), content })
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

async fn pull_blob(
    session: &Session,
    layout: &Layout,
    blob: &Descriptor,
    progress: &Arc<dyn Progress>,
) -> Result<(), RegistryError> {
    progress.started(blob);
    let (there, wanted) = (layout.clone(), blob.clone());
    if blocking(session, move || there.holds(&wanted)).await? {
        progress.finished(&blob.digest, Transfer::AlreadyThere);
        return Ok(());
    }
    let target = session.target(session.reference.target());
    let digest = blob.digest.to_string();
    let content = session
        .protocol
        .pull_blob_stream(&target, digest.as_str())
        .await
        .map_err(|error| session.error(PULL_FROM, error))?;
    let finished = receive(session, layout.blob_writer()?, content, blob, progress).await?;
    let (digest, expected) = (blob.digest, blob.size);
    if finished.digest != digest {
        return Err(RegistryError::DigestDiffers { noun: "blob", digest, found: finished.digest });
    }
    if finished.size != expected {
        return Err(RegistryError::SizeDiffers { noun: "blob", digest, expected, found: finished.size });
    }
    let media_type = blob.media_type.clone();
    blocking(session, move || finished.commit(media_type)).await??;
    progress.finished(&blob.digest, Transfer::Complete);
    tracing::debug!(%digest, size = blob.size, "blob pulled");
    Ok(())
}

/// Writes a blob to disk, on a thread for blocking work, while it comes.
async fn receive(
    session: &Session,
    mut writer: BlobWriter,
    mut content: SizedStream,
    blob: &Descriptor,
    progress: &Arc<dyn Progress>,
) -> Result<FinishedBlob, RegistryError> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(CHUNKS_AHEAD);
    let written = blocking(session, move || -> Result<FinishedBlob, LayoutError> {
        while let Some(chunk) = receiver.blocking_recv() {
            writer.write_all(&chunk).map_err(|source| LayoutError::Write { source })?;
        }
        writer.finish()
    });
    let (noun, digest, expected) = ("blob", blob.digest, blob.size);
    let received = async move {
        let mut found = 0;
        while let Some(chunk) = content.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // At the end `oci-client` compares the digest; ours tells more.
                Err(error) if is_digest_error(&error) => break,
                Err(error) => {
                    // Past a wrong size the cause is that size.
                    return Err(session.error(PULL_FROM, OciDistributionError::IoError(error)));
                }
            };
            found += chunk.len() as u64;
            if found > expected {
                return Err(RegistryError::SizeDiffers { noun, digest, expected, found });
            }
            progress.advanced(&digest, chunk.len() as u64);
            // The writer has failed, and its own error says why.
            if sender.send(chunk).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let (received, written) = futures_util::join!(received, written);
    received?;
    Ok(written??)
}

fn is_digest_error(error: &std::io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<oci_client::errors::DigestError>())
}

async fn blocking<T: Send + 'static>(
    session: &Session,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RegistryError> {
    spawn_blocking(work).await.map_err(|_| RegistryError::Interrupted {
        operation: PULL_FROM,
        registry: session.reference.registry().into(),
    })
}

fn parse<'a, T: Deserialize<'a>>(session: &Session, document: &'a Document) -> Result<T, RegistryError> {
    serde_json::from_slice(&document.content).map_err(|error| invalid(session, error))
}

fn invalid(session: &Session, source: serde_json::Error) -> RegistryError {
    RegistryError::InvalidDocument { reference: session.reference.familiar(), source }
}

fn not_an_image(session: &Session, found: &MediaType) -> RegistryError {
    RegistryError::NotAnImage { reference: session.reference.familiar(), found: found.to_string() }
}
