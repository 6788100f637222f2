//! WASI preview 1 as Ruby sees it while it is started.
//!
//! It is not of this machine: there are the files to pack, output that is
//! collected, a clock that begins at Ruby's release, and random numbers that
//! follow from the program. So the same program is the same component
//! everywhere. What else a program may try at its load fails as not supported.

use std::fmt;

use sha2::{Digest as _, Sha256};
use wasmtime::{Caller, Extern, ExternType, Linker, Module, ResourceLimiter, Result, Val};

use crate::files::{FIRST, Files};

/// Where preview 1 is imported from.
const WASI: &str = "wasi_snapshot_preview1";

/// Midnight of 25 December 2025, in nanoseconds.
const START: u64 = 1_766_620_800_000_000_000;

/// What time passes between two looks at the clock, in nanoseconds.
const TICK: u64 = 1_000_000;

/// The most that memory may grow by at once. Ruby reserves 256 MiB for a cache
/// (of shapes), and goes without where there is no room for it.
const LARGEST_GROWTH: usize = 128 << 20;

const BAD_DESCRIPTOR: i32 = 8;
const FAULT: i32 = 21;
const NO_ENTRY: i32 = 44;
const NOT_SUPPORTED: i32 = 52;

/// Folders that are preopened.
#[derive(Debug)]
pub(crate) enum Preopened {
    /// None.
    Nothing,
    /// Those that are packed.
    Files(Files),
    /// Folders of these names, in which nothing is.
    Names(Vec<String>),
}

/// The state of the world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) preopened: Preopened,
    /// What was written to stdout: our own Ruby's words.
    pub(crate) stdout: Vec<u8>,
    /// What was written to stderr.
    pub(crate) stderr: Vec<u8>,
    /// Variables, as `NAME=value`.
    pub(crate) environment: &'static [&'static str],
    /// Whether random numbers were asked for.
    pub(crate) random_used: bool,
    now: u64,
    random: Random,
}

/// The program ended itself.
#[derive(Debug)]
pub(crate) struct Exit(i32);

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ruby ended with status {}", self.0)
    }
}

impl std::error::Error for Exit {}

/// Bytes that follow from a seed.
#[derive(Debug)]
struct Random {
    seed: [u8; 32],
    block: u64,
}

impl Random {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let block = Sha256::new().chain_update(self.seed).chain_update(self.block.to_le_bytes());
            chunk.copy_from_slice(&block.finalize()[..chunk.len()]);
            self.block += 1;
        }
    }
}

impl World {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            preopened: Preopened::Nothing,
            stdout: Vec::new(),
            stderr: Vec::new(),
            environment: &[],
            random_used: false,
            now: START,
            random: Random { seed, block: 0 },
        }
    }

    fn root(&self, fd: u32) -> Option<&str> {
        match &self.preopened {
            Preopened::Nothing => None,
            Preopened::Files(files) => files.root(fd),
            Preopened::Names(names) => {
                names.get(usize::try_from(fd.checked_sub(FIRST)?).ok()?).map(String::as_str)
            }
        }
    }

    fn files(&self) -> Outcome<&Files> {
        match &self.preopened {
            Preopened::Files(files) => Ok(files),
            _ => Err(BAD_DESCRIPTOR),
        }
    }
}

impl ResourceLimiter for World {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        // The first is the module's own size.
        Ok(current == 0 || desired - current <= LARGEST_GROWTH)
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> Result<bool> {
        Ok(true)
    }
}

/// A value, or an error number.
type Outcome<T = ()> = std::result::Result<T, i32>;

/// The guest's memory.
struct Memory<'a>(&'a mut [u8]);

impl Memory<'_> {
    fn slice(&mut self, at: u32, length: u32) -> Outcome<&mut [u8]> {
        let at = at as usize;
        self.0.get_mut(at..at.saturating_add(length as usize)).ok_or(FAULT)
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> Outcome {
        self.slice(at, u32::try_from(bytes.len()).map_err(|_| FAULT)?)?.copy_from_slice(bytes);
        Ok(())
    }

    fn number(&mut self, at: u32, value: u32) -> Outcome {
        self.write(at, &value.to_le_bytes())
    }

    /// Address and length of each buffer of a list.
    fn buffers(&mut self, at: u32, count: u32) -> Outcome<Vec<(u32, u32)>> {
        let list = self.slice(at, count.checked_mul(8).ok_or(FAULT)?)?;
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
        Ok(list.chunks(8).map(|pair| (number(&pair[..4]), number(&pair[4..]))).collect())
    }
}

/// Defines a function of preview 1 by what it does with world and memory.
macro_rules! define {
    ($linker:expr, $name:literal, |$world:pat_param, $memory:ident $(, $argument:pat_param => $type:ty)*| $body:expr) => {
        $linker.func_wrap(WASI, $name, |mut caller: Caller<'_, World>, $($argument: $type),*| -> i32 {
            let Some(Extern::Memory(memory)) = caller.get_export("memory") else { return FAULT };
            let (bytes, $world) = memory.data_and_store_mut(&mut caller);
            #[allow(unused_mut, unused_variables)]
            let mut $memory = Memory(bytes);
            // A closure, whose body may return early.
            #[allow(clippy::redundant_closure_call)]
            let outcome = (|| -> Outcome { $body })();
            outcome.err().unwrap_or(0)
        })?
    };
}

