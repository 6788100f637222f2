//! A conversation with an app, without a network: what the fuzz targets drive.
//!
//! No part of the library's interface: behind the feature `fuzzing`, which no
//! binary has. What it leaves out of a server are sockets and timeouts.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::App;
use crate::connection::Activity;
use crate::metrics::{Counters, Layout, Metrics};
use crate::observe::{Connected, ObserveSettings, Observer};
use crate::proxies::{Peer, Secure};

/// Bytes under way in each direction.
const BUFFER: usize = 64 << 10;

/// All that `app` answers to a client that sends `bytes` and then no more.
pub async fn converse(app: &Arc<App>, bytes: &[u8]) -> Vec<u8> {
    let (client, server) = tokio::io::duplex(BUFFER);
    // Never freed, so made once: a target has one app.
    static COUNTERS: OnceLock<Counters> = OnceLock::new();
    let count = || Metrics::of_one_process(Layout::new(app.manifest(), 1)).process(0);
    let counters = *COUNTERS.get_or_init(count);
    let Ok(observer) = Observer::start(ObserveSettings::default(), counters) else { return Vec::new() };
    let connected = Connected {
        observer: Arc::new(observer),
        activity: Arc::new(Activity::new()),
        peer: Peer::Unix,
        secure: Secure::Plain,
    };
    let service = service_fn(|request| {
        let (connected, app) = (connected.clone(), Arc::clone(app));
        async move { Ok::<_, Infallible>(connected.observe(app, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The client is done sending before it is answered.
    builder.http1().half_close(true);
    let serving = async {
        // How it ends, the client sees.
        let _ = builder.serve_connection(TokioIo::new(server), service).await;
    };
    let (mut reader, mut writer) = tokio::io::split(client);
    let sending = async {
        // Refused before it was all sent: the answer tells.
        let _ = writer.write_all(bytes).await;
        let _ = writer.shutdown().await;
    };
    let mut answer = Vec::new();
    let reading = async {
        let _ = reader.read_to_end(&mut answer).await;
    };
    tokio::join!(serving, sending, reading);
    answer
}
