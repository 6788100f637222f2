//! Permission: what a registry wants to see before it answers.
//!
//! Docker's token authentication (distribution, spec/auth/token.md and oauth.md)
//! and Basic (RFC 7617). Credentials go to the registry and to the token service
//! that it names, and nowhere else; when they are refused, nothing is tried
//! without them.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_auth::parser::ChallengeParser;
use reqwest::Url;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::credentials::Credential;
use super::error::{RequestError, Tried};
use super::transport::{Request, Transport};
use super::{LONGEST_TOKEN, RegistryError};

const LOG_IN: Tried = Tried::new("log in to");
/// What a token lives if its service does not say (distribution, spec/auth/token.md).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// No push takes longer.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Who we are to a registry, and what it wants to see of it.
pub(super) struct Authority {
    credential: Option<Credential>,
    state: Mutex<State>,
}

struct State {
    scopes: Vec<String>,
    challenge: Challenge,
    token: Option<Token>,
    /// Goes up with each new challenge or token.
    generation: u64,
}

/// How the registry wants it.
#[derive(Clone)]
enum Challenge {
    /// Not asked yet.
    Unknown,
    /// Not at all, so far.
    Open,
    Basic,
    Bearer {
        realm: Url,
        service: Option<String>,
    },
}

struct Token {
    header: HeaderValue,
    /// When to get another one.
    ends: Instant,
}

/// What to send with a request.
pub(super) struct Permit {
    header: Option<HeaderValue>,
    generation: u64,
}

impl Permit {
    pub(super) fn header(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }
}

impl Authority {
    pub(super) fn new(credential: Option<Credential>, scopes: Vec<String>) -> Self {
        let state = State { scopes, challenge: Challenge::Unknown, token: None, generation: 0 };
        Self { credential, state: Mutex::new(state) }
    }

    /// What to send with the next request.
    pub(super) async fn permit(&self, transport: &Transport) -> Result<Permit, RegistryError> {
        let mut state = self.state.lock().await;
        if self.credential.is_some() && matches!(state.challenge, Challenge::Unknown) {
            // Without it, a registry that lets anybody read would show only that.
            state.challenge = self.ask(transport).await?;
            state.generation += 1;
        }
        let header = match &state.challenge {
            Challenge::Unknown | Challenge::Open => None,
            Challenge::Basic => Some(self.basic(transport)?),
            Challenge::Bearer { .. } => {
                if state.token.as_ref().is_none_or(|token| token.ends <= Instant::now()) {
                    state.token = Some(self.token(transport, &state.challenge, &state.scopes).await?);
                    state.generation += 1;
                }
                state.token.as_ref().map(|token| token.header.clone())
            }
        };
        Ok(Permit { header, generation: state.generation })
    }

    /// Gets a new permission after the registry refused this one with 401.
    pub(super) async fn renew(
        &self,
        transport: &Transport,
        refused: &Permit,
        headers: &HeaderMap,
    ) -> Result<(), RegistryError> {
        let mut state = self.state.lock().await;
        // Another request was faster.
        if state.generation != refused.generation {
            return Ok(());
        }
        let challenge = challenge_in(transport, headers)?;
        // Registries behind other names know better what they are asked for.
        if let Some(scope) = scope_in(headers).filter(|scope| !state.scopes.contains(scope)) {
            state.scopes.push(scope);
        }
        if matches!(challenge, Challenge::Basic) && refused.header.is_some() {
            return Err(self.refused(transport));
        }
        state.token = match challenge {
            Challenge::Bearer { .. } => Some(self.token(transport, &challenge, &state.scopes).await?),
            _ => None,
        };
        state.challenge = challenge;
        state.generation += 1;
        Ok(())
    }

    /// Asks for more than at first, as for other repositories. Whether the
    /// token service knows no objection; if it does, all stays as it was.
    pub(super) async fn widen(&self, transport: &Transport, more: Vec<String>) -> bool {
        let mut state = self.state.lock().await;
        if !matches!(state.challenge, Challenge::Bearer { .. }) {
            return true;
        }
        let mut scopes = state.scopes.clone();
        scopes.extend(more);
        match self.token(transport, &state.challenge, &scopes).await {
            Ok(token) => {
                state.token = Some(token);
                state.scopes = scopes;
                state.generation += 1;
                true
            }
            Err(_) => false,
        }
    }

