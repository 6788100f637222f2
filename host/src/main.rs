//! `wharf-host`: serves the app that it finds beside it in an image.

use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{error, info};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use wharf_app::MANIFEST_FILE;
use wharf_host::{
    Admin, App, AppError, AppSource, BindError, Crew, Health, HostCode, Layout, Log, Membership, Metrics,
    Runtime, Server, Settings, Tls, TlsError, operator, raise_descriptor_limit,
};

const USAGE: &str = "\
wharf-host: serves a wharf app

Usage: wharf-host [--help | --version | routes | health | dump]

  routes    list the routes of the app, in order of precedence
  health    succeed if the host that runs beside this takes requests
  dump      print what the host was told, as JSON

Environment:
  WHARF_APP                the app's manifest                    [default: /app/wharf.json]
  WHARF_ADDR               ADDRESS:PORT, unix:/PATH, fd:NUMBER or systemd
                                                                 [default: 0.0.0.0:8080]
  WHARF_SOCKET_MODE        mode of a Unix socket                 [default: 660]
  WHARF_LOG                error, warn, info or debug            [default: info]
  WHARF_ACCESS_LOG         off, text or json                     [default: off]
  WHARF_PROCESSES          under load at most                    [default: auto, one a core]
  WHARF_ADMIN_ADDR         where /healthz, /readyz and /metrics are, or off; for example
                           127.0.0.1:9090                        [default: off]
  WHARF_TLS_CERT           PEM file of the certificate chain; read again on SIGHUP
  WHARF_TLS_KEY            PEM file of its key
  WHARF_TRUSTED_PROXIES    addresses, networks, \"private\", \"unix\"  [default: none]
  WHARF_FORWARDED_HEADER   x-forwarded or forwarded              [default: x-forwarded]
  WHARF_MAX_CONNECTIONS    connections at once; then 503         [default: 10000]
  WHARF_MAX_STREAMS        requests at once on one of HTTP/2     [default: 128]
  WHARF_MAX_HEADER_SIZE    head of a request; then 431           [default: 64KiB]
  WHARF_HANDSHAKE_TIMEOUT  for TLS                               [default: 10s]
  WHARF_HEADER_TIMEOUT     for the head of a request             [default: 30s]
  WHARF_IDLE_TIMEOUT       between two requests                  [default: 75s]
  WHARF_SEND_TIMEOUT       for a client that takes nothing       [default: 60s]
  WHARF_DRAIN_DELAY        accepting after SIGTERM               [default: 0s]
  WHARF_DRAIN_TIMEOUT      for requests in flight after that     [default: 10s]
  OTEL_EXPORTER_OTLP_ENDPOINT and further OTEL_* variables       [default: no traces]

