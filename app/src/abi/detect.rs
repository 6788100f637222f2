//! What a `.wasm` file is, told by its own exports and imports.

use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

use super::{Abi, Wasi};

/// Names that an error lists at most.
const MOST_NAMES: usize = 6;

/// Where WASI preview 1 is imported from.
const PREVIEW1: &str = "wasi_snapshot_preview1";

/// All that there is (WebAssembly/WASI, `wasi_snapshot_preview1.witx`).
const FUNCTIONS: [&str; 46] = [
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

/// What a command is started by.
const START: &str = "_start";

/// What the main function of a module without [`START`] is part of, if it has one.
const INITIALIZE: &str = "_initialize";

/// How a module writes its answer.
const WRITE: &str = "fd_write";

/// Where programs of Wasm Workers Server import their way to other servers from, and
/// what they import.
const KIT_IMPORT: (&str, &str) = ("http", "send-http-request");

/// What they export, for what that function returns.
const KIT_EXPORT: &str = "canonical_abi_realloc";

/// What those of its Rust kit say of a handler that failed.
const KIT_TEXT: &[u8] = b"There was an error running the handler";

/// What can answer requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// A component that exports `wasi:http/incoming-handler` 0.2.
    HttpComponent,
    /// A component that exports `wasi:http/handler` 0.3.
    AsyncHttpComponent,
    /// A component that exports `wasi:cli/run` 0.2.
    CommandComponent,
    /// A core module of WASI preview 1 that exports `_start`. It stays one: made into a
    /// component by the adapter of preview 1, those of Go and of wasi-libc before 2023
    /// would overwrite what the adapter keeps in their memory.
    CommandModule,
    /// Such a module by a language kit of Wasm Workers Server, whose protocol it speaks;
    /// or one without `_start`, whose main function is part of `_initialize`, as its Zig
    /// kit has them.
    KitModule,
}

/// Why a file can't be a worker.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Something else, or nothing.
    #[error("expected WebAssembly, found {0}")]
    NotWasm(&'static str),
    /// Truncated, or damaged.
    #[error("expected valid WebAssembly")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A component that answers nothing.
    #[error(
        "expected a component that exports wasi:http/incoming-handler, wasi:http/handler or wasi:cli/run, found {0}"
    )]
    Component(String),
    /// A command of the next WASI.
    #[error("expected a command of WASI 0.2, found one of 0.3 that exports {0}")]
    Wasi03(String),
    /// A core module that nothing starts.
    #[error("expected a core module that exports the function _start, found {0}")]
    Module(String),
    /// A core module that needs more than WASI.
    #[error(
        "expected a core module that imports from {PREVIEW1} alone, found an import of {module:?} {name:?}"
    )]
    Import {
        /// The module that it imports from.
        module: String,
        /// What it imports.
        name: String,
    },
    /// `abi` asks for what the program isn't.
    #[error("abi = \"{abi}\" expects {expected}, found {found}")]
    Abi {
        /// In `wharf.toml`.
        abi: Abi,
        /// What that needs.
        expected: &'static str,
        /// What the source is.
        found: &'static str,
    },
}

impl ProgramError {
    /// What the user can do about it, if that isn't plain from the message.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::NotWasm(_) | Self::Malformed(_) => "the file may be truncated: build it again",
                Self::Component(_) => {
                    "build it for the world wasi:http/proxy, or as a command (a program with a main function)"
                }
                Self::Wasi03(_) => {
                    "build it for WASI 0.2, for example for wasm32-wasip2, or export wasi:http/handler"
                }
                Self::Module(_) => {
                    "build it as a command (a program with a main function, not a library or reactor), \
                     or as a component that exports wasi:http/incoming-handler"
                }
                Self::Import { module, .. } if module == "wasi_unstable" => {
                    "it was made for a WASI older than preview 1: build it with a newer compiler"
                }
                Self::Import { .. } => {
                    "build it for wasm32-wasip1 without JavaScript glue (no wasm-bindgen, no emscripten)"
                }
                Self::Abi { abi: Abi::Http, .. } => "leave abi out, or say \"cgi\" or \"wws\"",
                Self::Abi { .. } => "leave abi out",
            }
            .into(),
        )
    }
}

/// Which WASI the program with this content is made for: preview 1 if it is a core
/// module, 0.3 if its handler is, and 0.2 for anything else.
#[must_use]
pub fn wasi_of(wasm: &[u8]) -> Wasi {
    match detect(wasm) {
        Ok(Program::AsyncHttpComponent) => Wasi::V03,
        Ok(Program::CommandModule | Program::KitModule) => Wasi::V01,
        _ => Wasi::V02,
    }
}

