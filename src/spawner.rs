//! Spawners: what starts the worker of an attempt. The trait, its error, and the worker's sink.

use adjutant_actors::errors::EngineError;
use adjutant_actors::launch::{Worker, WorkerError};
use adjutant_actors::model::ids::{TaskId, WorkerId};
use adjutant_actors::model::output::OutputEvent;
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::ctx::Ctx;
use crate::engine::Engine;

mod in_proc;
mod operator;
pub mod process;
mod supervised;
mod task_worker;

pub use in_proc::{InProcSpawner, WorkerInvocation};
pub(crate) use operator::Delegation;
pub use operator::OperatorSpawner;
pub use process::{ProcessSpawner, StreamMode};
pub use supervised::Supervised;

/// Why no worker was started.
///
/// ```
/// use adjutant::SpawnError;
///
/// fn worth_a_retry(error: &SpawnError) -> bool {
///     match error {
///         SpawnError::NotRegistered(_) | SpawnError::RejectedByMiddleware(_) => false,
///         _ => true,
///     }
/// }
/// assert!(!worth_a_retry(&SpawnError::NotRegistered("nobody".into())));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The spawner knows no such agent.
    #[error("no agent {0} is registered")]
    NotRegistered(String),
    /// A layer refused.
    #[error("refused by a layer: {0}")]
    RejectedByMiddleware(String),
    /// Anything else.
    #[error("{0}")]
    Internal(String),
}

/// Starts workers. An argument of each dispatch, never part of the engine's state.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{
///     CapToken, ContentRef, Ctx, DispatchOutcome, Engine, OutputEvent, SpawnError, SpawnerAdapter,
///     TaskId, Worker, WorkerError, WorkerJoinHandler, async_trait, CancellationToken,
/// };
/// use std::sync::Arc;
/// use tokio::sync::oneshot;
///
/// /// Answers every attempt with its own number.
/// struct Numbers;
///
/// #[async_trait]
/// impl SpawnerAdapter for Numbers {
///     async fn spawn(
///         &self, engine: &Engine, _ctx: &Ctx, task: TaskId, attempt: u32, token: CapToken,
///     ) -> Result<Box<dyn Worker>, SpawnError> {
///         let (cancel, (done, completion)) = (CancellationToken::new(), oneshot::channel());
///         let (worker_id, engine) = (engine.mint().worker_id(), engine.unanchored());
///         tokio::spawn(async move {
///             let event = OutputEvent::Final { content: ContentRef::inline(attempt.into()), ok: true };
///             let sent = engine.submit_output(&token, &task, attempt, event).await;
///             let _ = done.send(sent.map_err(|error| WorkerError::Failed(error.to_string())));
///         });
///         Ok(Box::new(WorkerJoinHandler { worker_id, cancel, completion }))
///     }
/// }
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// # let minute = std::time::Duration::from_secs(60);
/// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
/// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
/// let numbers: Arc<dyn SpawnerAdapter> = Arc::new(Numbers);
/// let outcome = engine.dispatch_attempt_with(&operator, &task, &numbers).await?;
/// assert_eq!(outcome, DispatchOutcome::Pass(1.into()));
/// # Ok(()) }
/// ```
#[async_trait]
pub trait SpawnerAdapter: Send + Sync {
    /// Starts a worker for an attempt and returns it running. The prompt is pulled with the
    /// token. Dropping this future must leave nothing running.
    ///
    /// # Errors
    /// Why no worker was started; the task is blocked.
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError>;

    /// How often an attempt may be launched again after its launch or its worker panicked, as
    /// long as it has sent no output. A layer passes on what it wraps.
    fn launch_restarts(&self) -> u32 {
        0
    }
}

/// Where a worker's output goes.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{EngineError, OutputEvent, OutputSink, async_trait};
/// use parking_lot::Mutex;
///
/// /// Keeps what is sent, for the test of a worker.
/// #[derive(Default)]
/// struct Kept(Mutex<Vec<OutputEvent>>);
///
/// #[async_trait]
/// impl OutputSink for Kept {
///     async fn emit(&self, event: OutputEvent) -> Result<(), EngineError> {
///         self.0.lock().push(event);
///         Ok(())
///     }
/// }
///
/// let sink = Kept::default();
/// sink.emit(OutputEvent::Partial { chunk: "a".into() }).await?;
/// assert_eq!(sink.0.lock().len(), 1);
/// # Ok(()) }
/// ```
#[async_trait]
pub trait OutputSink: Send + Sync {
    /// Sends one event, bound to the worker's task and attempt.
    ///
    /// # Errors
    /// As [`Engine::submit_output`].
    async fn emit(&self, event: OutputEvent) -> Result<(), EngineError>;
}

/// The engine as a sink: submits with the worker's own token.
pub(crate) struct EngineSink {
    pub(crate) engine: Engine,
    pub(crate) token: CapToken,
    pub(crate) task_id: TaskId,
    pub(crate) attempt: u32,
}

#[async_trait]
impl OutputSink for EngineSink {
    async fn emit(&self, event: OutputEvent) -> Result<(), EngineError> {
        self.engine.submit_output(&self.token, &self.task_id, self.attempt, event).await
    }
}

/// A worker made of parts: the simplest way to write a spawner of one's own.
///
/// Dropping it cancels its token; the task behind it is to stop then.
///
/// ```
/// use adjutant::{CancellationToken, Engine, Worker, WorkerError, WorkerJoinHandler};
/// use tokio::sync::oneshot;
///
/// /// Runs a future as a worker; a spawner returns this from its `spawn`.
/// fn start(
///     engine: &Engine,
///     work: impl Future<Output = Result<(), WorkerError>> + Send + 'static,
/// ) -> Box<dyn Worker> {
///     let (cancel, (done, completion)) = (CancellationToken::new(), oneshot::channel());
///     let stop = cancel.clone();
///     tokio::spawn(async move {
///         let end = stop.run_until_cancelled(work).await.unwrap_or(Err(WorkerError::Cancelled));
///         let _ = done.send(end);
///     });
///     Box::new(WorkerJoinHandler { worker_id: engine.mint().worker_id(), cancel, completion })
/// }
/// ```
#[derive(Debug)]
pub struct WorkerJoinHandler {
    /// Names the worker in logs.
    pub worker_id: WorkerId,
    /// Asks the worker to stop.
    pub cancel: CancellationToken,
    /// Resolves when the worker ended.
    pub completion: oneshot::Receiver<Result<(), WorkerError>>,
}

impl WorkerJoinHandler {
    /// Waits for the end of the worker.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use adjutant::{CancellationToken, WorkerError, WorkerId, WorkerJoinHandler};
    ///
    /// let (done, completion) = tokio::sync::oneshot::channel();
    /// let (worker_id, cancel) = (WorkerId::from_bits(1), CancellationToken::new());
    /// let worker = WorkerJoinHandler { worker_id, cancel, completion };
    /// drop(done); // as where the work panics
    /// assert!(matches!(worker.await_completion().await, Err(WorkerError::Failed(_))));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What the worker reports; `Failed` where it went away without a report.
    pub async fn await_completion(mut self) -> Result<(), WorkerError> {
        match (&mut self.completion).await {
            Ok(end) => end,
            Err(_) => Err(WorkerError::Failed("the worker went away without a report".to_owned())),
        }
    }
}

impl Drop for WorkerJoinHandler {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[async_trait]
impl Worker for WorkerJoinHandler {
    fn id(&self) -> &WorkerId {
        &self.worker_id
    }

    fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    async fn join(self: Box<Self>) -> Result<(), WorkerError> {
        self.await_completion().await
    }
}
