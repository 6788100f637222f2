//! The `start` action: one server a pod, and its address in the form that
//! this containerd reads.
//!
//! The socket is bound here and handed to the server, so that containerd can
//! connect, and its first call wait in the socket, while the server starts.

use std::fmt::Write as _;
use std::io::{IsTerminal, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use nix::sys::stat::{Mode, umask};
use wharf_app::Sha256;

use crate::arguments::{Arguments, PROGRAM};
use crate::bundle::Bundle;
use crate::helper;

/// Environment variable with the address that takes events.
pub(crate) const EVENTS_ADDRESS: &str = "TTRPC_ADDRESS";

/// Environment variable with the newest answer that containerd reads. All of
/// 1.7 to 2.3 say 2, though 2.0 and later read 3 too.
const NEWEST_VERSION: &str = "MAX_SHIM_VERSION";

/// Where sockets go unless containerd says: a short path, for a Unix socket's
/// address has at most 107 bytes.
const SOCKET_FOLDER: &str = "/run/containerd/s";

/// The pod of a container, in its annotations.
const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";

/// Most that containerd can pass at standard input, as its own shim has it.
const MAX_INPUT: u64 = 10 << 20;

/// The forms of an answer to `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// containerd before 1.7: the bare address.
    Address,
    /// containerd 1.7 to 2.2: JSON with the task API's version.
    Json(u8),
    /// containerd 2.3 and later: `BootstrapResult`.
    Protobuf(u8),
}

impl Answer {
    /// The form for a containerd that sent `parameters` or none, and whose
    /// `MAX_SHIM_VERSION` is `newest`.
    ///
    /// Version 2 is the better answer even to a containerd 2 that would take
    /// 3: with 3 it skips `start` and `delete` for all but a pod's first
    /// container and leaves the others to the pod's shim, so that nothing
    /// cleans up after them if that is killed. The server speaks both.
    fn choose(parameters: Option<&BootstrapParams>, newest: Option<&str>) -> Self {
        let version =
            newest.and_then(|newest| newest.parse::<u8>().ok()).map_or(2, |newest| newest.clamp(2, 3));
        match (parameters, newest) {
            (Some(_), _) => Self::Protobuf(version),
            (None, Some(_)) => Self::Json(version),
            (None, None) => Self::Address,
        }
    }

    fn encode(self, address: &str) -> Result<Vec<u8>> {
        match self {
            Self::Address => Ok(address.as_bytes().to_vec()),
            Self::Json(version) => {
                let answer = serde_json::json!({
                    "version": version, "address": address, "protocol": "ttrpc",
                });
                Ok(answer.to_string().into_bytes())
            }
            Self::Protobuf(version) => BootstrapResult {
                version: version.into(),
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..BootstrapResult::default()
            }
            .write_to_bytes()
            .context("cannot encode the answer to containerd"),
        }
    }
}

/// Starts the pod's server unless it runs, and gives what to print.
///
/// # Errors
/// The container's spec can't be read, the socket can't be bound, the server
/// can't be started.
pub(crate) fn start(arguments: &Arguments) -> Result<Vec<u8>> {
    let parameters = parse_parameters(&read_input()?, arguments)?;
    let newest = std::env::var(NEWEST_VERSION).ok();
    let answer = Answer::choose(parameters.as_ref(), newest.as_deref());

    let bundle = Bundle::current()?;
    let spec = bundle.load_spec()?;
    let pod = spec.annotations().as_ref().and_then(|all| all.get(SANDBOX_ID));
    let pod = pod.map_or(arguments.id.as_str(), String::as_str);

    let requested = parameters.as_ref().and_then(|parameters| parameters.socket_dir.as_deref());
    let folder = requested.filter(|folder| !folder.is_empty()).unwrap_or(SOCKET_FOLDER);
    let name = socket_name(&arguments.address, &arguments.namespace, pod);
    let socket = Path::new(folder).join(name);
    let address = format!("unix://{}", socket.display());

    let mut server = None;
    if let Some(listener) = listen(&socket)? {
        let events = parameters
            .map(|parameters| parameters.containerd_ttrpc_address)
            .filter(|address| !address.is_empty())
            .or_else(|| std::env::var(EVENTS_ADDRESS).ok())
            .context("containerd gave no address for events")?;
        let started = spawn_server(arguments, &socket, &events, listener).inspect_err(|_| {
            let _ = fs_err::remove_file(&socket);
        })?;
        // The server runs on; this process only has to know its id.
        helper::raise_oom_score(started.id());
        server = Some(started);
    }
    // containerd 1.7 finds the server by this file after it was restarted.
    fs_err::write(bundle.address_file(), &address).inspect_err(|_| {
        if let Some(mut server) = server.take() {
            let _ = server.kill();
            let _ = fs_err::remove_file(&socket);
        }
    })?;
    answer.encode(&address)
}

/// What containerd piped in: its parameters (2.3), the runtime's options, or
/// nothing.
fn read_input() -> Result<Vec<u8>> {
    let stdin = std::io::stdin();
    let mut input = Vec::new();
    if !stdin.is_terminal() {
        let read = stdin.lock().take(MAX_INPUT).read_to_end(&mut input);
        read.context("cannot read standard input")?;
    }
    Ok(input)
}

