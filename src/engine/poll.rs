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

use crate::engine::{Caller, Engine};

impl Engine {
    /// Waits until the task is settled or Suspended, and returns it as it is then.
    ///
    /// A hold of zero returns a snapshot at once, whatever the status. Holds of days are fine;
    /// longer ones than `max_hold` are clamped. The token is checked, and a use spent, when the
    /// wait begins. No change is missed, no other status returned, and dropping the future leaves
    /// nothing behind.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg, Role, TaskSpec, TaskStatus};
    /// use std::time::Duration;
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    /// let task = engine.start_task(&operator, TaskSpec::new("echo", "hello")).await?;
    /// let (days, cancelled) = (Duration::from_secs(2 * 24 * 3600), engine.cancel_task(&operator, &task));
    /// let (state, cancelled) = tokio::join!(engine.poll_task(&operator, &task, days), cancelled);
    /// cancelled?;
    /// assert_eq!(state?.status, TaskStatus::Cancelled);
    /// # Ok(()) }
    /// ```
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
        self.poll_task_as(token.into(), task_id, hold).await
    }

    /// As [`Self::poll_task`].
    pub(crate) async fn poll_task_as(
        &self,
        caller: Caller<'_>,
        task_id: &TaskId,
        hold: Duration,
    ) -> Result<TaskState, EngineError> {
        let ((access, now), task) = (self.access(caller, Verb::PollTask)?, *task_id);
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
