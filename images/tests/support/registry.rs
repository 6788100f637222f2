//! A small registry in memory that does what distribution-spec 1.1 says, except
//! where it is to be like a real one that does not.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use bytes::Bytes;
use wharf_images::{Descriptor, Digest, Layout, MediaType};

use super::server::{Answer, Exchange, Registry, Shared};

/// In what a registry differs from the specification, or from others.
#[derive(Debug, Clone)]
pub struct Quirks {
    pub patch: Patch,
    /// Largest blob taken by one PUT; larger ones get 413.
    pub largest_put: Option<usize>,
    /// Least bytes of a PATCH that is not the last, as `OCI-Chunk-Min-Length`.
    pub least_chunk: Option<usize>,
    /// The status of a good PATCH: 202, or 201 from ECR.
    pub patched: u16,
    /// Whether a GET of an upload tells how much of it is there. If not, a
    /// broken upload is lost.
    pub uploads_resume: bool,
    pub location: Location,
    pub mount: Mount,
    /// Whether the answer to a manifest's PUT has a Location.
    pub manifest_location: bool,
    pub referrers: bool,
    /// Where GETs of blobs are sent to, if not answered here; the blob's path is put to it.
    pub content_from: Option<String>,
    /// Whether parts of blobs can be asked for.
    pub ranges: bool,
    pub auth: Auth,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            patch: Patch::Taken,
            largest_put: None,
            least_chunk: None,
            patched: 202,
            uploads_resume: true,
            location: Location::Absolute,
            mount: Mount::Mounts,
            manifest_location: true,
            referrers: true,
            content_from: None,
            ranges: true,
            auth: Auth::Open,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum Patch {
    Taken,
    Refused(u16),
    /// Up to so many bytes; beyond, this status.
    AtMost(usize, u16),
}

/// What an upload's Location looks like. All have a state that is another one
/// after each request, and only the last one is good.
#[derive(Debug, Clone, Copy)]
pub enum Location {
    Absolute,
    /// A path alone.
    Relative,
    /// Another path, as of Google's registry.
    Elsewhere,
}

#[derive(Debug, Clone, Copy)]
pub enum Mount {
    Mounts,
    /// Answers as if nothing was said of a mount.
    Ignored,
    /// Answers a mount with this error.
    Refused(u16),
}

#[derive(Debug, Clone)]
pub enum Auth {
    Open,
    Basic { user: String, password: String },
    Tokens(Tokens),
}

/// A token server (distribution, "Token Authentication Specification").
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Where it is: `http://HOST/token`. None is the registry itself.
    pub realm: Option<String>,
    /// The user and password that it takes.
    pub user: Option<(String, String)>,
    /// The identity token that it takes by POST.
    pub identity: Option<String>,
    /// Whether those without credentials get tokens, too.
    pub anonymous: bool,
    /// A repository that no token is good for.
    pub hidden: Option<String>,
}

/// What the registry has.
#[derive(Debug, Default)]
pub struct Store {
    pub blobs: HashMap<Digest, Bytes>,
    /// Blobs by repository: what one has, another need not have.
    pub linked: HashMap<String, Vec<Digest>>,
    /// By repository and tag or digest.
    pub manifests: BTreeMap<(String, String), (String, Bytes)>,
    uploads: HashMap<String, Upload>,
    tokens: HashMap<String, Vec<String>>,
    numbers: usize,
}

#[derive(Debug)]
struct Upload {
    repository: String,
    content: Vec<u8>,
    state: usize,
}

impl Store {
    pub fn link(&mut self, repository: &str, content: impl Into<Bytes>) -> Digest {
        let content = content.into();
        let digest = Digest::of(&content);
        self.blobs.insert(digest, content);
        self.linked.entry(repository.into()).or_default().push(digest);
        digest
    }

    /// A manifest by its digest, and by `tag`.
    pub fn publish(&mut self, repository: &str, tag: &str, media_type: &str, content: impl Into<Bytes>) {
        let content = content.into();
        let digest = Digest::of(&content).to_string();
        for name in [tag, &digest] {
            self.manifests.insert((repository.into(), name.into()), (media_type.into(), content.clone()));
        }
    }

    pub fn expire_tokens(&mut self) {
        self.tokens.clear();
    }

    fn has(&self, repository: &str, digest: &Digest) -> bool {
        self.linked.get(repository).is_some_and(|digests| digests.contains(digest))
    }

    fn number(&mut self) -> usize {
        self.numbers += 1;
        self.numbers
    }
}