/// The parameters in `input`, if it has them. The runtime's options, which
/// older versions send, are a message of the same shape but for other values.
fn parse_parameters(input: &[u8], arguments: &Arguments) -> Result<Option<BootstrapParams>> {
    let Ok(parameters) = BootstrapParams::parse_from_bytes(input) else {
        return Ok(None);
    };
    if parameters.containerd_ttrpc_address.is_empty() && parameters.containerd_version.is_empty() {
        return Ok(None);
    }
    ensure!(
        parameters.instance_id == arguments.id && parameters.namespace == arguments.namespace,
        "containerd's parameters are for {:?} in {:?}: expected {:?} in {:?}",
        parameters.instance_id,
        parameters.namespace,
        arguments.id,
        arguments.namespace,
    );
    Ok(Some(parameters))
}

/// The name that tells this pod's socket from any other's on this machine.
fn socket_name(containerd: &str, namespace: &str, pod: &str) -> String {
    let mut path = containerd.trim_end_matches('/').to_owned();
    // Joined as containerd's own shim does, so that the names agree.
    let _ = write!(path, "/{namespace}/{pod}");
    Sha256::of(path.as_bytes()).to_string()
}

/// Binds the socket; nothing if a server listens there already.
fn listen(socket: &Path) -> Result<Option<UnixListener>> {
    if let Some(folder) = socket.parent() {
        fs_err::create_dir_all(folder)?;
    }
    for _ in 0..3 {
        // For root alone, from the first moment.
        let mask = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(socket);
        umask(mask);
        match bound {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => {
                let context = format!("cannot bind socket {}", socket.display());
                return Err(error).context(context);
            }
        }
        if UnixStream::connect(socket).is_ok() {
            return Ok(None);
        }
        // A server that was killed left it.
        let _ = fs_err::remove_file(socket);
    }
    anyhow::bail!("cannot bind socket {}: others bind it too", socket.display())
}

fn spawn_server(arguments: &Arguments, socket: &Path, events: &str, listener: UnixListener) -> Result<Child> {
    let mut command = Command::new(helper::own_program());
    command
        .arg0(PROGRAM)
        .args(["-namespace", &arguments.namespace])
        .args(["-id", &arguments.id])
        .args(["-address", &arguments.address])
        .arg("-socket")
        .arg(socket)
        .env(EVENTS_ADDRESS, events)
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // So that a signal to containerd's own group does not reach it.
        .process_group(0);
    if arguments.debug {
        command.arg("-debug");
    }
    command.spawn().context("cannot start the shim's server")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: Answer) -> String {
        String::from_utf8(answer.encode("unix:///s").unwrap()).unwrap()
    }

    #[test]
    fn containerd_1_6_gets_the_bare_address() {
        assert_eq!(text(Answer::choose(None, None)), "unix:///s");
    }

    #[test]
    fn containerd_1_7_and_2_get_version_2_as_they_ask() {
        let answer = text(Answer::choose(None, Some("2")));
        let expected = r#"{"address":"unix:///s","protocol":"ttrpc","version":2}"#;
        assert_eq!(answer, expected);
        assert_eq!(Answer::choose(None, Some("3")), Answer::Json(3));
        assert_eq!(Answer::choose(None, Some("9")), Answer::Json(3));
        assert_eq!(Answer::choose(None, Some("?")), Answer::Json(2));
    }

    #[test]
    fn containerd_2_3_gets_a_message() {
        let arguments = Arguments { id: "abc".into(), namespace: "k8s.io".into(), ..Arguments::default() };
        let sent = BootstrapParams {
            instance_id: "abc".into(),
            namespace: "k8s.io".into(),
            containerd_ttrpc_address: "/run/c.sock.ttrpc".into(),
            ..BootstrapParams::default()
        };
        let input = sent.write_to_bytes().unwrap();
        let parameters = parse_parameters(&input, &arguments).unwrap();
        assert_eq!(parameters.as_ref(), Some(&sent));
        let answer = Answer::choose(parameters.as_ref(), Some("2")).encode("unix:///s").unwrap();
        let answer = BootstrapResult::parse_from_bytes(&answer).unwrap();
        assert_eq!((answer.version, answer.address.as_str()), (2, "unix:///s"));

        let other = Arguments::default();
        assert!(parse_parameters(&input, &other).is_err());
    }

    #[test]
    fn runtime_options_are_not_taken_for_parameters() {
        use containerd_shim_protos::protobuf::well_known_types::any::Any;
        let options =
            Any { type_url: "containerd.runc.v1.Options".into(), value: vec![8, 1], ..Any::default() };
        let input = options.write_to_bytes().unwrap();
        for input in [input.as_slice(), &[], b"text"] {
            let parameters = parse_parameters(input, &Arguments::default()).unwrap();
            assert_eq!(parameters, None);
        }
    }

    #[test]
    fn a_socket_has_the_name_that_containerds_own_shim_would_give_it() {
        let name = socket_name("/run/containerd/containerd.sock", "default", "123");
        let expected = "0ddfbd72d02b3551e75f3a0ed90b9965b533401be618f43a568bc522764e0ad0";
        assert_eq!(name, expected);
    }

    #[test]
    fn a_dead_servers_socket_is_taken_over_and_a_live_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s/socket");
        let first = listen(&socket).unwrap().unwrap();
        assert!(listen(&socket).unwrap().is_none());
        drop(first);
        assert!(listen(&socket).unwrap().is_some());
    }
}
