//! A client that sends any bytes and reads what comes back as RFC 9112 has it.
//!
//! No HTTP library would send what these cases send. Nothing here waits for
//! time to pass: whether a connection is kept is asked by one more request.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a server may keep us waiting; past it, it hangs.
const DEADLINE: Duration = Duration::from_secs(5);

/// What asks whether the connection is still there.
const PROBE: &[u8] = b"GET /probe.txt HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n";

/// The content of `/probe.txt`.
pub(crate) const PROBE_ANSWER: &[u8] = b"still here\n";

/// The content of a file to see whether a request was smuggled in.
pub(crate) const SMUGGLED_ANSWER: &[u8] = b"smuggled\n";

/// All that became of an exchange.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    /// The final responses, in order.
    pub(crate) responses: Vec<Response>,
    /// What came when it was not a response.
    pub(crate) other: Option<Other>,
    /// What became of the connection; none if the exchange did not get there.
    pub(crate) after: Option<After>,
}

/// An answer that is none of HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    /// The connection was closed without a word.
    Silence,
    /// Nothing came before the deadline.
    Nothing,
    /// A frame of HTTP/2.
    Http2,
    /// Bytes without a status line.
    Headless,
    /// A response that ends too early.
    CutOff,
}

/// What becomes of a connection once all was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// It takes the next request.
    Kept,
    /// It is closed.
    Closed,
    /// It is open and answers no more.
    Hung,
    /// The next request was answered by something else.
    Confused,
}

/// One final response.
#[derive(Debug, Default)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// Interim responses before it.
    pub(crate) interim: Vec<u16>,
    /// Names in lower case, in order.
    pub(crate) headers: Vec<(String, String)>,
    /// The content, without chunks.
    pub(crate) body: Vec<u8>,
    /// Whether only the connection's end says where it ends.
    until_close: bool,
}

impl Response {
    /// All values of a header as one list; none if it isn't there.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let fields = self.headers.iter().filter(|(key, _)| key == name);
        let values: Vec<&str> = fields.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

/// Sends `bytes`, reads an answer for each of `methods`, and asks what became
/// of the connection.
pub(crate) fn exchange(server: SocketAddr, bytes: &[u8], methods: &[&str]) -> Observation {
    let mut observation = Observation::default();
    let stream = TcpStream::connect(server).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    stream.set_write_timeout(Some(DEADLINE)).expect("a timeout can be set");
    let mut connection = Connection { stream, read: Vec::new() };
    // It may be refused before all of it is sent: the answer tells.
    let _ = connection.stream.write_all(bytes);
    for method in methods {
        match connection.response(method) {
            Ok(response) => {
                let until_close = response.until_close;
                observation.responses.push(response);
                if until_close {
                    observation.after = Some(After::Closed);
                    return observation;
                }
            }
            Err(other) => {
                observation.other = Some(other);
                return observation;
            }
        }
    }
    observation.after = Some(connection.probe());
    observation
}

struct Connection {
    stream: TcpStream,
    /// Read and not yet used.
    read: Vec<u8>,
}

impl Connection {
    /// More bytes; none at the connection's end.
    fn more(&mut self) -> Result<bool, Other> {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Other::Nothing)
            }
            // A reset: the end of what it had to say.
            Err(_) => Ok(false),
        }
    }

    fn response(&mut self, method: &str) -> Result<Response, Other> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.head()?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response.status);
                continue;
            }
            response.interim = interim;
            self.body(method, &mut response)?;
            return Ok(response);
        }
    }

    fn head(&mut self) -> Result<Response, Other> {
        let end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end;
            }
            // Length, type and flags of SETTINGS (RFC 9113, 6.5), the first frame.
            if self.read.len() >= 9 && self.read[3] == 4 && self.read[0] == 0 {
                return Err(Other::Http2);
            }
            if !self.more()? {
                return Err(if self.read.is_empty() { Other::Silence } else { Other::Headless });
            }
        };
        let head: Vec<u8> = self.read.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let mut start = lines.next().unwrap_or_default().splitn(3, ' ');
        let version = start.next().unwrap_or_default().to_owned();
        let status = start.next().and_then(|status| status.parse().ok());
        let Some(status) = status.filter(|_| version.starts_with("HTTP/")) else {
            return Err(Other::Headless);
        };
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        Ok(Response { status, headers: headers.collect(), ..Response::default() })
    }

    /// RFC 9112, 6.3.
    fn body(&mut self, method: &str, response: &mut Response) -> Result<(), Other> {
        if method == "HEAD" || matches!(response.status, 101 | 204 | 304) {
            return Ok(());
        }
        let chunked = response.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
        if chunked {
            loop {
                let line = self.line()?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(size, 16).map_err(|_| Other::CutOff)?;
                let chunk = self.exactly(size)?;
                response.body.extend_from_slice(&chunk);
                if size == 0 {
                    while !self.line()?.is_empty() {}
                    return Ok(());
                }
                self.exactly(2)?;
            }
        }
        if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| Other::Headless)?;
            response.body = self.exactly(length)?;
            return Ok(());
        }
        while self.more()? {}
        response.body = std::mem::take(&mut self.read);
        response.until_close = true;
        Ok(())
    }

    fn line(&mut self) -> Result<String, Other> {
        loop {
            if let Some(end) = find(&self.read, b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more()? {
                return Err(Other::CutOff);
            }
        }
    }

    fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Other> {
        while self.read.len() < count {
            if !self.more()? {
                return Err(Other::CutOff);
            }
        }
        Ok(self.read.drain(..count).collect())
    }

    /// A further request: whether it is answered, and as it should be.
    fn probe(mut self) -> After {
        // What is left over would be taken for its answer: a request that the
        // server saw and we did not send.
        if !self.read.is_empty() {
            return After::Confused;
        }
        if self.stream.write_all(PROBE).is_err() {
            return After::Closed;
        }
        let after = match self.response("GET") {
            Ok(response) if response.body == PROBE_ANSWER => After::Kept,
            Ok(_) => After::Confused,
            Err(Other::Nothing) => After::Hung,
            Err(Other::Silence) => After::Closed,
            Err(_) => After::Confused,
        };
        let _ = self.stream.shutdown(Shutdown::Both);
        after
    }
}

/// Where `needle` begins.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