Example: WHARF_APP=./app/wharf.json WHARF_ADDR=127.0.0.1:8080 wharf-host
";

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
        Some("routes" | "health" | "dump") => {}
        Some(other) => {
            eprintln!("error: unexpected argument {other:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    match run(env::args().nth(1).as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            let hint = error.downcast_ref::<BindError>().and_then(BindError::hint);
            let tls = || error.chain().find_map(|cause| cause.downcast_ref::<TlsError>()?.hint());
            let app = || error.downcast_ref::<AppError>().and_then(AppError::hint);
            if let Some(hint) = hint.or_else(|| tls().map(str::to_owned)).or_else(app) {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Option<&str>) -> anyhow::Result<()> {
    let variable = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let settings = Settings::from_variables(variable)?;
    let answer = match command {
        None => None,
        Some("routes") => Some(operator::routes(&manifest_path())?),
        Some("health") => Some(operator::health(&settings).map(|()| "ok\n".to_owned())?),
        Some(_) => Some(operator::dump(&manifest_path(), variable)?),
    };
    if let Some(answer) = answer {
        return Ok(std::io::stdout().write_all(answer.as_bytes())?);
    }
    start_log()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(settings));
    // A thread may still read a file for a client that does not take it.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Log.flush();
    served
}

async fn serve(mut settings: Settings) -> anyhow::Result<()> {
    // Before anything that takes time: as process 1 the kernel drops signals
    // that nobody asked for, and a stop during the start must not be lost.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let limit = raise_descriptor_limit();
    settings.serve.max_connections = settings.serve.max_connections.min(limit);
    match Membership::from_env()? {
        None => serve_first(settings, hangup, stop).await,
        Some(membership) => serve_further(settings, membership, hangup, stop).await,
    }
}

/// Serves as the process that was started from outside.
async fn serve_first(
    settings: Settings,
    hangup: Signal,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (health, metrics) = (Health::default(), Arc::new(OnceLock::new()));
    if let Some(endpoint) = &settings.admin {
        let socket = endpoint.bind(settings.socket_mode)?;
        info!(address = %socket.address(), "admin listener");
        let admin = Admin { health: health.clone(), metrics: Arc::clone(&metrics) };
        tokio::spawn(async move {
            let Err(error) = admin.serve(socket).await;
            error!(%error, "admin listener failed");
        });
    }
    let tls = load_tls(&settings)?;
    let app = Arc::new(load()?);
    let processes = Crew::limit(settings.processes);
    let layout = Layout::new(app.manifest(), processes);
    let crew = Crew::new(processes, layout.words())?;
    tokio::spawn(reload(tls.clone(), hangup, Some(crew.reload())));
    let metrics = metrics.get_or_init(|| Metrics::new(layout, crew.metrics_memory()));
    let socket = settings.endpoint.bind(settings.socket_mode)?;
    info!(
        app = app.manifest().name,
        address = %socket.address(),
        files = app.manifest().site.files.len(),
        workers = app.manifest().workers.len(),
        tls = tls.is_some(),
        "listening"
    );
    let mut server =
        Server::new(socket, settings.serve).with_metrics(health, metrics.clone()).with_crew(crew);
    if let Some(tls) = tls {
        server = server.with_tls(tls);
    }
    server.run(app, stop).await?;
    info!("stopped");
    Ok(())
}

/// Serves beside the process that started this one.
async fn serve_further(
    settings: Settings,
    membership: Membership,
    hangup: Signal,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let tls = load_tls(&settings)?;
    tokio::spawn(reload(tls.clone(), hangup, None));
    let app = Arc::new(load()?);
    let layout = Layout::new(app.manifest(), membership.processes());
    let memory = membership.metrics_memory();
    if memory.len() < layout.words() {
        bail!("{} has changed since the first process started", manifest_path().display());
    }
    let metrics = Metrics::new(layout, memory);
    let mut server = Server::join(membership, settings.serve)?.with_metrics(Health::default(), metrics);
    if let Some(tls) = tls {
        server = server.with_tls(tls);
    }
    Ok(server.run(app, stop).await?)
}

fn load_tls(settings: &Settings) -> Result<Option<Arc<Tls>>, TlsError> {
    settings.tls.as_ref().map(|(certificate, key)| Ok(Arc::new(Tls::load(certificate, key)?))).transpose()
}

fn manifest_path() -> PathBuf {
    env::var_os("WHARF_APP").map_or_else(|| PathBuf::from("/app").join(MANIFEST_FILE), PathBuf::from)
}

fn load() -> anyhow::Result<App> {
    let path = manifest_path();
    let is_manifest = path.file_name().is_some_and(|name| name == MANIFEST_FILE);
    let Some(dir) = path.parent().filter(|_| is_manifest) else {
        bail!("WHARF_APP is {path:?}: expected the path of a file {MANIFEST_FILE}");
    };
    let source = AppSource::sealed(dir, HostCode::from_env(dir)?)?;
    Ok(App::load(&Runtime::new()?, source)?)
}

/// Reads the certificate anew on each SIGHUP. Without TLS the signal is taken,
/// so that it does not end the program, and nothing happens.
/// The other processes are told, too.
async fn reload(tls: Option<Arc<Tls>>, mut hangup: Signal, others: Option<Arc<Notify>>) {
    while hangup.recv().await.is_some() {
        if let Some(others) = &others {
            others.notify_one();
        }
        let Some(tls) = &tls else { continue };
        match tls.reload() {
            Ok(()) => info!("TLS certificate reloaded"),
            Err(error) => {
                let error = anyhow::Error::from(error);
                error!(error = format!("{error:#}"), "TLS certificate not reloaded: the old one stays");
            }
        }
    }
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
