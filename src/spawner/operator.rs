//! The operator spawner: an operator does the work of an agent that has a profile.

use std::sync::Arc;

use adjutant_actors::launch::{Worker, WorkerError};
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::output::{ContentRef, OutputEvent};
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::ctx::Ctx;
use crate::engine::Engine;
use crate::operator::{Operator, WorkerBinding};
use crate::spawner::task_worker::TaskWorker;
use crate::spawner::{EngineSink, OutputSink, SpawnError, SpawnerAdapter};
use crate::template;

enum Who {
    Given(Arc<dyn Operator>),
    /// Looked up at each spawn, so that an operator may be registered, or replaced, later.
    Named(String),
}

/// Hands attempts to an operator, with a system prompt and a sub-agent to start.
///
/// The system prompt is a strict template. Its variables are the top-level keys of the prompt
/// where that is a JSON object, else the one variable `directive`; an unknown one fails the spawn.
/// The operator's result becomes a Final only where the attempt has none yet: one that came
/// through the worker's own token or handle stands.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{DispatchOutcome, OperatorSpawner, SpawnerAdapter, WorkerBinding, WorkerError, WorkerResult};
/// use adjutant::{CapToken, Ctx, Operator};
/// use std::sync::Arc;
///
/// /// Shows the system prompt that it was given.
/// struct Desk;
///
/// #[adjutant::async_trait]
/// impl Operator for Desk {
///     async fn execute(
///         &self, _: &Ctx, system: Option<String>, _: String, _: Option<WorkerBinding>, _: CapToken,
///     ) -> Result<WorkerResult, WorkerError> {
///         Ok(WorkerResult { value: system.into(), ok: true })
///     }
/// }
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// # let minute = std::time::Duration::from_secs(60);
/// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
/// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
/// let binding = WorkerBinding { definition: "greeter".into(), tools: vec![] };
/// let desk = OperatorSpawner::new(Arc::new(Desk)); // or `named`, looked up at each spawn
/// let desk = desk.system_prompt("Answer {{ directive }}.").binding(binding);
/// let spawner: Arc<dyn SpawnerAdapter> = Arc::new(desk);
/// let outcome = engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
/// assert_eq!(outcome, DispatchOutcome::Pass("Answer hello.".into()));
/// # Ok(()) }
/// ```
pub struct OperatorSpawner {
    who: Who,
    system_prompt: Option<String>,
    binding: Option<WorkerBinding>,
}

impl OperatorSpawner {
    /// This operator.
    #[must_use]
    pub fn new(operator: Arc<dyn Operator>) -> Self {
        Self { who: Who::Given(operator), system_prompt: None, binding: None }
    }

    /// The operator that is registered under this name when an attempt is spawned.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{EngineError, OperatorSpawner, SpawnerAdapter};
    /// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
    /// # let minute = std::time::Duration::from_secs(60);
    /// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
    /// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
    /// let desk: std::sync::Arc<dyn SpawnerAdapter> = std::sync::Arc::new(OperatorSpawner::named("desk"));
    /// let nobody = engine.dispatch_attempt_with(&operator, &task, &desk).await;
    /// assert!(matches!(nobody, Err(EngineError::DispatchFailed(_))));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn named(id: impl Into<String>) -> Self {
        Self { who: Who::Named(id.into()), system_prompt: None, binding: None }
    }

    /// Sets the template of the system prompt.
    #[must_use]
    pub fn system_prompt(mut self, template: impl Into<String>) -> Self {
        self.system_prompt = Some(template.into());
        self
    }

    /// Sets the sub-agent that the operator is to start.
    #[must_use]
    pub fn binding(mut self, binding: WorkerBinding) -> Self {
        self.binding = Some(binding);
        self
    }

    fn operator(&self, engine: &Engine) -> Result<Arc<dyn Operator>, SpawnError> {
        match &self.who {
            Who::Given(operator) => Ok(operator.clone()),
            Who::Named(id) => engine
                .find_operator(id)
                .ok_or_else(|| SpawnError::Internal(format!("no operator {id} is registered"))),
        }
    }
}

#[async_trait]
impl SpawnerAdapter for OperatorSpawner {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let operator = self.operator(engine)?;
        if operator.requires_worker_binding() && self.binding.is_none() {
            let agent = &ctx.agent;
            let text = format!("agent {agent} names no sub-agent, and its operator needs one");
            return Err(SpawnError::Internal(text));
        }
        let pulled = engine.fetch_prompt(&token, &task_id).await;
        let prompt =
            pulled.map_err(|error| SpawnError::Internal(format!("pull the prompt: {error}")))?;
        let input = Value::String(prompt.clone());
        let system = match &self.system_prompt {
            Some(text) => {
                Some(template::render(&ctx.agent, text, &input).map_err(SpawnError::Internal)?)
            }
            None => None,
        };
        engine
            .bake_worker_system_prompt(&task_id, attempt, system.clone())
            .await
            .map_err(|error| SpawnError::Internal(format!("bake the system prompt: {error}")))?;
        let (ctx, binding) = (ctx.clone(), self.binding.clone());
        let work = Delegation { operator, ctx, system, prompt, binding };
        Ok(work.start(engine, task_id, attempt, token))
    }
}

/// One attempt in the hands of an operator.
pub(crate) struct Delegation {
    pub(crate) operator: Arc<dyn Operator>,
    pub(crate) ctx: Ctx,
    pub(crate) system: Option<String>,
    pub(crate) prompt: String,
    pub(crate) binding: Option<WorkerBinding>,
}

impl Delegation {
    /// Starts the operator's work in a task of its own, which ends with the worker.
    pub(crate) fn start(
        self,
        engine: &Engine,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Box<dyn Worker> {
        let cancel = CancellationToken::new();
        let sink = EngineSink { engine: engine.unanchored(), token, task_id, attempt };
        TaskWorker::start(engine.mint().worker_id(), cancel.clone(), self.run(sink, cancel))
    }

    /// Races the work against the cancel token and sends its result, unless one is there.
    async fn run(self, sink: EngineSink, cancel: CancellationToken) -> Result<(), WorkerError> {
        let Self { operator, ctx, system, prompt, binding } = self;
        let work = operator.execute(&ctx, system, prompt, binding, sink.token.clone());
        let result = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(WorkerError::Cancelled),
            result = work => result?,
        };
        if sink.engine.last_final(&sink.task_id, sink.attempt).await.is_some() {
            return Ok(());
        }
        let event = OutputEvent::Final { content: ContentRef::inline(result.value), ok: result.ok };
        let failed = |error| WorkerError::Failed(format!("submit the result: {error}"));
        sink.emit(event).await.map_err(failed)
    }
}
