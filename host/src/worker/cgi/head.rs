//! The head of a CGI response (RFC 3875, 6.2 and 6.3).
//!
//! Nothing of the host is needed here: `make fuzz` builds this file alone.

use http::StatusCode;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

/// Largest head of a response, in bytes: 32 KiB.
pub(crate) const LARGEST_HEAD: usize = 32 << 10;

/// Header fields that a response may have at most.
const MOST_FIELDS: usize = 128;

/// Bytes of a malformed line that an error shows.
const SHOWN: usize = 60;

const STATUS: HeaderName = HeaderName::from_static("status");

/// Fields that only a server may send (RFC 3875, 6.3.4).
const OF_THE_CONNECTION: [HeaderName; 7] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// A response without its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// Why the output of a program is no response.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// No empty line within the limit.
    #[error("the header has no end within {LARGEST_HEAD} bytes: expected fields, then an empty line")]
    TooLong,
    /// The program ended before.
    #[error("the output ends within the header: expected fields, then an empty line")]
    Incomplete,
    /// The program wrote nothing.
    #[error("there is no output: expected fields such as Content-Type, then an empty line")]
    Empty,
    #[error("the header has more than {MOST_FIELDS} fields")]
    TooMany,
    /// A line without a colon, with a space in the name, folded.
    #[error("malformed header line {0:?}: expected NAME: VALUE")]
    Line(String),
    #[error("the header has two fields {0:?}: expected one")]
    Twice(HeaderName),
    #[error("the header has none of Content-Type, Location and Status: expected one of them")]
    NoCgiField,
    #[error("malformed Status {0:?}: expected a code from 200 to 599, and a reason if you like")]
    Status(String),
    #[error("malformed Content-Length {0:?}: expected a number of bytes")]
    Length(String),
}

/// The length of the head at the start of `output`, with the empty line that
/// ends it. What is before `from` was looked at already.
pub(crate) fn head_length(output: &[u8], from: usize) -> Option<usize> {
    // The line ends of an empty line may have been the last bytes of then.
    let from = from.saturating_sub(2);
    let mut line_starts = std::iter::once(0).chain(
        output.iter().enumerate().skip(from).filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1),
    );
    line_starts.find_map(|start| match output.get(start..)? {
        [b'\n', ..] => Some(start + 1),
        [b'\r', b'\n', ..] => Some(start + 2),
        _ => None,
    })
}

impl Head {
    /// Parses a head, with or without the empty line at its end.
    ///
    /// # Errors
    /// [`HeadError`]: it is malformed, or says too little.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, HeadError> {
        let mut headers = HeaderMap::new();
        let lines = text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        for (index, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
            if index == MOST_FIELDS {
                return Err(HeadError::TooMany);
            }
            let (name, value) = field(line).ok_or_else(|| HeadError::Line(shown(line)))?;
            let once = [STATUS, LOCATION, CONTENT_TYPE, CONTENT_LENGTH].contains(&name);
            if once && headers.contains_key(&name) {
                return Err(HeadError::Twice(name));
            }
            headers.append(name, value);
        }
        if ![CONTENT_TYPE, LOCATION, STATUS].iter().any(|name| headers.contains_key(name)) {
            return Err(HeadError::NoCgiField);
        }
        for name in &OF_THE_CONNECTION {
            headers.remove(name);
        }
        if let Some(length) = headers.get(CONTENT_LENGTH) {
            let text = length.as_bytes();
            let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
            let number = length.to_str().ok().filter(|_| digits).and_then(|text| text.parse::<u64>().ok());
            number.ok_or_else(|| HeadError::Length(shown(text)))?;
        }
        let status = match headers.remove(STATUS) {
            Some(status) => parse_status(status.as_bytes())?,
            // RFC 3875, 6.2.3.
            None if headers.contains_key(LOCATION) => StatusCode::FOUND,
            None => StatusCode::OK,
        };
        Ok(Self { status, headers })
    }
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(&line[..colon]).ok()?;
    let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
    Some((name, value))
}

