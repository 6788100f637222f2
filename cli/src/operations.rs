//! The flags of serving: each is one of `wharf-host`'s variables, and wins over
//! it.

use clap::Args;
use wharf_host::{Settings, SettingsError};

/// How an app is served. Times are written as 30s, 500ms or 2m.
#[derive(Debug, Args)]
#[command(next_help_heading = "Operations")]
pub(crate) struct Operations {
    /// Mode of a Unix socket, in octal [default: 660].
    #[arg(long, value_name = "MODE", env = "WHARF_SOCKET_MODE")]
    socket_mode: Option<String>,
    /// Where /healthz, /readyz and /metrics are, for example 127.0.0.1:9090 [default: off].
    #[arg(long, value_name = "ADDRESS:PORT", env = "WHARF_ADMIN_ADDR")]
    admin_addr: Option<String>,
    /// A line a request on stderr: off, text or json [default: off].
    #[arg(long, value_name = "FORMAT", env = "WHARF_ACCESS_LOG")]
    access_log: Option<String>,
    /// Proxies whose word about the client counts: addresses, networks, "private", "unix" [default: none].
    #[arg(long, value_name = "LIST", env = "WHARF_TRUSTED_PROXIES")]
    trusted_proxies: Option<String>,
    /// The headers by which they give it: x-forwarded or forwarded [default: x-forwarded].
    #[arg(long, value_name = "KIND", env = "WHARF_FORWARDED_HEADER")]
    forwarded_header: Option<String>,
    /// PEM file of a certificate chain, read again on SIGHUP; with --tls-key.
    #[arg(long, value_name = "FILE", env = "WHARF_TLS_CERT")]
    tls_cert: Option<String>,
    /// PEM file of the certificate's key.
    #[arg(long, value_name = "FILE", env = "WHARF_TLS_KEY")]
    tls_key: Option<String>,
    /// Time for a TLS handshake [default: 10s].
    #[arg(long, value_name = "TIME", env = "WHARF_HANDSHAKE_TIMEOUT")]
    handshake_timeout: Option<String>,
    /// Time for the head of a request [default: 30s].
    #[arg(long, value_name = "TIME", env = "WHARF_HEADER_TIMEOUT")]
    header_timeout: Option<String>,
    /// Time between two requests [default: 75s].
    #[arg(long, value_name = "TIME", env = "WHARF_IDLE_TIMEOUT")]
    idle_timeout: Option<String>,
    /// Time that a client may take nothing [default: 60s].
    #[arg(long, value_name = "TIME", env = "WHARF_SEND_TIMEOUT")]
    send_timeout: Option<String>,
    /// Head of a request at most; past it 431 [default: 64KiB].
    #[arg(long, value_name = "SIZE", env = "WHARF_MAX_HEADER_SIZE")]
    max_header_size: Option<String>,
    /// Requests at once on a connection of HTTP/2 [default: 128].
    #[arg(long, value_name = "NUMBER", env = "WHARF_MAX_STREAMS")]
    max_streams: Option<String>,
    /// Connections at once; further ones get 503 [default: 10000].
    #[arg(long, value_name = "NUMBER", env = "WHARF_MAX_CONNECTIONS")]
    max_connections: Option<String>,
    /// Time of accepting after a stop, while /readyz says 503 [default: 0s].
    #[arg(long, value_name = "TIME", env = "WHARF_DRAIN_DELAY")]
    drain_delay: Option<String>,
    /// Time for requests in flight after a stop [default: 10s].
    #[arg(long, value_name = "TIME", env = "WHARF_DRAIN_TIMEOUT")]
    drain_timeout: Option<String>,
}

impl Operations {
    /// All settings, with the address `addr`.
    pub(crate) fn settings(&self, addr: &str) -> Result<Settings, SettingsError> {
        Settings::from_variables(|name| {
            let flag = match name {
                "WHARF_ADDR" => return Some(addr.to_owned()),
                "WHARF_SOCKET_MODE" => &self.socket_mode,
                "WHARF_ADMIN_ADDR" => &self.admin_addr,
                "WHARF_ACCESS_LOG" => &self.access_log,
                "WHARF_TRUSTED_PROXIES" => &self.trusted_proxies,
                "WHARF_FORWARDED_HEADER" => &self.forwarded_header,
                "WHARF_TLS_CERT" => &self.tls_cert,
                "WHARF_TLS_KEY" => &self.tls_key,
                "WHARF_HANDSHAKE_TIMEOUT" => &self.handshake_timeout,
                "WHARF_HEADER_TIMEOUT" => &self.header_timeout,
                "WHARF_IDLE_TIMEOUT" => &self.idle_timeout,
                "WHARF_SEND_TIMEOUT" => &self.send_timeout,
                "WHARF_MAX_HEADER_SIZE" => &self.max_header_size,
                "WHARF_MAX_STREAMS" => &self.max_streams,
                "WHARF_MAX_CONNECTIONS" => &self.max_connections,
                "WHARF_DRAIN_DELAY" => &self.drain_delay,
                "WHARF_DRAIN_TIMEOUT" => &self.drain_timeout,
                // OpenTelemetry's.
                _ => return std::env::var(name).ok(),
            };
            flag.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        operations: Operations,
    }

    #[test]
    fn every_variable_of_wharf_host_has_a_flag() {
        // The address is a flag of its own, and `wharf serve` is one process.
        let others = |name: &&str| !["WHARF_ADDR", "WHARF_PROCESSES"].contains(name);
        for variable in wharf_host::VARIABLES.into_iter().filter(others) {
            let flag = variable.trim_start_matches("WHARF_").to_lowercase().replace('_', "-");
            // What no variable takes, but a file's name.
            let program = Program::parse_from(["wharf".to_owned(), format!("--{flag}"), "\u{7f}".to_owned()]);
            let error = program.operations.settings("127.0.0.1:0").unwrap_err().to_string();
            assert!(error.contains(variable), "{error}");
        }
    }
}
