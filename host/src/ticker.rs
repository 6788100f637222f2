//! The clock that interrupts guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// Time that a guest may keep a thread before another has its turn.
pub(crate) const TICK: Duration = Duration::from_millis(5);

/// A thread that advances the engines' epochs while guests run, and sleeps
/// without waking while none does, so that an idle app costs no CPU.
pub(crate) struct Ticker {
    running: Arc<AtomicUsize>,
    thread: Thread,
}

/// While it lives, the epoch advances.
pub(crate) struct Running(Arc<AtomicUsize>);

impl Ticker {
    pub(crate) fn start<'a>(engines: impl Iterator<Item = &'a Engine>) -> std::io::Result<Self> {
        let running = Arc::new(AtomicUsize::new(0));
        let mut distinct: Vec<&Engine> = Vec::new();
        for engine in engines {
            if !distinct.iter().any(|other| Engine::same(other, engine)) {
                distinct.push(engine);
            }
        }
        let engines: Vec<_> = distinct.into_iter().map(Engine::weak).collect();
        let count = Arc::downgrade(&running);
        let handle = thread::Builder::new().name("epoch".into()).stack_size(64 * 1024).spawn(move || {
            while let Some(count) = count.upgrade() {
                let idle = count.load(Ordering::Acquire) == 0;
                drop(count);
                if idle {
                    thread::park();
                } else {
                    thread::sleep(TICK);
                    for engine in engines.iter().filter_map(EngineWeak::upgrade) {
                        engine.increment_epoch();
                    }
                }
            }
        })?;
        Ok(Self { running, thread: handle.thread().clone() })
    }

    pub(crate) fn run(&self) -> Running {
        if self.running.fetch_add(1, Ordering::AcqRel) == 0 {
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
