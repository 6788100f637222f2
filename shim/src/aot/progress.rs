//! What a container's log says while its code is being compiled: nothing, if
//! that takes no more than a second.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use wharf_app::Component;

use crate::stdio::Streams;

/// When a line is written, from the beginning: it took a while by then.
const FIRST: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

/// And then after each of these.
const FURTHER: Duration = Duration::from_secs(10);

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// The compiler runs for this container.
    Compiling,
    /// It runs for another one, or code is being read.
    Waiting,
}

/// Writes lines to a log, if there is one.
#[derive(Debug)]
pub(crate) struct Progress {
    log: Option<File>,
}

/// The progress of one component.
pub(super) struct Watch<'a> {
    log: Option<&'a mut File>,
    component: String,
    since: Instant,
    lines: u32,
}

impl Progress {
    /// To the standard error of a container, unless it is a terminal: that is
    /// opened later.
    pub(crate) fn of_container(streams: &Streams) -> Self {
        Self { log: streams.open_log() }
    }

    /// To a file.
    pub(crate) fn to(log: File) -> Self {
        Self { log: Some(log) }
    }

    pub(super) fn of(&mut self, component: &Component) -> Watch<'_> {
        let size = ByteSize(component.size);
        let component = format!("component {:?} ({})", component.file, size.display().si());
        Watch { log: self.log.as_mut(), component, since: Instant::now(), lines: 0 }
    }
}

impl Watch<'_> {
    /// To be called often: writes a line when it is time for one.
    pub(super) fn tick(&mut self, doing: Doing) {
        let passed = self.since.elapsed();
        if passed < due(self.lines) {
            return;
        }
        self.lines += 1;
        let (component, seconds) = (&self.component, passed.as_secs());
        let line = match doing {
            Doing::Compiling => format!("compiling {component} for this node, once; {seconds} s so far"),
            Doing::Waiting => {
                format!("waiting until {component} is compiled for another container; {seconds} s so far")
            }
        };
        self.write(&line);
    }

    /// Says that it is done, if a line said that it was under way.
    pub(super) fn done(&mut self) {
        if self.lines > 0 {
            let line = format!("{} is ready after {} s", self.component, self.since.elapsed().as_secs());
            self.write(&line);
        }
    }

    fn write(&mut self, line: &str) {
        if let Some(log) = &mut self.log {
            // If nobody reads it, and it is full, the line is lost: that is no
            // reason for the container not to start.
            let _ = log.write(format!("wharf: {line}\n").as_bytes());
        }
    }
}

/// When the next line is due, if there were `lines`.
fn due(lines: u32) -> Duration {
    let further = || FURTHER * (lines + 1 - FIRST.len() as u32);
    FIRST.get(lines as usize).copied().unwrap_or_else(further)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_app::Sha256;

    #[test]
    fn lines_come_after_1_5_10_20_seconds() {
        let due: Vec<_> = (0..5).map(|lines| due(lines).as_secs()).collect();
        assert_eq!(due, [1, 5, 10, 20, 30]);
    }

    #[test]
    fn what_is_quick_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let component = Component {
            file: "workers/a.wasm".into(),
            size: 28_000_000,
            sha256: Sha256::of(b""),
            wasi: Default::default(),
        };
        let mut progress = Progress::to(File::create(&path).unwrap());
        let mut watch = progress.of(&component);
        watch.tick(Doing::Compiling);
        watch.done();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");

        watch.since = Instant::now().checked_sub(Duration::from_millis(12_300)).unwrap();
        watch.tick(Doing::Compiling);
        watch.lines = 3;
        watch.tick(Doing::Waiting);
        watch.done();
        let expected = "\
            wharf: compiling component \"workers/a.wasm\" (28.0 MB) for this node, once; 12 s so far\n\
            wharf: component \"workers/a.wasm\" (28.0 MB) is ready after 12 s\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }
}
