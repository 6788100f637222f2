//! The command line, as containerd writes it.

use std::path::PathBuf;

/// The program's name, in messages and as the name of its processes.
pub(crate) const PROGRAM: &str = "containerd-shim-wasm-v1";

/// What containerd asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Action {
    /// Serve the task API on the socket at standard input.
    #[default]
    Serve,
    /// Start a server, or find the pod's, and print its address.
    Start,
    /// Remove what is left of a container.
    Delete,
    /// Print what the runtime is.
    Information,
    /// Print the version.
    Version,
}

/// The flags; containerd writes them as Go's `flag` package reads them.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    /// What to do.
    pub(crate) action: Action,
    /// Log more.
    pub(crate) debug: bool,
    /// containerd's namespace of the container.
    pub(crate) namespace: String,
    /// The container's id.
    pub(crate) id: String,
    /// Path of containerd's socket.
    pub(crate) address: String,
    /// The runtime bundle; empty where it is the working directory.
    pub(crate) bundle: PathBuf,
    /// Path of our own socket, to remove it at the end.
    pub(crate) socket: PathBuf,
}

/// A command line that is not containerd's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ArgumentError {
    /// No such flag.
    #[error("unknown flag {0:?}")]
    Flag(String),
    /// The flag is the last word.
    #[error("flag -{0} has no value")]
    Value(String),
    /// No such action.
    #[error("unknown action {0:?}: expected \"start\" or \"delete\"")]
    Action(String),
}

impl Arguments {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// [`ArgumentError`].
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, ArgumentError> {
        let mut arguments = Self::default();
        let mut words = words;
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix('-') else {
                arguments.action = match word.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    _ => return Err(ArgumentError::Action(word)),
                };
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, mut given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let mut value = || {
                let value = given.take().or_else(|| words.next());
                value.ok_or_else(|| ArgumentError::Value(name.to_owned()))
            };
            match name {
                "debug" => arguments.debug = true,
                "v" | "version" => arguments.action = Action::Version,
                "info" => arguments.action = Action::Information,
                "namespace" => arguments.namespace = value()?,
                "id" => arguments.id = value()?,
                "address" => arguments.address = value()?,
                "bundle" => arguments.bundle = value()?.into(),
                "socket" => arguments.socket = value()?.into(),
                // Events go to containerd's ttrpc address instead.
                "publish-binary" => drop(value()?),
                _ => return Err(ArgumentError::Flag(word)),
            }
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, ArgumentError> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_line_of_containerd_1_7_is_read() {
        let line = "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd \
                    -id abc -debug start";
        let arguments = parse(line).unwrap();
        assert_eq!(arguments.action, Action::Start);
        assert_eq!(arguments.namespace, "k8s.io");
        assert_eq!(arguments.address, "/run/c.sock");
        assert_eq!(arguments.id, "abc");
        assert!(arguments.debug);
    }

    #[test]
    fn go_style_flags_are_read_either_way() {
        let arguments = parse("--id=abc -bundle /run/b delete").unwrap();
        assert_eq!(arguments.action, Action::Delete);
        assert_eq!(arguments.id, "abc");
        assert_eq!(arguments.bundle, PathBuf::from("/run/b"));
        assert_eq!(parse("-v").unwrap().action, Action::Version);
        assert_eq!(parse("-info").unwrap().action, Action::Information);
    }

    #[test]
    fn anything_else_is_refused() {
        let error = |line| parse(line).unwrap_err();
        assert_eq!(error("-x"), ArgumentError::Flag("-x".into()));
        assert_eq!(error("stop"), ArgumentError::Action("stop".into()));
        assert_eq!(error("-id"), ArgumentError::Value("id".into()));
    }
}
