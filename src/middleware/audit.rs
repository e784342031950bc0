//! Audit: a structured log record when an attempt is spawned and when its worker ends.

use std::sync::Arc;

use adjutant_actors::launch::Worker;
use adjutant_actors::model::event::Event;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::ctx::Ctx;
use crate::engine::Engine;
use crate::middleware::SpawnerLayer;
use crate::middleware::wrapped::after_join;
use crate::spawner::{SpawnError, SpawnerAdapter};

/// Writes `tracing` records of attempts under the target `adjutant::audit`. It sends no event: the
/// engine itself records each start and each end once.
///
/// ```
/// use adjutant::{AuditMiddleware, LayerRegistry};
///
/// let layers = LayerRegistry::new()
///     .with_base(|engine| std::sync::Arc::new(AuditMiddleware::new(engine.event_tx())));
/// assert_eq!(layers.base_factories().len(), 1);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditMiddleware;

impl AuditMiddleware {
    /// The layer. The sender is part of the documented shape and is not used.
    #[must_use]
    pub fn new(_event_tx: broadcast::Sender<Event>) -> Self {
        Self
    }
}

impl SpawnerLayer for AuditMiddleware {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        Arc::new(Audited { inner })
    }
}

struct Audited {
    inner: Arc<dyn SpawnerAdapter>,
}

#[async_trait]
impl SpawnerAdapter for Audited {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let start = Instant::now();
        let (agent, operator) = (ctx.agent.clone(), ctx.operator.id.clone());
        let spawned = self.inner.spawn(engine, ctx, task_id, attempt, token).await;
        let worker = match spawned {
            Ok(worker) => worker,
            Err(error) => {
                tracing::info!(target: "adjutant::audit", task = %task_id, attempt, agent, operator, error = error.to_string(), "attempt not spawned");
                return Err(error);
            }
        };
        tracing::info!(target: "adjutant::audit", task = %task_id, attempt, agent, operator, worker = %worker.id(), "attempt spawned");
        Ok(after_join(worker, move |end| async move {
            let took_ms = start.elapsed().as_millis();
            let error = end.as_ref().err().map(ToString::to_string);
            tracing::info!(target: "adjutant::audit", task = %task_id, attempt, took_ms, error, "worker ended");
            end
        }))
    }

    fn launch_restarts(&self) -> u32 {
        self.inner.launch_restarts()
    }
}
