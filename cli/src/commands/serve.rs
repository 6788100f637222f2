//! `wharf serve`: the app over HTTP, with no container engine.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use wharf_host::{App, Runtime, Server};

use crate::arguments::Global;
use crate::output::{self, plain};
use crate::places::Places;
use crate::progress::Progress;
use crate::target::Target;

/// Serve an app on this machine: no container engine, no registry, no root.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharf serve\n  wharf serve examples/hello --addr 127.0.0.1:0\n  \
    wharf serve registry.example/app:1")]
pub(crate) struct Serve {
    /// A project folder, an image of the local store, an OCI layout or a saved archive.
    #[arg(default_value = ".")]
    target: String,
    /// The address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT")]
    addr: SocketAddr,
}

pub(crate) fn run(args: &Serve, global: &Global) -> Result<ExitCode> {
    let places = Places::from_env()?;
    let target = Target::find(&args.target, &places)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        // Before the build: a port in use is known at once, not after it.
        let server = Server::bind(args.addr).await?;
        let app = load(&target, &places, global)?;
        // Not before: until here a signal simply ends the program.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        print_routes(&app, global)?;
        output::line(format!("Serving {} on http://{}", plain(&app.manifest().name), server.address()))?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        server.serve(app, stop).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn load(target: &Target, places: &Places, global: &Global) -> Result<Arc<App>> {
    // Until the machine code is open: `wharf prune --all` may be waiting to remove it.
    let _caches = places.use_caches();
    let progress = Progress::new(global);
    let source = target.load(places, &progress)?;
    Ok(Arc::new(App::load(&Runtime::new()?, source)?))
}

fn print_routes(app: &App, global: &Global) -> Result<()> {
    if global.quiet {
        return Ok(());
    }
    let lines = app.routes().lines(app.manifest());
    let rows: Vec<[String; 3]> = lines
        .into_iter()
        .map(|line| [plain(&line.pattern), line.kind.to_owned(), plain(&line.source)])
        .collect();
    output::table(&rows)
}
