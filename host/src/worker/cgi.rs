//! CGI/1.1 (RFC 3875): a request as meta-variables, and the head of a response.
//!
//! Where the RFC leaves a choice:
//! - `CONTENT_LENGTH` is always set where there is a body (4.1.2): a body of
//!   unknown length is read to its end first, up to the worker's limit.
//! - `Authorization` is passed on, as nginx does: the server checks nobody's
//!   password itself, so it is meant for the worker. Apache's reason to hold it
//!   back, other users' scripts on the same server, does not exist here.
//! - A `Location` that is a path goes to the client as a redirect (302), as
//!   with nginx and Go's net/http/cgi: what is not the worker's own can't be
//!   fetched through it. (6.2.2 would have the server answer in its place.)
//! - No search words in `argv` (4.4): see CVE-2012-1823.
//! - No `PATH_TRANSLATED`, `AUTH_TYPE`, `REMOTE_USER`, `REMOTE_IDENT`: no
//!   files behind the path and no users known.
//! - No header's name can look like another's: those with more than letters,
//!   digits and `-` are left out, as with nginx and Apache.
//!
//! Not here: running the program (`command`), and NPH scripts (5), which would
//! write to the connection themselves.

mod head;

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, HeaderMap, HeaderName, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Version};
use percent_encoding::percent_decode_str;

pub(crate) use head::{Head, HeadError, LARGEST_HEAD, head_length};

/// Meta-variables that are never taken from settings.
const OWN: [&str; 22] = [
    "AUTH_TYPE",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "GATEWAY_INTERFACE",
    "HTTPS",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "QUERY_STRING",
    "REMOTE_ADDR",
    "REMOTE_HOST",
    "REMOTE_IDENT",
    "REMOTE_USER",
    "REQUEST_METHOD",
    "REQUEST_SCHEME",
    "REQUEST_URI",
    "SCRIPT_NAME",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "SERVER_SOFTWARE",
    "WHARF_PARAMS",
    "WHARF_WORKER",
];

/// Headers of the connection and not of the request (RFC 9110, 7.6.1), those
/// that have variables of their own, and `Proxy`, which would become
/// `HTTP_PROXY` (httpoxy, CVE-2016-5385).
const NOT_PASSED: [HeaderName; 12] = [
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
];

/// Who sent a request, as far as is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// Of the client. None behind a Unix socket.
    pub(crate) address: Option<IpAddr>,
    /// Whether the client spoke TLS.
    pub(crate) secure: bool,
}

/// One worker, as its programs see it.
pub(crate) struct Script {
    name: String,
    /// Parts of a path that are the script's; what follows is `PATH_INFO`.
    depth: usize,
    /// From the settings.
    env: BTreeMap<String, String>,
}

impl Script {
    /// The worker `name` that answers `pattern`, with variables of its own.
    /// None of these replaces what CGI defines; of the client's headers they do.
    pub(crate) fn new(name: &str, pattern: &str, env: &[(String, String)]) -> Self {
        let parts = pattern.split('/').filter(|part| !part.is_empty() && !part.starts_with("[..."));
        let env = env.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
        Self { name: name.to_owned(), depth: parts.count(), env: env.cloned().collect() }
    }

    /// The name of the worker: the program's first argument.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Tells `set` all variables of a request with a body of `length` bytes, if
    /// it has any (RFC 3875, 4.1). `params` are those of the route.
    pub(crate) fn variables(
        &self,
        request: &Parts,
        length: Option<u64>,
        params: &[(String, String)],
        set: &mut impl FnMut(&str, &str),
    ) {
        let caller = request.extensions.get::<Caller>().copied();
        let caller = caller.unwrap_or(Caller { address: None, secure: false });
        self.server(request, caller, set);
        self.request(request, length, set);
        // RFC 3875, 4.1.9: where the name isn't known, the address stands for it.
        let address = caller.address.map(|address| address.to_string()).unwrap_or_default();
        set("REMOTE_ADDR", &address);
        set("REMOTE_HOST", &address);
        self.route(params, set);
        self.headers(&request.headers, set);
        for (name, value) in &self.env {
            set(name, value);
        }
    }

