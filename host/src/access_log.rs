//! The access log: a line a request, through the queue of the log.
//!
//! Lines are gathered to writes of at most `PIPE_BUF` bytes (4 KiB), so that
//! those of several processes with one stderr don't mix (pipe(7)), and so that a
//! write is shared by a dozen requests; what lies there for a tenth of a second
//! is written anyway. Nothing of a line can make another one, or be obeyed by a
//! terminal. No cookies, no `Authorization`; values of query parameters that
//! look like secrets are not written.

mod line;

use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

pub(crate) use line::{Entry, redacted};

use crate::log::Log;
use crate::metrics::{Count, Counters};

/// Bytes of one write at most: what the kernel writes to a pipe in one piece.
const WRITE: usize = 4096;

/// Time that a line waits for others.
const DELAY: Duration = Duration::from_millis(100);

/// Whether and how requests are logged. Default: off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// Not at all.
    #[default]
    Off,
    /// As nginx's `combined`, with more behind it.
    Text,
    /// A JSON object a line.
    Json,
}

/// The access log of a process.
#[derive(Debug)]
pub(crate) struct AccessLog {
    format: AccessLogFormat,
    lines: Arc<Lines>,
}

#[derive(Debug)]
struct Lines {
    /// Whole lines, and how many. With one thread a process nobody ever waits
    /// for the lock.
    waiting: Mutex<(Vec<u8>, u64)>,
    /// Told when the first line has come.
    some: Notify,
    counters: Counters,
}

impl FromStr for AccessLogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected off, text or json"),
        }
    }
}

impl AccessLog {
    /// Starts the log, within a tokio runtime.
    pub(crate) fn start(format: AccessLogFormat, counters: Counters) -> Self {
        let lines = Lines { waiting: Mutex::default(), some: Notify::new(), counters };
        let lines = Arc::new(lines);
        if format != AccessLogFormat::Off {
            let lines = Arc::clone(&lines);
            tokio::spawn(async move {
                // Until the runtime ends; asleep while there are no requests.
                loop {
                    lines.some.notified().await;
                    sleep(DELAY).await;
                    lines.flush();
                }
            });
        }
        Self { format, lines }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.format != AccessLogFormat::Off
    }

    /// Writes a line, soon.
    pub(crate) fn write(&self, entry: &Entry<'_>) {
        let mut line = Vec::with_capacity(512);
        match self.format {
            AccessLogFormat::Off => return,
            AccessLogFormat::Text => entry.text(&mut line),
            AccessLogFormat::Json => entry.json(&mut line),
        }
        self.lines.add(&line);
    }

    /// Hands over what waits.
    pub(crate) fn flush(&self) {
        self.lines.flush();
    }
}

impl Lines {
    fn add(&self, line: &[u8]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.0.len() + line.len() > WRITE {
            self.hand_over(&mut waiting);
        }
        let is_first = waiting.0.is_empty();
        waiting.0.extend_from_slice(line);
        waiting.1 += 1;
        if is_first {
            self.some.notify_one();
        }
    }

    fn flush(&self) {
        self.hand_over(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn hand_over(&self, (lines, count): &mut (Vec<u8>, u64)) {
        if lines.is_empty() {
            return;
        }
        if !Log.lines(std::mem::take(lines)) {
            self.counters.add_many(Count::LogLinesDropped, *count);
        }
        *count = 0;
    }
}
