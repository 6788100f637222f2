//! What the processes of a host know of each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Words of a process: a cache line, so that no two write to the same one.
const STRIPE: usize = 8;

/// Whether the process accepts connections: 1, else 0.
const SERVING: usize = 0;
/// Connections that are open.
const CONNECTIONS: usize = 1;
/// CPU time that the process has used, in nanoseconds.
const CPU: usize = 2;

/// Connections that a process may have more than another before it lets that
/// one accept the next.
const SLACK: u64 = 2;

/// The board as one of the processes sees it.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    words: &'static [AtomicU64],
    index: usize,
    local: Arc<Local>,
}

/// What concerns this process alone.
#[derive(Debug, Default)]
struct Local {
    /// Connections to give up, for a process that was started since.
    to_shed: AtomicI64,
    /// Nobody looks at what this process does until it does something.
    asleep: AtomicBool,
    woken: Notify,
}

/// A connection that counts while it is open.
#[derive(Debug)]
pub(crate) struct Connected(Board);

impl Board {
    /// Words that `processes` of them need.
    pub(crate) const fn words(processes: usize) -> usize {
        processes * STRIPE
    }

    /// The board of process `index`, in `words` of memory that all share.
    pub(crate) fn new(words: &'static [AtomicU64], index: usize) -> Self {
        Self { words, index, local: Arc::default() }
    }

    /// A board for a host of one process.
    pub(crate) fn alone() -> Self {
        let words: Vec<AtomicU64> = (0..STRIPE).map(|_| AtomicU64::new(0)).collect();
        Self::new(Vec::leak(words), 0)
    }

    pub(crate) const fn index(&self) -> usize {
        self.index
    }

    fn word(&self, process: usize, word: usize) -> &'static AtomicU64 {
        &self.words[process * STRIPE + word]
    }

    fn mine(&self, word: usize) -> &'static AtomicU64 {
        self.word(self.index, word)
    }

    fn processes(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.words.len() / STRIPE)
            .filter(|&process| self.word(process, SERVING).load(Ordering::Acquire) == 1)
    }

    /// Processes that accept connections.
    pub(crate) fn serving(&self) -> usize {
        self.processes().count()
    }

    /// Says that this process accepts connections, or no longer does.
    pub(crate) fn serve(&self, serving: bool) {
        self.mine(SERVING).store(u64::from(serving), Ordering::Release);
    }

    /// Forgets what process `index` wrote: it is gone.
    pub(crate) fn clear(&self, index: usize) {
        for word in [SERVING, CONNECTIONS, CPU] {
            self.word(index, word).store(0, Ordering::Release);
        }
    }

    /// Counts a connection of this process.
    pub(crate) fn connect(&self) -> Connected {
        self.mine(CONNECTIONS).fetch_add(1, Ordering::Relaxed);
        Connected(self.clone())
    }

    fn connections(&self, process: usize) -> u64 {
        self.word(process, CONNECTIONS).load(Ordering::Relaxed)
    }

    /// Whether another process has fewer connections, and should get the next.
    pub(crate) fn has_more_than_its_share(&self) -> bool {
        let fewest = self.processes().filter(|&process| process != self.index);
        let fewest = fewest.map(|process| self.connections(process)).min();
        fewest.is_some_and(|fewest| self.connections(self.index) > fewest + SLACK)
    }

    /// Plans to give up what this process has more than its share, now that
    /// there is one process more.
    pub(crate) fn rebalance(&self) {
        let all: u64 = self.processes().map(|process| self.connections(process)).sum();
        let share = all.div_ceil(self.serving().max(1) as u64);
        let excess = self.connections(self.index).saturating_sub(share);
        self.local.to_shed.store(i64::try_from(excess).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Whether the connection that asks should end after its next response, so
    /// that its client's next one goes to another process.
    pub(crate) fn should_shed(&self) -> bool {
        self.local.to_shed.load(Ordering::Relaxed) > 0
            && self.local.to_shed.fetch_sub(1, Ordering::Relaxed) > 0
    }

    /// Tells that a request has come.
    pub(crate) fn stir(&self) {
        if self.local.asleep.load(Ordering::Relaxed) {
            self.local.asleep.store(false, Ordering::Relaxed);
            self.local.woken.notify_one();
        }
    }

    /// Waits for a request.
    pub(crate) async fn stirred(&self) {
        self.local.asleep.store(true, Ordering::Relaxed);
        self.local.woken.notified().await;
    }

    /// Writes down the CPU time that this process has used, and returns it.
    pub(crate) fn publish_cpu_time(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let now = Duration::try_from(now).unwrap_or_default();
        self.mine(CPU).store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        now
    }

    /// CPU time that all processes have used, as they last wrote it.
    pub(crate) fn cpu_time(&self) -> Duration {
        let nanoseconds = self.processes().map(|process| self.word(process, CPU).load(Ordering::Relaxed));
        Duration::from_nanos(nanoseconds.sum())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.mine(CONNECTIONS).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boards(count: usize) -> Vec<Board> {
        let words: Vec<AtomicU64> = (0..Board::words(count)).map(|_| AtomicU64::new(0)).collect();
        let words = Vec::leak(words);
        let boards: Vec<Board> = (0..count).map(|index| Board::new(words, index)).collect();
        boards.iter().for_each(|board| board.serve(true));
        boards
    }

    #[test]
    fn who_has_the_most_connections_lets_others_accept() {
        let boards = boards(2);
        let held: Vec<_> = (0..=SLACK).map(|_| boards[0].connect()).collect();
        assert!(boards[0].has_more_than_its_share());
        assert!(!boards[1].has_more_than_its_share());
        boards[1].serve(false);
        assert!(!boards[0].has_more_than_its_share(), "nobody else would accept");
        boards[1].serve(true);
        drop(held);
        assert!(!boards[0].has_more_than_its_share());
    }

    #[test]
    fn a_process_gives_up_as_many_connections_as_it_has_more_than_its_share() {
        let boards = boards(2);
        let _held: Vec<_> = (0..10).map(|_| boards[0].connect()).collect();
        assert!(!boards[0].should_shed(), "nothing was planned");
        boards[0].rebalance();
        boards[1].rebalance();
        assert_eq!((0..10).filter(|_| boards[0].should_shed()).count(), 5);
        assert!(!boards[1].should_shed());
    }

    #[test]
    fn what_a_lost_process_wrote_is_forgotten() {
        let boards = boards(2);
        let _held: Vec<_> = (0..10).map(|_| boards[1].connect()).collect();
        boards[0].clear(1);
        assert_eq!(boards[0].serving(), 1);
        assert_eq!(boards[0].connections(1), 0);
    }
}