impl Registry {
    /// Puts an image of a layout into the registry, as if it had been pushed.
    pub fn host(&self, layout: &Layout, repository: &str, tag: &str, image: &Descriptor) {
        let mut store = self.store();
        let mut publish = |name: &str, descriptor: &Descriptor| {
            let content = layout.read_blob(descriptor).unwrap();
            store.publish(repository, name, descriptor.media_type.as_str(), content);
        };
        publish(tag, image);
        let manifests = layout.manifests(image).unwrap();
        for (child, _) in &manifests {
            publish(&child.digest.to_string(), child);
        }
        for blob in manifests.iter().flat_map(|(_, manifest)| manifest.blobs()) {
            store.link(repository, std::fs::read(layout.blob_path(&blob.digest)).unwrap());
        }
    }

    /// Whether all of an image is there under its tag, bit for bit.
    pub fn has_image(&self, layout: &Layout, repository: &str, tag: &str, image: &Descriptor) -> bool {
        let store = self.store();
        let same = |name: &str, digest: Digest| {
            let found = store.manifests.get(&(repository.to_owned(), name.to_owned()));
            found.is_some_and(|(_, content)| Digest::of(content) == digest)
        };
        let manifests = layout.manifests(image).unwrap();
        same(tag, image.digest)
            && manifests.iter().all(|(child, manifest)| {
                same(&child.digest.to_string(), child.digest)
                    && manifest.blobs().all(|blob| {
                        store.has(repository, &blob.digest)
                            && Digest::of(&store.blobs[&blob.digest]) == blob.digest
                    })
            })
    }
}

impl Shared {
    /// The first part of a body whose connection broke.
    pub(super) fn receive_part(&self, exchange: &Exchange, content: &[u8]) {
        let mut store = self.store.lock().unwrap();
        let Some(id) = upload_id(exchange) else { return };
        if !self.quirks.uploads_resume {
            store.uploads.remove(&id);
        } else if let Some(upload) = store.uploads.get_mut(&id) {
            upload.content.extend_from_slice(content);
        }
    }

    pub(super) fn route(&self, exchange: &Exchange, content: &[u8]) -> Answer {
        let path = exchange.path.as_str();
        if path == "/token" {
            return self.token(exchange, content);
        }
        if let Some(digest) = path.strip_prefix("/content/") {
            return self.content(exchange, digest);
        }
        if let Some(refusal) = self.unauthorized(exchange) {
            return refusal;
        }
        if path == "/v2/" || path == "/v2" {
            return Answer::new(200).body("{}");
        }
        if let Some(id) = upload_id(exchange) {
            return self.upload(exchange, &id, content);
        }
        let Some((repository, noun, name)) = split(path) else { return Answer::error(404, "NOT_FOUND") };
        match (exchange.method.as_str(), noun) {
            ("POST", "blobs/uploads") => self.start_upload(exchange, repository, content),
            ("GET" | "HEAD", "blobs") => self.blob(exchange, repository, name),
            ("GET" | "HEAD", "manifests") => self.manifest(repository, name),
            ("PUT", "manifests") => self.put_manifest(exchange, repository, name, content),
            ("GET", "referrers") if self.quirks.referrers => self.list_referrers(repository, name),
            ("GET", "referrers") => Answer::error(404, "NOT_FOUND"),
            _ => Answer::error(405, "UNSUPPORTED"),
        }
    }

    fn blob(&self, exchange: &Exchange, repository: &str, digest: &str) -> Answer {
        let known = digest.parse().is_ok_and(|digest| self.store.lock().unwrap().has(repository, &digest));
        match &self.quirks.content_from {
            _ if !known => Answer::error(404, "BLOB_UNKNOWN"),
            Some(base) if exchange.method == "GET" => {
                Answer::new(307).header("location", format!("{base}/content/{digest}?signature=abc%2Fdef"))
            }
            _ => self.content(exchange, digest),
        }
    }

    fn content(&self, exchange: &Exchange, digest: &str) -> Answer {
        let store = self.store.lock().unwrap();
        let Some(content) = digest.parse().ok().and_then(|digest: Digest| store.blobs.get(&digest)) else {
            return Answer::error(404, "BLOB_UNKNOWN");
        };
        let answer = |status| {
            Answer::new(status)
                .header("content-type", "application/octet-stream")
                .header("docker-content-digest", digest)
        };
        let range = exchange.header("range").and_then(|range| range.strip_prefix("bytes="));
        let Some((first, last)) =
            range.and_then(|range| range.split_once('-')).filter(|_| self.quirks.ranges)
        else {
            return answer(200).body(content.clone());
        };
        let first: usize = first.parse().unwrap();
        let end = last.parse().map_or(content.len(), |last: usize| content.len().min(last + 1));
        if first >= end {
            return Answer::error(416, "BLOB_UNKNOWN")
                .header("content-range", format!("bytes */{}", content.len()));
        }
        answer(206)
            .header("content-range", format!("bytes {first}-{}/{}", end - 1, content.len()))
            .body(content.slice(first..end))
    }

