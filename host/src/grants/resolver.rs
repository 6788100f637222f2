//! Names to addresses: hosts file and DNS, as `/etc` says.
//!
//! By hickory, since a static binary has no NSS. It deliberately does not
//! decide which addresses may be used: see `address`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tracing::warn;
use wasmtime_wasi_http::Error as HttpError;

/// Resolves names. It reads the system's settings at the first name, so that
/// who resolves none pays nothing.
#[derive(Default)]
pub(super) struct Resolver(OnceLock<Result<TokioResolver, NetError>>);

impl Resolver {
    /// The addresses of `name`.
    ///
    /// # Errors
    /// [`HttpError::DnsTimeout`] or [`HttpError::DnsError`]: it has none, or
    /// no server says so.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, HttpError> {
        // RFC 6761, 6.3: never by the DNS.
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let resolver = self.0.get_or_init(system).as_ref().map_err(dns_error)?;
        let found = resolver.lookup_ip(name).await.map_err(|error| dns_error(&error))?;
        Ok(found.iter().collect())
    }
}

fn system() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio().or_else(|error| {
        // The hosts file may still know what is asked for.
        warn!(%error, "cannot read /etc/resolv.conf: names are looked up in /etc/hosts alone");
        Ok::<_, NetError>(TokioResolver::builder_with_config(
            ResolverConfig::default(),
            TokioRuntimeProvider::default(),
        ))
    })?;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

fn dns_error(error: &NetError) -> HttpError {
    if matches!(error, NetError::Timeout) {
        return HttpError::DnsTimeout;
    }
    // RFC 8914 has the codes of `info_code`; these are of RFC 1035, 4.1.1.
    let rcode = if error.is_nx_domain() {
        "NXDOMAIN"
    } else if error.is_no_records_found() {
        "NODATA"
    } else {
        warn!(%error, "cannot resolve a name");
        "SERVFAIL"
    };
    HttpError::DnsError { rcode: Some(rcode.into()), info_code: None }
}
