//! Ruby, started and loaded, as a module whose memory holds all of it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use sha2::{Digest as _, Sha256};
use wasmtime::error::Context as _;
use wasmtime::{
    Config, Engine, Instance, Linker, Memory, Module, OptLevel, Result, Store, WasmParams, WasmResults,
};
use wasmtime_wizer::{InstanceState, SnapshotVal, ValType, Wizer};

use crate::component::{self, MOST_MOUNTS};
use crate::files::Files;
use crate::world::{self, Preopened, World};
use crate::{Built, Error, Program};

/// Names our own Ruby, and how a component is made with it.
pub(crate) fn id() -> String {
    let mut id = Sha256::new();
    for (path, text) in RUNTIME {
        id.update(Sha256::digest(path));
        id.update(Sha256::digest(text));
    }
    for text in [include_str!("glue.wat"), include_str!("canonical_abi.wat")] {
        id.update(Sha256::digest(text));
    }
    id.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Our own Ruby, for the folder `/wharf` of its file system.
const RUNTIME: [(&str, &str); 14] = [
    ("wharf.rb", include_str!("../ruby/wharf.rb")),
    ("wharf/gems.rb", include_str!("../ruby/wharf/gems.rb")),
    ("wharf/kv.rb", include_str!("../ruby/wharf/kv.rb")),
    ("wharf/rack.rb", include_str!("../ruby/wharf/rack.rb")),
    ("wharf/rehearsal.rb", include_str!("../ruby/wharf/rehearsal.rb")),
    ("wharf/response.rb", include_str!("../ruby/wharf/response.rb")),
    ("wharf/worker.rb", include_str!("../ruby/wharf/worker.rb")),
    ("standins/bundler.rb", include_str!("../ruby/standins/bundler.rb")),
    ("standins/bundler/setup.rb", include_str!("../ruby/standins/bundler/setup.rb")),
    ("standins/io/wait.rb", include_str!("../ruby/standins/io/wait.rb")),
    ("standins/rubygems.rb", include_str!("../ruby/standins/rubygems.rb")),
    ("standins/socket.rb", include_str!("../ruby/standins/socket.rb")),
    ("standins/tempfile.rb", include_str!("../ruby/standins/tempfile.rb")),
    ("standins/timeout.rb", include_str!("../ruby/standins/timeout.rb")),
];

/// `-e_=0` is a program that does nothing; what RubyGems does, `gems.rb` does
/// for what the project has.
const ARGUMENTS: [&str; 4] = ["ruby", "-EUTF-8", "--disable-gems", "-e_=0"];

/// Bytes of memory that hold nothing. Ruby reserves 27 MiB that it hardly
/// writes to, between its library and its objects. wasmtime maps an initial
/// memory, instead of copying it for each request, if not more than half of it
/// are gaps: with these it is so for the smallest of programs.
const BALLAST: u32 = 16 << 20;

/// A Ruby that was not started yet. It can start any number of programs.
#[derive(Debug)]
pub struct Interpreter {
    wasm: Vec<u8>,
    module: Module,
}

impl Interpreter {
    /// Opens the interpreter `ruby`. It is compiled the first time, which takes
    /// seconds; the folder `cache`, the user's own, keeps the machine code.
    ///
    /// # Errors
    /// [`Error::Interpreter`]: it is not the one that this crate is made for.
    pub fn open(ruby: &[u8], cache: &Path) -> std::result::Result<Self, Error> {
        let wasm = component::with_preopens_exported(ruby).map_err(Error::interpreter("was read"))?;
        let module = compiled(&wasm, cache).map_err(Error::interpreter("was compiled"))?;
        Ok(Self { wasm, module })
    }

    /// Starts Ruby, loads the workers of `program`, and makes a component of
    /// what it is then.
    ///
    /// # Errors
    /// [`Error::Source`]: the program can't be loaded.
    /// [`Error::Interpreter`]: the interpreter failed.
    pub fn build(&self, program: &Program<'_>) -> std::result::Result<Built, Error> {
        match self.attempt(program, true)? {
            Some(built) => Ok(built),
            // Begun anew: what the program kept can't be undone.
            None => self.attempt(program, false)?.ok_or(Error::Rehearsal),
        }
    }

    /// None where the program, rehearsed with its frameworks, asked for what is
    /// not that of its requests.
    fn attempt(
        &self,
        program: &Program<'_>,
        with_frameworks: bool,
    ) -> std::result::Result<Option<Built>, Error> {
        let mut ruby =
            Ruby::new(&self.module, seed(program)).map_err(Error::interpreter("was instantiated"))?;
        let mounts = ruby.start(program).map_err(Error::interpreter("was started"))?;
        let loaded = ruby.load(program).map_err(|error| ruby.failure(error))?;
        let printed = String::from_utf8_lossy(&ruby.store.data().stderr).into_owned();
        if !loaded {
            let report = String::from_utf8_lossy(&ruby.store.data().stdout).into_owned();
            let (report, hint) = report.split_once('\0').unwrap_or((&report, ""));
            let hint = (!hint.is_empty()).then(|| hint.to_owned());
            return Err(Error::Source { report: format!("{printed}{report}"), hint });
        }
        if !ruby.rehearse(with_frameworks).map_err(|error| ruby.failure(error))? {
            return Ok(None);
        }
        let module = ruby.snapshot(&self.wasm).map_err(Error::interpreter("was kept"))?;
        let component =
            component::encode(&module, &mounts).map_err(Error::interpreter("became a component"))?;
        Ok(Some(Built { component, printed }))
    }
}

/// The machine code of the interpreter `wasm`, as a snapshot needs it.
fn compiled(wasm: &[u8], cache: &Path) -> Result<Module> {
    let mut config = Config::new();
    // It runs for less time than optimizing takes.
    config.cranelift_opt_level(OptLevel::None);
    let engine = Engine::new(&config)?;
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let mut name = Sha256::new();
    name.update(hasher.finish().to_le_bytes());
    name.update(wasm);
    let name: String = name.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let path = cache.join(format!("ruby-interpreter-{name}.cwasm"));
    if path.is_file() {
        // SAFETY: it is machine code that was made below, by an engine that loads
        // nothing of another one. It lies in the user's own cache, where nobody
        // changes it in place: it is written under another name, and renamed.
        if let Ok(module) = unsafe { Module::deserialize_file(&engine, &path) } {
            return Ok(module);
        }
    }
    let (_, instrumented) = Wizer::new().instrument(wasm)?;
    let module = Module::new(&engine, instrumented)?;
    let mut file = tempfile::NamedTempFile::new_in(cache)?;
    file.write_all(&module.serialize()?)?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(module)
}

/// Whether Bundler and RubyGems keep it beside the gems for themselves: what
/// they fetched, documentation.
fn is_bundlers_own(path: &str) -> bool {
    let Some(path) = path.strip_prefix("vendor/bundle/") else { return false };
    let folder = match path.strip_prefix("ruby/").and_then(|path| path.split_once('/')) {
        Some((_, path)) => path,
        None => path,
    };
    ["build_info/", "cache/", "doc/", "extensions/"].iter().any(|own| folder.starts_with(own))
}

/// What random numbers follow from while the program is loaded, its hashes'
/// seed among them: who does not know the program does not know it.
fn seed(program: &Program<'_>) -> [u8; 32] {
    let mut seed = Sha256::new();
    for (path, content) in program.files {
        seed.update(Sha256::digest(path));
        seed.update(Sha256::digest(content));
    }
    seed.finalize().into()
}

/// The environment of a request for which there is no worker.
const REHEARSAL: [&str; 8] = [
    "GATEWAY_INTERFACE=CGI/1.1",
    "HTTP_ACCEPT=*/*",
    "HTTP_HOST=localhost",
    "PATH_INFO=/",
    "REQUEST_METHOD=GET",
    "REQUEST_URI=/",
    "SERVER_PROTOCOL=HTTP/1.1",
    "WHARF_WORKER=",
];

/// An instance.
struct Ruby {
    store: Store<World>,
    instance: Instance,
    memory: Memory,
}

impl Ruby {
    fn new(module: &Module, seed: [u8; 32]) -> Result<Self> {
        let mut store = Store::new(module.engine(), World::new(seed));
        store.limiter(|world| world);
        let mut linker = Linker::new(module.engine());
        world::define(&mut linker, module)?;
        let instance = linker.instantiate(&mut store, module)?;
        let memory = instance.get_memory(&mut store, "memory").context("it has no memory")?;
        Ok(Self { store, instance, memory })
    }

    /// Starts Ruby with the program's files, and says where libc has the names
    /// of the folders that may be mounted.
    fn start(&mut self, program: &Program<'_>) -> Result<Vec<u32>> {
        let runtime: Vec<_> = RUNTIME.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        let files = program.files.iter().filter(|(path, _)| !is_bundlers_own(path));
        let files: Vec<_> = files.map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        let roots = [("/wharf", runtime), ("/project", files)];
        self.store.data_mut().preopened = Preopened::Files(Files::new(&roots));
        self.call::<(), ()>("wasi_vfs_pack_fs", ())?;
        let names: Vec<String> = (0..MOST_MOUNTS).map(component::mount_placeholder).collect();
        self.store.data_mut().preopened = Preopened::Names(names.clone());
        self.call::<(), ()>("_initialize", ())?;
        let mounts = names.iter().map(|name| self.find_name(name)).collect::<Result<_>>()?;
        let ballast = self.allocate(BALLAST)? as usize;
        let memory = self.memory.data_mut(&mut self.store);
        memory[ballast..][..BALLAST as usize].fill(1);
        // What unwinds the stack may do so within our calls, too.
        self.call::<_, u32>("rb-set-should-prohibit-rewind", (0,))?;
        let arguments = ARGUMENTS.map(|argument| format!("{argument}\0"));
        let list = self.allocate(8 * 4)?;
        for (index, argument) in (0..).zip(&arguments) {
            let (at, length) = self.put(argument)?;
            let pair = [at.to_le_bytes(), length.to_le_bytes()].concat();
            self.memory.write(&mut self.store, list as usize + 8 * index, &pair)?;
        }
        self.call::<_, ()>("ruby-init", (list, 4))?;
        Ok(mounts)
    }

    /// Where libc has its copy of the preopened folder's `name`: without the
    /// slash at its beginning.
    fn find_name(&self, name: &str) -> Result<u32> {
        let memory = self.memory.data(&self.store);
        let copy = format!("{}\0", name.trim_start_matches('/'));
        let found = memory
            .windows(copy.len())
            .enumerate()
            .skip(1)
            .find(|(at, window)| *window == copy.as_bytes() && memory[at - 1] != b'/');
        let (at, _) = found.context("expected libc to keep the names of preopened folders")?;
        Ok(u32::try_from(at)?)
    }

    /// Loads the workers. Whether they could be; if not, stdout says why.
    fn load(&mut self, program: &Program<'_>) -> Result<bool> {
        let list: String = program.workers.iter().flat_map(|(name, path)| [name, "\0", path, "\0"]).collect();
        // Numbers, in which nothing has a meaning.
        let list: Vec<String> = list.bytes().map(|byte| byte.to_string()).collect();
        self.eval(&format!("require '/wharf/wharf'; Wharf.build([{}].pack('C*'))", list.join(",")))
    }

    /// Answers requests, for what Ruby keeps of it. Whether the frameworks among
    /// the workers, if they were asked, kept nothing that they should not.
    fn rehearse(&mut self, with_frameworks: bool) -> Result<bool> {
        let world = self.store.data_mut();
        world.environment = &REHEARSAL;
        world.random_used = false;
        world.stdout.clear();
        self.forget_environment()?;
        let what = if with_frameworks { "true" } else { "false" };
        self.eval(&format!("Wharf.rehearse({what})"))?;
        let world = self.store.data();
        let clean = !world.random_used && world.stdout.is_empty();
        for _ in 0..3 {
            self.eval("Wharf.serve")?;
        }
        self.store.data_mut().environment = &[];
        self.forget_environment()?;
        Ok(clean)
    }

    /// Makes libc ask for the environment again. Its function for this is not
    /// exported; wasi-vfs calls it when it has packed: here no files at all.
    fn forget_environment(&mut self) -> Result<()> {
        self.store.data_mut().preopened = Preopened::Nothing;
        self.call::<(), ()>("wasi_vfs_pack_fs", ())
    }

    /// Runs `code`. Whether it ended without an exception.
    fn eval(&mut self, code: &str) -> Result<bool> {
        let code = self.put(code)?;
        let result = self.call::<_, u32>("rb-eval-string-protect", code)?;
        let mut state = [0; 4];
        self.memory.read(&self.store, result as usize + 4, &mut state)?;
        Ok(state == [0; 4])
    }

    fn put(&mut self, text: &str) -> Result<(u32, u32)> {
        let length = u32::try_from(text.len())?;
        let at = self.allocate(length)?;
        self.memory.write(&mut self.store, at as usize, text.as_bytes())?;
        Ok((at, length))
    }

    fn allocate(&mut self, length: u32) -> Result<u32> {
        self.call("cabi_realloc", (0, 0, 1, length))
    }

    /// Calls the export `name`, whose full name may have its type after a colon.
    fn call<P: WasmParams, R: WasmResults>(&mut self, name: &str, parameters: P) -> Result<R> {
        let mut exports = self.instance.exports(&mut self.store);
        let found = exports.find(|export| export.name().split(':').next() == Some(name));
        let function = found
            .and_then(wasmtime::Export::into_func)
            .with_context(|| format!("expected an export {name}"))?;
        drop(exports);
        function.typed::<P, R>(&self.store)?.call(&mut self.store, parameters)
    }

    /// Why the interpreter ended before it returned.
    fn failure(&self, error: wasmtime::Error) -> Error {
        let printed = String::from_utf8_lossy(&self.store.data().stderr);
        let source = if printed.is_empty() { error } else { error.context(printed.trim().to_owned()) };
        Error::interpreter("loaded the program")(source)
    }

    /// The module `wasm` with this instance's memory as its initial one, and
    /// without the exports that have done their work.
    fn snapshot(&mut self, wasm: &[u8]) -> Result<Vec<u8>> {
        let mut wizer = Wizer::new();
        wizer.init_func("_initialize");
        let (context, _) = wizer.instrument(wasm)?;
        let snapshot = pin!(wizer.snapshot(&context, self));
        // Nothing in it waits.
        match snapshot.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(module) => Ok(module?),
            Poll::Pending => wasmtime::bail!("expected the snapshot to be taken at once"),
        }
    }
}

