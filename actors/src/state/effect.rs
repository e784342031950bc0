//! Effects: what a turn asks the outside to do, as data. Transitions push them into a private
//! outbox; the state actor carries them out after the turn, in their order.

use std::sync::Arc;

use crate::model::event::EventRecord;
use crate::model::ids::{SessionId, TaskId};
use crate::state::attempts::Verdict;

/// One request to the outside.
///
/// ```
/// use adjutant_actors::state::effect::{Effect, Now};
/// # use adjutant_actors::{config::EngineCfg, model::event::Event, state::{EngineState, Rules}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// let (now, mut effects) = (Now { unix: 1_000, ms: 1 }, Vec::new());
/// state.record(now, Event::DispatchPaused);
/// state.commit(&mut effects);
/// assert!(matches!(&effects[0], Effect::Announce(record) if record.seq == 1 && record.at == 1_000));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send this event to the subscribers. It stands in the tail already.
    Announce(Arc<EventRecord>),
    /// Tell whoever watches this task that it changed.
    Changed(TaskId),
    /// Stop the worker of this attempt, whose dispatcher is told this verdict.
    Stop(TaskId, u32, Verdict),
    /// Stop or restart the clock of this attempt.
    Clock(TaskId, u32, bool),
    /// The session is detached; its actor has nothing more to do.
    SessionClosed(SessionId),
    /// Dispatches that wait may go on, or must wait from now on.
    Dispatching(bool),
}

/// A moment, as the engine's clock tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Unix seconds of the wall clock; for people and for tokens that outlive the process.
    pub unix: u64,
    /// Milliseconds of the monotonic clock since the engine was built; for every deadline.
    pub ms: u64,
}
