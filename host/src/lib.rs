//! The host: an HTTP server with wasmtime inside that serves one app.
//!
//! A request's way, in the order of the code: [`Server`] accepts and parses
//! it, `Observer` takes note of it, [`App`] resolves its path (`wharf_app::Routes`) and asks either the
//! static files or a worker, either gives an `Outcome`, and that becomes a
//! response in one place. It deliberately knows no images and no containers;
//! and unless built with the feature `compiler`, it can't compile.

mod access_log;
mod admin;
mod app;
mod body;
mod code;
#[cfg(feature = "compiler")]
mod code_cache;
mod compression;
mod conditions;
mod connection;
mod contents;
mod engine;
#[cfg(feature = "compiler")]
mod functions;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod grants;
mod health;
mod listen;
mod log;
mod mapped_file;
mod message;
mod metrics;
mod negotiation;
mod observe;
pub mod operator;
mod outcome;
mod processes;
pub mod program;
mod proxies;
mod range;
mod rest;
mod sending;
mod server;
mod settings;
mod shared_memory;
mod site;
mod site_headers;
mod ticker;
mod tls;
mod trace;
mod worker;

pub use access_log::AccessLogFormat;
pub use admin::Admin;
pub use app::{App, AppError, AppSource, SiteRoot};
pub use code::{CodeDir, CodeError, HostCode};
#[cfg(feature = "compiler")]
pub use code_cache::{CodeCache, CodeCacheError, write_code};
pub use connection::ConnectionLimits;
#[cfg(feature = "compiler")]
pub use engine::{Architecture, CompileError, Compiler, CompilerTarget};
pub use engine::{Runtime, RuntimeError};
pub use grants::GrantError;
pub use health::{Health, State};
pub use listen::{Address, BindError, Endpoint, InvalidEndpoint, Socket, SocketMode};
pub use log::Log;
pub use metrics::{Counters, Layout, Metrics};
pub use observe::ObserveSettings;
pub use processes::{Crew, CrewError, Membership, MembershipError};
pub use proxies::{Client, ForwardedBy, InvalidProxy, Peer, TrustedProxies};
pub use server::{ServeError, Server, raise_descriptor_limit};
pub use settings::{ServeSettings, Settings, SettingsError, VARIABLES};
pub use tls::{Tls, TlsError};
pub use trace::{TraceSettings, TraceSettingsError};
