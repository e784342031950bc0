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