impl InstanceState for Ruby {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = self.instance.get_global(&mut self.store, name);
        // All of ruby.wasm's are of this type.
        SnapshotVal::I32(global.and_then(|global| global.get(&mut self.store).i32()).unwrap_or_default())
    }

    async fn memory_contents(&mut self, _: &str, contents: impl FnOnce(&[u8]) + Send) {
        contents(self.memory.data(&self.store));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bundler_keeps_for_itself_is_not_packed() {
        for path in
            ["vendor/bundle/ruby/3.4.0/cache/rack-3.2.0.gem", "vendor/bundle/doc/a", "vendor/bundle/cache/b"]
        {
            assert!(is_bundlers_own(path), "{path}");
        }
        for path in
            ["cache/a.rb", "vendor/bundle/ruby/3.4.0/gems/a-1/cache/a.rb", "vendor/bundle/gems/a-1/doc/a"]
        {
            assert!(!is_bundlers_own(path), "{path}");
        }
    }

    #[test]
    fn another_program_has_another_seed() {
        let seed_of = |files: &[(String, Vec<u8>)]| seed(&Program { files, workers: &[] });
        let file = |path: &str, text: &str| (path.to_owned(), text.as_bytes().to_vec());
        assert_eq!(seed_of(&[file("a", "b")]), seed_of(&[file("a", "b")]));
        assert_ne!(seed_of(&[file("a", "b")]), seed_of(&[file("ab", "")]));
    }
}
