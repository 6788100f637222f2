//! Whether containerd serves Kubernetes, and by which runtimes: asked as a kubelet
//! asks (CRI's `RuntimeService/Status`), since a containerd whose plugin failed to
//! load answers all else.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};

/// One question and its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Far more than any answer has.
const LARGEST: usize = 4 << 20;

/// `StatusRequest { verbose: true }`, uncompressed, with its length (gRPC over
/// HTTP/2, "Length-Prefixed-Message").
const QUESTION: [u8; 7] = [0, 0, 0, 0, 2, 0x08, 0x01];

/// The names of its runtimes.
///
/// # Errors
/// It does not answer, or not as a kubelet could use.
pub(super) fn runtimes(socket: &Path) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, ask(socket)).await.context("no answer in time")?
    })?;
    let config = config(&answer).context("expected a configuration in the answer")?;
    names(config)
}

async fn ask(socket: &Path) -> Result<Bytes> {
    let stream = tokio::net::UnixStream::connect(socket)
        .await
        .with_context(|| format!("cannot connect to {}", socket.display()))?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await?;
    tokio::spawn(connection);
    let request = Request::post("http://localhost/runtime.v1.RuntimeService/Status")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(&QUESTION)))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, LARGEST).collect().await.map_err(anyhow::Error::from_boxed)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
    let message = trailers.get("grpc-message").or_else(|| head.headers.get("grpc-message"));
    if status.is_some_and(|status| status != "0") {
        bail!(
            "CRI says {}",
            String::from_utf8_lossy(message.map_or(b"no reason", |message| message.as_bytes()))
        );
    }
    let frame = body.to_bytes();
    ensure!(frame.len() > 5 && frame[0] == 0, "malformed answer of CRI");
    Ok(frame.slice(5..))
}

/// `info["config"]` of a `StatusResponse`, where `info` is field 2: the CRI
/// plugin's configuration in JSON.
fn config(message: &[u8]) -> Option<&[u8]> {
    fields(message).filter(|(number, _)| *number == 2).find_map(|(_, entry)| {
        let part = |wanted| fields(entry).find(|(number, _)| *number == wanted).map(|(_, value)| value);
        (part(1)? == b"config").then(|| part(2)).flatten()
    })
}

fn names(config: &[u8]) -> Result<Vec<String>> {
    let config: serde_json::Value =
        serde_json::from_slice(config).context("malformed configuration of CRI")?;
    let runtimes = config.pointer("/containerd/runtimes").and_then(serde_json::Value::as_object);
    Ok(runtimes.context("expected runtimes in the configuration of CRI")?.keys().cloned().collect())
}

/// The fields of a message that have a length (protobuf's wire type 2); numbers
/// are passed over. It ends where the message is malformed.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let tag = varint(&mut message)?;
            match tag & 7 {
                0 => {
                    varint(&mut message)?;
                }
                2 => {
                    let length = usize::try_from(varint(&mut message)?).ok()?;
                    let (value, rest) = message.split_at_checked(length)?;
                    message = rest;
                    return Some((tag >> 3, value));
                }
                _ => return None,
            }
        }
    })
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap();
        [&[number << 3 | 2, length][..], value].concat()
    }

    #[test]
    fn the_runtimes_are_found_in_an_answer() {
        let json = br#"{"containerd":{"runtimes":{"runc":{},"wasm":{}}}}"#;
        let entry = |key: &[u8], value: &[u8]| field(2, &[field(1, key), field(2, value)].concat());
        let message = [field(1, b"\x0a\x00"), entry(b"golang", b"go"), entry(b"config", json)].concat();
        assert_eq!(names(config(&message).unwrap()).unwrap(), ["runc", "wasm"]);
    }

    #[test]
    fn a_malformed_answer_ends_early() {
        for message in
            [&b"\x12"[..], b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x12\x05abc", b"\x0d"]
        {
            assert_eq!(config(message), None);
        }
        assert!(names(b"{}").is_err());
    }
}
