//! Steady requests, each on a connection of its own, so that each may reach
//! another pod: what users do who come and go.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use wharf_tests::network::Namespace;

/// The most that one load lasts, whoever forgets to end it.
const LIMIT: Duration = Duration::from_secs(300);

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(20);

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// Requests that go on until they are counted.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Answers>,
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// How many requests were made.
    pub(crate) total: usize,
    /// What went wrong with some of them, and when.
    pub(crate) failures: Vec<String>,
}

impl Load {
    /// Asks `host` on port 80 from within `network`.
    pub(crate) fn start(network: &Namespace, host: &str) -> Self {
        let address: SocketAddr = format!("{host}:80").parse().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let inside = network.spawn(move || {
            let began = Instant::now();
            let mut answers = Answers::default();
            while !told.load(Ordering::Relaxed) && began.elapsed() < LIMIT {
                answers.total += 1;
                if let Err(error) = ask(address) {
                    answers.failures.push(format!("after {:?}: {error}", began.elapsed()));
                }
                thread::sleep(PAUSE);
            }
            answers
        });
        Self { stop, thread: inside }
    }

    /// Ends the load.
    pub(crate) fn finish(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load ends")
    }
}

fn ask(address: SocketAddr) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).map_err(text)?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(text)?;
    let request = "GET /api/hello?name=load HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    let is_whole = answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"load\"");
    if is_whole { Ok(()) } else { Err(format!("{answer:?}")) }
}
