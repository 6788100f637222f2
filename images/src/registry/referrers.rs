//! What refers to an image in a registry: signatures, SBOMs, provenance
//! (distribution-spec, "Listing Referrers"). Registries without that API have a
//! list under the tag `sha256-HEX` ("Referrers Tag Schema"), which clients keep.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::error::Tried;
use super::push::{push_blobs, put_manifest};
use super::transport::Request;
use super::{Access, Client, Progress, RegistryError, Session, pull};
use crate::layout::{LARGEST_DOCUMENT, Layout, LayoutError};
use crate::{Artifact, Descriptor, Digest, Index, Manifest, MediaType, Reference, Target};

const ASK: Tried = Tried::new("ask for referrers in");
const FETCH: Tried = Tried::new("fetch an attachment from");
/// Most pages of a list that are read.
const MOST_PAGES: usize = 16;

impl Client {
    /// Adds an artifact to what refers to `subject`, an image of the reference's
    /// repository. To attach it again changes nothing.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached or refuses it.
    pub async fn attach(
        &self,
        reference: &Reference,
        subject: &Descriptor,
        artifact: &Artifact,
    ) -> Result<Descriptor, RegistryError> {
        let folder = tempfile::tempdir().map_err(|source| LayoutError::Write { source })?;
        let layout = Layout::create(folder.path().join("layout"))?;
        let (descriptor, manifest) = layout.write_artifact(subject, artifact)?;
        let session = self.connect(reference, Access::Push).await?;
        let progress: Arc<dyn Progress> = Arc::new(());
        push(&session, &layout, &descriptor, &manifest, &progress).await?;
        Ok(descriptor)
    }

    /// What refers to `subject`, if wanted only what is of one type.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached or refuses to list it.
    pub async fn referrers(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let session = self.connect(reference, Access::Pull).await?;
        let mut found = list(&session, subject).await?;
        found.retain(|descriptor| {
            artifact_type.is_none_or(|wanted| descriptor.artifact_type.as_deref() == Some(wanted))
        });
        Ok(found)
    }

    /// The content of an artifact's one layer, of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached, or has something else than an artifact
    /// with one layer, or other content than the digests say.
    pub async fn fetch_artifact(
        &self,
        reference: &Reference,
        manifest: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let session = self.connect(reference, Access::Pull).await?;
        let (_, content) = pull::fetch(&session, &Target::Digest(manifest.digest), Some(manifest)).await?;
        let parsed: Manifest = pull::parse(&session, &content)?;
        let [layer] = parsed.layers.as_slice() else {
            return Err(RegistryError::NotAnImage {
                reference: reference.with_digest(manifest.digest).familiar(),
                found: format!("an artifact with {} layers", parsed.layers.len()),
            });
        };
        fetch_blob(&session, layer, limit).await
    }

    /// The layers of an image whose type is `media_type`, at most `most` of them,
    /// each with its content, or why there is none; no layers if there is no such
    /// image.
    ///
    /// # Errors
    ///
    /// The registry cannot be reached, or has something else than an image.
    pub(crate) async fn fetch_layers(
        &self,
        reference: &Reference,
        media_type: &str,
        most: usize,
        limit: u64,
    ) -> Result<Vec<(Descriptor, Result<Vec<u8>, RegistryError>)>, RegistryError> {
        let session = self.connect(reference, Access::Pull).await?;
        let Some(content) = session.read_document(reference.target(), FETCH).await? else {
            return Ok(Vec::new());
        };
        let manifest: Manifest = pull::parse(&session, &content)?;
        let layers = manifest.layers.into_iter().filter(|layer| layer.media_type.as_str() == media_type);
        let mut found = Vec::new();
        for layer in layers.take(most) {
            let content = fetch_blob(&session, &layer, limit).await;
            found.push((layer, content));
        }
        Ok(found)
    }
}

/// A small blob, whole and verified.
async fn fetch_blob(session: &Session, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let noun = "attachment";
    let too_large =
        |found| RegistryError::TooLarge { noun, reference: blob.digest.to_string(), limit, found };
    if blob.size > limit {
        return Err(too_large(blob.size));
    }
    let request = Request::new(Method::GET, session.transport.url(&format!("blobs/{}", blob.digest)));
    let most = usize::try_from(blob.size).unwrap_or(usize::MAX);
    let content = match session.transport.fetch(request, FETCH, most).await? {
        Ok((_, content)) => content,
        Err(answer) => return Err(session.transport.refused(FETCH, answer).await),
    };
    match Digest::of(&content) {
        found if found == blob.digest => Ok(content.into()),
        found => Err(RegistryError::DigestDiffers { noun, digest: blob.digest, found }),
    }
}

