//! Ruby workers, made into one component that has started Ruby already.
//!
//! The interpreter is ruby.wasm as npm has it. It is started here, with the
//! project's files and gems; what its memory then is becomes the module's
//! initial memory (a snapshot, by wizer), so that a request costs neither the
//! interpreter's start nor the program's load. The component is a command: the
//! host speaks CGI/1.1 to it, with a fresh instance for each request.
//!
//! 1. `files`: what Ruby finds in its file system, packed into its memory.
//! 2. `world`: the WASI that it sees here, of which nothing can vary.
//! 3. `interpreter`: starts it, and takes the snapshot.
//! 4. `component`: joins the module with the glue that the component's export
//!    calls it by.
//!
//! What happens inside Ruby is in `ruby/`. Not here: finding workers, fetching
//! ruby.wasm, and keeping what was made.

mod component;
mod files;
mod interpreter;
mod world;

pub use interpreter::Interpreter;

/// Names this crate's own part of components: with another one, the same program
/// becomes another component.
#[must_use]
pub fn id() -> String {
    interpreter::id()
}

/// A program: what becomes a component.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    /// Files that it may load or read: path in the project, and content.
    pub files: &'a [(String, Vec<u8>)],
    /// Name and path of each worker: `.rb` files with `def worker(request)`, or
    /// `.ru` files with a Rack application.
    pub workers: &'a [(String, String)],
}

/// A program that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The component: the same bytes for the same program.
    pub component: Vec<u8>,
    /// What the program printed while it was loaded.
    pub printed: String,
}

/// Why a program can't be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sources have an error.
    #[error("cannot build Ruby workers\n{report}")]
    Source {
        /// Ruby's own words: file, line, and what is wrong there.
        report: String,
        /// What the user can do about it, if that is known.
        hint: Option<String>,
    },
    /// The interpreter is not the one that is expected, or failed.
    #[error("cannot build Ruby workers: the interpreter failed while it {step}")]
    Interpreter {
        /// What was being done.
        step: &'static str,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Our own code did what only programs should.
    #[error("cannot build Ruby workers: the rehearsal of wharf's own workers failed")]
    Rehearsal,
}

impl Error {
    fn interpreter<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        step: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Interpreter { step, source: source.into() }
    }
}
