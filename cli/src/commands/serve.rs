//! `wharf serve`: the app over HTTP, with no container engine.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use wharf_app::Prefix;
use wharf_host::{
    Address, Admin, App, Health, Layout, Metrics, Runtime, Server, Socket, Tls, raise_descriptor_limit,
};

use crate::arguments::Global;
use crate::operations::Operations;
use crate::output::{self, plain};
use crate::places::Places;
use crate::progress::Progress;
use crate::target::Target;

/// Serve an app on this machine: no container engine, no registry, no root.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  wharf serve\n  wharf serve examples/hello --addr 127.0.0.1:0\n  \
    wharf serve registry.example/app:1")]
pub(crate) struct Serve {
    /// A project folder, a git URL (https://…#BRANCH:FOLDER), an image of the local
    /// store, an OCI layout or a saved archive.
    #[arg(default_value = ".")]
    target: String,
    /// Trust a project from a git URL: run its build commands and install its packages,
    /// which can do all that you can.
    #[arg(long)]
    trust: bool,
    /// A path in front of all URLs of the project: /app.
    #[arg(long, value_name = "PATH")]
    prefix: Option<Prefix>,
    /// Where to listen: ADDRESS:PORT (port 0 takes a free one), unix:/PATH, fd:NUMBER or systemd.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS:PORT", env = "WHARF_ADDR")]
    addr: String,
    #[command(flatten)]
    operations: Operations,
}

pub(crate) fn run(args: &Serve, global: &Global) -> Result<ExitCode> {
    let places = Places::from_env()?.trusting(args.trust);
    let target = Target::find(&args.target, &places)?.below(args.prefix.as_ref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let mut settings = args.operations.settings(&args.addr)?;
        // Before the build: a port in use is known at once, not after it.
        let socket = settings.endpoint.bind(settings.socket_mode)?;
        let (health, metrics) = (Health::default(), Arc::new(OnceLock::new()));
        if let Some(endpoint) = &settings.admin {
            let socket = endpoint.bind(settings.socket_mode)?;
            let admin = Admin { health: health.clone(), metrics: Arc::clone(&metrics) };
            tokio::spawn(async move {
                let Err(error) = admin.serve(socket).await;
                error!(%error, "admin listener failed");
            });
        }
        let tls = match &settings.tls {
            Some((certificate, key)) => Some(Arc::new(Tls::load(certificate, key)?)),
            None => None,
        };
        let app = load(&target, &places, global)?;
        // Not before: until here a signal simply ends the program.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        if let Some(tls) = &tls {
            reload_on_hangup(Arc::clone(tls))?;
        }
        print_routes(&app, global)?;
        let url = url(&socket, tls.is_some());
        output::line(format!("Serving {} on {url}", plain(&app.manifest().name)))?;
        settings.serve.max_connections = settings.serve.max_connections.min(raise_descriptor_limit());
        let metrics = metrics.get_or_init(|| Metrics::of_one_process(Layout::new(app.manifest(), 1)));
        let mut server = Server::new(socket, settings.serve).with_metrics(health, metrics.clone());
        if let Some(tls) = tls {
            server = server.with_tls(tls);
        }
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        server.run(app, stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// What a browser takes; of a Unix socket, what `--addr` does.
fn url(socket: &Socket, is_tls: bool) -> String {
    match socket.address() {
        Address::Tcp(address) => format!("{}://{address}", if is_tls { "https" } else { "http" }),
        other => other.to_string(),
    }
}

/// Without TLS the signal ends the program, as when its terminal goes.
fn reload_on_hangup(tls: Arc<Tls>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match tls.reload() {
                Ok(()) => info!("TLS certificate reloaded"),
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    error!(error = format!("{error:#}"), "TLS certificate not reloaded: the old one stays");
                }
            }
        }
    });
    Ok(())
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
