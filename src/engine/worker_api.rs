//! The worker's side: pull the prompt, send output, post results; and the host's twins of these.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::measure::{check_name, measure_text};
use adjutant_actors::model::output::{ContentRef, OutputEvent, WorkerPayload};
use adjutant_actors::model::role::Verb;
use adjutant_actors::model::token::CapToken;
use adjutant_actors::state::auth::Access;
use adjutant_actors::state::effect::Now;
use adjutant_actors::state::outputs::NewOutput;
use serde_json::Value;

use crate::engine::{Caller, Engine};

impl Engine {
    /// The prompt of the task's current attempt. A worker may fetch only its own.
    ///
    /// # Errors
    /// Those of an authorization.
    pub async fn fetch_prompt(
        &self,
        token: &CapToken,
        task_id: &TaskId,
    ) -> Result<String, EngineError> {
        let ((access, now), task) = (self.access(token, Verb::FetchPrompt)?, *task_id);
        self.system()
            .transact("fetch_prompt", move |state| state.fetch_prompt(access, task, now))
            .await
    }

    /// Prompt, system prompt, agent and attempt in one answer.
    ///
    /// All that a worker may do, here one that is a function of the host's:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{ContentRef, InProcSpawner, OutputEvent, SpawnerAdapter, WorkerError, WorkerResult};
    /// use std::sync::Arc;
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// # let (mut agents, inside) = (InProcSpawner::new(), engine.unanchored());
    /// agents.register("echo", move |call| {
    ///     let engine = inside.clone();
    ///     async move {
    ///         let failed = |error: adjutant::EngineError| WorkerError::Failed(error.to_string());
    ///         let (token, task) = (&call.token, &call.task_id);
    ///         let work = engine.fetch_worker_payload(token, task).await.map_err(failed)?;
    ///         assert_eq!(engine.fetch_prompt(token, task).await, Ok(work.prompt));
    ///         engine.post_result(token, task, "half".into()).await.map_err(failed)?;
    ///         let log = OutputEvent::Artifact { name: "log".into(), content: ContentRef::inline_text("x") };
    ///         engine.submit_output(token, task, call.attempt, log).await.map_err(failed)?;
    ///         Ok(WorkerResult { value: "whole".into(), ok: true })
    ///     }
    /// });
    /// # let spawner: Arc<dyn SpawnerAdapter> = Arc::new(agents);
    /// engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
    /// assert_eq!(engine.task_attempt(&task).await?, 1);
    /// assert_eq!(engine.output_tail(&task, 1).await.len(), 2);
    /// assert_eq!(engine.last_final(&task, 1).await, Some(("whole".into(), true)));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::fetch_prompt`].
    pub async fn fetch_worker_payload(
        &self,
        token: &CapToken,
        task_id: &TaskId,
    ) -> Result<WorkerPayload, EngineError> {
        let (access, now) = self.access(token, Verb::FetchPrompt)?;
        self.payload(access, now, *task_id).await
    }

    /// As [`Self::fetch_worker_payload`], without a token. Trusted callers only: one that has
    /// resolved a worker's handle before.
    ///
    /// # Errors
    /// `TaskNotFound`.
    pub async fn fetch_worker_payload_trusted(
        &self,
        task_id: &TaskId,
    ) -> Result<WorkerPayload, EngineError> {
        self.payload(Access::Trusted, self.now()?, *task_id).await
    }

    async fn payload(
        &self,
        access: Access,
        now: Now,
        task: TaskId,
    ) -> Result<WorkerPayload, EngineError> {
        self.system()
            .transact("fetch_worker_payload", move |state| state.fetch_payload(access, task, now))
            .await
    }

    /// Number of the task's newest attempt; 0 before the first. Trusted callers only.
    ///
    /// # Errors
    /// `TaskNotFound`.
    pub async fn task_attempt(&self, task_id: &TaskId) -> Result<u32, EngineError> {
        let task = *task_id;
        self.system().transact("task_attempt", move |state| state.task_attempt(task)).await
    }

    /// Stores the rendered system prompt of an attempt; `None` says that the agent has none.
    /// Trusted callers only: spawners.
    ///
    /// # Errors
    /// `TaskNotFound`; `InvalidTransition` for an attempt that never began; `ValueTooLarge`.
    pub async fn bake_worker_system_prompt(
        &self,
        task_id: &TaskId,
        attempt: u32,
        system: Option<String>,
    ) -> Result<(), EngineError> {
        if let Some(system) = &system {
            measure_text("system prompt", system, self.cfg().limits.prompt_bytes)?;
        }
        let (task, system) = (*task_id, system.map(Arc::<str>::from));
        self.system()
            .transact("bake_worker_system_prompt", move |state| {
                state.bake_system_prompt(task, attempt, system)
            })
            .await
    }

