//! Who the client is, where proxies stand between it and the host.
//!
//! A header that names the client is believed only if a trusted proxy sent it
//! ([`TrustedProxies`]), and only the one kind of header that was chosen
//! ([`ForwardedBy`]): a proxy that sets one kind lets the other through as its
//! client wrote it. A guest never sees what was not believed. PROXY protocol is
//! not spoken.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Addresses of machines that are not on the internet, and of this one: what
/// the word `private` stands for.
const PRIVATE: [&str; 7] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "::1/128", "fc00::/7", "fe80::/10"];

/// The proxies whose word about the client counts. Default: none.
///
/// As text: addresses and networks in CIDR notation with commas between them,
/// `private` for private and loopback networks, `unix` for whoever connects
/// through a Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    unix: bool,
}

/// A list of proxies is malformed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no proxy: expected an address, a network such as 10.0.0.0/8, \"private\" or \"unix\"")]
pub struct InvalidProxy(String);

/// The headers by which trusted proxies name the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`: the default.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// By TCP, from this address.
    Tcp(SocketAddr),
    /// A process of this machine, through a Unix socket.
    Unix,
}

/// Who sent a request, as far as can be told; also an extension of requests to
/// workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    address: Option<IpAddr>,
    secure: bool,
    host: Option<HeaderValue>,
    /// Which fields of a trusted proxy were believed.
    by_proxy: Option<ForwardedBy>,
}

impl FromStr for TrustedProxies {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let mut trusted = Self::default();
        for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
            match word {
                "unix" => trusted.unix = true,
                "private" => trusted
                    .networks
                    .extend(PRIVATE.iter().filter_map(|network| network.parse::<IpNet>().ok())),
                _ => {
                    let network = word.parse::<IpNet>().or_else(|_| word.parse::<IpAddr>().map(IpNet::from));
                    trusted.networks.push(network.map_err(|_| InvalidProxy(word.to_owned()))?);
                }
            }
        }
        Ok(trusted)
    }
}

impl FromStr for ForwardedBy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "x-forwarded" => Ok(Self::XForwarded),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err("expected x-forwarded or forwarded"),
        }
    }
}

impl TrustedProxies {
    fn trusts(&self, peer: Peer) -> bool {
        match peer {
            Peer::Tcp(address) => self.trusts_address(address.ip().to_canonical()),
            Peer::Unix => self.unix,
        }
    }

    fn trusts_address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Who sent a request with `headers` over a connection from `peer`, which
    /// is encrypted if `secure`.
    pub(crate) fn client(&self, by: ForwardedBy, peer: Peer, secure: Secure, headers: &HeaderMap) -> Client {
        let direct = Client {
            address: match peer {
                Peer::Tcp(address) => Some(address.ip().to_canonical()),
                Peer::Unix => None,
            },
            secure: secure == Secure::Tls,
            host: None,
            by_proxy: None,
        };
        if !self.trusts(peer) {
            return direct;
        }
        let told = match by {
            ForwardedBy::XForwarded => self.x_forwarded(headers),
            ForwardedBy::Forwarded => self.forwarded(headers),
        };
        Client {
            address: told.address.or(direct.address),
            secure: told.secure.unwrap_or(direct.secure),
            host: told.host,
            by_proxy: Some(by),
        }
    }

    fn x_forwarded(&self, headers: &HeaderMap) -> Told {
        // Without quotes: one in what a client wrote is no more than a byte.
        let members =
            |name: &HeaderName| lines(headers, name).flat_map(|line| line.rsplit(|byte| *byte == b','));
        let last = |name: &HeaderName| members(name).next().and_then(text_of);
        Told {
            address: self.first_untrusted(members(&X_FORWARDED_FOR).map(address_in)),
            secure: last(&X_FORWARDED_PROTO).map(is_https),
            host: last(&X_FORWARDED_HOST).and_then(host_in),
        }
    }

    fn forwarded(&self, headers: &HeaderMap) -> Told {
        let elements = lines(headers, &FORWARDED).flat_map(|line| Elements(Some(line)));
        let mut elements = elements.map(Told::by_element).peekable();
        let (secure, host) = elements.peek().map(|last| (last.secure, last.host.clone())).unwrap_or_default();
        Told { address: self.first_untrusted(elements.map(|element| element.address)), secure, host }
    }

    /// The first hop, from the nearest on, that is no trusted proxy; if all
    /// are, the farthest. What stands before a hop that can't be read was
    /// told by somebody unknown.
    fn first_untrusted(&self, hops: impl Iterator<Item = Option<IpAddr>>) -> Option<IpAddr> {
        let mut farthest = None;
        for hop in hops {
            let Some(address) = hop else { break };
            farthest = Some(address);
            if !self.trusts_address(address) {
                break;
            }
        }
        farthest
    }
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secure {
    Plain,
    Tls,
}

/// What a trusted proxy told.
#[derive(Default)]
struct Told {
    address: Option<IpAddr>,
    secure: Option<bool>,
    host: Option<HeaderValue>,
}

impl Told {
    /// By one element of `Forwarded`; by a malformed one, nothing.
    fn by_element(element: &[u8]) -> Self {
        let parameters = parameters(element).unwrap_or_default();
        let value = |name: &[u8]| {
            let (_, value) = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
            Some(value.as_slice())
        };
        Self {
            address: value(b"for").and_then(address_in),
            secure: value(b"proto").and_then(text_of).map(is_https),
            host: value(b"host").and_then(text_of).and_then(host_in),
        }
    }
}

impl Client {
    /// Its address; `None` where it came through a Unix socket and no trusted
    /// proxy told.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The scheme of the URL that it asked for: `https` or `http`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Whether a trusted proxy sent the request.
    pub(crate) const fn by_proxy(&self) -> bool {
        self.by_proxy.is_some()
    }

