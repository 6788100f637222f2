//! The last step of a container's init: becoming the program.
//!
//! Both kinds run inside the container, as its user, with all its limits.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, execve};
use oci_spec::runtime::{Process, Spec};

use crate::seccomp::Filter;
use crate::sys;

/// Runs the node's host from its descriptor, and passes the precompiled
/// components on.
#[derive(Clone)]
pub(crate) struct Host {
    program: Rc<OwnedFd>,
    components: Rc<[OwnedFd]>,
    filter: Option<Rc<Filter>>,
}

impl Host {
    /// Takes the opened host and the opened code of the app's components.
    ///
    /// # Errors
    /// The limit of open files is reached.
    pub(crate) fn new(program: &OwnedFd, components: &[OwnedFd]) -> io::Result<Self> {
        use std::os::fd::AsFd;
        let components: io::Result<Rc<[OwnedFd]>> =
            components.iter().map(|fd| sys::duplicate_high(fd.as_fd())).collect();
        Ok(Self {
            program: Rc::new(sys::duplicate_high(program.as_fd())?),
            components: components?,
            filter: None,
        })
    }
}

impl Host {
    /// The same, under a system call filter.
    pub(crate) fn under(self, filter: Option<Filter>) -> Self {
        Self { filter: filter.map(Rc::new), ..self }
    }

    /// Prepares to run it as `process`.
    ///
    /// # Errors
    /// An argument can't be passed.
    pub(crate) fn prepare(self, process: &Process, environment: &[String]) -> Result<Ready, String> {
        let filter = self.filter.clone();
        Ready::new(Program::Host(self), process, environment).map(|ready| ready.under(filter))
    }
}

impl Executor for Host {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let ready = self.clone().prepare(process(spec)?, &environment());
        Err(ExecutorError::Other(ready.map_err(ExecutorError::Other)?.run()))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // Checked before the container was made.
        Ok(())
    }
}

/// Runs a program of the image, found and refused in the words of runc, which
/// Docker's clients read to choose their exit code.
#[derive(Clone)]
pub(crate) struct Native {
    filter: Option<Rc<Filter>>,
}

impl Native {
    /// Under a system call filter, if there is one.
    pub(crate) fn under(filter: Option<Filter>) -> Self {
        Self { filter: filter.map(Rc::new) }
    }

    /// Prepares to run `process`, whose program is searched for here.
    ///
    /// # Errors
    /// There is no such program; in runc's words.
    pub(crate) fn prepare(self, process: &Process, environment: &[String]) -> Result<Ready, String> {
        let program = find(process)?;
        let path = CString::new(program.into_os_string().into_vec());
        let program = Program::Native(path.map_err(|error| error.to_string())?);
        Ready::new(program, process, environment).map(|ready| ready.under(self.filter))
    }
}

impl Executor for Native {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let ready = self.clone().prepare(process(spec)?, &environment()).map_err(ExecutorError::Other)?;
        Err(ExecutorError::Other(ready.run()))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let process = spec.process().as_ref();
        let found = process.ok_or_else(|| "spec has no process".to_owned()).and_then(find);
        found.map(drop).map_err(ExecutorValidationError::ArgValidationError)
    }
}

/// A program with all that it is given, so that nothing but running it is
/// left to do.
pub(crate) struct Ready {
    program: Program,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    filter: Option<Rc<Filter>>,
}

enum Program {
    Native(CString),
    Host(Host),
}

impl Ready {
    fn new(program: Program, process: &Process, environment: &[String]) -> Result<Self, String> {
        let pass = |texts: &[String]| -> Result<Vec<CString>, String> {
            let passed = texts.iter().map(|text| CString::new(text.as_str()));
            passed.collect::<Result<_, _>>().map_err(|error| error.to_string())
        };
        let arguments = process.args().as_ref().ok_or("spec has no arguments")?;
        Ok(Self { program, arguments: pass(arguments)?, environment: pass(environment)?, filter: None })
    }

    fn under(self, filter: Option<Rc<Filter>>) -> Self {
        Self { filter, ..self }
    }

    /// Becomes the program. Returns only the reason if that fails.
    pub(crate) fn run(self) -> String {
        sys::restore_sigpipe();
        // As late as can be: it need allow no call but those that follow.
        if let Some(Err(error)) = self.filter.map(|filter| filter.set()) {
            return format!("cannot set the seccomp filter: {error}");
        }
        match self.program {
            Program::Native(path) => {
                let Err(error) = execve(&path, &self.arguments, &self.environment);
                format!("exec {path:?}: {}", error.desc().to_lowercase())
            }
            Program::Host(Host { program, components, .. }) => {
                let error = sys::execute(&program, &components, &self.arguments, &self.environment);
                // A seccomp profile may know execve but not execveat.
                if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
                    && let Ok(path) = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
                {
                    let _ = execve(&path, &self.arguments, &self.environment);
                }
                format!("cannot run the node's host: {error}")
            }
        }
    }
}

fn find(process: &Process) -> Result<PathBuf, String> {
    let name = process.args().as_ref().and_then(|arguments| arguments.first());
    let name = name.ok_or("spec has no arguments")?;
    let mut environment = process.env().iter().flatten();
    let path = environment.find_map(|entry| entry.strip_prefix("PATH="));
    search(name, path.unwrap_or_default())
}

/// As Go's `exec.LookPath`.
fn search(name: &str, path: &str) -> Result<PathBuf, String> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(error) => {
                let reason = error.desc().to_lowercase();
                Err(format!("exec: {name:?}: stat {name}: {reason}"))
            }
        };
    }
    let mut refused = false;
    for folder in path.split(':').filter(|folder| !folder.is_empty()) {
        let candidate = Path::new(folder).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => refused = true,
            Err(_) => {}
        }
    }
    if refused {
        return Err(format!("exec: {name:?}: permission denied"));
    }
    Err(format!("exec: {name:?}: executable file not found in $PATH"))
}

fn executable(path: &Path) -> Result<(), Errno> {
    let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let metadata = std::fs::metadata(path).map_err(errno)?;
    if metadata.is_dir() {
        return Err(Errno::EISDIR);
    }
    access(path, AccessFlags::X_OK)
}

fn process(spec: &Spec) -> Result<&Process, ExecutorError> {
    spec.process().as_ref().ok_or(ExecutorError::InvalidArg)
}

/// The environment that libcontainer has set by now.
fn environment() -> Vec<String> {
    let entry = |(name, value): (OsString, OsString)| {
        let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
        Some(format!("{name}={value}"))
    };
    // libcontainer has it from the spec, whose JSON has no other text.
    let mut environment: Vec<_> = std::env::vars_os().filter_map(entry).collect();
    // Of a user that the image does not know it is `/`, as runc has it.
    if !environment.iter().any(|entry| entry.starts_with("HOME=")) {
        environment.push("HOME=/".to_owned());
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_on_the_path_or_at_its_own() {
        assert_eq!(search("sh", "/no/such:/bin").unwrap(), Path::new("/bin/sh"));
        assert_eq!(search("/bin/sh", "").unwrap(), Path::new("/bin/sh"));
    }

    #[test]
    fn a_missing_program_is_refused_in_runcs_words() {
        let error = search("nothing-such", "/bin").unwrap_err();
        let expected = "exec: \"nothing-such\": executable file not found in $PATH";
        assert_eq!(error, expected);
        let error = search("/no/such", "/bin").unwrap_err();
        assert_eq!(error, "exec: \"/no/such\": stat /no/such: no such file or directory");
        let error = search("/etc/passwd", "/bin").unwrap_err();
        assert!(error.ends_with("permission denied"), "{error}");
    }
}