    /// A named value that the host laid out. Not bound to a task.
    ///
    /// # Errors
    /// Those of an authorization; `ResourceNotFound`.
    pub async fn fetch_data(&self, token: &CapToken, key: &str) -> Result<Value, EngineError> {
        let ((access, now), key) = (self.access(token, Verb::FetchData)?, key.to_owned());
        let value = self
            .system()
            .transact("fetch_data", move |state| state.fetch_data(access, &key, now))
            .await?;
        Ok(Arc::unwrap_or_clone(value))
    }

    /// Lays out a named value for [`Self::fetch_data`], in place of an earlier one. Trusted
    /// callers only.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), adjutant::EngineError> {
    /// use adjutant::{Engine, EngineCfg, InProcSpawner, Role, SpawnerAdapter, TaskSpec, WorkerResult};
    /// use serde_json::json;
    /// use std::{sync::Arc, time::Duration};
    ///
    /// let engine = Engine::new(EngineCfg::default());
    /// engine.set_resource("limits", json!({ "lines": 400 })).await?;
    /// let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await?;
    /// let (mut agents, inside) = (InProcSpawner::new(), engine.unanchored());
    /// agents.register("read", move |call| {
    ///     let engine = inside.clone();
    ///     async move {
    ///         let value = engine.fetch_data(&call.token, "limits").await;
    ///         Ok(WorkerResult { ok: value.is_ok(), value: value.unwrap_or_default() })
    ///     }
    /// });
    /// let spawner: Arc<dyn SpawnerAdapter> = Arc::new(agents);
    /// let task = engine.start_task(&operator, TaskSpec::new("read", "")).await?;
    /// engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
    /// let state = engine.read_task_state(&operator, &task).await?;
    /// assert_eq!(state.last_result, Some(json!({ "lines": 400 })));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument`, `ValueTooLarge`, `TableFull`.
    pub async fn set_resource(
        &self,
        key: impl Into<String>,
        value: Value,
    ) -> Result<(), EngineError> {
        let key = key.into();
        check_name("resource key", &key)?;
        let value = self.measured("resource", value)?.value;
        self.system().transact("set_resource", move |state| state.set_resource(key, value)).await
    }

    /// Sends one output event of the worker's own live attempt. The last Final decides the
    /// attempt when its worker ends; sending it does not end the worker.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` for an attempt that is over or never began;
    /// `ValueTooLarge`, `OutputLimitExceeded`.
    pub async fn submit_output(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        attempt: u32,
        event: OutputEvent,
    ) -> Result<(), EngineError> {
        let (access, now) = self.access(token, Verb::EmitOutput)?;
        self.append(access, now, (*task_id, attempt), event).await
    }

