//! Patterns of HTTP requests that a worker may send, and of TCP connections that it
//! may make.
//!
//! `[METHOD,…] SCHEME://HOST[:PORT]` or `tcp://HOST:PORT`, where HOST is a name, `*.NAME` (all names
//! below it, not itself), `*` (all names), an address or a block of addresses
//! (CIDR, IPv6 in brackets); PORT is the scheme's own or a number, or `*`.
//!
//! It deliberately knows nothing of what is behind an address: which ones need
//! an entry of their own is the host's to say.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Requests that a worker may send, or connections that it may make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Outbound {
    /// Empty: any.
    methods: Vec<String>,
    scheme: OutboundScheme,
    host: Host,
    /// `None`: any.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    Name(String),
    Below(String),
    Addresses(IpNet),
}

/// The scheme of an outbound request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundScheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
    /// No HTTP: whatever both ends speak.
    Tcp,
}

/// What a request's authority names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    /// A name of the DNS: lower case, without a dot at its end.
    Name(String),
    /// An address. An IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) is the IPv4
    /// address that it stands for.
    Address(IpAddr),
}

/// A request, as far as grants ask.
#[derive(Clone, Copy, Debug)]
pub struct OutboundRequest<'a> {
    /// Its method; case counts (RFC 9110, 9.1). A connection has none.
    pub method: &'a str,
    /// Its scheme.
    pub scheme: OutboundScheme,
    /// Where it goes.
    pub host: &'a HostName,
    /// The port, the scheme's own if none was given.
    pub port: u16,
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed outbound pattern {pattern:?}: expected {expected}")]
pub struct OutboundError {
    pattern: String,
    expected: &'static str,
}

impl OutboundScheme {
    /// The port where none is given (RFC 9110, 4.2); 0 where one must be.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Tcp => 0,
        }
    }
}

impl Outbound {
    /// Whether it is about requests by https.
    #[must_use]
    pub const fn is_https(&self) -> bool {
        matches!(self.scheme, OutboundScheme::Https)
    }

    /// Whether it is about connections by TCP.
    #[must_use]
    pub const fn is_tcp(&self) -> bool {
        matches!(self.scheme, OutboundScheme::Tcp)
    }

    /// Whether it has the name `host`, at whatever port.
    #[must_use]
    pub fn names(&self, host: &HostName) -> bool {
        matches!(host, HostName::Name(_)) && self.covers_host(host)
    }

    /// Whether `request` may be sent, as far as its name and not the address
    /// behind that name decides.
    #[must_use]
    pub fn covers(&self, request: &OutboundRequest<'_>) -> bool {
        self.covers_host(request.host) && self.covers_all_but_host(request)
    }

