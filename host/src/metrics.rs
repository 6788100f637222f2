//! Counters of all processes that serve an app, in memory that they share.
//!
//! The memory is a slice of words: one stripe a process, so that no two
//! processes write to one cache line; who reads adds the stripes up
//! ([`Metrics::to_text`]). Counting is a few uncontended additions: no lock, no
//! allocation, no syscall. Where the memory comes from is the caller's
//! business: [`Layout::words`] says how much, zeroed, and it must outlive all.

mod exposition;
mod layout;
mod memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::health::Health;
pub use layout::Layout;
pub(crate) use layout::Route;
use layout::{BUCKETS, CLASSES, FAILURES, PROCESS_WORDS};

/// Upper bounds of the histogram's buckets, in microseconds: from what a static
/// file takes to what a language model takes. A last bucket has no bound.
const BOUNDS: [u64; BUCKETS - 1] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// The counters of all processes.
#[derive(Clone, Debug)]
pub struct Metrics {
    layout: Arc<Layout>,
    words: &'static [AtomicU64],
    started: SystemTime,
}

/// The counters of one process: its stripe.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    words: &'static [AtomicU64],
}

/// What a process counts, or holds right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Count {
    /// Not a count: the process's id, 0 if there is none.
    ProcessId,
    /// Connections open now.
    Connections,
    /// Requests in flight now: from their head to their response's last byte.
    Requests,
    /// Instances of workers now.
    Instances,
    ConnectionsAccepted,
    InstancesStarted,
    /// Connections refused since there were as many as may be.
    ConnectionLimit,
    /// TLS handshakes that failed, not by time.
    HandshakeFailed,
    /// Connections closed since no TLS handshake was done in time.
    HandshakeTimeout,
    /// Connections closed since a request's head did not come in time.
    HeaderTimeout,
    /// Connections closed since nothing was asked for long.
    IdleTimeout,
    /// Connections closed since the client took no byte for long.
    SendTimeout,
    /// Requests with a head longer than allowed, of HTTP/1.1: 431.
    HeaderSize,
    /// Lines of access log that found no room in the queue.
    LogLinesDropped,
    SpansExported,
    /// Spans that found no room in the queue, or that nobody took.
    SpansDropped,
    // Words of the stripe's start: see `PROCESS_WORDS`.
}

/// Why a request did not get what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Failure {
    /// The worker trapped, was out of memory, or gave no answer.
    Trap,
    /// The worker's time was over.
    Timeout,
    /// No instance became free in time.
    Busy,
    /// The request's body was too large.
    BodyTooLarge,
    /// The response broke off on the host's side.
    CutOff,
    /// The client went before the response's end.
    ClientGone,
}

/// Holds something now: gone with it.
#[derive(Debug)]
pub(crate) struct Held {
    counters: Counters,
    count: Count,
}

impl Metrics {
    /// The counters in `words`, which are shared by all processes and were
    /// zero when the first process began. Words past [`Layout::words`] are not
    /// used.
    ///
    /// # Panics
    /// If there are fewer words than the layout asks for.
    #[must_use]
    pub fn new(layout: Layout, words: &'static [AtomicU64]) -> Self {
        assert!(words.len() >= layout.words(), "too few words for the metrics");
        Self { layout: Arc::new(layout), words, started: SystemTime::now() }
    }

    /// Counters that are this process's alone, and that are never freed.
    #[must_use]
    pub fn of_one_process(layout: Layout) -> Self {
        let words = (0..layout.words()).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        Self::new(layout, words.leak())
    }

    /// The counters of this process, the `index`th of all; 0 is the master.
    /// Call it in the process itself: its id is noted, for its memory to be
    /// found.
    ///
    /// # Panics
    /// If the layout has no stripe `index`.
    #[must_use]
    pub fn process(&self, index: usize) -> Counters {
        let counters = self.stripe(index);
        counters.word(Count::ProcessId as usize).store(std::process::id().into(), Ordering::Relaxed);
        counters
    }

    /// To be called by the master when the process `index` has ended: what it
    /// held is held no more. What it counted stays.
    pub fn process_ended(&self, index: usize) {
        let counters = self.stripe(index);
        for count in [Count::ProcessId, Count::Connections, Count::Requests, Count::Instances] {
            counters.word(count as usize).store(0, Ordering::Relaxed);
        }
    }

    /// Connections open now, in all processes.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.sum(Count::Connections as usize)
    }

    /// All of it in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn to_text(&self, health: &Health) -> String {
        exposition::text(self, health)
    }

    fn stripe(&self, index: usize) -> Counters {
        let length = self.layout.stripe();
        Counters { words: &self.words[index * length..(index + 1) * length] }
    }

    fn stripes(&self) -> impl Iterator<Item = Counters> {
        (0..self.layout.processes()).map(|index| self.stripe(index))
    }

    /// A word of all stripes together. A gauge's stripes may each have wrapped
    /// where one process opens what another one closes; their sum has not.
    fn sum(&self, word: usize) -> u64 {
        self.stripes().fold(0, |sum, stripe| sum.wrapping_add(stripe.word(word).load(Ordering::Relaxed)))
    }
}

impl Counters {
    fn word(self, index: usize) -> &'static AtomicU64 {
        &self.words[index]
    }

    fn add_to(self, index: usize, amount: u64) {
        self.word(index).fetch_add(amount, Ordering::Relaxed);
    }

    /// Counts one.
    pub(crate) fn add(self, count: Count) {
        self.add_to(count as usize, 1);
    }

    /// Counts several.
    pub(crate) fn add_many(self, count: Count, amount: u64) {
        self.add_to(count as usize, amount);
    }

    /// How many there are, or were.
    pub(crate) fn get(self, count: Count) -> u64 {
        self.word(count as usize).load(Ordering::Relaxed)
    }

    /// Counts one until the result is dropped.
    pub(crate) fn hold(self, count: Count) -> Held {
        self.add(count);
        Held { counters: self, count }
    }

    /// An instance of a worker, from now until the result is dropped.
    pub(crate) fn instance(self) -> Held {
        self.add(Count::InstancesStarted);
        self.hold(Count::Instances)
    }

    /// A request that ended with `status`, after `time`, with a body of
    /// `bytes`.
    pub(crate) fn request(self, route: Route, status: u16, time: Duration, bytes: u64) {
        let base = route.base();
        let class = usize::from(status / 100).clamp(1, CLASSES) - 1;
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BUCKETS - 1);
        self.add_to(base + class, 1);
        self.add_to(base + CLASSES + bucket, 1);
        self.add_to(base + CLASSES + BUCKETS, micros);
        self.add_to(base + CLASSES + BUCKETS + 1, bytes);
    }

    /// A request that failed.
    pub(crate) fn failure(self, route: Route, failure: Failure) {
        self.add_to(route.base() + CLASSES + BUCKETS + 2 + failure as usize, 1);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counters.word(self.count as usize).fetch_sub(1, Ordering::Relaxed);
    }
}

// The layout's constants and the enums' last members belong together.
const _: () = assert!(PROCESS_WORDS > Count::SpansDropped as usize);
const _: () = assert!(FAILURES == Failure::ClientGone as usize + 1);

#[cfg(test)]
mod tests;