/// `"404"`, or `"404 Not Found"`: the reason is not sent (HTTP/2 has none).
fn parse_status(text: &[u8]) -> Result<StatusCode, HeadError> {
    let code = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    let code = Some(code).filter(|code| code.len() == 3).and_then(|code| StatusCode::from_bytes(code).ok());
    // Below 200 is not final: what follows would be taken for another response.
    let is_final = |code: &StatusCode| (200..600).contains(&code.as_u16());
    code.filter(is_final).ok_or_else(|| HeadError::Status(shown(text)))
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, HeadError> {
        assert_eq!(head_length(text.as_bytes(), 0), Some(text.len()), "{text:?}");
        Head::parse(text.as_bytes())
    }

    #[test]
    fn a_document_is_200_unless_it_says_otherwise() {
        let plain = head("Content-Type: text/plain\nX-A: 1\nx-a: 2\n\n").unwrap();
        assert_eq!(plain.status, 200);
        assert_eq!(plain.headers["content-type"], "text/plain");
        assert_eq!(plain.headers.get_all("x-a").iter().count(), 2);
        let missing = head("Status: 404 Not Found\r\nContent-Type:text/html  \r\n\r\n").unwrap();
        assert_eq!(
            (missing.status.as_u16(), &missing.headers["content-type"]),
            (404, &"text/html".parse().unwrap())
        );
        assert!(!missing.headers.contains_key("status"));
        assert_eq!(head("Status: 204\n\n").unwrap().status, 204);
    }

    #[test]
    fn a_location_redirects() {
        for target in ["https://example.com/", "/local?x=1"] {
            let head = head(&format!("Location: {target}\n\n")).unwrap();
            assert_eq!((head.status.as_u16(), head.headers["location"].to_str().unwrap()), (302, target));
        }
        assert_eq!(head("Location: /x\nStatus: 303\nContent-Type: text/html\n\n").unwrap().status, 303);
    }

    #[test]
    fn the_end_of_the_head_is_found_however_it_comes() {
        let text = b"Content-Type: a/b\r\nX: y\n\r\nbody\n\nmore";
        let end = text.len() - b"body\n\nmore".len();
        assert_eq!(head_length(text, 0), Some(end));
        for seen in 0..end {
            assert_eq!(head_length(&text[..seen], 0), None, "{seen}");
            assert_eq!(head_length(text, seen), Some(end), "after {seen} bytes");
        }
        assert_eq!(head_length(b"\nbody", 0), Some(1));
        assert_eq!(head_length(b"\r\nbody", 0), Some(2));
    }

    #[test]
    fn what_a_client_could_misread_is_refused() {
        for (text, error) in [
            ("\n", HeadError::NoCgiField),
            ("X-A: 1\n\n", HeadError::NoCgiField),
            ("hello\n\n", HeadError::Line("hello".into())),
            ("HTTP/1.1 200 OK\nContent-Type: a/b\n\n", HeadError::Line("HTTP/1.1 200 OK".into())),
            ("Content-Type : a/b\n\n", HeadError::Line("Content-Type : a/b".into())),
            ("Content-Type: a/b\n  folded\n\n", HeadError::Line("  folded".into())),
            ("Content-Type: a\rb\n\n", HeadError::Line("Content-Type: a\rb".into())),
            (": a\n\n", HeadError::Line(": a".into())),
            ("Status: 200\nStatus: 404\n\n", HeadError::Twice(STATUS)),
            ("Status: 101 Switching Protocols\n\n", HeadError::Status("101 Switching Protocols".into())),
            ("Status: 99\n\n", HeadError::Status("99".into())),
            ("Status: 2000\n\n", HeadError::Status("2000".into())),
            ("Status: OK\n\n", HeadError::Status("OK".into())),
            ("Status: 200\nContent-Length: +1\n\n", HeadError::Length("+1".into())),
            ("Status: 200\nContent-Length: 1\nContent-Length: 1\n\n", HeadError::Twice(CONTENT_LENGTH)),
            (
                "Status: 200\nContent-Length: 18446744073709551616\n\n",
                HeadError::Length("18446744073709551616".into()),
            ),
        ] {
            assert_eq!(head(text), Err(error), "{text:?}");
        }
        let many = format!("Status: 200\n{}\n", "A: b\n".repeat(MOST_FIELDS));
        assert_eq!(head(&many), Err(HeadError::TooMany));
    }

    #[test]
    fn fields_of_the_connection_are_left_to_the_server() {
        let text =
            "Status: 200\nConnection: close\nTransfer-Encoding: chunked\nKeep-Alive: x\nUpgrade: h\n\n";
        assert!(head(text).unwrap().headers.is_empty());
    }
}