impl Program {
    /// The protocol that it speaks: the one `asked` for, or CGI where that is
    /// left open.
    ///
    /// # Errors
    /// [`ProgramError::Abi`]: it can't speak what was asked for.
    pub(crate) fn abi(self, asked: Option<Abi>) -> Result<Abi, ProgramError> {
        let found = match self {
            Self::HttpComponent => "a component that exports wasi:http/incoming-handler",
            Self::AsyncHttpComponent => "a component that exports wasi:http/handler",
            Self::CommandComponent => "a component that exports wasi:cli/run",
            Self::CommandModule => "a core module that exports _start",
            Self::KitModule => "a core module for Wasm Workers Server",
        };
        match (self, asked) {
            (Self::HttpComponent | Self::AsyncHttpComponent, None | Some(Abi::Http)) => Ok(Abi::Http),
            (Self::HttpComponent | Self::AsyncHttpComponent, Some(abi)) => {
                Err(ProgramError::Abi { abi, expected: "a command (wasi:cli/run, or _start)", found })
            }
            (_, Some(abi @ Abi::Http)) => {
                let expected = "a component that exports wasi:http/incoming-handler";
                Err(ProgramError::Abi { abi, expected, found })
            }
            (_, Some(abi)) => Ok(abi),
            (Self::KitModule, None) => Ok(Abi::Wws),
            (_, None) => Ok(Abi::Cgi),
        }
    }
}

/// What the file with this content is.
///
/// # Errors
/// [`ProgramError`]: it can't answer requests.
pub(crate) fn detect(wasm: &[u8]) -> Result<Program, ProgramError> {
    // The preamble: "\0asm", a version, and the layer (component model,
    // Binary.md: 0 is a core module, 1 a component).
    match wasm.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => component(wasm),
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => module(wasm),
        Some([0, b'a', b's', b'm', ..]) => Err(ProgramError::NotWasm("an unknown version of it")),
        Some(_) => Err(ProgramError::NotWasm("something else")),
        None => Err(ProgramError::NotWasm("a file of less than 8 bytes")),
    }
}

fn component(wasm: &[u8]) -> Result<Program, ProgramError> {
    let mut exports = Vec::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(malformed)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    let exports_of = |interface: &str, version: &str| {
        exports.iter().any(|name| {
            name.split_once('@').is_some_and(|(own, its)| own == interface && its.starts_with(version))
        })
    };
    if exports_of("wasi:http/incoming-handler", "0.2.") {
        Ok(Program::HttpComponent)
    } else if exports_of("wasi:http/handler", "0.3.") {
        Ok(Program::AsyncHttpComponent)
    } else if exports_of("wasi:cli/run", "0.2.") {
        Ok(Program::CommandComponent)
    } else if exports_of("wasi:cli/run", "0.3.") {
        Err(ProgramError::Wasi03(list(&exports)))
    } else if exports.is_empty() {
        Err(ProgramError::Component("one that exports nothing".into()))
    } else {
        Err(ProgramError::Component(format!("one that exports {}", list(&exports))))
    }
}

fn module(wasm: &[u8]) -> Result<Program, ProgramError> {
    let mut exports = Vec::new();
    let mut functions = Vec::new();
    let (mut writes, mut is_of_kit) = (false, false);
    let mut foreign = None;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(malformed)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(malformed)?;
                    let is_function = matches!(import.ty, TypeRef::Func(_));
                    if is_function && import.module == PREVIEW1 && FUNCTIONS.contains(&import.name) {
                        writes |= import.name == WRITE;
                    } else if is_function && (import.module, import.name) == KIT_IMPORT {
                        is_of_kit = true;
                    } else if foreign.is_none() {
                        let (module, name) = (import.module.to_owned(), import.name.to_owned());
                        foreign = Some(ProgramError::Import { module, name });
                    }
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(malformed)?;
                    if export.kind == ExternalKind::Func {
                        functions.push(export.name);
                    }
                    exports.push(export.name.to_owned());
                }
            }
            Payload::DataSection(section) => {
                for data in section {
                    let text = data.map_err(malformed)?.data;
                    is_of_kit |= memchr::memmem::find(text, KIT_TEXT).is_some();
                }
            }
            _ => {}
        }
    }
    let (starts, initializes) = (functions.contains(&START), functions.contains(&INITIALIZE));
    is_of_kit |= functions.contains(&KIT_EXPORT);
    match foreign {
        Some(error) if starts => Err(error),
        _ if starts && is_of_kit => Ok(Program::KitModule),
        _ if starts => Ok(Program::CommandModule),
        None if initializes && writes => Ok(Program::KitModule),
        _ if initializes => Err(ProgramError::Module("a reactor, which exports _initialize".into())),
        _ if exports.is_empty() => Err(ProgramError::Module("one that exports nothing".into())),
        _ => Err(ProgramError::Module(format!("one that exports {}", list(&exports)))),
    }
}

fn malformed(error: wasmparser::BinaryReaderError) -> ProgramError {
    ProgramError::Malformed(error.into())
}

