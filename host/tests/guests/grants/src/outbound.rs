//! One outbound request by `wasi:http`.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

/// Sends METHOD (default GET) to `url`, with `body` and `header` (`NAME:VALUE`)
/// if they are not empty; status, headers and body of the answer, or the error.
pub fn fetch(method: &str, url: &str, body: &str, header: &str) -> Result<String, String> {
    let (scheme, rest) = url.split_once("://").ok_or("no scheme")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let fields = Fields::new();
    if let Some((name, value)) = header.split_once(':') {
        let _ = fields.append(name, value.as_bytes()).map_err(|error| format!("{error:?}"))?;
    }
    let request = OutgoingRequest::new(fields);
    let method = match method {
        "" | "GET" => Method::Get,
        "POST" => Method::Post,
        "CONNECT" => Method::Connect,
        other => Method::Other(other.into()),
    };
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.into()),
    };
    request.set_method(&method).map_err(|()| "method refused")?;
    request.set_scheme(Some(&scheme)).map_err(|()| "scheme refused")?;
    request.set_authority(Some(authority)).map_err(|()| "authority refused")?;
    request.set_path_with_query(Some(path)).map_err(|()| "path refused")?;
    let outgoing = request.body().expect("the body is taken once");
    let options = RequestOptions::new();
    options.set_between_bytes_timeout(Some(1_000_000_000)).map_err(|()| "timeout refused")?;
    let future = outgoing_handler::handle(request, Some(options)).map_err(|error| format!("{error:?}"))?;
    if !body.is_empty() {
        let stream = outgoing.write().expect("the stream is taken once");
        // Who refused the request does not read its body.
        let _ = stream.blocking_write_and_flush(body.as_bytes());
    }
    let _ = OutgoingBody::finish(outgoing, None);
    future.subscribe().block();
    let answer = future.get().expect("it is ready").expect("it is taken once");
    show(&answer.map_err(|error| format!("{error:?}"))?)
}

fn show(response: &IncomingResponse) -> Result<String, String> {
    let mut text = format!("{}\n", response.status());
    for (name, value) in response.headers().entries() {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(&value));
    }
    let body = response.consume().expect("the body is taken once");
    let stream = body.stream().expect("the stream is taken once");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(format!(
                    "{text}\nbody: {:?}",
                    wasip2::http::types::http_error_code(&error).ok_or_else(|| error.to_debug_string())
                ));
            }
        }
    }
    drop(stream);
    IncomingBody::finish(body);
    Ok(format!("{text}\n{}", String::from_utf8_lossy(&bytes)))
}
