//! `wharf-host`: serves the app that it finds beside it in an image.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use wharf_app::MANIFEST_FILE;
use wharf_host::{App, AppError, AppSource, BindError, HostCode, Log, Runtime, Server};

const USAGE: &str = "\
wharf-host: serves a wharf app

Usage: wharf-host [--help | --version]

Environment:
  WHARF_APP   the app's manifest             [default: /app/wharf.json]
  WHARF_ADDR  the address to listen on       [default: 0.0.0.0:8080]
  WHARF_LOG   error, warn, info or debug     [default: info]

Example: WHARF_APP=./app/wharf.json WHARF_ADDR=127.0.0.1:8080 wharf-host
";

/// What the environment asks for.
struct Settings {
    app: PathBuf,
    address: SocketAddr,
}

impl Settings {
    fn from_env() -> anyhow::Result<Self> {
        let address = env::var("WHARF_ADDR").unwrap_or_else(|_| "0.0.0.0:8080".into());
        Ok(Self {
            app: env::var_os("WHARF_APP").unwrap_or_else(|| "/app/wharf.json".into()).into(),
            address: address
                .parse()
                .with_context(|| format!("malformed WHARF_ADDR {address:?}: expected ADDRESS:PORT"))?,
        })
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    match env::args().nth(1).as_deref() {
        None => {}
        Some("--version" | "-V") => {
            println!("wharf-host {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some("--help" | "-h") => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprintln!("error: unexpected argument {other:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(hint) = hint(&error) {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn hint(error: &anyhow::Error) -> Option<String> {
    let bind = error.downcast_ref::<BindError>().and_then(BindError::hint);
    bind.or_else(|| error.downcast_ref::<AppError>()?.hint())
}

fn run() -> anyhow::Result<()> {
    let settings = Settings::from_env()?;
    start_log()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(&settings));
    // A thread may still read a file for a client that does not take it.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Log.flush();
    served
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    // Before anything that takes time: as process 1 the kernel drops signals
    // that nobody asked for, and a stop during the start must not be lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let is_manifest = settings.app.file_name().is_some_and(|name| name == MANIFEST_FILE);
    let Some(dir) = settings.app.parent().filter(|_| is_manifest) else {
        bail!("WHARF_APP is {:?}: expected the path of a file {MANIFEST_FILE}", settings.app);
    };
    let source = AppSource::sealed(dir, HostCode::from_env(dir)?)?;
    let app = Arc::new(App::load(&Runtime::new()?, source)?);
    let server = Server::bind(settings.address).await?;
    info!(
        app = app.manifest().name,
        address = %server.address(),
        files = app.manifest().site.files.len(),
        workers = app.manifest().workers.len(),
        "listening"
    );
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    server.serve(app, stop).await;
    info!("stopped");
    Ok(())
}

fn start_log() -> anyhow::Result<()> {
    let level = env::var("WHARF_LOG").unwrap_or_else(|_| "info".into());
    let filter: Targets = level
        .parse()
        .with_context(|| format!("malformed WHARF_LOG {level:?}: expected error, warn, info or debug"))?;
    let format = tracing_subscriber::fmt::layer().with_writer(Log).with_ansi(false).with_target(false);
    tracing_subscriber::registry().with(filter).with(format).init();
    Ok(())
}
