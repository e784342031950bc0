//! The engine's clock: wall time for people, monotonic time for deadlines. Tests replace it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use tokio::time::Instant;

use crate::errors::EngineError;
use crate::state::effect::Now;
use crate::state::millis;

/// Tells the time. One per engine.
///
/// ```
/// use adjutant_actors::clock::Clock;
/// use adjutant_actors::errors::EngineError;
/// use adjutant_actors::state::effect::Now;
///
/// /// A clock that a test sets by hand.
/// struct Frozen(Now);
///
/// impl Clock for Frozen {
///     fn now(&self) -> Result<Now, EngineError> {
///         Ok(self.0)
///     }
/// }
///
/// assert_eq!(Frozen(Now { unix: 1_000, ms: 5 }).now()?.unix, 1_000);
/// # Ok::<(), EngineError>(())
/// ```
pub trait Clock: Send + Sync + 'static {
    /// The present moment. `ms` must never decrease.
    ///
    /// # Errors
    /// `Internal` where the wall clock stands before 1970; no time is ever taken for 0.
    fn now(&self) -> Result<Now, EngineError>;
}

/// How old a reading of the wall clock may be, by the monotonic one, before it is read again.
const WALL_AGE_MS: u64 = 100;

/// The operating system's wall clock, and the runtime's monotonic one, which tests may pause.
///
/// The wall clock goes on by the monotonic one between two readings of it, which are a tenth of a
/// second apart: so late at most a step of it is heeded.
///
/// ```
/// use adjutant_actors::clock::{Clock, SystemClock};
///
/// let clock = SystemClock::new();
/// let (first, then) = (clock.now()?, clock.now()?);
/// assert!(first.ms <= then.ms && first.unix > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    /// By how many milliseconds the wall clock, since 1970, was ahead of the monotonic one.
    ahead: AtomicU64,
    /// When that was read, in milliseconds of the monotonic clock, plus one; 0 before the first.
    read_at: AtomicU64,
}

impl SystemClock {
    /// A clock whose monotonic part starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now(), ahead: AtomicU64::new(0), read_at: AtomicU64::new(0) }
    }

    /// Reads how far the wall clock is ahead.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn read(&self, ms: u64) -> Result<u64, EngineError> {
        let before_1970 =
            || EngineError::Internal("the system clock stands before 1970".to_owned());
        let wall =
            std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| before_1970())?;
        let ahead = millis(wall).checked_sub(ms).ok_or_else(before_1970)?;
        self.ahead.store(ahead, Ordering::Relaxed);
        self.read_at.store(ms + 1, Ordering::Release);
        Ok(ahead)
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Result<Now, EngineError> {
        let ms = millis(Instant::now().saturating_duration_since(self.start));
        let read_at = self.read_at.load(Ordering::Acquire);
        let ahead = if read_at == 0 || ms.saturating_sub(read_at - 1) >= WALL_AGE_MS {
            self.read(ms)?
        } else {
            self.ahead.load(Ordering::Relaxed)
        };
        Ok(Now { unix: (ahead + ms) / 1000, ms })
    }
}

/// A clock whose monotonic part goes on from where a journal's newest batch stood, so that every
/// deadline in a restored state keeps its meaning. The time between, as the wall clock tells it,
/// has passed; a wall clock that was set back adds none.
///
/// ```
/// use adjutant_actors::clock::{Clock, Continued, SystemClock};
/// use adjutant_actors::state::effect::Now;
///
/// let clock = std::sync::Arc::new(SystemClock::new());
/// let last = Now { unix: clock.now()?.unix, ms: 90_000 };
/// let clock = Continued::new(clock, Some(last))?;
/// assert!(clock.now()?.ms >= 90_000); // a deadline at 90 s has passed, one at 1 h has not
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Continued {
    clock: std::sync::Arc<dyn Clock>,
    ahead_ms: u64,
}

impl Continued {
    /// A clock that never stands before `last` and reads `clock` from now on.
    ///
    /// # Errors
    /// That of `clock`.
    pub fn new(clock: std::sync::Arc<dyn Clock>, last: Option<Now>) -> Result<Self, EngineError> {
        let now = clock.now()?;
        let ahead_ms = last.map_or(0, |last| {
            let passed = now.unix.saturating_sub(last.unix).saturating_mul(1_000);
            last.ms.saturating_add(passed).saturating_sub(now.ms)
        });
        Ok(Self { clock, ahead_ms })
    }
}

impl Clock for Continued {
    fn now(&self) -> Result<Now, EngineError> {
        let now = self.clock.now()?;
        Ok(Now { ms: now.ms.saturating_add(self.ahead_ms), ..now })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_goes_on_between_two_readings() {
        let clock = SystemClock::new();
        let first = clock.now().unwrap();
        let ahead = clock.ahead.load(Ordering::Relaxed);
        clock.ahead.store(ahead + 5_000, Ordering::Relaxed);
        tokio::time::advance(Duration::from_millis(WALL_AGE_MS - 1)).await;
        let kept = clock.now().unwrap();
        assert!((5..=6).contains(&(kept.unix - first.unix)), "{first:?} {kept:?}");
        tokio::time::advance(Duration::from_millis(1)).await;
        let read = clock.now().unwrap();
        assert!(read.unix - first.unix < 5, "the step was kept: {first:?} {read:?}");
        assert_eq!(read.ms, WALL_AGE_MS);
    }

    struct Frozen(Now);

    impl Clock for Frozen {
        fn now(&self) -> Result<Now, EngineError> {
            Ok(self.0)
        }
    }

    #[test]
    fn a_continued_clock_counts_the_time_between_and_never_goes_back() {
        let frozen = std::sync::Arc::new(Frozen(Now { unix: 1_060, ms: 3 }));
        let ms = |last| Continued::new(frozen.clone(), last).unwrap().now().unwrap().ms;
        assert_eq!(ms(Some(Now { unix: 1_000, ms: 500 })), 60_500);
        assert_eq!(ms(Some(Now { unix: 9_000, ms: 500 })), 500);
        assert_eq!(ms(None), 3);
    }
}
