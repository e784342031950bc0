//! The in-process spawner: async functions by agent name.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use adjutant_actors::launch::{Worker, WorkerError};
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::output::{ContentRef, OutputEvent};
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::ctx::Ctx;
use crate::engine::Engine;
use crate::operator::WorkerResult;
use crate::spawner::task_worker::TaskWorker;
use crate::spawner::{EngineSink, OutputSink, SpawnError, SpawnerAdapter};

/// What an in-process worker is called with.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{InProcSpawner, OutputEvent, SpawnerAdapter, WorkerError, WorkerInvocation, WorkerResult};
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// # let minute = std::time::Duration::from_secs(60);
/// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
/// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
/// # let mut agents = InProcSpawner::new();
/// agents.register("echo", |call: WorkerInvocation| async move {
///     if let Some(sink) = &call.sink {
///         let said = OutputEvent::Partial { chunk: call.prompt.clone().into() };
///         sink.emit(said).await.map_err(|error| WorkerError::Failed(error.to_string()))?;
///     }
///     Ok(WorkerResult { value: call.attempt.into(), ok: true })
/// });
/// # let spawner: std::sync::Arc<dyn SpawnerAdapter> = std::sync::Arc::new(agents);
/// engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
/// assert_eq!(engine.output_tail(&task, 1).await.len(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct WorkerInvocation {
    /// The worker's own narrow token.
    pub token: CapToken,
    /// Its task.
    pub task_id: TaskId,
    /// Its attempt.
    pub attempt: u32,
    /// The agent that it is.
    pub agent: String,
    /// The directive, pulled with the token.
    pub prompt: String,
    /// Where it sends output before its result.
    pub sink: Option<Arc<dyn OutputSink>>,
    /// Cancelled when it is to stop; the function is dropped then as well.
    pub cancel_token: Option<CancellationToken>,
}

impl std::fmt::Debug for WorkerInvocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerInvocation")
            .field("task_id", &self.task_id)
            .field("attempt", &self.attempt)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

type WorkerFuture = Pin<Box<dyn Future<Output = Result<WorkerResult, WorkerError>> + Send>>;
type WorkerFn = Arc<dyn Fn(WorkerInvocation) -> WorkerFuture + Send + Sync>;

/// Runs registered async functions as workers.
///
/// ```
/// use adjutant::{InProcSpawner, WorkerInvocation, WorkerResult};
/// let mut spawner = InProcSpawner::new();
/// spawner.register("upper", |call: WorkerInvocation| async move {
///     Ok(WorkerResult { value: call.prompt.to_uppercase().into(), ok: true })
/// });
/// ```
#[derive(Clone, Default)]
pub struct InProcSpawner {
    functions: HashMap<String, WorkerFn>,
}

impl InProcSpawner {
    /// A spawner that knows no agent yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers the function of an agent, in place of an earlier one.
    pub fn register<F, Fut>(&mut self, agent: impl Into<String>, f: F) -> &mut Self
    where
        F: Fn(WorkerInvocation) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<WorkerResult, WorkerError>> + Send + 'static,
    {
        self.functions.insert(agent.into(), Arc::new(move |call| Box::pin(f(call))));
        self
    }
}

#[async_trait]
impl SpawnerAdapter for InProcSpawner {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let function = self
            .functions
            .get(&ctx.agent)
            .cloned()
            .ok_or_else(|| SpawnError::NotRegistered(ctx.agent.clone()))?;
        let prompt = engine
            .fetch_prompt(&token, &task_id)
            .await
            .map_err(|error| SpawnError::Internal(format!("pull the prompt: {error}")))?;
        let cancel = CancellationToken::new();
        let sink: Arc<dyn OutputSink> = Arc::new(EngineSink {
            engine: engine.unanchored(),
            token: token.clone(),
            task_id,
            attempt,
        });
        let call = WorkerInvocation {
            token,
            task_id,
            attempt,
            agent: ctx.agent.clone(),
            prompt,
            sink: Some(sink.clone()),
            cancel_token: Some(cancel.clone()),
        };
        let work = run(function, call, sink, cancel.clone());
        Ok(TaskWorker::start(engine.mint().worker_id(), cancel, work))
    }
}

/// Races the function against its cancel token and folds its result into one Final.
async fn run(
    function: WorkerFn,
    call: WorkerInvocation,
    sink: Arc<dyn OutputSink>,
    cancel: CancellationToken,
) -> Result<(), WorkerError> {
    let result = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(WorkerError::Cancelled),
        result = function(call) => result?,
    };
    let event = OutputEvent::Final { content: ContentRef::inline(result.value), ok: result.ok };
    let failed = |error| WorkerError::Failed(format!("submit the result: {error}"));
    sink.emit(event).await.map_err(failed)
}
