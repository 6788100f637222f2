//! Log lines: to containerd's log in the server, to the server in a helper.
//!
//! Lines are written as containerd's own, which copies them. Only errors are
//! logged unless containerd runs with debugging, and never a container's
//! environment or arguments.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// A subscriber that writes a line for each event and keeps no spans.
struct Lines {
    output: File,
    level: Level,
    form: Form,
}

/// How a line looks.
enum Form {
    /// As containerd's own: `level=error msg="…"`.
    Containerd,
    /// `ERROR`, the message and its fields.
    Plain,
}

/// Logs to the fifo `log` in the working directory, which containerd reads.
/// Without one, nothing is logged.
pub(crate) fn to_containerd(debug: bool) {
    let fifo = File::options()
        // For reading too: then it opens, and goes on, without a containerd.
        .read(true)
        .write(true)
        // A log that nobody reads must not stop the server.
        .custom_flags(libc::O_NONBLOCK)
        .open("log");
    if let Ok(output) = fifo {
        let level = if debug { Level::DEBUG } else { Level::ERROR };
        install(Lines { output, level, form: Form::Containerd });
    }
}

/// Logs warnings and errors, libcontainer's among them, to `output`.
pub(crate) fn to_file(output: OwnedFd) {
    install(Lines { output: output.into(), level: Level::WARN, form: Form::Plain });
}

fn install(lines: Lines) {
    // Fails only if there is one already, which then is as good.
    let _ = tracing::subscriber::set_global_default(lines);
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let Text { message, fields } = text;
        let line = match self.form {
            Form::Containerd => {
                let level = event.metadata().level().as_str().to_ascii_lowercase();
                format!("level={level} msg={message:?}{fields}\n")
            }
            Form::Plain => format!("{} {message}{fields}\n", event.metadata().level()),
        };
        // One write a line, so that those of several processes don't mix.
        let _ = (&self.output).write_all(line.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // What a program is given may be secret.
            "args" | "env" | "envs" => Ok(()),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_message_and_fields_but_no_arguments() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = Lines { output: file.reopen().unwrap(), level: Level::ERROR, form: Form::Containerd };
        tracing::subscriber::with_default(lines, || {
            tracing::error!(id = "abc", args = "--password=x", "cannot create container");
            tracing::warn!("not this");
        });
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "level=error msg=\"cannot create container\" id=\"abc\"\n");
    }
}
