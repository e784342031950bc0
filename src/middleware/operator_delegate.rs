//! Operator delegate: the operator does the work in place of the spawner.

use std::sync::Arc;

use adjutant_actors::launch::Worker;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;

use crate::ctx::Ctx;
use crate::engine::Engine;
use crate::middleware::SpawnerLayer;
use crate::middleware::main_ai::takes_part;
use crate::spawner::{Delegation, SpawnError, SpawnerAdapter};

/// Lets the session's operator execute attempts of kind MainAi or Composite (of any kind under
/// `delegate_any_kind`); the spawner below is not called. Where no operator is there, it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct OperatorDelegateMiddleware;

impl SpawnerLayer for OperatorDelegateMiddleware {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        Arc::new(Delegating { inner })
    }
}

struct Delegating {
    inner: Arc<dyn SpawnerAdapter>,
}

#[async_trait]
impl SpawnerAdapter for Delegating {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let delegated = takes_part(ctx.operator.kind) || engine.cfg().delegate_any_kind;
        let Some(operator) = ctx.operator.operator.clone().filter(|_| delegated) else {
            return self.inner.spawn(engine, ctx, task_id, attempt, token).await;
        };
        let prompt = engine
            .fetch_prompt(&token, &task_id)
            .await
            .map_err(|error| SpawnError::Internal(format!("pull the prompt: {error}")))?;
        let work = Delegation { operator, ctx: ctx.clone(), system: None, prompt, binding: None };
        Ok(work.start(engine, task_id, attempt, token))
    }

    fn launch_restarts(&self) -> u32 {
        self.inner.launch_restarts()
    }
}