    fn covers_host(&self, host: &HostName) -> bool {
        match (&self.host, host) {
            (Host::Any, HostName::Name(_)) => true,
            (Host::Name(granted), HostName::Name(name)) => granted == name,
            (Host::Below(granted), HostName::Name(name)) => {
                name.strip_suffix(granted.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            (Host::Addresses(block), HostName::Address(address)) => block.contains(address),
            _ => false,
        }
    }

    /// How many leading bits this entry fixes of `address`, if it grants
    /// `request` to that address by address. An entry by name never does.
    #[must_use]
    pub fn covers_address(&self, request: &OutboundRequest<'_>, address: IpAddr) -> Option<u8> {
        match &self.host {
            Host::Addresses(block) if block.contains(&address) && self.covers_all_but_host(request) => {
                Some(block.prefix_len())
            }
            _ => None,
        }
    }

    fn covers_all_but_host(&self, request: &OutboundRequest<'_>) -> bool {
        self.scheme == request.scheme
            && self.port.is_none_or(|port| port == request.port)
            && (self.methods.is_empty() || self.methods.iter().any(|method| method == request.method))
    }
}

impl FromStr for Outbound {
    type Err = OutboundError;

    fn from_str(pattern: &str) -> Result<Self, OutboundError> {
        let expected = |expected| OutboundError { pattern: pattern.to_owned(), expected };
        let (methods, origin) = match pattern.rsplit_once(' ') {
            Some((methods, origin)) => (methods.split(',').map(str::trim).collect(), origin),
            None => (Vec::new(), pattern),
        };
        let token = |method: &&str| {
            !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
        };
        if !methods.iter().all(token) {
            return Err(expected("methods in upper case with commas between them, as in GET,HEAD"));
        }
        if methods.contains(&"CONNECT") {
            return Err(expected("another method than CONNECT, which is never granted"));
        }
        let (scheme, rest) = match origin.split_once("://") {
            Some(("https", rest)) => (OutboundScheme::Https, rest),
            Some(("http", rest)) => (OutboundScheme::Http, rest),
            Some(("tcp", rest)) => (OutboundScheme::Tcp, rest),
            _ => return Err(expected("http://, https:// or tcp:// in front of the host")),
        };
        if scheme == OutboundScheme::Tcp && !methods.is_empty() {
            return Err(expected("no method in front of tcp://"));
        }
        if rest.contains('@') {
            return Err(expected("no user and password: a worker sends its credentials itself"));
        }
        let (host, port) = split_port(rest);
        let port = match port {
            None if scheme == OutboundScheme::Tcp => {
                return Err(expected("a port, as in tcp://db.internal:5432"));
            }
            None => Some(scheme.default_port()),
            Some("*") => None,
            Some(port) => match parse_port(port) {
                Some(port) => Some(port),
                None => return Err(expected("a port from 1 to 65535, or *")),
            },
        };
        let host = parse_host(host).map_err(expected)?;
        Ok(Self { methods: methods.into_iter().map(str::to_owned).collect(), scheme, host, port })
    }
}

/// `HOST[:PORT]`, where colons within brackets are the host's.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

fn parse_host(text: &str) -> Result<Host, &'static str> {
    let block = match text.strip_prefix('[') {
        Some(rest) => Some(rest.strip_suffix(']').ok_or("a \"]\" after the IPv6 address")?),
        None => text.bytes().next().filter(u8::is_ascii_digit).and(text.contains('/').then_some(text)),
    };
    if let Some(block) = block {
        let net = block.parse::<IpNet>().or_else(|_| block.parse::<IpAddr>().map(IpNet::from));
        let net = net.map_err(|_| "an address, or a block of them as in 10.0.0.0/8 or [fd00::/8]")?;
        if net.trunc() != net {
            return Err("a block of addresses whose bits past the prefix are zero");
        }
        return Ok(Host::Addresses(unmapped(net)));
    }
    match text.split_once("*.") {
        _ if text == "*" => Ok(Host::Any),
        Some(("", below)) => match below.parse() {
            Ok(HostName::Name(name)) => Ok(Host::Below(name)),
            _ => Err("a domain after \"*.\""),
        },
        _ if text.contains('/') => Err("no path: a grant is for a whole host"),
        _ if text.contains('*') => {
            Err("\"*\" only as the whole host or as its first label, as in *.example.com")
        }
        _ => match text.parse() {
            Ok(HostName::Name(name)) => Ok(Host::Name(name)),
            Ok(HostName::Address(address)) => Ok(Host::Addresses(address.into())),
            Err(MalformedHost) => Err("a host name (international ones as xn--…) or an address"),
        },
    }
}

/// An address of the IPv4-mapped block is an IPv4 address, and so is a block
/// within that block.
fn unmapped(net: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let mapped = |address: Ipv6Addr| address.to_ipv4_mapped();
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED => mapped(v6.addr())
            .and_then(|v4| IpNet::new(v4.into(), v6.prefix_len() - MAPPED).ok())
            .unwrap_or(net),
        _ => net,
    }
}

/// The text is neither a name nor an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed host: expected a name or an address")]
pub struct MalformedHost;

impl FromStr for HostName {
    type Err = MalformedHost;

    /// The host of an authority (RFC 3986, 3.2.2), IPv6 in brackets.
    fn from_str(text: &str) -> Result<Self, MalformedHost> {
        if let Some(v6) = text.strip_prefix('[') {
            let v6: Ipv6Addr = v6.strip_suffix(']').and_then(|v6| v6.parse().ok()).ok_or(MalformedHost)?;
            return Ok(Self::Address(IpAddr::V6(v6).to_canonical()));
        }
        if let Ok(v4) = text.parse() {
            return Ok(Self::Address(IpAddr::V4(v4)));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        // What ends in a number is an address in one of inet_aton's forms, and
        // no other (WHATWG URL, "ends in a number").
        let last = name.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
        let number = last.bytes().all(|byte| byte.is_ascii_digit())
            || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if name.len() > 253 || !name.split('.').all(label) || number {
            return Err(MalformedHost);
        }
        Ok(Self::Name(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for OutboundScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
        })
    }
}

impl fmt::Display for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.methods.is_empty() {
            write!(f, "{} ", self.methods.join(","))?;
        }
        write!(f, "{}://", self.scheme)?;
        match &self.host {
            Host::Any => f.write_str("*")?,
            Host::Name(name) => f.write_str(name)?,
            Host::Below(name) => write!(f, "*.{name}")?,
            Host::Addresses(block) => {
                let whole = block.prefix_len() == block.max_prefix_len();
                let text = if whole { block.addr().to_string() } else { block.to_string() };
                if block.addr().is_ipv6() { write!(f, "[{text}]")? } else { f.write_str(&text)? }
            }
        }
        match self.port {
            None => f.write_str(":*"),
            Some(port) if port == self.scheme.default_port() => Ok(()),
            Some(port) => write!(f, ":{port}"),
        }
    }
}

impl From<Outbound> for String {
    fn from(outbound: Outbound) -> Self {
        outbound.to_string()
    }
}

impl TryFrom<String> for Outbound {
    type Error = OutboundError;

    fn try_from(text: String) -> Result<Self, OutboundError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests;
