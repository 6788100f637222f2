//! The clock that interrupts guests, and gives back memory when none runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use wasmtime::Engine;

use crate::code::Code;

/// Time that a guest may keep a thread before another has its turn.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// Time without any guest after which their memory is given back.
const REST: Duration = Duration::from_secs(10);

/// A thread that advances the engines' epochs while guests run. Some time after the
/// last one it gives back the memories that were kept for further ones, and sleeps
/// without waking until one runs: an idle app costs no CPU and little memory.
pub(crate) struct Ticker {
    running: Arc<AtomicUsize>,
    /// Whether a guest has run since the thread last saw none.
    used: Arc<AtomicBool>,
    thread: Thread,
}

/// While it lives, the epoch advances.
pub(crate) struct Running(Arc<AtomicUsize>);

impl Ticker {
    pub(crate) fn start(code: Vec<Code>) -> std::io::Result<Self> {
        let (running, used) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut engines: Vec<Engine> = Vec::new();
        for engine in code.iter().map(Code::engine) {
            if !engines.iter().any(|other| Engine::same(other, engine)) {
                engines.push(engine.clone());
            }
        }
        let (count, woken) = (Arc::downgrade(&running), Arc::clone(&used));
        let tick = move || {
            // Since when no guest runs, while memory is kept for further ones.
            let mut rest = None;
            while let Some(count) = count.upgrade() {
                let is_idle = count.load(Ordering::Acquire) == 0;
                drop(count);
                if !is_idle {
                    thread::sleep(TICK);
                    engines.iter().for_each(Engine::increment_epoch);
                } else if woken.swap(false, Ordering::AcqRel) {
                    rest = Some(Instant::now());
                } else if let Some(since) = rest {
                    match REST.checked_sub(since.elapsed()) {
                        Some(left) if !left.is_zero() => thread::park_timeout(left),
                        // A slot at a time: a guest that begins meanwhile needs the clock.
                        _ if code.iter().any(Code::release_unused_memory) => {}
                        _ => rest = None,
                    }
                } else {
                    thread::park();
                }
            }
        };
        let handle = thread::Builder::new().name("epoch".into()).stack_size(64 * 1024).spawn(tick)?;
        Ok(Self { running, used, thread: handle.thread().clone() })
    }

    pub(crate) fn run(&self) -> Running {
        if self.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.used.store(true, Ordering::Release);
            self.thread.unpark();
        }
        Running(Arc::clone(&self.running))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
