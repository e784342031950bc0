//! Counts: what an engine counted of its own life, for whoever watches it.
//!
//! Counters only grow, and nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::system::Core;

/// What the engine counted of its own life.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use adjutant_actors::{clock::SystemClock, config::EngineCfg, system::ActorSystem};
/// # let system = ActorSystem::new(EngineCfg::default(), std::sync::Arc::new(SystemClock::new()));
/// system.with_state("look", |state| state.task_count()).await?;
/// system.count_lag(); // as a reader of events does that fell behind
/// let counts = system.counts();
/// assert_eq!((counts.turns, counts.lags, counts.commits.count()), (1, 1, 0));
/// # Ok(()) }
/// ```
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
    /// Starts of the state actor after its first.
    pub state_restarts: u64,
    /// Time that turns held the state, all together.
    pub held: Duration,
    /// Batches that the journal called safe, by the time from their cut to that; none without one.
    pub commits: Times,
    /// Readers of events that fell behind and had to read the log.
    pub lags: u64,
}

/// Bounds of the buckets of [`Times`], in microseconds; the last bucket has none.
pub const TIME_BOUNDS: [u64; 11] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 1_000_000];

/// How often something took how long.
///
/// ```
/// use adjutant_actors::system::Times;
///
/// let mut times = Times::default();
/// times.buckets[0] = 3;
/// assert_eq!(times.count(), 3);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// All times together.
    pub sum: Duration,
    /// How many there were in each bucket, at most as long as its bound, those before not counted.
    pub buckets: [u64; TIME_BOUNDS.len() + 1],
}

impl Times {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[derive(Default)]
pub(super) struct Counters {
    overlong_holds: AtomicU64,
    forced_stops: AtomicU64,
    restarts: AtomicU64,
    turns: AtomicU64,
    actors_started: AtomicU64,
    state_restarts: AtomicU64,
    held_nanos: AtomicU64,
    lags: AtomicU64,
    commit_nanos: AtomicU64,
    commits: [AtomicU64; TIME_BOUNDS.len() + 1],
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
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

    pub(crate) fn count_state_restart(&self) {
        self.counters.state_restarts.fetch_add(1, Ordering::Relaxed);
        self.count_restart();
    }

    /// Counts the turns of one batch, and the time that they took.
    pub(crate) fn count_turns(&self, turns: u64, held: Duration) {
        self.counters.turns.fetch_add(turns, Ordering::Relaxed);
        self.counters.held_nanos.fetch_add(nanos(held), Ordering::Relaxed);
    }

    pub(crate) fn count_lag(&self) {
        self.counters.lags.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a batch that is safe, by the time that it took.
    pub(crate) fn count_commit(&self, took: Duration) {
        let micros = took.as_micros();
        let bucket = TIME_BOUNDS.iter().position(|bound| micros <= u128::from(*bound));
        let bucket = bucket.unwrap_or(TIME_BOUNDS.len());
        if let Some(counter) = self.counters.commits.get(bucket) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.counters.commit_nanos.fetch_add(nanos(took), Ordering::Relaxed);
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
            state_restarts: read(&self.counters.state_restarts),
            held: Duration::from_nanos(read(&self.counters.held_nanos)),
            commits: Times {
                sum: Duration::from_nanos(read(&self.counters.commit_nanos)),
                buckets: std::array::from_fn(|at| self.counters.commits.get(at).map_or(0, read)),
            },
            lags: read(&self.counters.lags),
        }
    }
}
