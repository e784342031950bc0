//! The engine's clock: wall time for people, monotonic time for deadlines. Tests replace it.

use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use crate::errors::EngineError;
use crate::state::effect::Now;

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

/// The operating system's wall clock, and the runtime's monotonic one, which tests may pause.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic part starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Result<Now, EngineError> {
        let wall = std::time::SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|_| EngineError::Internal("the system clock stands before 1970".to_owned()))?;
        let elapsed: Duration = Instant::now().saturating_duration_since(self.start);
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        Ok(Now { unix: wall.as_secs(), ms })
    }
}

/// A clock whose monotonic part goes on from where a journal's newest batch stood, so that every
/// deadline in a restored state keeps its meaning. The time between, as the wall clock tells it,
/// has passed; a wall clock that was set back adds none.
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
    use super::*;

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
