//! What the runtime says of itself: `-info` and `-v`.

use anyhow::{Context, Result};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use crate::arguments::PROGRAM;

/// The runtime's name in containerd's configuration.
const RUNTIME: &str = "io.containerd.wasm.v1";

/// One line for people.
pub(crate) fn version() -> String {
    format!("{PROGRAM} {}\n", env!("CARGO_PKG_VERSION"))
}

/// containerd's `RuntimeInfo`, as it reads it from `-info`. It has no
/// `features`: containerd asks for them only to refuse id-mapped mounts.
///
/// # Errors
/// The message can't be encoded.
pub(crate) fn encode() -> Result<Vec<u8>> {
    let info = RuntimeInfo {
        name: RUNTIME.to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RuntimeVersion::default()
        }),
        ..RuntimeInfo::default()
    };
    info.write_to_bytes().context("cannot encode runtime information")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_information_names_runtime_and_version() {
        let info = RuntimeInfo::parse_from_bytes(&encode().unwrap()).unwrap();
        assert_eq!(info.name, RUNTIME);
        assert_eq!(info.version.version, env!("CARGO_PKG_VERSION"));
    }
}
