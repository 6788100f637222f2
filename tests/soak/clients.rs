//! The clients: each takes one card of the deck after the other, on a connection
//! that it keeps for a while.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wharf_tests::client::{Connection, Error};

use crate::app::{LARGE, SMALL};
use crate::deck::{self, Kind};
use crate::tally::Tally;

/// At a time. Fewer than a server takes at once: none must be turned away.
const CLIENTS: usize = 32;

/// Requests of a connection, before a new one.
const REQUESTS_A_CONNECTION: usize = 200;

/// How long a client that leaves amid an answer waits for its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(60);

/// Makes `requests` requests of the server on `address`.
pub(crate) fn run(address: SocketAddr, requests: u64) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let deck = Arc::new(deck::shuffled());
    let next = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let clients = (0..CLIENTS)
            .map(|_| tokio::spawn(client(address, requests, Arc::clone(&deck), Arc::clone(&next))));
        let mut tally = Tally::default();
        for client in clients.collect::<Vec<_>>() {
            tally.add(client.await.expect("a client does not panic"));
        }
        tally
    })
}

async fn client(address: SocketAddr, requests: u64, deck: Arc<Vec<Kind>>, next: Arc<AtomicU64>) -> Tally {
    let mut tally = Tally::default();
    let mut connection: Option<Connection> = None;
    let mut made = 0;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= requests {
            return tally;
        }
        let kind = deck[(number % deck::SIZE) as usize];
        let since = Instant::now();
        if made % REQUESTS_A_CONNECTION == 0 || connection.as_ref().is_some_and(Connection::is_over) {
            connection = None;
        }
        made += 1;
        let result = one(&mut connection, address, kind, number).await;
        if result.is_err() {
            // What broke is not asked again.
            connection = None;
        }
        tally.count(kind, since.elapsed(), result.map_err(|error| error.to_string()));
    }
}

async fn one(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    kind: Kind,
    number: u64,
) -> Result<(), Error> {
    let Some(status) = kind.status() else { return leave(address, kind).await };
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(Connection::open(address).await?),
    };
    let echoed = Bytes::from(vec![b'e'; (number % 20_000) as usize]);
    let answer = match kind {
        Kind::Echo => connection.post("/api/hello", echoed.clone()).await?,
        Kind::Range => {
            let first = number % 1_000_000;
            let range = format!("bytes={first}-{}", first + 9_999);
            connection.get("/large.bin", &[("range", &range)]).await?
        }
        Kind::Compressed => connection.get("/script.js", &[("accept-encoding", "br, gzip")]).await?,
        kind => connection.get(&target(kind, number), &[]).await?,
    };
    if answer.status().as_u16() != status {
        let body = String::from_utf8_lossy(answer.body());
        return Err(format!("expected {status}, found {}: {:.200}", answer.status(), body).into());
    }
    let body = answer.body();
    let right = match kind {
        Kind::Small => body.len() == SMALL && body.iter().all(|byte| *byte == b's'),
        Kind::Range => body.len() == 10_000 && body.iter().all(|byte| *byte == b'l'),
        Kind::Compressed => answer.headers().get("content-encoding").is_some_and(|coding| coding == "br"),
        Kind::Rust => body.ends_with(format!("\"name\":\"{number}\"}}\n").as_bytes()),
        Kind::Echo => *body == echoed,
        Kind::Js => *body == b"hello\n"[..],
        Kind::Python => *body == format!("hello {number}").as_bytes(),
        _ => true,
    };
    if right { Ok(()) } else { Err(format!("expected another body than {:.200?}", body).into()) }
}

fn target(kind: Kind, number: u64) -> String {
    match kind {
        Kind::Missing => format!("/nothing/{number}"),
        Kind::Rust => format!("/api/hello?name={number}"),
        Kind::Js => "/api/js".into(),
        Kind::Python => format!("/api/python?n={number}"),
        Kind::Trap => "/api/probe?trap".into(),
        Kind::Sleep => "/api/slow?sleep".into(),
        Kind::Spin => "/api/slow?spin".into(),
        _ => "/small.txt".into(),
    }
}

/// A client that goes without a word; by a reset, if its socket holds what it has not
/// read.
async fn leave(address: SocketAddr, kind: Kind) -> Result<(), Error> {
    let mut stream = TcpStream::connect(address).await?;
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n\r\n");
    match kind {
        Kind::LeaveRequest => {
            let head = format!(
                "POST /api/hello HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000\r\n\r\nhalf of it"
            );
            stream.write_all(head.as_bytes()).await?;
        }
        Kind::LeaveAnswer => {
            stream.write_all(get("/large.bin").as_bytes()).await?;
            let mut first = [0; 1024];
            let read = timeout(FIRST_BYTE, stream.read(&mut first)).await??;
            if read == 0 || read >= LARGE {
                return Err(format!("expected the first bytes of an answer, found {read}").into());
            }
        }
        Kind::LeaveWorker => stream.write_all(get("/api/slow?sleep").as_bytes()).await?,
        _ => stream.write_all(get("/api/python").as_bytes()).await?,
    }
    Ok(())
}
