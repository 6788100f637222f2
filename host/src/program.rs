//! Plain WebAssembly programs: the images that people have for runwasi's
//! shims, which consist of a `.wasm` file instead of an app.
//!
//! A command runs to its exit code with the container's arguments, environment,
//! standard streams, files and network: what bounds it is the container. A
//! component of `wasi:http` is served at every path, as an app with one worker.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Module, Store, Trap};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wharf_app::{Abi, Component as Description, Limits, Manifest, Sha256, Site, Wasi, Worker};

use crate::app::{AppSource, SiteRoot};
use crate::code::HostCode;
use crate::engine::plain_engine;

/// Names the environment variable of a plain program: `SHA256`, and `#NAME` if
/// a function is to be called in place of its main function.
const VARIABLE: &str = "WHARF_PROGRAM";

/// Variables that are between the shim and the host.
const OURS: [&str; 3] = [VARIABLE, "WHARF_AOT_FDS", "WHARF_APP"];

/// The exit code of a program that trapped: 128 + SIGABRT, as of one that
/// aborted.
const TRAPPED: u8 = 134;

/// What the shim has the host run in place of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    sha256: Sha256,
    function: Option<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// What becomes of it.
pub enum Running {
    /// It ran to its end.
    Ended(ExitCode),
    /// It answers HTTP: to be served as this app.
    Serves(Box<AppSource>),
}

/// Why a program can't be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The variable is malformed.
    #[error("malformed {VARIABLE} {0:?}: expected SHA256 or SHA256#FUNCTION")]
    Variable(String),
    /// Its machine code can't be loaded.
    #[error("cannot load the program")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It asks for what there is not.
    #[error("cannot start the program")]
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The container's files can't be opened.
    #[error("cannot open the container's root folder for the program")]
    Root(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It has no main function, or none of the name that was asked for.
    #[error("the program exports no function {0:?} without parameters")]
    Function(String),
    /// It is neither command nor server.
    #[error(
        "expected a program that exports wasi:cli/run, wasi:http/incoming-handler or wasi:http/handler, \
         or a core module that exports _start"
    )]
    Neither,
}

