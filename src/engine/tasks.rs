//! Tasks: start, read, cancel, mark.

use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::measure::{check_name, measure, measure_text};
use adjutant_actors::model::role::Verb;
use adjutant_actors::model::task::{OnInterrupt, TaskSpec, TaskState};
use adjutant_actors::model::token::CapToken;
use adjutant_actors::state::resumes::Measured;
use adjutant_actors::state::tasks::NewTask;
use adjutant_actors::state::verdicts::Marking;
use serde_json::Value;

use crate::engine::{Caller, Engine};

/// What may be said of a new task beside its spec. Use the struct update syntax.
///
/// ```
/// use adjutant::{OnInterrupt, TaskOptions};
///
/// let options = TaskOptions::default().with_key("nightly").with_on_interrupt(OnInterrupt::Retry);
/// assert_eq!((options.key.as_deref(), options.parent), (Some("nightly"), None));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskOptions {
    /// The task that this one is to be a sub-task of. A worker's tasks are sub-tasks of its own
    /// where none is named; it may name one below that.
    pub parent: Option<TaskId>,
    /// Idempotency key, at most 256 bytes: see [`Self::with_key`].
    pub key: Option<String>,
    /// What becomes of the task when the process ends while an attempt runs.
    pub on_interrupt: OnInterrupt,
}

impl TaskOptions {
    /// Sets an idempotency key: starting the same again under it gives the same task, with no new
    /// event, no use of the token and no room taken; also after a crash, when nobody can know
    /// whether an unanswered call was done. Something else under the key is a `KeyConflict`.
    ///
    /// A key belongs to whoever set it: to an operator id, whatever its sessions and tokens, or to
    /// the workers of one task, whatever their attempts. Nobody else's key is ever met. It is
    /// remembered as long as its task: once [`Retention`](adjutant_actors::config::Retention) lets
    /// the task go, the key starts another one, so repeat a call within that time.
    #[must_use]
    pub fn with_key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Sets what becomes of the task when the process ends while an attempt runs.
    #[must_use]
    pub fn with_on_interrupt(self, on_interrupt: OnInterrupt) -> Self {
        Self { on_interrupt, ..self }
    }
}

impl Engine {
    /// Starts a task: creates it Pending, with its first prompt. A worker's task is a sub-task of
    /// the worker's own.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidArgument` and `ValueTooLarge` for the spec;
    /// `SpawnDepthExceeded`, `ChildLimitExceeded`, `TaskLimitExceeded`; `Stopped` in a shutdown.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{EngineError, TaskSpec, TaskStatus};
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// let task = engine.start_task(&operator, TaskSpec::new("echo", "hello")).await?;
    /// assert_eq!(engine.read_task_state(&operator, &task).await?.status, TaskStatus::Pending);
    /// let nameless = engine.start_task(&operator, TaskSpec::new("", "hello")).await;
    /// assert!(matches!(nameless, Err(EngineError::InvalidArgument(_))));
    /// # Ok(()) }
    /// ```
    pub async fn start_task(
        &self,
        token: &CapToken,
        spec: TaskSpec,
    ) -> Result<TaskId, EngineError> {
        self.start_task_with(token, spec, TaskOptions::default()).await
    }

    /// As [`Self::start_task`], with options.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg, Role, TaskOptions, TaskSpec, TaskStatus};
    /// use std::time::Duration;
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    /// let whole = engine.start_task(&operator, TaskSpec::new("plan", "all of it")).await?;
    /// let options = TaskOptions { parent: Some(whole), ..TaskOptions::default() };
    /// let part = engine.start_task_with(&operator, TaskSpec::new("build", "a part"), options).await?;
    /// engine.cancel_task(&operator, &whole).await?;
    /// let part = engine.read_task_state(&operator, &part).await?;
    /// assert_eq!((part.status, part.spawn_depth), (TaskStatus::Cancelled, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// A call that may have to be made again carries a key:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// # use adjutant::{Engine, EngineCfg, EngineError, Role, TaskOptions, TaskSpec};
    /// # use std::time::Duration;
    /// # let engine = Engine::new(EngineCfg::default());
    /// # let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    /// let keyed = || TaskOptions::default().with_key("nightly 2031-05-01");
    /// let first = engine.start_task_with(&operator, TaskSpec::new("build", "all"), keyed()).await?;
    /// let again = engine.start_task_with(&operator, TaskSpec::new("build", "all"), keyed()).await?;
    /// assert_eq!(first, again);
    /// let other = engine.start_task_with(&operator, TaskSpec::new("build", "half"), keyed()).await;
    /// assert!(matches!(other, Err(EngineError::KeyConflict { differs, .. }) if differs == ["directive"]));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::start_task`]; `TokenTaskMismatch` or `TaskNotFound` for the named parent;
    /// `KeyConflict`, and `InvalidArgument` or `ValueTooLarge` for the key.
    pub async fn start_task_with(
        &self,
        token: &CapToken,
        spec: TaskSpec,
        options: TaskOptions,
    ) -> Result<TaskId, EngineError> {
        self.start_task_as(token.into(), spec, options).await
    }

