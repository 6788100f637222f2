//! How a worker is spoken to.
//!
//! Below it, and only where projects are built: what a `.wasm` file is
//! (`detect`). It deliberately does not speak any protocol: the host does.

#[cfg(feature = "build")]
mod detect;

#[cfg(feature = "build")]
pub(crate) use detect::{Program, detect};
#[cfg(feature = "build")]
pub use detect::{ProgramError, wasi_of};

use std::fmt;

use serde::{Deserialize, Serialize};

/// How requests reach a worker, and answers come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Abi {
    /// The component exports `wasi:http/incoming-handler` 0.2, or
    /// `wasi:http/handler` 0.3.
    #[default]
    Http,
    /// A command is started for each request and speaks CGI/1.1 (RFC 3875): the
    /// request in environment and stdin, the response on stdout.
    Cgi,
    /// A command is started for each request and speaks the protocol of Wasm
    /// Workers Server: a JSON document on stdin, another one on stdout.
    Wws,
}

/// Which WASI a component is made for, and so which engine runs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wasi {
    /// WASI preview 1, of core modules.
    #[serde(rename = "0.1")]
    V01,
    /// WASI 0.2, where a call is done when it returns.
    #[default]
    #[serde(rename = "0.2")]
    V02,
    /// WASI 0.3, whose functions and streams are async by the component model.
    #[serde(rename = "0.3")]
    V03,
}

impl Wasi {
    /// Whether it is what a manifest without the key means.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Abi {
    /// As `wharf.toml` and `wharf.json` spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Cgi => "cgi",
            Self::Wws => "wws",
        }
    }

    /// Whether it is what a manifest without the key means.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