    /// Checks that the registry takes the credential.
    pub(super) async fn log_in(&self, transport: &Transport) -> Result<(), RegistryError> {
        let request = Request::new(Method::GET, transport.base().clone());
        let answer = transport.send(request, LOG_IN).await?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            _ => Err(transport.refused(LOG_IN, answer).await),
        }
    }

    /// Asks what the registry wants.
    async fn ask(&self, transport: &Transport) -> Result<Challenge, RegistryError> {
        let request = Request::new(Method::GET, transport.base().clone());
        let answer =
            transport.send_elsewhere(request).await.map_err(|error| transport.failed(LOG_IN, error))?;
        match answer.status() {
            StatusCode::UNAUTHORIZED if transport.is_ours(answer.url()) => {
                challenge_in(transport, answer.headers())
            }
            _ => Ok(Challenge::Open),
        }
    }

    fn basic(&self, transport: &Transport) -> Result<HeaderValue, RegistryError> {
        match &self.credential {
            Some(Credential::Password { user, password }) => Ok(basic(user, password)),
            Some(Credential::IdentityToken(_)) => Err(transport.failed(LOG_IN, RequestError::NoTokenService)),
            None => Err(transport.failed(LOG_IN, RequestError::NoCredential)),
        }
    }

    async fn token(
        &self,
        transport: &Transport,
        challenge: &Challenge,
        scopes: &[String],
    ) -> Result<Token, RegistryError> {
        let Challenge::Bearer { realm, service } = challenge else { return Err(self.refused(transport)) };
        let failed = |error| transport.failed(LOG_IN, error);
        let request = match &self.credential {
            Some(Credential::IdentityToken(token)) => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token);
                form.append_pair("client_id", "wharf").append_pair("scope", &scopes.join(" "));
                if let Some(service) = service {
                    form.append_pair("service", service);
                }
                Request::new(Method::POST, realm.clone())
                    .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
                    .body(Bytes::from(form.finish()))
            }
            credential => {
                let mut url = realm.clone();
                url.query_pairs_mut()
                    .extend_pairs(service.iter().map(|service| ("service", service)))
                    .extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
                match credential {
                    Some(Credential::Password { user, password }) => {
                        url.query_pairs_mut().append_pair("account", user);
                        Request::new(Method::GET, url).header(AUTHORIZATION, basic(user, password))
                    }
                    _ => Request::new(Method::GET, url),
                }
            }
        };
        let answer = transport.send_elsewhere(request).await.map_err(failed)?;
        match answer.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.credential.is_none() => {
                return Err(failed(RequestError::NoCredential));
            }
            // OAuth2 answers a token that is none so (RFC 6749, 5.2).
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                return Err(transport.failed(
                    LOG_IN,
                    RequestError::CredentialRefused {
                        source: Box::new(transport.read_refusal(answer).await),
                    },
                ));
            }
            _ => return Err(transport.refused(LOG_IN, answer).await),
        }
        let text = transport.read(answer, LONGEST_TOKEN).await.map_err(failed)?;
        parse_token(&text).ok_or_else(|| failed(RequestError::InvalidToken))
    }

    fn refused(&self, transport: &Transport) -> RegistryError {
        transport.failed(
            LOG_IN,
            match self.credential {
                Some(_) => RequestError::refused(StatusCode::UNAUTHORIZED, None, b""),
                None => RequestError::NoCredential,
            },
        )
    }
}

fn basic(user: &str, password: &str) -> HeaderValue {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    sensitive(&format!("Basic {encoded}")).unwrap_or_else(|| HeaderValue::from_static(""))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn parse_token(text: &[u8]) -> Option<Token> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<f64>,
    }
    let answer: Answer = serde_json::from_slice(text).ok()?;
    let some = |token: Option<String>| token.filter(|token| !token.is_empty());
    let token = some(answer.token).or(some(answer.access_token))?;
    // As Docker: never shorter than the default, whatever the service says.
    let life = answer.expires_in.and_then(|life| Duration::try_from_secs_f64(life).ok());
    let life = life.unwrap_or_default().clamp(DEFAULT_LIFE, LONGEST_LIFE);
    // Some time before the end, since requests take time too.
    let ends = Instant::now().checked_add(life.mul_f64(0.8))?;
    Some(Token { header: sensitive(&format!("Bearer {token}"))?, ends })
}

/// What a 401 says that a token should be good for.
fn scope_in(headers: &HeaderMap) -> Option<String> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges = texts.flat_map(|text| ChallengeParser::new(text).map_while(Result::ok));
    challenges
        .filter(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer"))
        .flat_map(|challenge| challenge.params)
        .find(|(key, _)| key.eq_ignore_ascii_case("scope"))
        .map(|(_, scope)| scope.to_unescaped())
        .filter(|scope| !scope.is_empty())
}

/// The challenge of a 401, Bearer before Basic.
fn challenge_in(transport: &Transport, headers: &HeaderMap) -> Result<Challenge, RegistryError> {
    let invalid = |error| transport.failed(LOG_IN, error);
    let mut found = None;
    for text in headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()) {
        // What follows a malformed one is lost, what precedes it counts.
        for challenge in ChallengeParser::new(text).map_while(Result::ok) {
            let parameter = |name: &str| {
                let mut parameters = challenge.params.iter();
                parameters
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                let realm = parameter("realm").unwrap_or_default();
                let realm = Url::parse(&realm).map_err(|_| invalid(RequestError::InvalidRealm { realm }))?;
                let is_safe = realm.scheme() == "https"
                    || (realm.scheme() == "http" && transport.base().scheme() == "http");
                if !is_safe {
                    return Err(invalid(RequestError::LeavesTls {
                        host: realm.host_str().unwrap_or_default().into(),
                    }));
                }
                return Ok(Challenge::Bearer { realm, service: parameter("service") });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                found = Some(Challenge::Basic);
            }
        }
    }
    found.ok_or_else(|| invalid(RequestError::refused(StatusCode::UNAUTHORIZED, None, b"")))
}
