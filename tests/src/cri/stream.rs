//! The CRI's streams: several channels over one WebSocket (RFC 6455), each message
//! beginning with its channel's number.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::network::Namespace;

/// How long the other side may be silent.
const DEADLINE: Duration = Duration::from_secs(30);

/// The version of the protocol in which the last channel's last message is JSON.
const PROTOCOL: &str = "v4.channel.k8s.io";

/// Opcodes of frames.
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// An exec, an attach or a port-forward that goes on.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    received: [Vec<u8>; 4],
    ended: bool,
}

impl Stream {
    /// The channel of a program's input.
    pub const STDIN: u8 = 0;
    /// The channel of its output; a terminal's too.
    pub const STDOUT: u8 = 1;
    /// The channel of its errors.
    pub const STDERR: u8 = 2;
    /// The channel of how it ended.
    pub const STATUS: u8 = 3;
    /// The channel of a terminal's size.
    const SIZE: u8 = 4;

    /// Opens the stream at `url`, whose server is in `network`.
    ///
    /// # Panics
    /// If the server refuses.
    #[track_caller]
    #[must_use]
    pub fn open(network: &Namespace, url: &str) -> Self {
        let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("expected an http URL: {url}"));
        let (host, path) = rest.split_once('/').unwrap_or_else(|| panic!("expected a path: {url}"));
        let mut socket =
            network.enter(|| TcpStream::connect(host)).expect("the streams' server can be reached");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: d2hhcmYgd2hhcmYgd2hhcg==\r\n\
             Sec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).expect("the request can be sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("the streams' server answers");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 101 "), "expected another protocol:\n{head}");
        Self { socket, received: Default::default(), ended: false }
    }

    /// Sends bytes on a channel.
    ///
    /// # Panics
    /// If the other side has gone.
    #[track_caller]
    pub fn send(&mut self, channel: u8, bytes: &[u8]) {
        let length = u8::try_from(bytes.len() + 1).ok().filter(|length| *length < 126);
        // A whole binary message, masked as a client's must be: by nothing.
        let mut frame = vec![0x80 | BINARY, 0x80 | length.expect("a test sends little"), 0, 0, 0, 0, channel];
        frame.extend_from_slice(bytes);
        self.socket.write_all(&frame).expect("the other side reads");
    }

    /// Tells a terminal its size.
    #[track_caller]
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.send(Self::SIZE, format!("{{\"Width\":{columns},\"Height\":{rows}}}").as_bytes());
    }

    /// Waits until a channel has said `text`.
    ///
    /// # Panics
    /// If it never does.
    #[track_caller]
    pub fn wait_for(&mut self, channel: u8, text: &str) {
        while !self.text(channel).contains(text) {
            assert!(!self.ended, "expected {text:?} before the end\n{}", self.report());
            self.receive();
        }
    }

    /// Waits until the other side is done.
    ///
    /// # Panics
    /// If it isn't in time.
    #[track_caller]
    pub fn finish(&mut self) {
        while !self.ended {
            self.receive();
        }
    }

    /// All that a channel has said so far.
    #[must_use]
    pub fn text(&self, channel: u8) -> String {
        String::from_utf8_lossy(&self.received[usize::from(channel)]).into_owned()
    }

    /// The exit code of what ran, once it has ended.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    #[must_use]
    pub fn exit_code(&mut self) -> i32 {
        self.finish();
        let text = self.text(Self::STATUS);
        let status: serde_json::Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text:?}\n{}", self.report()));
        if status["status"] == "Success" {
            return 0;
        }
        let code = status["details"]["causes"][0]["message"].as_str().and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("expected an exit code: {status}"))
    }

    /// Waits for one frame. The server splits no message.
    #[track_caller]
    fn receive(&mut self) {
        let mut head = [0; 2];
        match self.socket.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("nothing was said for {DEADLINE:?}\n{}", self.report())
            }
            // A server that just goes has ended the stream too.
            Err(_) => return self.ended = true,
        }
        let length = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.exactly())),
            127 => u64::from_be_bytes(self.exactly()),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).expect("a frame fits into memory")];
        self.socket.read_exact(&mut payload).expect("a frame is whole");
        match (head[0] & 0x0f, payload.split_first()) {
            (TEXT | BINARY, Some((channel, bytes))) => {
                if let Some(received) = self.received.get_mut(usize::from(*channel)) {
                    received.extend_from_slice(bytes);
                }
            }
            (CLOSE, _) => self.ended = true,
            // An empty message, or a ping.
            _ => {}
        }
    }

    /// All that was said, for a failure's message.
    fn report(&self) -> String {
        let channels = ["stdin", "stdout", "stderr", "status"];
        let said =
            channels.iter().zip(0..).map(|(name, channel)| format!("{name}: {:?}", self.text(channel)));
        said.collect::<Vec<_>>().join("\n")
    }

    fn exactly<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        self.socket.read_exact(&mut bytes).expect("a frame is whole");
        bytes
    }
}
