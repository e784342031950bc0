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
    /// Turns that the state actor took from the queue, the engine's own included. A caller that
    /// was answered finds its own turn counted.
    pub turns: u64,
    /// Actors that were started, the tree's own included.
    pub actors_started: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    overlong_holds: AtomicU64,
    forced_stops: AtomicU64,
    restarts: AtomicU64,
    turns: AtomicU64,
    actors_started: AtomicU64,
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

    /// Counts the turns of one batch.
    pub(crate) fn count_turns(&self, turns: u64) {
        self.counters.turns.fetch_add(turns, Ordering::Relaxed);
    }

    pub(crate) fn count_actor(&self) {
        self.counters.actors_started.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            overlong_holds: read(&self.counters.overlong_holds),
            forced_stops: read(&self.counters.forced_stops),
            restarts: read(&self.counters.restarts),
            turns: read(&self.counters.turns),
            actors_started: read(&self.counters.actors_started),
        }
    }
}
