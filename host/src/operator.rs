//! What an operator may ask of a running host from inside of its container,
//! which has no shell: `wharf-host routes`, `health` and `dump`.
//!
//! Each is a process of its own beside the one that serves, with the same
//! environment and files.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use wharf_app::{Manifest, ManifestError, RouteError, Routes};

use crate::listen::Endpoint;
use crate::settings::{Settings, VARIABLES};

/// Time for the host to take a connection, and to answer on it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a question can't be answered.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The app's manifest can't be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Its routes contradict each other.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// Nobody answers where the host should listen.
    #[error("not healthy: {endpoint} does not answer")]
    Silent {
        /// Where it should listen.
        endpoint: Endpoint,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// What answers says that it is not ready, or is no host.
    #[error("not healthy: {endpoint} answers {answer:?}")]
    NotReady {
        /// Where it was asked.
        endpoint: Endpoint,
        /// The first line of the answer.
        answer: String,
    },
}

/// The routes of the app with the manifest at `path`, in order of precedence:
/// pattern, kind and source in each line.
///
/// # Errors
/// [`OperatorError`].
pub fn routes(path: &Path) -> Result<String, OperatorError> {
    let manifest = Manifest::read(path)?;
    let lines = Routes::new(&manifest)?.lines(&manifest);
    // A name of a file must not write into the terminal.
    let plain = |text: &str| text.replace(char::is_control, "\u{fffd}");
    let rows: Vec<_> =
        lines.iter().map(|line| (plain(&line.pattern), line.kind, plain(&line.source))).collect();
    let width = rows.iter().map(|(pattern, ..)| pattern.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (pattern, kind, source) in rows {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{pattern:width$}  {kind:8}  {source}");
    }
    Ok(text)
}

/// Asks the host whether it takes requests: the admin listener where there is
/// one, else whether the app's own answers at all.
///
/// # Errors
/// [`OperatorError`]: it does not.
pub fn health(settings: &Settings) -> Result<(), OperatorError> {
    let (endpoint, request, expected) = match &settings.admin {
        Some(admin) => {
            (admin, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", " 200 ")
        }
        // Of no worker: the server itself answers.
        None => {
            (&settings.endpoint, "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", " ")
        }
    };
    let silent = |source| OperatorError::Silent { endpoint: endpoint.clone(), source };
    // With TLS, that it takes connections must do: its certificate is for
    // others' names.
    let request = (settings.admin.is_some() || settings.tls.is_none()).then_some(request);
    let answer = ask(endpoint, request).map_err(silent)?;
    let fine = |line: &str| line.starts_with("HTTP/1.") && line.contains(expected);
    match answer {
        Some(answer) if !fine(&answer) => Err(OperatorError::NotReady { endpoint: endpoint.clone(), answer }),
        _ => Ok(()),
    }
}

/// The first line of what is answered to `request`.
fn ask(endpoint: &Endpoint, request: Option<&str>) -> io::Result<Option<String>> {
    match endpoint {
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            request.map(|request| exchange(stream, request)).transpose()
        }
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            request.map(|request| exchange(stream, request)).transpose()
        }
        Endpoint::Descriptor(_) | Endpoint::Systemd => Err(io::Error::other(
            "only the host itself has this socket: set WHARF_ADMIN_ADDR, which is asked then",
        )),
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 256];
    let mut length = 0;
    while length < head.len() && !head[..length].contains(&b'\n') {
        match stream.read(&mut head[length..])? {
            0 => break,
            read => length += read,
        }
    }
    let text = String::from_utf8_lossy(&head[..length]);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// An address at which this machine reaches what listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// All that the host was told, as JSON: its version, the settings among its
/// variables, and the manifest. What an app takes from the environment, which
/// may be secret, is not in it.
///
/// # Errors
/// [`OperatorError`].
pub fn dump(path: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<String, OperatorError> {
    let manifest = Manifest::read(path)?;
    let settings: serde_json::Map<_, _> =
        VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?.into()))).collect();
    let dump = json!({
        "host": env!("CARGO_PKG_VERSION"),
        "settings": settings,
        "manifest": manifest,
    });
    Ok(format!("{dump:#}\n"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn settings(address: SocketAddr, admin: bool) -> Settings {
        let name = if admin { "WHARF_ADMIN_ADDR" } else { "WHARF_ADDR" };
        Settings::from_variables(|asked| (asked == name).then(|| address.to_string())).unwrap()
    }

    /// What `health` says of one that answers with `line`.
    fn answered(line: &'static str, admin: bool) -> Result<(), OperatorError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
        });
        let health = health(&settings(address, admin));
        server.join().unwrap();
        health
    }

    #[test]
    fn the_admin_listener_must_say_that_it_is_ready_and_the_app_anything() {
        answered("HTTP/1.1 200 OK\r\n\r\n", true).unwrap();
        answered("HTTP/1.1 404 Not Found\r\n\r\n", false).unwrap();
        let error = answered("HTTP/1.1 503 Service Unavailable\r\n\r\n", true).unwrap_err().to_string();
        assert!(error.ends_with("answers \"HTTP/1.1 503 Service Unavailable\""), "{error}");
        assert!(answered("SSH-2.0-x\r\n", false).is_err());
        assert!(answered("", false).is_err());
    }

    #[test]
    fn nobody_there_is_not_healthy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = health(&settings(address, false)).unwrap_err().to_string();
        assert_eq!(error, format!("not healthy: {address} does not answer"));
    }

    #[test]
    fn routes_and_dump_are_of_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wharf.json");
        assert!(matches!(routes(&path), Err(OperatorError::Manifest(_))));
        std::fs::write(&path, Manifest::new("hello".into(), wharf_app::Site::default()).to_json()).unwrap();
        assert_eq!(routes(&path).unwrap(), "");
        let dump = dump(&path, |name| Some(format!("{name}'s"))).unwrap();
        let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
        assert_eq!(dump["manifest"]["name"], "hello");
        assert_eq!(dump["settings"]["WHARF_ADDR"], "WHARF_ADDR's");
    }
}
