//! Raw hyper, as fast as it goes: one thread a core, each with a listener of its
//! own (SO_REUSEPORT) and a runtime of its own, and a fixed answer. What no server
//! made of hyper will be faster than.
//!
//! usage: wharf-bench-hyper ADDRESS:PORT
#![expect(clippy::print_stderr, reason = "the errors are for people")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;

fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_default();
    let Ok(address) = address.parse::<SocketAddr>() else {
        eprintln!("error: malformed address {address:?}: expected ADDRESS:PORT");
        return ExitCode::from(2);
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<_> = (0..cores).map(|_| thread::spawn(move || serve(address))).collect();
    for thread in threads {
        if let Ok(Err(error)) = thread.join() {
            eprintln!("error: cannot serve on {address}: {error}");
        }
    }
    // They serve until a signal ends them all.
    ExitCode::FAILURE
}

fn serve(address: SocketAddr) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        let listener = socket.listen(1024)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(async move {
                // A client that went away is none of our business.
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(hello));
                let _ = connection.await;
            });
        }
    })
}

async fn hello(_: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"hello\n")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
