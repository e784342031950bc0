//! Tasks that say to be retried: which wait for it, and their dispatch.
//!
//! Nothing is dispatched by the engine itself: after a restart it knows no spawner, and only its
//! host knows when its agents are registered.

use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::task::DispatchOutcome;
use adjutant_actors::model::token::CapToken;

use crate::engine::Engine;
use crate::spawner::SpawnerAdapter;

/// How the retry of one task came out.
///
/// ```
/// use adjutant::{DispatchOutcome, Retry};
///
/// fn passed(retries: &[Retry]) -> usize {
///     retries.iter().filter(|(_, end)| matches!(end, Ok(DispatchOutcome::Pass(_)))).count()
/// }
/// assert_eq!(passed(&[]), 0);
/// ```
pub type Retry = (TaskId, Result<DispatchOutcome, EngineError>);

impl Engine {
    /// The tasks with [`OnInterrupt::Retry`](crate::OnInterrupt::Retry) whose newest attempt was
    /// interrupted and that nobody dispatched since, each with its agent; oldest id first. They are
    /// Blocked. Those of an open run are not among them: resuming it dispatches them. The list
    /// follows from the tasks, so it outlives any number of crashes. Trusted callers only; looks at
    /// every task.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// for (task, agent) in engine.interrupted_tasks().await? {
    ///     println!("{task} of {agent} was cut short and may be tried again");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::with_state`].
    pub async fn interrupted_tasks(&self) -> Result<Vec<(TaskId, String)>, EngineError> {
        let look = |state: &mut adjutant_actors::state::EngineState| {
            let waiting = state.interrupted_to_retry().into_iter();
            let named = waiting.filter_map(|id| Some((id, state.task_agent(&id)?.to_owned())));
            named.collect()
        };
        self.system().transact("interrupted_tasks", move |state| Ok(look(state))).await
    }

    /// Dispatches the [`Self::interrupted_tasks`] again, all at once, each through the spawner that
    /// `choose` gives for its agent; tasks for which it gives none stay as they are. Call it after
    /// a restart, when agents, operators and bridges are registered. Returns when all have ended.
    ///
    /// A retry has the prompt of the attempt that was interrupted, and its idempotency key. Work of
    /// that attempt may be done twice. A task whose retry is interrupted as well is in the list
    /// again, so a host that loops counts the attempts. Dropping the future loses no attempt.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg, InProcSpawner, Role, SpawnerAdapter};
    /// use std::{sync::Arc, time::Duration};
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    /// let agents: Arc<dyn SpawnerAdapter> = Arc::new(InProcSpawner::new());
    /// let retries = engine.retry_interrupted(&operator, |_agent| Some(agents.clone())).await?;
    /// assert!(retries.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::interrupted_tasks`]; those of a dispatch stand beside its task.
    pub async fn retry_interrupted(
        &self,
        token: &CapToken,
        choose: impl Fn(&str) -> Option<Arc<dyn SpawnerAdapter>>,
    ) -> Result<Vec<Retry>, EngineError> {
        let waiting = self.interrupted_tasks().await?.into_iter();
        let chosen = waiting.filter_map(|(task, agent)| Some((task, choose(&agent)?)));
        let retries = chosen.map(|(task, spawner)| async move {
            (task, self.dispatch_attempt_with(token, &task, &spawner).await)
        });
        Ok(futures::future::join_all(retries).await)
    }
}