    /// As [`Self::submit_output`], without a token. Trusted callers only: layers and spawners,
    /// which append what they found and never rewrite what is there.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let note = adjutant::OutputEvent::Progress { stage: "read".into(), note: None };
    /// let refused = engine.append_output_trusted(&task, 1, note).await;
    /// assert!(refused.is_err()); // no attempt has begun
    /// assert!(engine.submit_worker_result_trusted(&task, 1, true.into(), true).await.is_err());
    /// assert!(engine.bake_worker_system_prompt(&task, 1, None).await.is_err());
    /// assert_eq!(engine.fetch_worker_payload_trusted(&task).await?.prompt, "hello");
    /// engine.note_slow_attempt(&task, 1, minute, minute).await?; // an event, and nothing else
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Self::submit_output`].
    pub async fn append_output_trusted(
        &self,
        task_id: &TaskId,
        attempt: u32,
        event: OutputEvent,
    ) -> Result<(), EngineError> {
        self.append(Access::Trusted, self.now()?, (*task_id, attempt), event).await
    }

    async fn append(
        &self,
        access: Access,
        now: Now,
        (task, attempt): (TaskId, u32),
        event: OutputEvent,
    ) -> Result<(), EngineError> {
        let new = NewOutput::prepare(event, &self.cfg().limits)?;
        self.system()
            .transact("submit_output", move |state| {
                state.append_output(access, task, attempt, new, now)
            })
            .await
    }

    /// Sends a worker's result as a Final, and makes it the task's interim result. Trusted callers
    /// only: one that has resolved the worker's handle before.
    ///
    /// # Errors
    /// As [`Self::submit_output`].
    pub async fn submit_worker_result_trusted(
        &self,
        task_id: &TaskId,
        attempt: u32,
        value: Value,
        ok: bool,
    ) -> Result<(), EngineError> {
        let event = OutputEvent::Final { content: ContentRef::inline(value), ok };
        let (new, now) = (NewOutput::prepare(event, &self.cfg().limits)?, self.now()?);
        let task = *task_id;
        self.system()
            .transact("submit_worker_result", move |state| {
                state.append_result(Access::Trusted, task, attempt, new, now)
            })
            .await
    }

    /// All output events of an attempt so far, in their order, with full bodies. Empty for an
    /// attempt that is not there. Trusted callers only; [`Self::read_output`] takes a token.
    pub async fn output_tail(&self, task_id: &TaskId, attempt: u32) -> Vec<OutputEvent> {
        let task = *task_id;
        self.system()
            .transact("output_tail", move |state| Ok(state.output_tail(task, attempt)))
            .await
            .unwrap_or_default()
    }

    /// As [`Self::output_tail`], for an observer.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let mut agents = adjutant::InProcSpawner::new();
    /// # agents.register("echo", |call| async move {
    /// #     Ok(adjutant::WorkerResult { value: call.prompt.into(), ok: true })
    /// # });
    /// # let spawner: std::sync::Arc<dyn adjutant::SpawnerAdapter> = std::sync::Arc::new(agents);
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
    /// let watcher = engine.attach("wim", adjutant::Role::Observer, minute).await?;
    /// let output = engine.read_output(&watcher, &task, 1).await?;
    /// assert!(matches!(output[0], adjutant::OutputEvent::Final { ok: true, .. }));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of an authorization with `ReadTrace`.
    pub async fn read_output(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        attempt: u32,
    ) -> Result<Vec<OutputEvent>, EngineError> {
        self.read_output_as(token.into(), task_id, attempt).await
    }

    /// As [`Self::read_output`].
    pub(crate) async fn read_output_as(
        &self,
        caller: Caller<'_>,
        task_id: &TaskId,
        attempt: u32,
    ) -> Result<Vec<OutputEvent>, EngineError> {
        let ((access, now), task) = (self.access(caller, Verb::ReadTrace)?, *task_id);
        self.system()
            .transact("read_output", move |state| {
                state.verify(access, adjutant_actors::state::auth::Reach::Tree(task), now)?;
                Ok(state.output_tail(task, attempt))
            })
            .await
    }

    /// Value and `ok` of the last Final of an attempt. Trusted callers only.
    pub async fn last_final(&self, task_id: &TaskId, attempt: u32) -> Option<(Value, bool)> {
        let task = *task_id;
        let found = self
            .system()
            .transact("last_final", move |state| Ok(state.final_of(task, attempt)))
            .await;
        found.ok().flatten()
    }

    /// Records that an attempt takes longer than was expected of it. Trusted callers only: layers.
    ///
    /// # Errors
    /// `LockBusy`, `Stopped`.
    pub async fn note_slow_attempt(
        &self,
        task_id: &TaskId,
        attempt: u32,
        elapsed: Duration,
        default_hold: Duration,
    ) -> Result<(), EngineError> {
        let (task, now) = (*task_id, self.now()?);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (elapsed, hold) = (ms(elapsed), ms(default_hold));
        self.system()
            .transact("note_slow_attempt", move |state| {
                state.note_slow_attempt(task, attempt, elapsed, hold, now);
                Ok(())
            })
            .await
    }

    /// Stores an interim result of the worker's own task; status and verdict stay.
    ///
    /// # Errors
    /// Those of an authorization; `InvalidTransition` where no attempt is live; `ValueTooLarge`.
    pub async fn post_result(
        &self,
        token: &CapToken,
        task_id: &TaskId,
        result: Value,
    ) -> Result<(), EngineError> {
        let ((access, now), task) = (self.access(token, Verb::PostResult)?, *task_id);
        let value = self.measured("result", result)?.value;
        self.system()
            .transact("post_result", move |state| state.post_result(access, task, value, now))
            .await
    }
}
