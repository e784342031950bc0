//! The long poll: wait until a task is settled or suspended.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::messages::Until;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::role::Verb;
use adjutant_actors::model::task::TaskState;
use adjutant_actors::model::token::CapToken;
use adjutant_actors::state::EngineState;
use adjutant_actors::system::PollStart;

use crate::engine::Engine;

impl Engine {
    /// Waits until the task is settled or Suspended, and returns it as it is then.
    ///
    /// A hold of zero returns a snapshot at once, whatever the status. Holds of days are fine;
    /// longer ones than `max_hold` are clamped. The token is checked, and a use spent, when the
    /// wait begins. No change is missed, no other status returned, and dropping the future leaves
    /// nothing behind.
    ///
    /// # Errors
    /// Those of an authorization; `PollTimeout`; `TaskNotFound` where the task is forgotten
    /// meanwhile.
    pub async fn poll_task(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        hold: Duration,
    ) -> Result<TaskState, EngineError> {
        let (access, now, task) = (self.access(token, Verb::PollTask)?, self.now()?, *task_id);
        let hold = hold.min(self.cfg().long_hold.max_hold);
        let look = move |state: &mut EngineState, first: bool| {
            if first {
                state.verify(access, adjutant_actors::state::auth::Reach::Tree(task), now)?;
            }
            let gone = || EngineError::TaskNotFound(task.to_string());
            let (status, _) = state.glance(&task).ok_or_else(gone)?;
            if status.ends_poll() || hold.is_zero() {
                return Ok(PollStart::Ready(state.task(&task).ok_or_else(gone)?));
            }
            Ok(PollStart::Wait(task, Until::Ended))
        };
        let accept =
            |change: adjutant_actors::messages::Change| change.task.map(Arc::unwrap_or_clone);
        self.system().wait_for("poll_task", hold, look, accept).await
    }
}