    fn start_upload(&self, exchange: &Exchange, repository: &str, content: &[u8]) -> Answer {
        let query = parse_query(&exchange.query);
        let mut store = self.store.lock().unwrap();
        if let (true, Mount::Refused(status)) = (query.contains_key("mount"), self.quirks.mount) {
            return Answer::error(status, "DENIED");
        }
        if let (Some(digest), Some(from), Mount::Mounts) =
            (query.get("mount"), query.get("from"), self.quirks.mount)
        {
            let digest: Digest = digest.parse().unwrap();
            if store.has(from, &digest) && self.grants(&store, exchange, from, "pull") {
                store.linked.entry(repository.into()).or_default().push(digest);
                return Answer::new(201).header("location", format!("/v2/{repository}/blobs/{digest}"));
            }
        }
        let number = store.number();
        let upload = Upload { repository: repository.into(), content: content.to_vec(), state: number };
        let id = format!("upload-{number}");
        let mut answer = self.location(exchange, Answer::new(202), &id, &upload).header("range", "0-0");
        if let Some(least) = self.quirks.least_chunk {
            answer = answer.header("oci-chunk-min-length", least.to_string());
        }
        // As Harbor's session, which nobody needs to send back.
        answer = answer.header("set-cookie", "sid=abc; Path=/; HttpOnly");
        store.uploads.insert(id, upload);
        answer
    }

    fn location(&self, exchange: &Exchange, answer: Answer, id: &str, upload: &Upload) -> Answer {
        let Upload { repository, state, .. } = upload;
        let location = match self.quirks.location {
            Location::Absolute => {
                format!("http://{}/v2/{repository}/blobs/uploads/{id}?_state={state}%3D%3D", exchange.host)
            }
            Location::Relative => format!("/v2/{repository}/blobs/uploads/{id}?_state={state}%3D%3D"),
            Location::Elsewhere => {
                format!(
                    "/artifacts-uploads/namespaces/p/repositories/r/uploads/{id}?_state={state}%3D%3D&a=b"
                )
            }
        };
        answer.header("location", location).header("docker-upload-uuid", id)
    }

    fn upload(&self, exchange: &Exchange, id: &str, content: &[u8]) -> Answer {
        let query = parse_query(&exchange.query);
        let mut store = self.store.lock().unwrap();
        let next = store.number();
        let Some(upload) = store.uploads.get_mut(id) else {
            return Answer::error(404, "BLOB_UPLOAD_UNKNOWN");
        };
        if query.get("_state") != Some(&format!("{}==", upload.state)) {
            return Answer::error(400, "BLOB_UPLOAD_INVALID");
        }
        let begins = exchange.header("content-range").map(|range| {
            let range = range.strip_prefix("bytes ").unwrap_or(range);
            range.split('-').next().unwrap().parse::<usize>().unwrap()
        });
        match exchange.method.as_str() {
            "GET" if self.quirks.uploads_resume => {
                upload.state = next;
                let upload = &store.uploads[id];
                let last = upload.content.len().saturating_sub(1);
                self.location(exchange, Answer::new(204), id, upload).header("range", format!("0-{last}"))
            }
            "DELETE" => {
                store.uploads.remove(id);
                Answer::new(204)
            }
            "PATCH" | "PUT" if begins.is_some_and(|begins| begins != upload.content.len()) => {
                upload.state = next;
                let upload = &store.uploads[id];
                let last = upload.content.len().saturating_sub(1);
                self.location(exchange, Answer::error(416, "BLOB_UPLOAD_INVALID"), id, upload)
                    .header("range", format!("0-{last}"))
            }
            "PATCH" => {
                match self.quirks.patch {
                    Patch::Refused(status) => return Answer::error(status, "UNSUPPORTED"),
                    Patch::AtMost(most, status) if content.len() > most => {
                        return Answer::error(status, "SIZE_INVALID");
                    }
                    _ => {}
                }
                upload.content.extend_from_slice(content);
                upload.state = next;
                let upload = &store.uploads[id];
                let last = upload.content.len().saturating_sub(1);
                self.location(exchange, Answer::new(self.quirks.patched), id, upload)
                    .header("range", format!("0-{last}"))
            }
            "PUT" => {
                if self.quirks.largest_put.is_some_and(|most| content.len() > most) {
                    return Answer::error(413, "SIZE_INVALID");
                }
                let Some(digest) = query.get("digest").and_then(|digest| digest.parse::<Digest>().ok())
                else {
                    return Answer::error(400, "DIGEST_INVALID");
                };
                let mut whole = upload.content.clone();
                whole.extend_from_slice(content);
                if Digest::of(&whole) != digest {
                    return Answer::error(400, "DIGEST_INVALID");
                }
                let repository = upload.repository.clone();
                store.uploads.remove(id);
                store.link(&repository, whole);
                Answer::new(201)
                    .header("location", format!("/v2/{repository}/blobs/{digest}"))
                    .header("docker-content-digest", digest.to_string())
            }
            _ => Answer::error(405, "UNSUPPORTED"),
        }
    }