impl Program {
    /// What this process was started to run; nothing if that is an app.
    ///
    /// # Errors
    /// [`ProgramError::Variable`].
    pub fn from_env() -> Result<Option<Self>, ProgramError> {
        let Ok(text) = std::env::var(VARIABLE) else {
            return Ok(None);
        };
        let (sha256, function) = match text.split_once('#') {
            Some((sha256, function)) => (sha256, Some(function.to_owned())),
            None => (text.as_str(), None),
        };
        let sha256 = sha256.parse().map_err(|_| ProgramError::Variable(text.clone()))?;
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| !OURS.contains(&name.as_str()));
        let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
        Ok(Some(Self {
            sha256,
            function,
            arguments: arguments.collect(),
            environment: environment.collect(),
        }))
    }

    /// Runs it, or says how to serve it. A signal that asks to end ends it, and
    /// with it the process: nobody else is in it.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub async fn run(self, code: HostCode) -> Result<Running, ProgramError> {
        let load = |error: wasmtime::Error| ProgramError::Load(error.into());
        let path = code.path(&self.sha256).map_err(|error| ProgramError::Load(error.into()))?;
        let engine = plain_engine(Wasi::V02).map_err(load)?;
        if Engine::detect_precompiled_file(&path).map_err(load)? == Some(wasmtime::Precompiled::Module) {
            // SAFETY: as in `code`: it comes from the root-owned cache of the node.
            let module = unsafe { Module::deserialize_file(&engine, &path) }.map_err(load)?;
            return self.run_module(&engine, &module).await.map(Running::Ended);
        }
        // SAFETY: as above.
        let component = match unsafe { Component::deserialize_file(&engine, &path) } {
            Ok(component) => component,
            // One of WASI 0.3 is compiled for another engine: only a server.
            Err(_) if self.function.is_none() => return Ok(self.serve(code, Wasi::V03)),
            Err(error) => return Err(load(error)),
        };
        let kind = component.component_type();
        let exports: Vec<_> = kind.exports(&engine).map(|(name, _)| name.to_owned()).collect();
        let exports = |interface: &str| exports.iter().any(|name| name.starts_with(interface));
        if self.function.is_some() || exports("wasi:cli/run@0.2.") {
            self.run_component(&engine, &component).await.map(Running::Ended)
        } else if exports("wasi:http/incoming-handler@0.2.") {
            Ok(self.serve(code, Wasi::V02))
        } else {
            Err(ProgramError::Neither)
        }
    }

    /// As an app whose one worker answers all.
    fn serve(self, code: HostCode, wasi: Wasi) -> Running {
        let name = self.arguments.first().map_or("program", String::as_str);
        let mut manifest = Manifest::new(name.to_owned(), Site::default());
        manifest.components.push(Description { file: name.to_owned(), size: 0, sha256: self.sha256, wasi });
        let values = self.environment.into_iter().map(|(name, value)| (name, wharf_app::Value::Fixed(value)));
        manifest.workers.push(Worker {
            name: "program".to_owned(),
            pattern: "/[...path]".to_owned(),
            source: name.to_owned(),
            component: 0,
            abi: Abi::Http,
            env: values.collect(),
            grants: wharf_app::Grants::default(),
            limits: Limits::default(),
            reuse: 1,
        });
        let root = PathBuf::from("/");
        Running::Serves(Box::new(AppSource {
            manifest,
            site: SiteRoot::Sealed(root.clone()),
            files: root,
            code,
        }))
    }

    fn context(&self) -> Result<WasiCtxBuilder, ProgramError> {
        let mut context = WasiCtxBuilder::new();
        context.args(&self.arguments).envs(&self.environment).inherit_stdio();
        // What the container may reach is for its namespaces to say.
        context.inherit_network().allow_ip_name_lookup(true);
        let root = context.preopened_dir("/", "/", FsPerms::ReadWrite);
        root.map_err(|error| ProgramError::Root(error.into()))?;
        Ok(context)
    }

    async fn run_module(&self, engine: &Engine, module: &Module) -> Result<ExitCode, ProgramError> {
        let start = |error: wasmtime::Error| ProgramError::Start(error.into());
        let mut linker = wasmtime::Linker::new(engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, |context: &mut WasiP1Ctx| context)
            .map_err(start)?;
        let mut store = store(engine, self.context()?.build_p1());
        let instance = linker.instantiate_async(&mut store, module).await.map_err(start)?;
        let name = self.function.as_deref().unwrap_or("_start");
        let function = instance.get_func(&mut store, name);
        let function = function.filter(|function| function.ty(&store).params().len() == 0);
        let function = function.ok_or_else(|| ProgramError::Function(name.to_owned()))?;
        let mut results = vec![wasmtime::Val::I32(0); function.ty(&store).results().len()];
        Ok(exit_code(function.call_async(&mut store, &[], &mut results).await.map(|()| Ok(()))))
    }

    async fn run_component(&self, engine: &Engine, component: &Component) -> Result<ExitCode, ProgramError> {
        let start = |error: wasmtime::Error| ProgramError::Start(error.into());
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(start)?;
        let guest = Guest { wasi: self.context()?.build(), table: ResourceTable::new() };
        let mut store = store(engine, guest);
        let Some(name) = &self.function else {
            let command = Command::instantiate_async(&mut store, component, &linker).await.map_err(start)?;
            return Ok(exit_code(command.wasi_cli_run().call_run(&mut store).await));
        };
        let instance = linker.instantiate_async(&mut store, component).await.map_err(start)?;
        let function = instance.get_func(&mut store, name);
        let function = function.filter(|function| function.ty(&store).params().len() == 0);
        let function = function.ok_or_else(|| ProgramError::Function(name.clone()))?;
        let mut results = vec![wasmtime::component::Val::Bool(false); function.ty(&store).results().len()];
        Ok(exit_code(function.call_async(&mut store, &[], &mut results).await.map(|()| Ok(()))))
    }
}

/// The host's side of a command.
struct Guest {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// A store whose guest runs as long as it wants: it is alone.
fn store<T>(engine: &Engine, data: T) -> Store<T> {
    let mut store = Store::new(engine, data);
    store.set_epoch_deadline(u64::MAX / 2);
    store
}

/// The process's exit code, after how the guest ended.
fn exit_code(ended: wasmtime::Result<Result<(), ()>>) -> ExitCode {
    match ended {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(())) => ExitCode::FAILURE,
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => ExitCode::from(code.to_le_bytes()[0]),
            None => {
                report(&error);
                ExitCode::from(if error.is::<Trap>() { TRAPPED } else { 1 })
            }
        },
    }
}

/// The guest's own log is what a user looks at.
#[allow(clippy::print_stderr)]
fn report(error: &wasmtime::Error) {
    eprintln!("error: {error:?}");
}

/// Ends the process when it is told to, whatever the guest does: as process 1
/// it would not be ended otherwise.
///
/// # Errors
/// The signals can't be listened to.
pub fn end_by_signals() -> std::io::Result<()> {
    for (kind, code) in
        [(SignalKind::terminate(), 143), (SignalKind::interrupt(), 130), (SignalKind::hangup(), 129)]
    {
        let mut signal = signal(kind)?;
        tokio::spawn(async move {
            if signal.recv().await.is_some() {
                std::process::exit(code);
            }
        });
    }
    Ok(())
}
