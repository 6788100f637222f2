//! What the environment asks for: each `WHARF_*` variable, once, with its
//! default. `docs/operations.md` is the same for people.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

use crate::connection::ConnectionLimits;
use crate::listen::{Endpoint, SocketMode};
use crate::observe::ObserveSettings;
use crate::trace::{TraceSettings, TraceSettingsError};

/// Longest time that a setting may have: a clock can hold it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The names of all variables that [`Settings::from_variables`] reads, but for
/// OpenTelemetry's.
pub const VARIABLES: [&str; 18] = [
    "WHARF_ADDR",
    "WHARF_PROCESSES",
    "WHARF_SOCKET_MODE",
    "WHARF_ADMIN_ADDR",
    "WHARF_ACCESS_LOG",
    "WHARF_TRUSTED_PROXIES",
    "WHARF_FORWARDED_HEADER",
    "WHARF_TLS_CERT",
    "WHARF_TLS_KEY",
    "WHARF_HANDSHAKE_TIMEOUT",
    "WHARF_HEADER_TIMEOUT",
    "WHARF_IDLE_TIMEOUT",
    "WHARF_SEND_TIMEOUT",
    "WHARF_MAX_HEADER_SIZE",
    "WHARF_MAX_STREAMS",
    "WHARF_MAX_CONNECTIONS",
    "WHARF_DRAIN_DELAY",
    "WHARF_DRAIN_TIMEOUT",
];

/// How an app is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens. `WHARF_ADDR`, default `0.0.0.0:8080`.
    pub endpoint: Endpoint,
    /// Of a Unix socket. `WHARF_SOCKET_MODE`, default 660.
    pub socket_mode: SocketMode,
    /// Where `/healthz`, `/readyz` and `/metrics` are. `WHARF_ADMIN_ADDR`,
    /// default nowhere.
    pub admin: Option<Endpoint>,
    /// The files of the certificate chain and its key. `WHARF_TLS_CERT` and
    /// `WHARF_TLS_KEY`, default none: no TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Processes under load at most. `WHARF_PROCESSES`, default one a core.
    pub processes: Option<usize>,
    /// All that a server needs once it listens.
    pub serve: ServeSettings,
}

/// How connections and requests are served.
#[derive(Clone, Debug)]
pub struct ServeSettings {
    /// Times and sizes of a connection.
    pub limits: ConnectionLimits,
    /// Connections at once, in all processes; further ones get 503.
    /// `WHARF_MAX_CONNECTIONS`, default 10,000.
    pub max_connections: u64,
    /// Time between `/readyz` saying 503 and the end of accepting, for load
    /// balancers to notice. `WHARF_DRAIN_DELAY`, default none.
    pub drain_delay: Duration,
    /// Time for requests in flight to end once the server was told to stop.
    /// `WHARF_DRAIN_TIMEOUT`, default 10 s.
    pub drain_timeout: Duration,
    /// Log, traces and proxies.
    pub observe: ObserveSettings,
}

/// A setting that can't be meant.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A variable is malformed.
    #[error("malformed {name} {value:?}: {expected}")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: String,
    },
    /// One of the two files of TLS is not named.
    #[error("{set} is set, but {missing} is not: expected both or neither")]
    HalfOfTls {
        /// The variable that is set.
        set: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// One of OpenTelemetry's variables is malformed.
    #[error(transparent)]
    Traces(#[from] TraceSettingsError),
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            limits: ConnectionLimits::default(),
            max_connections: 10_000,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
            observe: ObserveSettings::default(),
        }
    }
}