/// Sends what refers to `image` in the layout. An image is whole without it, so
/// a registry that takes none of it is only told of.
pub(super) async fn push_all(
    session: &Session,
    layout: &Layout,
    image: &Descriptor,
    progress: &Arc<dyn Progress>,
) -> Result<(), RegistryError> {
    let attached = layout.referrers(&image.digest)?;
    if attached.is_empty() {
        return Ok(());
    }
    // Not by asking for each: one may be there that a push which broke off has not listed.
    let listed = list(session, &image.digest).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "the registry lists no referrers");
        Vec::new()
    });
    for (descriptor, manifest) in attached {
        if listed.iter().any(|other| other.digest == descriptor.digest) {
            continue;
        }
        let sent = push(session, layout, &descriptor, &manifest, progress).await;
        match sent {
            Ok(()) => {}
            Err(error @ RegistryError::Layout(_)) => return Err(error),
            Err(error) => {
                let kind = descriptor.artifact_type.as_deref().unwrap_or("an attachment");
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                tracing::warn!(
                    "the registry does not take {kind} of {}: {error}{}",
                    session.reference.familiar(),
                    cause.unwrap_or_default()
                );
            }
        }
    }
    Ok(())
}

async fn push(
    session: &Session,
    layout: &Layout,
    descriptor: &Descriptor,
    manifest: &Manifest,
    progress: &Arc<dyn Progress>,
) -> Result<(), RegistryError> {
    push_blobs(session, layout, manifest.blobs(), progress).await?;
    let content = layout.read_blob(descriptor)?;
    let is_known =
        put_manifest(session, descriptor, content.into(), &Target::Digest(descriptor.digest)).await?;
    match &manifest.subject {
        // A registry with the API says that it has understood (end-7, OCI-Subject).
        Some(subject) if !is_known => add_to_list(session, &subject.digest, descriptor).await,
        _ => Ok(()),
    }
}

async fn list(session: &Session, subject: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
    let mut url = session.transport.url(&format!("referrers/{subject}"));
    let mut found = Vec::new();
    for page in 0..MOST_PAGES {
        let request = Request::new(Method::GET, url.clone()).accept(&[MediaType::Index.as_str()]);
        let most = usize::try_from(LARGEST_DOCUMENT).unwrap_or(usize::MAX);
        let (headers, content) = match session.transport.fetch(request, ASK, most).await? {
            Ok(answer) => answer,
            // Without the API, some say that the path is none, some that it is malformed.
            Err(answer) if page == 0 && matches!(answer.status().as_u16(), 400 | 404 | 405 | 406) => {
                let Some(content) = read_list(session, subject).await? else { return Ok(Vec::new()) };
                return Ok(pull::parse::<Index>(session, &content)?.manifests);
            }
            Err(answer) => return Err(session.transport.refused(ASK, answer).await),
        };
        // Nowhere else: a list must not lead credentials off.
        let next = next_page(&headers).and_then(|next| url.join(&next).ok());
        let next = next.filter(|next| session.transport.is_ours(next));
        found.extend(pull::parse::<Index>(session, &content)?.manifests);
        match next {
            Some(next) if next != url => url = next,
            _ => break,
        }
    }
    Ok(found)
}

/// `Link: </v2/…>; rel="next"`
fn next_page(headers: &http::HeaderMap) -> Option<String> {
    let link = headers.get(http::header::LINK)?.to_str().ok()?;
    let (url, parameters) = link.strip_prefix('<')?.split_once('>')?;
    parameters.contains("next").then(|| url.to_owned())
}

/// The tag of the list that clients keep.
fn list_tag(subject: &Digest) -> Target {
    Target::Tag(format!("sha256-{}", subject.encoded()))
}

async fn read_list(session: &Session, subject: &Digest) -> Result<Option<Bytes>, RegistryError> {
    session.read_document(&list_tag(subject), ASK).await
}

/// Adds to the list that clients keep. Of other entries, each member stays.
async fn add_to_list(
    session: &Session,
    subject: &Digest,
    descriptor: &Descriptor,
) -> Result<(), RegistryError> {
    let mut list = match read_list(session, subject).await? {
        Some(content) => pull::parse::<Value>(session, &content)?,
        None => json!({ "schemaVersion": 2, "mediaType": MediaType::Index.as_str(), "manifests": [] }),
    };
    let invalid = |source| RegistryError::InvalidDocument { reference: session.reference.familiar(), source };
    let entry = serde_json::to_value(descriptor).map_err(invalid)?;
    let Some(manifests) = list.get_mut("manifests").and_then(Value::as_array_mut) else {
        return Err(RegistryError::NotAnImage {
            reference: format!("{}{}", session.reference.repository(), list_tag(subject)),
            found: "a document without manifests".into(),
        });
    };
    if manifests.iter().any(|other| other.get("digest") == entry.get("digest")) {
        return Ok(());
    }
    manifests.push(entry);
    let content = serde_json::to_vec(&list).map_err(invalid)?;
    let index = Descriptor::new(MediaType::Index, Digest::of(&content), content.len() as u64);
    put_manifest(session, &index, content.into(), &list_tag(subject)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_a_link() {
        let of = |link: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::LINK, link.parse().unwrap());
            next_page(&headers)
        };
        assert_eq!(
            of(r#"</v2/a/referrers/x?page=2>; rel="next""#).as_deref(),
            Some("/v2/a/referrers/x?page=2")
        );
        assert_eq!(of(r#"</v2/a>; rel="prev""#), None);
        assert_eq!(of("nonsense"), None);
    }
}
