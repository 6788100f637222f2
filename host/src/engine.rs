//! The configurations of wasmtime, for compiling and for running: one for each
//! WASI.
//!
//! Code loads only in an engine that is configured as the one that compiled
//! it, so both are made here. It deliberately does not decide where compiled
//! code lies: see `code`.

use std::sync::OnceLock;

use tracing::warn;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};
use wharf_app::Wasi;

/// Requests to workers that are in flight at most, all workers together.
/// Further ones wait for their turn.
pub(crate) const MAX_INSTANCES: u32 = 128;

/// Instances that wait for a further request at most, all workers together:
/// those of workers that the user lets serve several.
pub(crate) const MAX_IDLE_INSTANCES: u32 = 32;

/// Instances that there can be.
const INSTANCES: u32 = MAX_INSTANCES + MAX_IDLE_INSTANCES;

/// The engines that run workers.
#[derive(Clone)]
pub struct Runtime {
    engine: Engine,
    /// The engine of WASI 0.3, once a worker needs it.
    concurrent: OnceLock<Engine>,
}

/// The engine can't start on this machine.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the WebAssembly engine")]
pub struct RuntimeError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Runtime {
    /// An engine for this machine's CPU, with addresses for [`MAX_INSTANCES`]
    /// instances set aside where there are enough; no page of it is touched.
    ///
    /// # Errors
    /// [`RuntimeError`]: the CPU lacks a feature that code is compiled for.
    pub fn new() -> Result<Self, RuntimeError> {
        let engine = pooled(Wasi::V02).map_err(|error| RuntimeError(error.into()))?;
        Ok(Self { engine, concurrent: OnceLock::new() })
    }

    /// The engine for components of `wasi`.
    pub(crate) fn engine(&self, wasi: Wasi) -> wasmtime::Result<&Engine> {
        match (wasi, self.concurrent.get()) {
            (Wasi::V01 | Wasi::V02, _) => Ok(&self.engine),
            (Wasi::V03, Some(engine)) => Ok(engine),
            (Wasi::V03, None) => {
                let engine = pooled(wasi)?;
                Ok(self.concurrent.get_or_init(|| engine))
            }
        }
    }
}

fn pooled(wasi: Wasi) -> wasmtime::Result<Engine> {
    let mut pooled = config(wasi);
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(wasi)));
    Engine::new(&pooled).or_else(|error| {
        // The slots are a terabyte of addresses: more than a 39-bit address
        // space or a limit on it has. Code is the same for both.
        warn!(%error, "no address space for ready slots: instances start slower");
        Engine::new(&config(wasi))
    })
}

/// An engine for one program that has the process to itself.
///
/// # Errors
/// The CPU lacks a feature that code is compiled for.
pub(crate) fn plain_engine(wasi: Wasi) -> wasmtime::Result<Engine> {
    Engine::new(&config(wasi))
}

/// What both ends must agree on.
fn config(wasi: Wasi) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    // A guest that never returns is interrupted, so that others have a turn.
    config.epoch_interruption(true);
    // Twice wasmtime's default: JSON of 2,000 arrays in each other is still read by Python.
    // Deeper recursion traps: its C code looks at another stack, which is in its memory.
    // The rest of the 2 MiB of a guest's stack is the host's.
    config.max_wasm_stack(WASM_STACK);
    // WASI 0.2 needs no concurrent calls into an instance, and a fresh one is
    // cheaper without what they take.
    config.concurrency_support(wasi == Wasi::V03);
    config.wasm_component_model_async(wasi == Wasi::V03);
    config
}

/// Bytes of a guest's stack that are its own.
const WASM_STACK: usize = 1 << 20;

