//! The hunt for secrets: workers fill all that an instance has with a secret, and
//! later requests look for any in all that their instance has
//! (tests/guests/probe). What they must find is nothing.
//!
//! It runs under load, on every process of the server, and with two components
//! that take turns in the same slots.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::StatusCode;

use crate::client::{Connection, Error};
use crate::family::Family;
use crate::project::Project;
use crate::testbed;

/// Where the two components answer.
const WORKERS: [&str; 2] = ["/api/probe", "/api/other"];

/// Connections at a time. More than there are cores, so that requests wait for
/// each other and their order changes.
const CLIENTS: u64 = 16;

/// Requests of a connection, before a new one may reach another process.
const REQUESTS_A_CONNECTION: usize = 25;

/// How long every process may take to be reached, once enough is looked at.
const PATIENCE: Duration = Duration::from_secs(120);

/// The least memory that a worker writes an odd secret to, in bytes.
pub const FILLED: u64 = 8 << 20;

/// What a search says that finds no secret.
pub const NOTHING: &str = r#"{"memory":0,"grown":0,"globals":0,"table":0}"#;

/// What a hunt went through.
#[derive(Debug)]
pub struct Hunt {
    /// Searches by the process that answered.
    pub searches: BTreeMap<u32, u64>,
    /// Secrets written before or between them.
    pub secrets: u64,
}

/// A project with the two components, which differ in nothing but a section that
/// nobody reads.
///
/// # Panics
/// If the guest was not built.
#[must_use]
pub fn project() -> Project {
    let probe = testbed::part("guests/probe.wasm", "guests.sh probe");
    let probe = fs_err::read(probe).expect("the guest can be read");
    let other = another(&probe);
    Project::empty()
        .with("public/index.html", "<title>here</title>")
        .with("api/probe.wasm", probe)
        .with("api/other.wasm", other)
}

/// The same component as another: with a section that nobody reads.
#[must_use]
pub fn another(component: &[u8]) -> Vec<u8> {
    // A custom section: id 0, its size, and a name (Core Specification, 5.5.3).
    [component, b"\0\x06\x05other"].concat()
}

/// Hunts until `least` searches have found nothing, and each process of the server
/// `root` on `address` has made some. Call it in the server's network.
///
/// # Panics
/// If a secret is found, a request fails, or a process is never reached; and if a
/// search can't find what lies before it.
#[must_use]
pub fn hunt(root: u32, address: SocketAddr, least: u64) -> Hunt {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let shared = Arc::new(Shared {
        root,
        address,
        least,
        searches: AtomicU64::new(0),
        secrets: AtomicU64::new(0),
        by_process: Mutex::default(),
        deadline: Mutex::new(None),
    });
    runtime.block_on(async {
        prove(address).await.unwrap_or_else(|error| panic!("the search can't be proven: {error}"));
        let clients = (0..CLIENTS).map(|seed| tokio::spawn(client(Arc::clone(&shared), seed)));
        for client in clients.collect::<Vec<_>>() {
            match client.await.expect("a client does not panic") {
                Ok(()) => {}
                Err(error) => panic!("hunt on {address}: {error}"),
            }
        }
    });
    let searches = shared.by_process.lock().expect("no client panics").clone();
    Hunt { searches, secrets: shared.secrets.load(Ordering::Relaxed) }
}

struct Shared {
    root: u32,
    address: SocketAddr,
    least: u64,
    searches: AtomicU64,
    secrets: AtomicU64,
    by_process: Mutex<BTreeMap<u32, u64>>,
    /// Set when enough is looked at.
    deadline: Mutex<Option<Instant>>,
}

impl Shared {
    /// Whether there was enough of it, everywhere.
    fn is_done(&self) -> Result<bool, Error> {
        if self.searches.load(Ordering::Relaxed) < self.least {
            return Ok(false);
        }
        let reached = self.by_process.lock().expect("no client panics");
        // The first one serves, too.
        let family = Family::of(self.root);
        let missing = family.members().iter().find(|process| !reached.contains_key(process));
        let Some(missing) = missing else { return Ok(true) };
        let mut deadline = self.deadline.lock().expect("no client panics");
        if Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + PATIENCE) {
            return Err(format!("expected every process to answer, {missing} did not: {reached:?}").into());
        }
        Ok(false)
    }
}

/// Each place where a secret may lie is one that a search looks into.
async fn prove(address: SocketAddr) -> Result<(), Error> {
    let mut connection = Connection::open(address).await?;
    for worker in WORKERS {
        for secret in [0x1234_5678_9abc_def1_u64, 0x1234_5678_9abc_def2] {
            let found = ask(&mut connection, &format!("{worker}?check={secret:x}")).await?;
            let found: serde_json::Value = serde_json::from_str(&found)?;
            for place in ["memory", "globals", "table"] {
                if found[place].as_u64().unwrap_or_default() == 0 {
                    return Err(format!("expected a secret in {place} of {worker}: {found}").into());
                }
            }
        }
    }
    Ok(())
}

async fn client(shared: Arc<Shared>, seed: u64) -> Result<(), Error> {
    let mut chance = fastrand::Rng::with_seed(seed);
    while !shared.is_done()? {
        let mut connection = Connection::open(shared.address).await?;
        let mut searches = 0;
        let mut process = None;
        for _ in 0..REQUESTS_A_CONNECTION {
            // The server may want the client at another of its processes.
            if connection.is_over() {
                break;
            }
            let worker = WORKERS[chance.usize(..WORKERS.len())];
            match chance.u8(..10) {
                0..4 => {
                    // Never 0, which is no secret.
                    let secret = chance.u64(1..);
                    let _ = ask(&mut connection, &format!("{worker}?fill={secret:x}")).await?;
                    shared.secrets.fetch_add(1, Ordering::Relaxed);
                }
                4 => drop(ask(&mut connection, "/").await?),
                _ => {
                    let found = ask(&mut connection, &format!("{worker}?find")).await?;
                    if found.trim_end() != NOTHING {
                        return Err(format!("{worker} sees another request's secret: {found}").into());
                    }
                    searches += 1;
                }
            }
            // Accepted, now that it has answered.
            if process.is_none() {
                let family = Family::of(shared.root);
                process = family.serving(shared.address.port(), connection.port());
            }
        }
        let process = process.ok_or("expected a process of the server to hold the connection")?;
        *shared.by_process.lock().expect("no client panics").entry(process).or_default() += searches;
        shared.searches.fetch_add(searches, Ordering::Relaxed);
    }
    Ok(())
}

async fn ask(connection: &mut Connection, target: &str) -> Result<String, Error> {
    let answer = connection.get(target, &[]).await.map_err(|error| format!("{target}: {error}"))?;
    let body = String::from_utf8_lossy(answer.body()).into_owned();
    if answer.status() != StatusCode::OK {
        return Err(format!("{target}: {}: {body}", answer.status()).into());
    }
    Ok(body)
}