/// Defines all imports of `module`.
pub(crate) fn define(linker: &mut Linker<World>, module: &Module) -> Result<()> {
    linker.allow_shadowing(true);
    for import in module.imports().filter(|import| import.module() == WASI) {
        if let ExternType::Func(kind) = import.ty() {
            linker.func_new(WASI, import.name(), kind, |_, _, results| {
                results.fill(Val::I32(NOT_SUPPORTED));
                Ok(())
            })?;
        }
    }
    define_preview1(linker)?;
    // Handles of Ruby's values are the values, as in `canonical_abi.wat`.
    let abi = "canonical_abi";
    linker.func_wrap(abi, "resource_new_rb-abi-value", |value: i32| value)?;
    linker.func_wrap(abi, "resource_get_rb-abi-value", |handle: i32| handle)?;
    linker.func_wrap(abi, "resource_drop_js-abi-value", |_: i32| {})?;
    linker.define_unknown_imports_as_traps(module)
}

/// What is supported of preview 1.
fn define_preview1(linker: &mut Linker<World>) -> Result<()> {
    define!(linker, "environ_sizes_get", |world, memory, count => u32, size => u32| {
        let length: usize = world.environment.iter().map(|variable| variable.len() + 1).sum();
        memory.number(count, u32::try_from(world.environment.len()).map_err(|_| FAULT)?)?;
        memory.number(size, u32::try_from(length).map_err(|_| FAULT)?)
    });
    define!(linker, "environ_get", |world, memory, list => u32, text => u32| {
        let mut at = text;
        for (index, variable) in (0..).zip(world.environment) {
            memory.number(list + 4 * index, at)?;
            memory.write(at, variable.as_bytes())?;
            at += u32::try_from(variable.len()).map_err(|_| FAULT)? + 1;
            memory.write(at - 1, &[0])?;
        }
        Ok(())
    });
    define!(linker, "clock_time_get", |world, memory, _ => u32, _ => u64, time => u32| {
        world.now += TICK;
        memory.write(time, &world.now.to_le_bytes())
    });
    define!(linker, "clock_res_get", |_, memory, _ => u32, resolution => u32| {
        memory.write(resolution, &TICK.to_le_bytes())
    });
    define!(linker, "random_get", |world, memory, at => u32, length => u32| {
        world.random_used = true;
        world.random.fill(memory.slice(at, length)?);
        Ok(())
    });
    define!(linker, "fd_write", |world, memory, fd => u32, list => u32, count => u32, written => u32| {
        let mut all = 0;
        for (at, length) in memory.buffers(list, count)? {
            let bytes = memory.slice(at, length)?;
            match fd {
                1 => world.stdout.extend_from_slice(bytes),
                2 => world.stderr.extend_from_slice(bytes),
                _ => return Err(BAD_DESCRIPTOR),
            }
            all += length;
        }
        memory.number(written, all)
    });
    define!(linker, "fd_read", |world, memory, fd => u32, list => u32, count => u32, read => u32| {
        // Stdin is empty. wasi-vfs reads each file once, into one buffer.
        let content: &[u8] = if fd == 0 { &[] } else { world.files()?.content(fd).ok_or(BAD_DESCRIPTOR)? };
        let (at, length) = memory.buffers(list, count)?.first().copied().unwrap_or_default();
        let content = &content[..content.len().min(length as usize)];
        memory.write(at, content)?;
        memory.number(read, u32::try_from(content.len()).map_err(|_| FAULT)?)
    });
    define!(linker, "fd_fdstat_get", |_, memory, fd => u32, stat => u32| {
        // Of no known type: no terminal.
        if fd < FIRST { memory.write(stat, &[0; 24]) } else { Err(BAD_DESCRIPTOR) }
    });
    define!(linker, "fd_filestat_get", |world, memory, fd => u32, stat => u32| {
        if fd < FIRST {
            return memory.write(stat, &[0; 64]);
        }
        memory.write(stat, &world.files()?.stat(fd).ok_or(BAD_DESCRIPTOR)?)
    });
    define!(linker, "fd_prestat_get", |world, memory, fd => u32, stat => u32| {
        let name = world.root(fd).ok_or(BAD_DESCRIPTOR)?;
        memory.number(stat, 0)?;
        memory.number(stat + 4, u32::try_from(name.len()).map_err(|_| FAULT)?)
    });
    define!(linker, "fd_prestat_dir_name", |world, memory, fd => u32, at => u32, _ => u32| {
        memory.write(at, world.root(fd).ok_or(BAD_DESCRIPTOR)?.as_bytes())
    });
    define!(linker, "fd_readdir", |world, memory, fd => u32, at => u32, room => u32, from => u64, used => u32| {
        let listed = world.files()?.list(fd, from, room as usize).ok_or(BAD_DESCRIPTOR)?;
        memory.write(at, &listed)?;
        memory.number(used, u32::try_from(listed.len()).map_err(|_| FAULT)?)
    });
    define!(
        linker,
        "path_open",
        |world, memory, fd => u32, _ => u32, path => u32, length => u32, _ => u32, _ => u64, _ => u64, _ => u32, opened => u32| {
            let node = world.files()?.open(fd, memory.slice(path, length)?).ok_or(NO_ENTRY)?;
            memory.number(opened, node)
        }
    );
    define!(linker, "fd_close", |_, memory, _ => u32| Ok(()));
    linker.func_wrap(WASI, "proc_exit", |status: i32| -> Result<()> { Err(Exit(status).into()) })?;
    Ok(())
}
