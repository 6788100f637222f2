//! Whether the app can take requests: what `/readyz` tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The state of a server, shared by who changes and who asks it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicU8>);

/// How far a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The app is being loaded.
    Starting,
    /// Requests are answered.
    Ready,
    /// Requests in flight end; new ones should go elsewhere.
    Draining,
}

impl Health {
    /// The state now; at first [`State::Starting`].
    #[must_use]
    pub fn state(&self) -> State {
        match self.0.load(Ordering::Relaxed) {
            0 => State::Starting,
            1 => State::Ready,
            _ => State::Draining,
        }
    }

    /// The app is loaded, and its address is listened on. Who drains already
    /// goes on draining.
    pub fn ready(&self) {
        let _ = self.0.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The server was told to stop.
    pub fn draining(&self) {
        self.0.store(2, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_drains_does_not_become_ready_again() {
        let health = Health::default();
        assert_eq!(health.state(), State::Starting);
        health.ready();
        assert_eq!(health.state(), State::Ready);
        health.draining();
        health.ready();
        assert_eq!(health.state(), State::Draining);
    }
}
