//! What an instance may still take, enforced by wasmtime as it asks for more.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use wasmtime::ResourceLimiter;
use wharf_app::Limits;

use crate::ticker::TICK;

/// What is left of the limits of an instance.
///
/// Memory and table elements count for all memories and tables together;
/// wasmtime's own `StoreLimits` counts each by itself.
#[derive(Debug)]
pub(crate) struct Budget {
    memory: usize,
    elements: usize,
    instances: usize,
    cpu_time: Arc<CpuTime>,
}

/// Time that a guest has computed for one request, of what it may. A guest that
/// waits uses none.
#[derive(Debug)]
pub(super) struct CpuTime {
    base: Instant,
    /// All in nanoseconds; of times, since the base.
    limit: AtomicU64,
    used: AtomicU64,
    running_since: AtomicU64,
}

/// CPU time that is left to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The limit is reached.
    None,
    /// Some, at once: it has kept its thread for less than a tick.
    Turn,
    /// Some, when others have had their turn.
    AfterOthers,
}

impl CpuTime {
    fn new(limits: &Limits) -> Self {
        let time = Self {
            base: Instant::now(),
            limit: AtomicU64::new(0),
            used: AtomicU64::new(0),
            running_since: AtomicU64::new(0),
        };
        time.renew(limits);
        time
    }

    /// Another request has its own.
    fn renew(&self, limits: &Limits) {
        self.limit.store(limits.cpu_ms.saturating_mul(1_000_000), Ordering::Relaxed);
        self.used.store(0, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// What is left to a guest that runs right now.
    fn left(&self) -> Left {
        let running = self.now().saturating_sub(self.running_since.load(Ordering::Relaxed));
        let used = self.used.load(Ordering::Relaxed).saturating_add(running);
        if used >= self.limit.load(Ordering::Relaxed) {
            Left::None
        } else if u128::from(running) < TICK.as_nanos() {
            Left::Turn
        } else {
            Left::AfterOthers
        }
    }

    /// `guest`, whose time counts.
    pub(super) async fn measure<F: Future>(&self, guest: F) -> F::Output {
        let mut guest = pin!(guest);
        poll_fn(|cx| {
            let began = self.now();
            self.running_since.store(began, Ordering::Relaxed);
            let polled = guest.as_mut().poll(cx);
            self.used.fetch_add(self.now().saturating_sub(began), Ordering::Relaxed);
            polled
        })
        .await
    }
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory: usize::try_from(limits.memory).unwrap_or(usize::MAX),
            elements: usize::try_from(limits.table_elements).unwrap_or(usize::MAX),
            instances: limits.instances as usize,
            cpu_time: Arc::new(CpuTime::new(limits)),
        }
    }

    /// Another request has its own CPU time.
    pub(super) fn renew_cpu_time(&mut self, limits: &Limits) {
        self.cpu_time.renew(limits);
    }

    /// The clock of its CPU time.
    pub(super) fn cpu_time(&self) -> Arc<CpuTime> {
        Arc::clone(&self.cpu_time)
    }

    /// What is left to the guest, which runs right now.
    pub(super) fn cpu_time_left(&self) -> Left {
        self.cpu_time.left()
    }
}

/// Takes what growing from `current` to `desired` needs from `left`.
fn grow(left: &mut usize, current: usize, desired: usize, maximum: Option<usize>) -> bool {
    let rest = desired.checked_sub(current).and_then(|more| left.checked_sub(more));
    let rest = rest.filter(|_| maximum.is_none_or(|maximum| desired <= maximum));
    rest.inspect(|rest| *left = *rest).is_some()
}

impl ResourceLimiter for Budget {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(grow(&mut self.memory, current, desired, maximum))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(grow(&mut self.elements, current, desired, maximum))
    }

    fn instances(&self) -> usize {
        self.instances
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn budget(memory: u64) -> Budget {
        Budget::new(&Limits { memory, table_elements: 100, ..Limits::default() })
    }

    #[test]
    fn the_memory_limit_is_for_all_memories_of_an_instance_together() {
        let mut budget = budget(100);
        assert!(budget.memory_growing(0, 60, None).unwrap());
        assert!(!budget.memory_growing(0, 60, None).unwrap(), "a second memory has only the rest");
        assert!(budget.memory_growing(60, 100, None).unwrap());
        assert!(!budget.memory_growing(100, 101, None).unwrap());
    }

    #[test]
    fn a_memory_does_not_outgrow_its_own_maximum() {
        let mut budget = budget(100);
        assert!(!budget.memory_growing(0, 60, Some(50)).unwrap());
        assert!(budget.memory_growing(0, 50, Some(50)).unwrap());
    }

    #[test]
    fn tables_have_a_budget_of_their_own() {
        let mut budget = budget(0);
        assert!(budget.table_growing(0, 60, None).unwrap());
        assert!(!budget.table_growing(0, 60, None).unwrap());
        assert!(budget.table_growing(0, 40, None).unwrap());
    }

    #[tokio::test]
    async fn a_guest_that_waits_uses_no_cpu_time_and_one_that_computes_does() {
        let limits = Limits { cpu_ms: 20, ..Limits::default() };
        let mut budget = Budget::new(&limits);
        let time = budget.cpu_time();
        time.measure(async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(5)).await;
                assert_eq!(budget.cpu_time_left(), Left::Turn);
            }
        })
        .await;
        let left = time.measure(async {
            std::thread::sleep(TICK);
            assert_eq!(budget.cpu_time_left(), Left::AfterOthers);
            std::thread::sleep(Duration::from_millis(21));
            budget.cpu_time_left()
        });
        assert_eq!(left.await, Left::None);
        budget.renew_cpu_time(&limits);
        let left = time.measure(async { budget.cpu_time_left() });
        assert_eq!(left.await, Left::Turn, "another request has its own");
    }
}
