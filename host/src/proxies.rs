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
    by_proxy: bool,
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
            by_proxy: false,
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
            by_proxy: true,
        }
    }

    fn x_forwarded(&self, headers: &HeaderMap) -> Told {
        let hops = all_values(headers, &X_FORWARDED_FOR);
        let hops = hops.rsplit(',').map(|hop| address_in(hop.trim()));
        let last = |name| {
            let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
            value.rsplit(',').next().map(str::trim).filter(|value| !value.is_empty())
        };
        Told {
            address: self.first_untrusted(hops),
            secure: last(X_FORWARDED_PROTO).map(|proto| proto.eq_ignore_ascii_case("https")),
            host: last(X_FORWARDED_HOST).and_then(host_in),
        }
    }

    fn forwarded(&self, headers: &HeaderMap) -> Told {
        let elements = all_values(headers, &FORWARDED);
        let elements = split_quoted(&elements, b',');
        let parameter = |element: &str, name: &str| {
            split_quoted(element, b';').into_iter().find_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
            })
        };
        let hops = elements.iter().rev().map(|element| address_in(&parameter(element, "for")?));
        let last = |name| elements.last().and_then(|element| parameter(element, name));
        Told {
            address: self.first_untrusted(hops),
            secure: last("proto").map(|proto| proto.eq_ignore_ascii_case("https")),
            host: last("host").as_deref().and_then(host_in),
        }
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
struct Told {
    address: Option<IpAddr>,
    secure: Option<bool>,
    host: Option<HeaderValue>,
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
        self.by_proxy
    }

    /// Replaces what the request's `headers` say of the client by what is true,
    /// for a guest to read: `X-Forwarded-For` with the one address,
    /// `X-Forwarded-Proto`, and `X-Forwarded-Host` if a trusted proxy told.
    /// `Forwarded` and `X-Real-IP` go, and so do further `X-Forwarded-*` unless
    /// a trusted proxy sent them.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        headers.remove(FORWARDED);
        headers.remove(X_REAL_IP);
        if !self.by_proxy {
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

/// All values of a header as one list (RFC 9110, 5.3). One that is not ASCII
/// stays as something that no address is.
fn all_values(headers: &HeaderMap, name: &HeaderName) -> String {
    let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    values.collect::<Vec<_>>().join(",")
}

/// `text` split at `separator`, except within quotes.
fn split_quoted(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        if byte == b'"' {
            quoted = !quoted;
        } else if byte == separator && !quoted {
            parts.push(text[start..at].trim());
            start = at + 1;
        }
    }
    parts.push(text[start..].trim());
    parts
}

/// The address of a hop, whose port does not matter: `192.0.2.1`,
/// `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address_in(hop: &str) -> Option<IpAddr> {
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