    fn server(&self, request: &Parts, caller: Caller, set: &mut impl FnMut(&str, &str)) {
        let (scheme, port) = if caller.secure { ("https", 443) } else { ("http", 80) };
        let host = host_of(request);
        let authority = Authority::try_from(host).ok().filter(|authority| !authority.host().is_empty());
        set("SERVER_SOFTWARE", concat!("wharf/", env!("CARGO_PKG_VERSION")));
        set("GATEWAY_INTERFACE", "CGI/1.1");
        set(
            "SERVER_PROTOCOL",
            match request.version {
                Version::HTTP_09 => "HTTP/0.9",
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_3 => "HTTP/3.0",
                _ => "HTTP/1.1",
            },
        );
        set("SERVER_NAME", authority.as_ref().map_or("localhost", Authority::host));
        let port = authority.as_ref().and_then(Authority::port_u16).unwrap_or(port);
        set("SERVER_PORT", &port.to_string());
        set("REQUEST_SCHEME", scheme);
        if caller.secure {
            set("HTTPS", "on");
        }
        if !host.is_empty() {
            set("HTTP_HOST", &String::from_utf8_lossy(host));
        }
    }

    fn request(&self, request: &Parts, length: Option<u64>, set: &mut impl FnMut(&str, &str)) {
        let uri = &request.uri;
        let path = percent_decode_str(uri.path()).decode_utf8_lossy();
        let (script, info) = self.split(&path);
        set("REQUEST_METHOD", request.method.as_str());
        set("REQUEST_URI", uri.path_and_query().map_or("/", |target| target.as_str()));
        set("SCRIPT_NAME", script);
        set("PATH_INFO", info);
        set("QUERY_STRING", uri.query().unwrap_or_default());
        if let Some(length) = length {
            set("CONTENT_LENGTH", &length.to_string());
        }
        if let Some(media_type) = request.headers.get(CONTENT_TYPE) {
            set("CONTENT_TYPE", &String::from_utf8_lossy(media_type.as_bytes()));
        }
    }

    /// `SCRIPT_NAME` and `PATH_INFO` of a path (RFC 3875, 4.1.5 and 4.1.13):
    /// together they are the path, and the first never ends in a slash.
    fn split<'a>(&self, path: &'a str) -> (&'a str, &'a str) {
        let end = path.match_indices('/').nth(self.depth).map_or(path.len(), |(at, _)| at);
        path.split_at(end)
    }

    /// The parameters of the route: all in one, as workers of `wasi:http` get
    /// them, and each by itself.
    fn route(&self, params: &[(String, String)], set: &mut impl FnMut(&str, &str)) {
        set("WHARF_WORKER", &self.name);
        if params.is_empty() {
            return;
        }
        set("WHARF_PARAMS", &super::encode_params(params));
        let variable = |name: &str| format!("WHARF_PARAM_{}", upper(name));
        for (index, (name, value)) in params.iter().enumerate() {
            // Of `a-b` and `a_b` the first has the name.
            let taken = params[..index].iter().any(|(earlier, _)| upper(earlier) == upper(name));
            if !taken {
                set(&variable(name), value);
            }
        }
    }

    /// `HTTP_*` (RFC 3875, 4.1.18).
    fn headers(&self, headers: &HeaderMap, set: &mut impl FnMut(&str, &str)) {
        for name in headers.keys() {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let ours = *name == super::WORKER_HEADER || *name == super::PARAMS_HEADER;
            if ours || NOT_PASSED.contains(name) || !name.as_str().bytes().all(plain) {
                continue;
            }
            let variable = format!("HTTP_{}", upper(name.as_str()));
            if !self.env.contains_key(&variable) {
                set(&variable, &joined(headers, name));
            }
        }
    }
}

/// The authority that the request is for: that of the request's target, else
/// `Host` (RFC 9112, 3.2.2); empty where there is none.
pub(crate) fn host_of(request: &Parts) -> &[u8] {
    match request.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => request.headers.get(HOST).map_or(&[], HeaderValue::as_bytes),
    }
}

/// All values of a header as one (RFC 9110, 5.3; RFC 6265, 5.4 for cookies,
/// which HTTP/2 may send in pieces).
pub(crate) fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let separator = if *name == COOKIE { "; " } else { ", " };
    let mut joined = String::new();
    for (index, value) in headers.get_all(name).iter().enumerate() {
        // A second one is no list: to join them would make up a third.
        if index > 0 && *name == AUTHORIZATION {
            break;
        }
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    joined
}

fn upper(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests;
