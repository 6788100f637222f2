//! Ruby workers, made into one command that has started Ruby already.
//!
//! What starts it needs an engine, which this crate does not know: the one who builds
//! brings it along (`StartRuby`). Here is what goes into it: the project's files, its
//! gems among them, and the interpreter as npm has it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::build::Workshop;
use crate::digest::Sha256;
use crate::language::Language;
use crate::project::Project;
use crate::sources;
use crate::toolchain::{ToolError, Toolchain, default_release};

/// Raised when the same program would become another component.
const FORM: &str = "1";

/// Hash of the interpreter, `dist/ruby+stdlib.wasm` of the package.
const INTERPRETER: &str = "9fe3c749730a16da9b0d1a973bb77bec164f8d958efcb7f5b81e4275ea8c5439";

/// Most bytes of a project's files that go into its component: 64 MiB.
const MOST_FILES: u64 = 64 << 20;

/// Files that no Ruby worker reads: other languages' sources, and settings.
const NOT_RUBYS: [&str; 10] = ["go", "js", "jsx", "mjs", "mts", "py", "toml", "ts", "tsx", "wasm"];

/// Starts Ruby with a program, and makes a component of what it is then.
pub trait StartRuby: Send + Sync {
    /// Names what starts it: of another name, another component.
    fn id(&self) -> String;

    /// The component of the `workers` (name, and path in `files`), which speaks CGI.
    /// What need not be done again is kept in the folder `cache`.
    ///
    /// # Errors
    /// The program can't be loaded.
    fn start(
        &self,
        interpreter: &[u8],
        cache: &Path,
        files: &[(String, Vec<u8>)],
        workers: &[(String, String)],
    ) -> Result<Vec<u8>, RubyError>;
}

/// Why a Ruby program can't be loaded.
#[derive(Debug)]
pub struct RubyError {
    /// File, line, and what is wrong there.
    pub report: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

/// Nobody starts Ruby.
pub(crate) struct NoRuby;

impl StartRuby for NoRuby {
    fn id(&self) -> String {
        String::new()
    }

    fn start(
        &self,
        _: &[u8],
        _: &Path,
        _: &[(String, Vec<u8>)],
        _: &[(String, String)],
    ) -> Result<Vec<u8>, RubyError> {
        Err(RubyError { report: "nothing here starts Ruby".into(), hint: None })
    }
}

/// The component of the workers `workers` (name → path of the source), from
/// the cache if nothing that goes into it has changed; else `make` is told.
pub(crate) fn build(
    project: &Project,
    workers: &BTreeMap<&str, &str>,
    workshop: &Workshop,
    make: &dyn Fn(),
) -> Result<PathBuf, ToolError> {
    let files = sources::read(project, Language::Ruby, (&NOT_RUBYS, MOST_FILES))?;
    let release = project.lock().release(Language::Ruby).unwrap_or(default_release(Language::Ruby));
    let mut parts = format!("{FORM} {release} {INTERPRETER} {} {workers:?}\n", workshop.ruby.id());
    for (path, content) in &files {
        parts += &format!("{path:?} {}\n", Sha256::of(content));
    }
    let cache = workshop.components();
    let component = cache.join(format!("ruby-{}.wasm", Sha256::of(parts.as_bytes())));
    if component.is_file() {
        return Ok(component);
    }
    let toolchain = Toolchain::find(Language::Ruby, Some(release), &workshop.runtimes)?;
    make();
    let interpreter = fs_err::read(toolchain.file()).map_err(ToolError::io("read the interpreter"))?;
    if Sha256::of(&interpreter).to_string() != INTERPRETER {
        return Err(ToolError::Missing {
            language: Language::Ruby,
            expected: format!("the interpreter of @ruby/4.0-wasm-wasi {release}"),
            found: format!("another one in {}", toolchain.file().display()),
            hint: "run `wharf runtimes remove ruby`, then `wharf runtimes install ruby`".into(),
        });
    }
    fs_err::create_dir_all(&cache).map_err(ToolError::io("make the cache folder"))?;
    let workers: Vec<(String, String)> =
        workers.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect();
    let made = workshop.ruby.start(&interpreter, &cache, &files, &workers);
    let made = made.map_err(|error| ToolError::Source {
        language: Language::Ruby,
        report: error.report.trim_end().to_owned(),
        hint: error.hint,
    })?;
    let keep = || {
        let mut file = tempfile::NamedTempFile::new_in(&cache)?;
        file.write_all(&made)?;
        file.as_file().sync_all()?;
        file.persist(&component)?;
        Ok(())
    };
    keep().map_err(ToolError::io("keep the component"))?;
    Ok(component)
}
