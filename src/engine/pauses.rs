//! Asking again: which errors of a call pass by themselves, and the pauses between two tries.

use std::time::Duration;

use adjutant_actors::errors::EngineError;

use crate::engine::Engine;

/// The first pause; each is twice the one before.
const FIRST: Duration = Duration::from_millis(5);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(1);

/// Pauses that grow, for who asks a busy engine again.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    last: Duration,
}

impl Pauses {
    /// Waits for the next pause.
    pub(crate) async fn next(&mut self) {
        self.last = (self.last * 2).clamp(FIRST, LONGEST);
        tokio::time::sleep(self.last).await;
    }
}

impl Engine {
    /// Whether the same call of the engine's own may succeed later: its queue was full, or its tree
    /// ended and the next call starts another one.
    pub(crate) fn may_answer_later(&self, error: &EngineError) -> bool {
        match error {
            EngineError::LockBusy(_) | EngineError::LockBusyAfterRetry(_) => true,
            EngineError::Stopped(_) => !self.system().is_closed(),
            _ => false,
        }
    }
}