/// Reads variables one by one; an empty one counts as unset.
struct Reader<F>(F);

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// A variable as `parse` has it, else `default`.
    fn parsed<T>(
        &self,
        name: &'static str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, SettingsError> {
        let Some(value) = self.text(name) else { return Ok(default) };
        parse(&value).map_err(|expected| SettingsError::Malformed { name, value, expected })
    }

    fn of_type<T: FromStr<Err: ToString>>(&self, name: &'static str, default: T) -> Result<T, SettingsError> {
        self.parsed(name, default, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    fn number<T: FromStr + PartialOrd + From<u8>>(
        &self,
        name: &'static str,
        default: T,
    ) -> Result<T, SettingsError> {
        self.parsed(name, default, |text| {
            let number = text.parse().ok().filter(|number| *number >= T::from(1));
            number.ok_or_else(|| "expected a number, 1 or more".into())
        })
    }

    fn duration(
        &self,
        name: &'static str,
        default: Duration,
        least: Duration,
    ) -> Result<Duration, SettingsError> {
        self.parsed(name, default, |text| {
            let number = text.parse().ok().map(Duration::from_secs);
            let duration = number.or_else(|| humantime::parse_duration(text).ok());
            let duration = duration.filter(|duration| (least..=LONGEST).contains(duration));
            duration.ok_or_else(|| "expected a time such as 30s, 500ms or 2m, a year at most".into())
        })
    }
}

impl Settings {
    /// What the variables ask for.
    ///
    /// # Errors
    /// [`SettingsError`]: one is malformed.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let read = Reader(variable);
        // As systemd starts programs that say nothing of where they listen.
        let activated = read.text("LISTEN_PID").is_some_and(|id| id == std::process::id().to_string());
        let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
        let endpoint = if activated { Endpoint::Systemd } else { Endpoint::Tcp(everywhere) };
        Ok(Self {
            endpoint: read.of_type("WHARF_ADDR", endpoint)?,
            socket_mode: read.of_type("WHARF_SOCKET_MODE", SocketMode::default())?,
            admin: read.parsed("WHARF_ADMIN_ADDR", None, |text| match text {
                "off" => Ok(None),
                _ => text.parse().map(Some).map_err(|_| "expected off, ADDRESS:PORT or unix:/PATH".into()),
            })?,
            tls: match (read.text("WHARF_TLS_CERT"), read.text("WHARF_TLS_KEY")) {
                (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
                (None, None) => None,
                (Some(_), None) => {
                    return Err(SettingsError::HalfOfTls { set: "WHARF_TLS_CERT", missing: "WHARF_TLS_KEY" });
                }
                (None, Some(_)) => {
                    return Err(SettingsError::HalfOfTls { set: "WHARF_TLS_KEY", missing: "WHARF_TLS_CERT" });
                }
            },
            processes: read.parsed("WHARF_PROCESSES", None, |text| match text {
                "auto" => Ok(None),
                _ => match text.parse() {
                    Ok(count) if count > 0 => Ok(Some(count)),
                    _ => Err("expected a number, 1 or more, or auto".into()),
                },
            })?,
            serve: ServeSettings::read(&read)?,
        })
    }
}

impl ServeSettings {
    fn read(read: &Reader<impl Fn(&str) -> Option<String>>) -> Result<Self, SettingsError> {
        let default = Self::default();
        let some = Duration::from_millis(1);
        let timeout = |name, default| read.duration(name, default, some);
        Ok(Self {
            limits: ConnectionLimits {
                handshake_timeout: timeout("WHARF_HANDSHAKE_TIMEOUT", default.limits.handshake_timeout)?,
                header_timeout: timeout("WHARF_HEADER_TIMEOUT", default.limits.header_timeout)?,
                idle_timeout: timeout("WHARF_IDLE_TIMEOUT", default.limits.idle_timeout)?,
                send_timeout: timeout("WHARF_SEND_TIMEOUT", default.limits.send_timeout)?,
                header_size: read.parsed("WHARF_MAX_HEADER_SIZE", default.limits.header_size, |text| {
                    let size =
                        text.parse::<ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
                    size.filter(|size| (1 << 10..=1 << 20).contains(size))
                        .ok_or_else(|| "expected a size such as 32KiB, from 1KiB to 1MiB".into())
                })?,
                streams: read.number("WHARF_MAX_STREAMS", default.limits.streams)?,
            },
            max_connections: read.number("WHARF_MAX_CONNECTIONS", default.max_connections)?,
            drain_delay: read.duration("WHARF_DRAIN_DELAY", default.drain_delay, Duration::ZERO)?,
            drain_timeout: read.duration("WHARF_DRAIN_TIMEOUT", default.drain_timeout, Duration::ZERO)?,
            observe: ObserveSettings {
                trusted_proxies: read.of_type("WHARF_TRUSTED_PROXIES", default.observe.trusted_proxies)?,
                forwarded_by: read.of_type("WHARF_FORWARDED_HEADER", default.observe.forwarded_by)?,
                access_log: read.of_type("WHARF_ACCESS_LOG", default.observe.access_log)?,
                traces: TraceSettings::from_variables(&read.0)?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::AccessLogFormat;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_variables_the_defaults_are_those_that_are_documented() {
        let found = settings(&[("WHARF_ADDR", "")]).unwrap();
        assert_eq!(found.endpoint.to_string(), "0.0.0.0:8080");
        assert!(found.admin.is_none() && found.tls.is_none());
        assert_eq!(found.serve.max_connections, 10_000);
        assert_eq!(found.serve.observe.access_log, AccessLogFormat::Off);
        assert_eq!(found.serve.limits, ConnectionLimits::default());
    }

    #[test]
    fn every_variable_is_read_and_a_malformed_one_is_named() {
        for name in VARIABLES.into_iter().filter(|name| !name.starts_with("WHARF_TLS")) {
            let error = settings(&[(name, "\u{7f}")]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("malformed {name} \"\\u{{7f}}\": ")), "{error}");
            assert!(error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn times_and_sizes_are_written_as_people_do() {
        let found = settings(&[
            ("WHARF_IDLE_TIMEOUT", "90"),
            ("WHARF_HEADER_TIMEOUT", "1m 30s"),
            ("WHARF_DRAIN_DELAY", "0"),
            ("WHARF_MAX_HEADER_SIZE", "8KiB"),
        ]);
        let limits = found.unwrap().serve.limits;
        assert_eq!(
            (limits.idle_timeout, limits.header_timeout),
            (Duration::from_secs(90), Duration::from_secs(90))
        );
        assert_eq!(limits.header_size, 8192);
        for (name, value) in [
            ("WHARF_IDLE_TIMEOUT", "0"),
            ("WHARF_IDLE_TIMEOUT", "2years"),
            ("WHARF_MAX_HEADER_SIZE", "1"),
            ("WHARF_MAX_CONNECTIONS", "0"),
            ("WHARF_MAX_STREAMS", "-1"),
        ] {
            assert!(settings(&[(name, value)]).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn half_of_tls_is_an_error() {
        let error = settings(&[("WHARF_TLS_CERT", "/a")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "WHARF_TLS_CERT is set, but WHARF_TLS_KEY is not: expected both or neither"
        );
        assert!(settings(&[("WHARF_TLS_KEY", "/a")]).is_err());
        assert!(settings(&[("WHARF_TLS_CERT", "/a"), ("WHARF_TLS_KEY", "/b")]).unwrap().tls.is_some());
    }

    #[test]
    fn a_program_that_systemd_started_takes_its_socket_unless_told_otherwise() {
        let id = std::process::id().to_string();
        assert_eq!(settings(&[("LISTEN_PID", &id)]).unwrap().endpoint, Endpoint::Systemd);
        assert_eq!(settings(&[("LISTEN_PID", "1")]).unwrap().endpoint.to_string(), "0.0.0.0:8080");
        let told = settings(&[("LISTEN_PID", &id), ("WHARF_ADDR", "127.0.0.1:1")]).unwrap();
        assert_eq!(told.endpoint.to_string(), "127.0.0.1:1");
    }
}
