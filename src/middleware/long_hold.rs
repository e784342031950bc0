//! Long hold: reports an attempt that takes longer than expected, once; the attempt goes on.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::launch::{Worker, WorkerError};
use adjutant_actors::model::event::Event;
use adjutant_actors::model::ids::{TaskId, WorkerId};
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ctx::Ctx;
use crate::engine::Engine;
use crate::middleware::SpawnerLayer;
use crate::spawner::{SpawnError, SpawnerAdapter};

/// Records [`Event::AttemptSlow`] when a worker is still at work after `default_hold`, counted
/// from the return of its spawn.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{Event, LongHoldMiddleware, SpawnerLayer};
/// use std::time::Duration;
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// # let minute = std::time::Duration::from_secs(60);
/// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
/// # let mut agents = adjutant::InProcSpawner::new();
/// agents.register("echo", |_call| std::future::pending());
/// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "")).await?;
/// let layer = LongHoldMiddleware::new(Duration::from_millis(5), engine.event_tx());
/// let (spawner, mut events) = (layer.wrap(std::sync::Arc::new(agents)), engine.subscribe());
/// let dispatch = engine.dispatch_attempt_with(&operator, &task, &spawner);
/// let (_, slow) = tokio::join!(dispatch, async {
///     while !matches!(events.recv().await, Ok(Event::AttemptSlow { .. })) {}
///     engine.cancel_task(&operator, &task).await
/// });
/// slow?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LongHoldMiddleware {
    default_hold: Duration,
}

impl LongHoldMiddleware {
    /// The layer. The sender is part of the documented shape and is not used: the engine records
    /// the event, so that it has its number.
    #[must_use]
    pub fn new(default_hold: Duration, _event_tx: broadcast::Sender<Event>) -> Self {
        Self { default_hold }
    }
}

impl SpawnerLayer for LongHoldMiddleware {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        Arc::new(Timed { inner, default_hold: self.default_hold })
    }
}

struct Timed {
    inner: Arc<dyn SpawnerAdapter>,
    default_hold: Duration,
}

#[async_trait]
impl SpawnerAdapter for Timed {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let inner = self.inner.spawn(engine, ctx, task_id, attempt, token).await?;
        let engine = engine.unanchored();
        Ok(Box::new(TimedWorker { inner, engine, task_id, attempt, hold: self.default_hold }))
    }

    fn launch_restarts(&self) -> u32 {
        self.inner.launch_restarts()
    }
}

struct TimedWorker {
    inner: Box<dyn Worker>,
    engine: Engine,
    task_id: TaskId,
    attempt: u32,
    hold: Duration,
}

#[async_trait]
impl Worker for TimedWorker {
    fn id(&self) -> &WorkerId {
        self.inner.id()
    }

    fn cancel_token(&self) -> CancellationToken {
        self.inner.cancel_token()
    }

    async fn join(self: Box<Self>) -> Result<(), WorkerError> {
        let Self { inner, engine, task_id, attempt, hold } = *self;
        let start = Instant::now();
        let mut join = inner.join();
        if let Ok(end) = tokio::time::timeout(hold, &mut join).await {
            return end;
        }
        let noted = engine.note_slow_attempt(&task_id, attempt, start.elapsed(), hold).await;
        if let Err(error) = noted {
            tracing::debug!(task = %task_id, attempt, error = error.to_string(), "a slow attempt was not recorded");
        }
        join.await
    }
}