    fn manifest(&self, repository: &str, name: &str) -> Answer {
        let store = self.store.lock().unwrap();
        match store.manifests.get(&(repository.into(), name.into())) {
            Some((media_type, content)) => Answer::new(200)
                .header("content-type", media_type.clone())
                .header("docker-content-digest", Digest::of(content).to_string())
                .body(content.clone()),
            None => Answer::error(404, "MANIFEST_UNKNOWN"),
        }
    }

    /// Takes a manifest if what it needs is there already, as registries do.
    fn put_manifest(&self, exchange: &Exchange, repository: &str, name: &str, content: &[u8]) -> Answer {
        let mut store = self.store.lock().unwrap();
        let digest = Digest::of(content);
        if name.contains(':') && name != digest.to_string() {
            return Answer::error(400, "DIGEST_INVALID");
        }
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(content) else {
            return Answer::error(400, "MANIFEST_INVALID");
        };
        let list = |key: &str| json[key].as_array().into_iter().flatten().collect::<Vec<_>>();
        let text = |value: &serde_json::Value| value["digest"].as_str().unwrap_or_default().to_owned();
        for child in list("manifests") {
            if !store.manifests.contains_key(&(repository.into(), text(child))) {
                return Answer::error(404, "MANIFEST_UNKNOWN");
            }
        }
        let config = json.get("config");
        for blob in list("layers").into_iter().chain(config) {
            if !text(blob).parse().is_ok_and(|digest| store.has(repository, &digest)) {
                return Answer::error(404, "MANIFEST_BLOB_UNKNOWN");
            }
        }
        let media_type = exchange.header("content-type").unwrap_or_default().to_owned();
        store.publish(repository, name, &media_type, content.to_vec());
        let mut answer = Answer::new(201).header("docker-content-digest", digest.to_string());
        if self.quirks.manifest_location {
            answer = answer.header("location", format!("/v2/{repository}/manifests/{digest}"));
        }
        if let (Some(subject), true) = (json["subject"]["digest"].as_str(), self.quirks.referrers) {
            answer = answer.header("oci-subject", subject);
        }
        answer
    }

