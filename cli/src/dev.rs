//! A project while it is being written: served, and built again on each change.
//!
//! The app itself is served by a `wharf serve` of its own on a socket in a temporary
//! folder, a new one after each change, so that what is tried out here is what runs
//! elsewhere. In front of it a `proxy` adds a script to pages, which reloads them or
//! shows a `report` of what went wrong.

mod app;
mod proxy;
mod report;
mod watch;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch::Sender;

use self::app::Running;
use self::proxy::Proxy;
use self::report::Report;
use self::watch::Changes;
use crate::arguments::Global;
use crate::output;

/// What browsers see at the moment.
#[derive(Clone, Default)]
struct Stage {
    /// Grows with each change that pages have to be loaded again for.
    generation: u64,
    /// What serves the app; none before the first build that succeeds.
    app: Option<Arc<Running>>,
    /// Why the last build failed, if it did.
    broken: Option<Arc<Report>>,
}

/// Serves the project in `dir` until a signal ends it.
pub(crate) async fn run(dir: &Path, address: SocketAddr, global: &Global) -> Result<()> {
    // A folder that is none is no error to wait for.
    anyhow::ensure!(dir.is_dir(), "no such project folder: {}", dir.display());
    let dir = fs_err::canonicalize(dir)?;
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    let sockets = tempfile::Builder::new().prefix("wharf-dev-").tempdir();
    let sockets = sockets.context("cannot make a folder for sockets")?;
    let mut changes = Changes::of(&dir)?;
    let (stage, stages) = tokio::sync::watch::channel(Stage::default());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let proxy = tokio::spawn(Proxy::new(dir.clone(), stages).serve(listener));
    let work = async {
        // Before the first build: a browser that comes waits for it.
        output::line(format!("Serving {} on http://{address}", dir.display()))?;
        let mut built = None;
        loop {
            // Before the build: what changes meanwhile is built next.
            changes.take();
            built = build(&dir, sockets.path(), &stage, built, global).await;
            changes.wait().await;
        }
        #[allow(unreachable_code)]
        anyhow::Ok(())
    };
    let ended = tokio::select! {
        ended = work => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    proxy.abort();
    let last = stage.send_replace(Stage::default());
    if let Some(app) = last.app {
        app.stop().await;
    }
    ended
}

/// Builds, and tells browsers if something has come of it: another app, an error, or
/// the end of one. What was built, as `wharf.json` has it.
async fn build(
    dir: &Path,
    sockets: &Path,
    stage: &Sender<Stage>,
    before: Option<Vec<u8>>,
    global: &Global,
) -> Option<Vec<u8>> {
    let (folder, quiet) = (dir.to_owned(), *global);
    let built = tokio::task::spawn_blocking(move || app::build(&folder, &quiet)).await;
    let built = built.unwrap_or_else(|panic| Err(anyhow::anyhow!("the build broke off: {panic}")));
    let was_broken = stage.borrow().broken.is_some();
    let failed = |error: &anyhow::Error| {
        output::print_error(error);
        let report = Arc::new(Report::of_build(error, dir));
        stage.send_modify(|stage| {
            stage.generation += 1;
            stage.broken = Some(report);
        });
    };
    match built {
        Ok(built) if before.as_ref() == Some(&built) && !was_broken => before,
        Ok(built) => {
            let generation = stage.borrow().generation + 1;
            match Running::start(dir, &sockets.join(format!("{generation}.sock"))).await {
                Ok(app) => {
                    if before.is_some() {
                        output::remark("rebuilt");
                    }
                    let app = Some(Arc::new(app));
                    let old = stage.send_replace(Stage { generation, app, broken: None });
                    if let Some(old) = old.app {
                        tokio::spawn(async move { old.stop().await });
                    }
                    Some(built)
                }
                Err(error) => {
                    failed(&error);
                    before
                }
            }
        }
        Err(error) => {
            failed(&error);
            before
        }
    }
}
