//! `/api/hello`: a `wasi:http` worker that greets, and echoes what is posted.
//!
//! `?name=` greets somebody else. `?trap=1` panics and `?spin=1` never ends: so
//! that what the server does about such workers can be seen.

use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

struct Hello;

wasip2::http::proxy::export!(Hello);

impl wasip2::exports::http::incoming_handler::Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        if parameter(query, "trap").is_some() {
            panic!("asked to trap");
        }
        if parameter(query, "spin").is_some() {
            loop {
                std::hint::spin_loop();
            }
        }
        match request.method() {
            Method::Get | Method::Head => greet(query, out),
            Method::Post => echo(&request, out),
            _ => respond(out, 405, &[("allow", "GET, HEAD, POST")], |_| Ok(())),
        }
    }
}

fn greet(query: &str, out: ResponseOutparam) {
    let name = parameter(query, "name").unwrap_or_else(|| "world".to_owned());
    let body = format!("{{\"message\":\"hello\",\"name\":{}}}\n", json_string(&name));
    let headers = [("content-type", "application/json"), ("cache-control", "no-store")];
    respond(out, 200, &headers, |stream| write(stream, body.as_bytes()));
}

/// Sends the request's body back as it arrives, with its type.
fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let kind = request.headers().get("content-type").into_iter().next();
    let kind = kind.and_then(|value| String::from_utf8(value).ok());
    let kind = kind.as_deref().unwrap_or("application/octet-stream");
    let body = request.consume().expect("the body is taken once");
    let source = body.stream().expect("the stream is taken once");
    respond(out, 200, &[("content-type", kind)], |sink| copy(&source, sink));
    drop(source);
    IncomingBody::finish(body);
}

fn respond(
    out: ResponseOutparam,
    status: u16,
    headers: &[(&str, &str)],
    write: impl FnOnce(&OutputStream) -> Result<(), StreamError>,
) {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).expect("the header is valid");
    }
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).expect("the status is valid");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("the stream is taken once");
    // A client that went away is no error of the worker.
    if write(&stream).is_ok() {
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}

/// `blocking-write-and-flush` takes at most 4096 bytes at once.
fn write(sink: &OutputStream, bytes: &[u8]) -> Result<(), StreamError> {
    bytes.chunks(4096).try_for_each(|chunk| sink.blocking_write_and_flush(chunk))
}

fn copy(source: &InputStream, sink: &OutputStream) -> Result<(), StreamError> {
    loop {
        match source.blocking_read(64 * 1024) {
            Ok(bytes) => write(sink, &bytes)?,
            Err(StreamError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The value of `name` in a query string, decoded (`application/x-www-form-urlencoded`).
fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| decode(value))
    })
}

fn decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'+', tail) => (b' ', tail),
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', tail),
            },
            (other, tail) => (*other, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn digit(hex: u8) -> Option<u8> {
    (hex as char).to_digit(16).map(|digit| digit as u8)
}

fn json_string(text: &str) -> String {
    let mut json = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\0'..='\x1f' => json.push_str(&format!("\\u{:04x}", character as u32)),
            _ => json.push(character),
        }
    }
    json.push('"');
    json
}