fn list(names: &[String]) -> String {
    let shown = names.iter().take(MOST_NAMES).map(|name| format!("{name:?}"));
    let mut list = shown.collect::<Vec<_>>().join(", ");
    if names.len() > MOST_NAMES {
        list.push_str(&format!(" and {} more", names.len() - MOST_NAMES));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(wat: &str) -> Result<Program, ProgramError> {
        detect(&wat::parse_str(wat).unwrap())
    }

    fn exporting(name: &str) -> String {
        format!("(component (instance $i) (export \"{name}\" (instance $i)))")
    }

    #[test]
    fn what_a_component_exports_tells_what_it_is() {
        let program = |name: &str| found(&exporting(name)).unwrap();
        assert_eq!(program("wasi:http/incoming-handler@0.2.10"), Program::HttpComponent);
        assert_eq!(program("wasi:http/handler@0.3.0"), Program::AsyncHttpComponent);
        assert_eq!(program("wasi:cli/run@0.2.3"), Program::CommandComponent);
        let both = "(component (instance $i) (export \"wasi:cli/run@0.2.0\" (instance $i))
            (export \"wasi:http/incoming-handler@0.2.0\" (instance $i)))";
        assert_eq!(found(both).unwrap(), Program::HttpComponent);
    }

    #[test]
    fn exports_of_a_component_within_a_component_are_not_its_own() {
        let nested = "(component (component (instance $i) (export \"wasi:cli/run@0.2.3\" (instance $i))))";
        let error = found(nested).unwrap_err();
        assert!(error.to_string().ends_with("found one that exports nothing"), "{error}");
    }

    #[test]
    fn a_module_with_start_is_a_command() {
        let module = "(module
            (import \"wasi_snapshot_preview1\" \"proc_exit\" (func (param i32)))
            (func (export \"_start\")))";
        assert_eq!(found(module).unwrap(), Program::CommandModule);
    }

    #[test]
    fn programs_for_wasm_workers_server_are_known_by_what_its_kits_put_in() {
        let write =
            "(import \"wasi_snapshot_preview1\" \"fd_write\" (func (param i32 i32 i32 i32) (result i32)))";
        for wat in [
            "(module (func (export \"_start\")) (func (export \"canonical_abi_realloc\")))".to_owned(),
            "(module (import \"http\" \"send-http-request\" (func)) (func (export \"_start\")))".to_owned(),
            "(module (memory 1) (func (export \"_start\"))
                (data (i32.const 0) \"There was an error running the handler\"))"
                .to_owned(),
            format!("(module {write} (func (export \"_initialize\")))"),
        ] {
            let program = found(&wat).unwrap();
            assert_eq!(program, Program::KitModule, "{wat}");
            assert_eq!(program.abi(None).unwrap(), Abi::Wws);
            assert_eq!(program.abi(Some(Abi::Cgi)).unwrap(), Abi::Cgi);
        }
    }

    #[test]
    fn what_cannot_answer_is_said_with_what_it_exports() {
        for (wat, expected) in [
            (exporting("wasi:cli/run@0.3.0"), "found one of 0.3 that exports \"wasi:cli/run@0.3.0\""),
            (exporting("local:a/b"), "found one that exports \"local:a/b\""),
            ("(module (func (export \"_initialize\")))".into(), "found a reactor, which exports _initialize"),
            ("(module (memory (export \"memory\") 1))".into(), "found one that exports \"memory\""),
            ("(module (global (export \"_start\") i32 (i32.const 0)))".into(), "exports \"_start\""),
            ("(module)".into(), "found one that exports nothing"),
            (
                "(module (import \"wasi_snapshot_preview1\" \"sock_open\" (func)) (func (export \"_start\")))".into(),
                "found an import of \"wasi_snapshot_preview1\" \"sock_open\"",
            ),
            (
                "(module (import \"env\" \"emscripten\" (func)) (func (export \"_start\")))".into(),
                "found an import of \"env\" \"emscripten\"",
            ),
        ] {
            let error = found(&wat).unwrap_err();
            assert!(error.to_string().ends_with(expected), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn what_is_no_wasm_or_damaged_is_said() {
        for (content, expected) in [
            (&b"hello world"[..], "expected WebAssembly, found something else"),
            (b"", "expected WebAssembly, found a file of less than 8 bytes"),
            (b"\0asm\x02\0\0\0", "expected WebAssembly, found an unknown version of it"),
            (b"\0asm\x0d\0\x01\0 and no more of it", "expected valid WebAssembly"),
            (b"\0asm\x01\0\0\0\x02\x7f", "expected valid WebAssembly"),
        ] {
            assert_eq!(detect(content).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_command_speaks_what_is_asked_and_cgi_else() {
        for program in [Program::CommandComponent, Program::CommandModule] {
            assert_eq!(program.abi(None).unwrap(), Abi::Cgi);
            assert_eq!(program.abi(Some(Abi::Wws)).unwrap(), Abi::Wws);
            assert!(program.abi(Some(Abi::Http)).is_err());
        }
        assert_eq!(Program::HttpComponent.abi(None).unwrap(), Abi::Http);
        assert_eq!(Program::AsyncHttpComponent.abi(None).unwrap(), Abi::Http);
        let error = Program::HttpComponent.abi(Some(Abi::Cgi)).unwrap_err();
        assert!(error.to_string().starts_with("abi = \"cgi\" expects a command"), "{error}");
    }
}