    /// Replaces what the request's `headers` say of the client by what is true,
    /// for a guest to read: `X-Forwarded-For` with the one address,
    /// `X-Forwarded-Proto`, and `X-Forwarded-Host` if a trusted proxy told.
    /// `Forwarded` and `X-Real-IP` go, and so do further `X-Forwarded-*` unless
    /// they are those of a trusted proxy that is asked by them.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        headers.remove(FORWARDED);
        headers.remove(X_REAL_IP);
        if self.by_proxy != Some(ForwardedBy::XForwarded) {
            let is_claim = |name: &HeaderName| name.as_str().starts_with("x-forwarded-");
            while let Some(name) = headers.keys().find(|name| is_claim(name)).cloned() {
                headers.remove(name);
            }
        }
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.scheme()));
        match self.address.map(|address| HeaderValue::try_from(address.to_string())) {
            Some(Ok(address)) => _ = headers.insert(X_FORWARDED_FOR, address),
            _ => _ = headers.remove(X_FORWARDED_FOR),
        }
        match &self.host {
            Some(host) => _ = headers.insert(X_FORWARDED_HOST, host.clone()),
            None => _ = headers.remove(X_FORWARDED_HOST),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

/// The lines of a field, the last first: each proxy adds to the end, and what
/// is nearer to the end was told by who is nearer to us. Bytes, since only what
/// is asked for has to be text.
fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).iter().rev().map(HeaderValue::as_bytes)
}

/// The elements of one line of `Forwarded`, the last first.
///
/// Commas within quotes part nothing. The line is read from its end, so that a
/// quote which a client opened and never closed takes in nothing of what proxies
/// wrote behind it: what is left of the line then is one element, a malformed
/// one. Of a well-formed line, the elements are the same from either end.
struct Elements<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.0.take()?;
        let mut end = line.len();
        while let Some(at) = line[..end].iter().rposition(|byte| matches!(byte, b',' | b'"')) {
            if line[at] == b',' {
                self.0 = Some(&line[..at]);
                return Some(&line[at + 1..]);
            }
            let Some(opening) = opening_quote(&line[..at]) else { break };
            end = opening;
        }
        Some(line)
    }
}

/// Where the quotes open that close behind `text`: at its last quote that no
/// backslash escapes.
fn opening_quote(text: &[u8]) -> Option<usize> {
    let mut end = text.len();
    loop {
        let at = text[..end].iter().rposition(|byte| *byte == b'"')?;
        let backslashes = text[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        if backslashes % 2 == 0 {
            return Some(at);
        }
        end = at;
    }
}

/// Name and value of a parameter.
type Parameter<'a> = (&'a [u8], Vec<u8>);

/// The parameters of an element of `Forwarded` (RFC 7239, 4), values without
/// their quotes. `None`: it is malformed, or has a name twice.
fn parameters(element: &[u8]) -> Option<Vec<Parameter<'_>>> {
    let mut parameters: Vec<Parameter<'_>> = Vec::new();
    let mut rest = element.trim_ascii();
    while !rest.is_empty() {
        if rest[0] != b';' {
            let equals = rest.iter().position(|byte| *byte == b'=')?;
            let name = rest[..equals].trim_ascii();
            let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
            let is_new = parameters.iter().all(|(known, _)| !known.eq_ignore_ascii_case(name));
            if name.is_empty() || !name.iter().all(is_token) || !is_new {
                return None;
            }
            let (value, after) = value(rest[equals + 1..].trim_ascii_start())?;
            parameters.push((name, value));
            rest = after.trim_ascii_start();
        }
        if let Some(next) = rest.strip_prefix(b";") {
            rest = next.trim_ascii_start();
        } else if !rest.is_empty() {
            return None;
        }
    }
    Some(parameters)
}

/// The value at the start of `text`, and what follows it. One without quotes
/// may have colons and brackets, as many proxies write addresses.
fn value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
        let (value, after) = text.split_at(end);
        let is_plain = !value.iter().any(|byte| matches!(byte, b'"' | b'\\'));
        return is_plain.then(|| (value.trim_ascii_end().to_vec(), after));
    };
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((value, &quoted[at + 1..])),
            b'\\' => value.push(*bytes.next()?.1),
            _ => value.push(*byte),
        }
    }
    None
}

/// A member of a list as text, if it is any.
fn text_of(member: &[u8]) -> Option<&str> {
    str::from_utf8(member.trim_ascii()).ok().filter(|text| !text.is_empty())
}

fn is_https(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("https")
}

/// The address of a hop, whose port does not matter: `192.0.2.1`,
/// `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address_in(hop: &[u8]) -> Option<IpAddr> {
    let hop = text_of(hop)?;
    let address = match hop.strip_prefix('[') {
        Some(rest) => IpAddr::V6(rest.split_once(']')?.0.parse().ok()?),
        None => hop.parse().or_else(|_| hop.parse::<SocketAddr>().map(|address| address.ip())).ok()?,
    };
    Some(address.to_canonical())
}

/// A name with or without a port (RFC 3986, 3.2), not just any text.
fn host_in(text: &str) -> Option<HeaderValue> {
    text.parse::<http::uri::Authority>().ok().filter(|host| !host.as_str().contains('@'))?;
    HeaderValue::from_str(text).ok()
}

#[cfg(test)]
mod tests;
