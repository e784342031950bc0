//! Recovery as transitions: what a process left undone when it died is ended by the ordinary ways.

use crate::model::ids::SessionId;
use crate::state::EngineState;
use crate::state::effect::Now;

/// What a recovery came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Live attempts that were ended: their tasks are Blocked, or Suspended with their question.
    pub interrupted: usize,
    /// Attached sessions that were given time to beat.
    pub sessions: usize,
}

/// The first turn of a state that came back:
///
/// ```
/// # use adjutant_actors::{config::EngineCfg, state::{EngineState, Rules, auth::Access, effect::Now}};
/// # let mut state = EngineState::new(Rules::from(&EngineCfg::default()));
/// # let now = Now { unix: 1, ms: 1 };
/// use adjutant_actors::state::images::Recovery;
/// let recovered: Recovery = state.recover(now);
/// assert_eq!((recovered.interrupted, recovered.sessions), (0, 0));
/// ```
impl EngineState {
    /// Ends what the process before left undone. One turn; run it once, before any other.
    ///
    /// Every live attempt ends as interrupted: its tokens and its handle are revoked, a Running
    /// task becomes Blocked, a Suspended one keeps its open question. Attached sessions are given
    /// one whole threshold from now to beat with the token that they have.
    pub fn recover(&mut self, now: Now) -> Recovery {
        let interrupted = self.interrupt_all("the process ended while it ran", now);
        let attached: Vec<SessionId> =
            self.sessions.iter().filter(|(_, record)| record.attached).map(|(id, _)| *id).collect();
        let lapse_after = self.rules.lapse_after_ms;
        for id in &attached {
            let Some(record) = self.sessions.get_mut(id) else { continue };
            let before = record.last_beat_ms.saturating_add(lapse_after);
            record.last_beat_ms = now.ms;
            self.lapses.remove(&(before, *id));
            self.lapses.insert((now.ms.saturating_add(lapse_after), *id));
        }
        Recovery { interrupted, sessions: attached.len() }
    }
}
