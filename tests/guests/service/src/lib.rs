//! A worker of `wasi:http` 0.3, whose handler is async.
//!
//! It greets `?name=`, sends the body of a POST back in capitals as it comes,
//! with its trailers, and tells how `?fetch=AUTHORITY` ended. `?trap` traps,
//! `?spin` never ends, `?sleep` waits for a minute, `?late` traps once half of
//! its answer is out, and `?after` goes on after it has answered. The body of a PUT
//! and the `?file=` of its one folder are its answer without passing through it.
//! `?fail` answers by an error, and counts how often this instance did.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wasip3::clocks::monotonic_clock;
use wasip3::filesystem::preopens;
use wasip3::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::wit_bindgen::{StreamResult, spawn_local};
use wasip3::{wit_future, wit_stream};

wasip3::http::service::export!(Service);

struct Service;

static FAILURES: AtomicU32 = AtomicU32::new(0);

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let (key, value) = query.split_once('=').unwrap_or((query, ""));
        match (request.get_method(), key) {
            (Method::Post, _) => Ok(echo(request)),
            (Method::Put, _) => Ok(pass(request)),
            (_, "file") => Ok(file(value).await),
            (_, "fail") => {
                eprintln!("failure number {}", FAILURES.fetch_add(1, Ordering::Relaxed) + 1);
                Err(ErrorCode::InternalError(None))
            }
            (_, "trap") => panic!("asked to trap"),
            (_, "spin") => loop {
                std::hint::spin_loop();
            },
            (_, "sleep") => {
                monotonic_clock::wait_for(Duration::from_secs(60).as_nanos() as u64).await;
                Ok(text("slept".into(), false))
            }
            (_, "fetch") => Ok(text(fetch(value).await, false)),
            (_, "after") => {
                let response = text("at once".into(), false);
                spawn_local(async {
                    monotonic_clock::wait_for(Duration::from_millis(300).as_nanos() as u64).await;
                    eprintln!("done afterwards");
                });
                if value == "204" {
                    response.set_status_code(204).expect("the status is valid");
                }
                Ok(response)
            }
            (_, "late") => Ok(text("half of it".into(), true)),
            (_, _) => {
                let authority = request.get_authority().unwrap_or_default();
                Ok(text(format!("hello {value} of {authority}\n"), false))
            }
        }
    }
}

/// An answer that is written after the handler has returned.
fn text(text: String, then_trap: bool) -> Response {
    let headers = Fields::from_list(&[("content-type".into(), b"text/plain".into())]);
    let (mut body, reader) = wit_stream::new();
    let (trailers, end) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers.expect("the header is valid"), Some(reader), end);
    spawn_local(async move {
        body.write_all(text.into_bytes()).await;
        assert!(!then_trap, "asked to trap");
        drop(body);
        drop(trailers);
    });
    response
}

/// Sends the body of `request` back.
fn echo(request: Request) -> Response {
    let (received, done) = wit_future::new(|| Ok(()));
    let (mut source, trailers) = Request::consume_body(request, done);
    let (mut sink, reader) = wit_stream::new();
    let (response, _sent) = Response::new(Fields::new(), Some(reader), trailers);
    spawn_local(async move {
        loop {
            let (result, mut bytes) = source.read(Vec::with_capacity(64 * 1024)).await;
            bytes.make_ascii_uppercase();
            if !bytes.is_empty() && !sink.write_all(bytes).await.is_empty() {
                break;
            }
            if !matches!(result, StreamResult::Complete(_)) {
                break;
            }
        }
        drop(received);
    });
    response
}

/// The body of `request` itself.
fn pass(request: Request) -> Response {
    let (_, done) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, done);
    Response::new(Fields::new(), Some(body), trailers).0
}

/// A file, which the host reads once the handler has returned.
async fn file(name: &str) -> Response {
    let (folder, _) = preopens::get_directories().pop().expect("a folder is mounted");
    let file = folder.open_at(PathFlags::empty(), name.into(), OpenFlags::empty(), DescriptorFlags::READ).await;
    let (content, _read) = file.expect("the file is there").read_via_stream(0);
    let (_, end) = wit_future::new(|| Ok(None));
    Response::new(Fields::new(), Some(content), end).0
}

async fn fetch(authority: &str) -> String {
    let (trailers, end) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, end, None);
    drop(trailers);
    request.set_scheme(Some(&Scheme::Http)).expect("the scheme is valid");
    request.set_authority(Some(authority)).expect("the authority is valid");
    request.set_path_with_query(Some("/")).expect("the path is valid");
    match client::send(request).await {
        Ok(response) => response.get_status_code().to_string(),
        Err(error) => format!("{error:?}"),
    }
}