    /// As [`Self::start_task_with`]. The host's own tasks belong to no session.
    pub(crate) async fn start_task_as(
        &self,
        caller: Caller<'_>,
        spec: TaskSpec,
        options: TaskOptions,
    ) -> Result<TaskId, EngineError> {
        let (access, now) = self.access(caller, Verb::StartTask)?;
        if !caller.is_worker() {
            self.refuse_while_draining()?;
        }
        check_name("agent", &spec.agent)?;
        measure_text("directive", &spec.initial_directive, self.cfg().limits.prompt_bytes)?;
        let TaskOptions { parent, key, on_interrupt } = options;
        let (id, key) = (self.mint().task_id(), checked_key(key)?);
        let new = NewTask { parent, key, on_interrupt, ..NewTask::new(id, Arc::new(spec)) };
        self.system().transact("start_task", move |state| state.create_task(access, new, now)).await
    }

    /// A snapshot of a task.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let state = engine.read_task_state(&operator, &task).await?;
    /// assert_eq!((state.spec.agent.as_str(), state.attempt), ("echo", 0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization.
    pub async fn read_task_state(
        &self,
        token: &CapToken,
        task_id: &TaskId,
    ) -> Result<TaskState, EngineError> {
        self.read_task_as(token.into(), task_id).await
    }

    /// As [`Self::read_task_state`].
    pub(crate) async fn read_task_as(
        &self,
        caller: Caller<'_>,
        task_id: &TaskId,
    ) -> Result<TaskState, EngineError> {
        let ((access, now), task) = (self.access(caller, Verb::ReadTaskState)?, *task_id);
        self.system()
            .transact("read_task_state", move |state| state.read_task(access, task, now))
            .await
    }

    /// Cancels a task and, unless configured otherwise, the sub-tasks below it. Their workers are
    /// asked to stop, and stopped by force after the grace period. Cancelling a cancelled task is
    /// fine and changes nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// engine.cancel_task(&operator, &task).await?;
    /// engine.cancel_task(&operator, &task).await?; // changes nothing
    /// assert!(engine.read_task_state(&operator, &task).await?.status.is_final());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` for a task that passed.
    pub async fn cancel_task(&self, token: &CapToken, task_id: &TaskId) -> Result<(), EngineError> {
        self.cancel_task_as(token.into(), task_id).await
    }

    /// As [`Self::cancel_task`].
    pub(crate) async fn cancel_task_as(
        &self,
        caller: Caller<'_>,
        task_id: &TaskId,
    ) -> Result<(), EngineError> {
        let ((access, now), task) = (self.access(caller, Verb::CancelTask)?, *task_id);
        self.system()
            .transact("cancel_task", move |state| state.cancel_task(access, task, now))
            .await
    }

    /// Passes a Pending or Running task with a value, as an operator; a live attempt is ended.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// engine.mark_pass(&operator, &task, "done by hand".into()).await?;
    /// let again = engine.mark_blocked(&operator, &task, "too late".into()).await;
    /// assert!(matches!(again, Err(adjutant::EngineError::InvalidTransition { .. })));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` for any other status; `ValueTooLarge`.
    pub async fn mark_pass(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        value: Value,
    ) -> Result<(), EngineError> {
        self.mark(token, Verb::MarkPass, Marking::Operator, task_id, true, value).await
    }

    /// Blocks a Pending or Running task with a value, as an operator; a live attempt is ended.
    ///
    /// # Errors
    /// As [`Self::mark_pass`].
    pub async fn mark_blocked(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        value: Value,
    ) -> Result<(), EngineError> {
        self.mark(token, Verb::MarkBlocked, Marking::Operator, task_id, false, value).await
    }

    /// Decides a task as a senior: Running and Suspended either way, Blocked may become Pass. A
    /// live attempt is ended, an open question closed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// engine.mark_blocked(&operator, &task, "flaky".into()).await?;
    /// let senior = engine.attach("sam", adjutant::Role::Senior, minute).await?;
    /// engine.override_verdict(&senior, &task, true, "good enough".into()).await?;
    /// let state = engine.read_task_state(&operator, &task).await?;
    /// assert_eq!(state.status, adjutant::TaskStatus::Pass);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` for any other status; `ValueTooLarge`.
    pub async fn override_verdict(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        ok: bool,
        value: Value,
    ) -> Result<(), EngineError> {
        self.mark(token, Verb::OverrideVerdict, Marking::Senior, task_id, ok, value).await
    }

    async fn mark(
        &self,
        token: &CapToken,
        verb: Verb,
        marking: Marking,
        task_id: &TaskId,
        ok: bool,
        value: Value,
    ) -> Result<(), EngineError> {
        let ((access, now), task) = (self.access(token, verb)?, *task_id);
        let value = self.measured("verdict", value)?;
        self.system()
            .transact("mark_task", move |state| {
                state.mark_task(access, marking, task, ok, value, now)
            })
            .await
    }

    /// Measures a value at the door.
    pub(crate) fn measured(
        &self,
        what: &'static str,
        value: Value,
    ) -> Result<Measured, EngineError> {
        let bytes = measure(what, &value, self.cfg().limits.value_bytes)?;
        Ok(Measured { value: Arc::new(value), bytes })
    }
}

/// Checks an idempotency key at the door.
pub(crate) fn checked_key(key: Option<String>) -> Result<Option<Arc<str>>, EngineError> {
    let Some(key) = key else { return Ok(None) };
    check_name("key", &key)?;
    Ok(Some(key.into()))
}