    fn list_referrers(&self, repository: &str, subject: &str) -> Answer {
        let store = self.store.lock().unwrap();
        let mut found = BTreeMap::new();
        for ((of, _), (media_type, content)) in &store.manifests {
            let json: serde_json::Value = serde_json::from_slice(content).unwrap_or_default();
            if of == repository && json["subject"]["digest"] == subject {
                let digest = Digest::of(content);
                let mut descriptor = serde_json::json!({
                    "mediaType": media_type, "digest": digest.to_string(), "size": content.len(),
                    "artifactType": json.get("artifactType").unwrap_or(&json["config"]["mediaType"]),
                });
                if let Some(annotations) = json.get("annotations") {
                    descriptor["annotations"] = annotations.clone();
                }
                found.insert(digest, descriptor);
            }
        }
        let manifests: Vec<_> = found.into_values().collect();
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": MediaType::Index.as_str(), "manifests": manifests,
        });
        Answer::new(200).header("content-type", MediaType::Index.as_str()).body(index.to_string())
    }

    /// The refusal of a request that lacks what the registry wants.
    fn unauthorized(&self, exchange: &Exchange) -> Option<Answer> {
        let refusal = Answer::error(401, "UNAUTHORIZED");
        match &self.quirks.auth {
            Auth::Open => None,
            Auth::Basic { user, password } => {
                let expected = format!("Basic {}", base64(&format!("{user}:{password}")));
                (exchange.header("authorization") != Some(&expected))
                    .then(|| refusal.header("www-authenticate", r#"Basic realm="wharf""#))
            }
            Auth::Tokens(tokens) => {
                let store = self.store.lock().unwrap();
                let realm = tokens.realm.clone().unwrap_or_else(|| format!("http://{}/token", exchange.host));
                let mut challenge = format!(r#"Bearer realm="{realm}",service="wharf-test""#);
                let upload = upload_id(exchange);
                let of_upload =
                    upload.and_then(|id| store.uploads.get(&id)).map(|upload| upload.repository.clone());
                let repository =
                    of_upload.or_else(|| split(&exchange.path).map(|(name, ..)| name.to_owned()));
                let action = match exchange.method.as_str() {
                    "GET" | "HEAD" => "pull",
                    _ => "push",
                };
                let repository = repository.unwrap_or_default();
                if self.grants(&store, exchange, &repository, action) {
                    return None;
                }
                if !repository.is_empty() {
                    let actions = if action == "push" { "pull,push" } else { "pull" };
                    challenge += &format!(r#",scope="repository:{repository}:{actions}""#);
                }
                if exchange.header("authorization").is_some() {
                    challenge += r#",error="invalid_token""#;
                }
                Some(refusal.header("www-authenticate", challenge))
            }
        }
    }

    /// Whether the request's token is good for an action; an empty repository
    /// is the registry itself.
    fn grants(&self, store: &Store, exchange: &Exchange, repository: &str, action: &str) -> bool {
        if !matches!(self.quirks.auth, Auth::Tokens(_)) {
            return true;
        }
        let token = exchange.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let Some(scopes) = token.and_then(|token| store.tokens.get(token)) else { return false };
        repository.is_empty()
            || scopes.iter().any(|scope| {
                let mut parts = scope.split_once(':').map_or("", |(_, rest)| rest).rsplitn(2, ':');
                let (actions, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                name == repository && actions.split(',').any(|granted| granted == action)
            })
    }

    fn token(&self, exchange: &Exchange, content: &[u8]) -> Answer {
        let Auth::Tokens(tokens) = &self.quirks.auth else { return Answer::error(404, "NOT_FOUND") };
        let is_post = exchange.method == "POST";
        let text =
            if is_post { String::from_utf8(content.to_vec()).unwrap() } else { exchange.query.clone() };
        let basic = tokens
            .user
            .as_ref()
            .map(|(user, password)| format!("Basic {}", base64(&format!("{user}:{password}"))));
        let form = parse_query(&text);
        let allowed = match exchange.header("authorization") {
            _ if is_post => {
                tokens.identity.is_some()
                    && form.get("grant_type").is_some_and(|grant| grant == "refresh_token")
                    && form.get("refresh_token") == tokens.identity.as_ref()
                    && form.contains_key("service")
                    && form.contains_key("client_id")
            }
            None => tokens.anonymous,
            Some(found) => Some(found) == basic.as_deref(),
        };
        if !allowed {
            return Answer::error(401, "UNAUTHORIZED");
        }
        let mut store = self.store.lock().unwrap();
        let token = format!("token-{}", store.number());
        // Several scopes come as several parameters, or parted by spaces.
        let pairs = form_urlencoded::parse(text.as_bytes()).filter(|(key, _)| key == "scope");
        let scopes = pairs.flat_map(|(_, scope)| scope.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let hidden = tokens.hidden.as_ref().map(|hidden| format!("repository:{hidden}:"));
        let scopes = scopes.filter(|scope| !hidden.as_ref().is_some_and(|hidden| scope.starts_with(hidden)));
        store.tokens.insert(token.clone(), scopes.collect());
        // The names of the two specifications for the same.
        let name = if is_post { "access_token" } else { "token" };
        Answer::new(200)
            .header("content-type", "application/json")
            .body(format!(r#"{{"{name}":"{token}","expires_in":300}}"#))
    }
}

fn upload_id(exchange: &Exchange) -> Option<String> {
    let (_, id) = exchange.path.rsplit_once("uploads/")?;
    (!id.is_empty()).then(|| id.to_owned())
}

/// Repository, noun and name of a path below `/v2/`.
fn split(path: &str) -> Option<(&str, &str, &str)> {
    let rest = path.strip_prefix("/v2/")?;
    if let Some(repository) = rest.strip_suffix("/blobs/uploads/").or(rest.strip_suffix("/blobs/uploads")) {
        return Some((repository, "blobs/uploads", ""));
    }
    let (rest, name) = rest.rsplit_once('/')?;
    let (repository, noun) = rest.rsplit_once('/')?;
    Some((repository, noun, name))
}

pub fn parse_query(query: &str) -> HashMap<String, String> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

pub fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}