/// Slots that are ready for instances. Sizes are upper bounds: what a guest
/// does not touch costs nothing.
fn pool(wasi: Wasi) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(INSTANCES);
    // A Python worker is some twenty core instances, tables and one memory.
    pool.total_core_instances(INSTANCES * 32);
    pool.total_memories(INSTANCES * 2);
    pool.total_tables(INSTANCES * 8);
    // A place in the list of each costs memory, and the default is 1000.
    pool.total_gc_heaps(INSTANCES);
    // A guest of 0.3 has a stack for each of its tasks.
    pool.total_stacks(if wasi == Wasi::V03 { INSTANCES * STACKS } else { INSTANCES });
    pool.max_tables_per_component(32);
    // One is the default, but a module with `externref`s has a table for them.
    pool.max_tables_per_module(8);
    pool.max_memories_per_component(8);
    pool.max_core_instance_size(4 << 20);
    pool.max_component_instance_size(4 << 20);
    pool.table_elements(50_000);
    if can_scan_pages() {
        // An instance's end then copies back the pages that it wrote, which
        // neither faults later nor interrupts other cores.
        pool.pagemap_scan(Enabled::Yes);
        pool.linear_memory_keep_resident(KEPT_MEMORY);
        pool.table_keep_resident(KEPT_TABLE);
        pool.max_unused_warm_slots(WARM_SLOTS);
    }
    pool
}

/// Tasks of one instance of WASI 0.3 at a time that there are stacks for, on
/// average.
const STACKS: u32 = 8;

/// Memory that a slot keeps after its instance's end, ready for the next: more
/// than a Python worker writes to.
const KEPT_MEMORY: usize = 64 << 20;

/// The same of a table.
const KEPT_TABLE: usize = 4 << 20;

/// Slots that are kept so, at most, each for the component that last had it.
const WARM_SLOTS: u32 = 16;

/// Whether the kernel can say which pages were written.
///
/// By its own words it says so of pages that are in memory. With the change in
/// third_party it is asked for those swapped out as well, which no test has seen:
/// so not where there is swap.
fn can_scan_pages() -> bool {
    let swap = std::fs::read_to_string("/proc/swaps");
    PoolingAllocationConfig::is_pagemap_scan_available()
        && swap.is_ok_and(|swaps| swaps.lines().nth(1).is_none())
}

#[cfg(feature = "compiler")]
pub use compiler::{Architecture, CompileError, Compiler, CompilerTarget};

#[cfg(feature = "compiler")]
mod compiler {
    use std::fmt;
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::path::Path;
    use std::str::FromStr;
    use std::sync::Arc;

    use tracing::warn;
    use wasmtime::Engine;
    use wharf_app::Wasi;

    use super::config;
    use crate::functions::Functions;

