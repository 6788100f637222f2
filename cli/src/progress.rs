//! What a person sees while something takes long: a line on the terminal that
//! goes away again. In a pipe: nothing.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use wharf_images::{Descriptor, Digest, Progress as Transfers};

use crate::arguments::Global;

/// A line of progress; without a terminal, or with `--quiet`, it is mute.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(global: &Global) -> Self {
        let bar = ProgressBar::no_length().with_style(ProgressStyle::default_spinner());
        bar.set_draw_target(if global.quiet || !io::stderr().is_terminal() {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        });
        Self(bar)
    }

    /// Says what is being done from now on.
    pub(crate) fn step(&self, text: impl Into<String>) {
        self.0.enable_steady_tick(Duration::from_millis(100));
        self.0.set_message(text.into());
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// Bytes of a push or pull: known so far, and moved.
impl Transfers for Progress {
    fn started(&self, blob: &Descriptor) {
        let style = ProgressStyle::with_template("{msg} {bytes} of {total_bytes}, {binary_bytes_per_sec}");
        if self.0.length().is_none()
            && let Ok(style) = style
        {
            self.0.set_style(style);
            self.0.set_length(0);
        }
        self.0.inc_length(blob.size);
    }

    fn advanced(&self, _: &Digest, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
