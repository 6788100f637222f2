//! HTTP/2, frame by frame, for what no well-behaved client would do.
//!
//! Just enough of RFC 9113 and 7541 to ask, and to see what comes; windows are
//! only opened when a test says so.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long a server may keep us waiting.
const DEADLINE: Duration = Duration::from_secs(30);

/// Types of frames (RFC 9113, 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Flags: on DATA and HEADERS, on HEADERS, on SETTINGS and PING.
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const ACK: u8 = 1;

/// Window of a connection, and of a stream by default (RFC 9113, 6.9.2).
pub(super) const WINDOW: usize = 65_535;

/// A frame, as it came.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The error code of GOAWAY (RFC 9113, 6.8).
    pub(super) fn goaway_code(&self) -> u32 {
        u32::from_be_bytes(self.payload[4..8].try_into().expect("GOAWAY has eight bytes at least"))
    }

    pub(super) fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// A connection that said hello and got its settings.
pub(super) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    /// Connects to `authority`, by prior knowledge (RFC 9113, 3.3).
    #[track_caller]
    pub(super) fn open(authority: &str) -> Self {
        let stream = TcpStream::connect(authority).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(DEADLINE)).expect("a timeout can be set");
        let mut connection = Self { stream, read: Vec::new() };
        connection.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("the preface can be sent");
        connection.send(SETTINGS, 0, 0, &[]);
        let settings = connection.frame().expect("the server's settings come first");
        assert_eq!((settings.kind, settings.flags & ACK), (SETTINGS, 0), "{settings:?}");
        connection.send(SETTINGS, ACK, 0, &[]);
        connection
    }

    /// Sends raw bytes; fails once the server has closed.
    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a frame, whether or not anybody takes it.
    pub(super) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.write(&frame(kind, flags, stream, payload));
    }

    /// Requests `path` on `stream`.
    pub(super) fn get(&mut self, stream: u32, path: &str) {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &request_block(path));
    }

    /// Lets the server send `count` bytes more on a stream, or on all (0).
    pub(super) fn open_window(&mut self, stream: u32, count: usize) {
        let count = u32::try_from(count).expect("a window has 31 bits");
        self.send(WINDOW_UPDATE, 0, stream, &count.to_be_bytes());
    }

    /// The next frame; none if the connection ended.
    ///
    /// # Panics
    /// If nothing comes.
    #[track_caller]
    pub(super) fn frame(&mut self) -> Option<Frame> {
        loop {
            if self.read.len() >= 9 {
                let length = usize::from(self.read[0]) << 16
                    | usize::from(self.read[1]) << 8
                    | usize::from(self.read[2]);
                if self.read.len() >= 9 + length {
                    let frame: Vec<u8> = self.read.drain(..9 + length).collect();
                    let stream = u32::from_be_bytes([frame[5] & 0x7f, frame[6], frame[7], frame[8]]);
                    let (kind, flags) = (frame[3], frame[4]);
                    return Some(Frame { kind, flags, stream, payload: frame[9..].to_vec() });
                }
            }
            let mut buffer = [0; 65536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.read.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("expected a frame within {DEADLINE:?}")
                }
                Err(_) => return None,
            }
        }
    }

    /// The next frame of this kind; the others are passed over.
    ///
    /// # Panics
    /// If the connection ends first.
    #[track_caller]
    pub(super) fn frame_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame =
                self.frame().unwrap_or_else(|| panic!("expected a frame of type {kind}, not the end"));
            if frame.kind == kind {
                return frame;
            }
        }
    }
}

/// A frame's bytes (RFC 9113, 4.1).
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame is short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// `GET path`, compressed by the static table alone (RFC 7541, Appendix A).
pub(super) fn request_block(path: &str) -> Vec<u8> {
    // :method GET, :scheme http, then :path and :authority as literals.
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(0x04, path), (0x01, "site.test")] {
        let length = u8::try_from(value.len()).expect("a value is short");
        assert!(length < 127, "expected a length of one byte");
        block.extend_from_slice(&[name, length]);
        block.extend_from_slice(value.as_bytes());
    }
    block
}