    /// A CPU that wharf's images are made for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Architecture {
        /// 64-bit x86.
        Amd64,
        /// 64-bit ARM.
        Arm64,
    }

    /// Which machines will run the code.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum CompilerTarget {
        /// This one, with all that its CPU can do.
        Native,
        /// Any machine of the architecture: x86-64-v2 (2009 and later), or
        /// Armv8.0-A.
        Portable(Architecture),
    }

    /// The engines that compile workers.
    pub struct Compiler {
        engine: Engine,
        concurrent: Engine,
        target: CompilerTarget,
        functions: Option<Arc<Functions>>,
    }

    /// Why there is no code.
    #[derive(Debug, thiserror::Error)]
    pub enum CompileError {
        /// No compiler for the target.
        #[error("cannot start the WebAssembly compiler")]
        Start(#[source] Box<dyn std::error::Error + Send + Sync>),
        /// The file can't be read; the cause names it.
        #[error("cannot read component")]
        Read(#[source] std::io::Error),
        /// Damaged, or made for another engine.
        #[error("cannot compile {file}: expected valid WebAssembly")]
        Invalid {
            /// The file.
            file: String,
            /// What is wrong with it.
            #[source]
            source: Box<dyn std::error::Error + Send + Sync>,
        },
        /// Not WebAssembly at all.
        #[error("cannot compile {file}: expected WebAssembly, found something else")]
        NotWasm {
            /// The file.
            file: String,
        },
    }

    impl CompileError {
        /// What the user can do about it.
        #[must_use]
        pub fn hint(&self) -> Option<String> {
            match self {
                Self::Invalid { .. } | Self::NotWasm { .. } => {
                    Some("the file may be truncated: build it again".into())
                }
                Self::Start(_) | Self::Read(_) => None,
            }
        }
    }

    impl Compiler {
        /// A compiler for `target`.
        ///
        /// # Errors
        /// [`CompileError::Start`]: this build can't compile for it.
        pub fn new(target: CompilerTarget) -> Result<Self, CompileError> {
            Self::with(target, None)
        }

        /// The same, which keeps the code of each function in a file of `folder`, and
        /// compiles none that is there. Whoever can write there can run anything as this
        /// user.
        ///
        /// # Errors
        /// [`CompileError::Start`].
        pub(crate) fn keeping(target: CompilerTarget, folder: &Path) -> Result<Self, CompileError> {
            Self::with(target, Some(Arc::new(Functions::new(Functions::path(folder)))))
        }

        fn with(target: CompilerTarget, functions: Option<Arc<Functions>>) -> Result<Self, CompileError> {
            let engine = |wasi| {
                engine(target, wasi, functions.as_ref()).map_err(|error| CompileError::Start(error.into()))
            };
            Ok(Self { engine: engine(Wasi::V02)?, concurrent: engine(Wasi::V03)?, target, functions })
        }

        /// What the compiler is for.
        #[must_use]
        pub const fn target(&self) -> CompilerTarget {
            self.target
        }

        /// Names the configuration: code of equal ids is interchangeable.
        #[must_use]
        pub fn id(&self) -> String {
            // The hash is fixed within a build of wharf, and its version is
            // part of what wasmtime hashes.
            let mut hasher = DefaultHasher::new();
            for engine in [&self.engine, &self.concurrent] {
                engine.precompile_compatibility_hash().hash(&mut hasher);
            }
            format!("{:016x}", hasher.finish())
        }

        /// Machine code of the component, or core module, in the file `path`.
        ///
        /// # Errors
        /// [`CompileError`]: it can't be read, or is not a valid component.
        pub fn compile(&self, path: &Path) -> Result<Vec<u8>, CompileError> {
            let wasm = fs_err::read(path).map_err(CompileError::Read)?;
            let file = path.display().to_string();
            // The preamble: "\0asm", a version, and the layer (component
            // model, Binary.md: 0 is a core module, 1 a component).
            let code = match wasm.get(..8) {
                Some([0, b'a', b's', b'm', _, _, 1, 0]) => match wharf_app::wasi_of(&wasm) {
                    Wasi::V03 => self.concurrent.precompile_component(&wasm),
                    Wasi::V01 | Wasi::V02 => self.engine.precompile_component(&wasm),
                },
                Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => self.engine.precompile_module(&wasm),
                _ => return Err(CompileError::NotWasm { file }),
            };
            if let Some(functions) = &self.functions
                && let Err(error) = functions.save()
            {
                warn!(%error, "cannot keep the code of functions: the next compilation takes as long");
            }
            code.map_err(|error| CompileError::Invalid { file, source: error.into() })
        }
    }

    fn engine(
        target: CompilerTarget,
        wasi: Wasi,
        functions: Option<&Arc<Functions>>,
    ) -> wasmtime::Result<Engine> {
        let mut config = config(wasi);
        if let Some(functions) = functions {
            config.enable_incremental_compilation(Arc::<Functions>::clone(functions))?;
        }
        if let CompilerTarget::Portable(architecture) = target {
            let triple = match architecture {
                Architecture::Amd64 => "x86_64-unknown-linux-gnu",
                Architecture::Arm64 => "aarch64-unknown-linux-gnu",
            };
            config.target(triple)?;
            if architecture == Architecture::Amd64 {
                for flag in
                    ["has_cmpxchg16b", "has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt"]
                {
                    // SAFETY: the flag makes code that only a CPU with
                    // the feature can run. The engine that loads code
                    // compares its flags with the CPU and refuses it
                    // where one is missing.
                    unsafe { config.cranelift_flag_enable(flag) };
                }
            }
        }
        Engine::new(&config)
    }

    impl Architecture {
        /// Whether this machine is one.
        #[must_use]
        pub const fn is_this_machine(self) -> bool {
            match self {
                Self::Amd64 => cfg!(target_arch = "x86_64"),
                Self::Arm64 => cfg!(target_arch = "aarch64"),
            }
        }
    }

    impl fmt::Display for Architecture {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(match self {
                Self::Amd64 => "amd64",
                Self::Arm64 => "arm64",
            })
        }
    }

    impl FromStr for Architecture {
        type Err = String;

        fn from_str(text: &str) -> Result<Self, Self::Err> {
            match text {
                "amd64" => Ok(Self::Amd64),
                "arm64" => Ok(Self::Arm64),
                other => Err(format!("unknown architecture {other:?}: expected amd64 or arm64")),
            }
        }
    }
}
