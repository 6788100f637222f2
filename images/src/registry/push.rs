//! Layout → registry: blobs, then manifests, then the index, then what refers to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};

use super::error::Tried;
use super::transport::Request;
use super::upload::Upload;
use super::{Progress, RegistryError, Session, Transfer};
use crate::layout::{Layout, LayoutError};
use crate::{Descriptor, Digest, Manifest, Target};

const ASK: Tried = Tried::new("ask for a blob in");
const PUT: Tried = Tried::repository("push a manifest to");
/// Questions at a time. They are small, and the way to a registry may be long.
const QUESTIONS: usize = 16;
/// Images of other repositories that are looked through for blobs to mount.
const MOST_SOURCES: usize = 64;

pub(super) async fn push(
    session: &Session,
    layout: &Layout,
    image: Descriptor,
    progress: Arc<dyn Progress>,
) -> Result<Descriptor, RegistryError> {
    let manifests = layout.manifests(&image)?;
    let blobs = blobs_of(&manifests);
    // One question, and usually the only one: does the name mean this already?
    if session.digest_of(session.reference.target()).await? == Some(image.digest) {
        for blob in blobs.values() {
            progress.started(blob);
            progress.finished(&blob.digest, Transfer::AlreadyThere);
        }
        tracing::info!(reference = %session.reference, digest = %image.digest, "nothing to push");
        return Ok(image);
    }
    push_blobs(session, layout, blobs.into_values(), &progress).await?;
    stream::iter(manifests.iter().filter(|(child, _)| child.digest != image.digest))
        .map(|(child, _)| push_manifest(session, layout, child, Target::Digest(child.digest)))
        .buffer_unordered(session.concurrency())
        .try_collect::<()>()
        .await?;
    push_manifest(session, layout, &image, session.reference.target().clone()).await?;
    tracing::info!(reference = %session.reference, digest = %image.digest, "image pushed");
    Ok(image)
}

fn blobs_of(manifests: &[(Descriptor, Manifest)]) -> BTreeMap<Digest, &Descriptor> {
    manifests.iter().flat_map(|(_, manifest)| manifest.blobs()).map(|blob| (blob.digest, blob)).collect()
}

/// Sends the blobs that the registry lacks.
pub(super) async fn push_blobs(
    session: &Session,
    layout: &Layout,
    blobs: impl Iterator<Item = &Descriptor>,
    progress: &Arc<dyn Progress>,
) -> Result<(), RegistryError> {
    let asked: Vec<(&Descriptor, bool)> = stream::iter(blobs)
        .map(async |blob| {
            // Before any is sent: a layout that lacks one is no image.
            layout.open_blob(blob)?;
            Ok::<_, RegistryError>((blob, is_there(session, blob).await?))
        })
        .buffer_unordered(QUESTIONS)
        .try_collect()
        .await?;
    let mut missing = Vec::new();
    for (blob, is_there) in asked {
        progress.started(blob);
        match is_there {
            true => progress.finished(&blob.digest, Transfer::AlreadyThere),
            false => missing.push(blob),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut sources = sources(session, layout, &missing);
    let scopes: std::collections::BTreeSet<String> =
        sources.values().map(|repository| format!("repository:{repository}:pull")).collect();
    if !scopes.is_empty()
        && !session.transport.authority().widen(&session.transport, scopes.into_iter().collect()).await
    {
        sources.clear();
    }
    // The largest first: alone at the end it would take its time alone.
    missing.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    stream::iter(missing)
        .map(async |blob| {
            let mount_from = sources.get(&blob.digest).map(String::as_str);
            let transfer = Upload { session, layout, blob, mount_from, progress }.run().await?;
            progress.finished(&blob.digest, transfer);
            tracing::debug!(digest = %blob.digest, size = blob.size, ?transfer, "blob pushed");
            Ok(())
        })
        .buffer_unordered(session.concurrency())
        .try_collect::<()>()
        .await
}

pub(super) async fn is_there(session: &Session, blob: &Descriptor) -> Result<bool, RegistryError> {
    let url = session.transport.url(&format!("blobs/{}", blob.digest));
    let answer = session.transport.send(Request::new(Method::HEAD, url), ASK).await?;
    match answer.status() {
        status if status.is_success() => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(session.transport.refused(ASK, answer).await),
    }
}

/// For each blob, a repository of the same registry that had it when an image of
/// that name was pushed or pulled here. If it has it no more, the blob is sent.
fn sources(session: &Session, layout: &Layout, missing: &[&Descriptor]) -> BTreeMap<Digest, String> {
    let mut sources = BTreeMap::new();
    let entries = layout.list().unwrap_or_default();
    let others = entries.iter().filter_map(|entry| {
        let reference = entry.reference.as_ref()?;
        let is_other = reference.registry() == session.reference.registry()
            && reference.repository() != session.reference.repository();
        is_other.then_some((reference, &entry.descriptor))
    });
    for (reference, descriptor) in others.take(MOST_SOURCES) {
        let Ok(manifests) = layout.manifests(descriptor) else { continue };
        for digest in blobs_of(&manifests).into_keys() {
            if missing.iter().any(|blob| blob.digest == digest) {
                sources.entry(digest).or_insert_with(|| reference.repository().to_owned());
            }
        }
    }
    sources
}

/// Sends a document's own bytes, so that its digest is the same over there.
async fn push_manifest(
    session: &Session,
    layout: &Layout,
    descriptor: &Descriptor,
    target: Target,
) -> Result<(), RegistryError> {
    let content = layout.read_blob(descriptor)?;
    put_manifest(session, descriptor, content.into(), &target).await.map(drop)
}

/// Sends a document; returns whether the registry says that it knows its subject.
pub(super) async fn put_manifest(
    session: &Session,
    descriptor: &Descriptor,
    content: Bytes,
    target: &Target,
) -> Result<bool, RegistryError> {
    let not_an_image = |_| {
        RegistryError::Layout(LayoutError::NotAnImage {
            digest: descriptor.digest,
            found: descriptor.media_type.to_string(),
        })
    };
    let media_type = HeaderValue::from_str(descriptor.media_type.as_str()).map_err(not_an_image)?;
    let request = Request::new(Method::PUT, session.manifest_url(target))
        .header(CONTENT_TYPE, media_type)
        .body(content);
    let answer = session.transport.send(request, PUT).await?;
    match answer.status() {
        status if status.is_success() => Ok(answer.headers().contains_key("oci-subject")),
        _ => Err(session.transport.refused(PUT, answer).await),
    }
}
