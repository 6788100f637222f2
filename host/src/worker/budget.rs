//! What an instance may still take, enforced by wasmtime as it asks for more.

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
    ticks: u64,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory: usize::try_from(limits.memory).unwrap_or(usize::MAX),
            elements: usize::try_from(limits.table_elements).unwrap_or(usize::MAX),
            instances: limits.instances as usize,
            ticks: ticks(limits),
        }
    }

    /// Another request has its own CPU time.
    pub(crate) fn renew_cpu_time(&mut self, limits: &Limits) {
        self.ticks = ticks(limits);
    }

    /// Takes a tick of CPU time; `false`: there is none left.
    pub(crate) fn take_tick(&mut self) -> bool {
        self.ticks = self.ticks.saturating_sub(1);
        self.ticks > 0
    }
}

/// CPU time in ticks, at least one.
fn ticks(limits: &Limits) -> u64 {
    let tick = u64::try_from(TICK.as_millis()).unwrap_or(1).max(1);
    (limits.cpu_ms / tick).max(1)
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
    use super::*;

    fn budget(memory: u64) -> Budget {
        Budget::new(&Limits {
            memory,
            table_elements: 100,
            cpu_ms: 3 * TICK.as_millis() as u64,
            ..Limits::default()
        })
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

    #[test]
    fn cpu_time_runs_out_and_another_request_has_its_own() {
        let mut budget = budget(0);
        let limits = Limits { cpu_ms: 2 * TICK.as_millis() as u64, ..Limits::default() };
        assert!(budget.take_tick());
        assert!(budget.take_tick());
        assert!(!budget.take_tick());
        budget.renew_cpu_time(&limits);
        assert!(budget.take_tick());
        assert!(!budget.take_tick());
    }
}
