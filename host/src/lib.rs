//! The host: an HTTP server with wasmtime inside that serves one app.
//!
//! A request's way, in the order of the code: [`Server`] accepts and parses
//! it, [`App`] resolves its path (`wharf_app::Routes`) and asks either the
//! static files or a worker, either gives an `Outcome`, and that becomes a
//! response in one place. It deliberately knows no images and no containers;
//! and unless built with the feature `compiler`, it can't compile.

mod app;
mod code;
#[cfg(feature = "compiler")]
mod code_cache;
mod engine;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod log;
mod message;
mod negotiation;
mod outcome;
mod server;
mod site;
mod ticker;
mod worker;

pub use app::{App, AppError, AppSource, SiteRoot};
pub use code::{CodeDir, CodeError, HostCode};
#[cfg(feature = "compiler")]
pub use code_cache::{CodeCache, CodeCacheError, write_code};
#[cfg(feature = "compiler")]
pub use engine::{Architecture, CompileError, Compiler, CompilerTarget};
pub use engine::{Runtime, RuntimeError};
pub use log::Log;
pub use server::{BindError, Server};
