//! Counts: what an engine counted of its own life, for whoever watches it.
//!
//! Counters only grow, and nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::system::Core;

/// What the engine counted of its own life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Turns that held the state for too long.
    pub overlong_holds: u64,
    /// Workers that ignored their cancel token through the grace period.
    pub forced_stops: u64,
    /// Actors, workers and spawners that were started again.
    pub restarts: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    overlong_holds: AtomicU64,
    forced_stops: AtomicU64,
    restarts: AtomicU64,
}

impl Core {
    pub(crate) fn count_hold(&self) {
        self.counters.overlong_holds.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_forced_stop(&self) {
        self.counters.forced_stops.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_restart(&self) {
        self.counters.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            overlong_holds: read(&self.counters.overlong_holds),
            forced_stops: read(&self.counters.forced_stops),
            restarts: read(&self.counters.restarts),
        }
    }
}
