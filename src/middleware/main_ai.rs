//! Main AI: an operator that watches is told before each spawn and after each end.

use std::sync::Arc;

use adjutant_actors::launch::Worker;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::session::OperatorKind;
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use serde_json::Value;

use crate::ctx::Ctx;
use crate::engine::Engine;
use crate::middleware::SpawnerLayer;
use crate::middleware::wrapped::after_join;
use crate::spawner::{SpawnError, SpawnerAdapter};

/// Calls the spawn hook around attempts of kind MainAi or Composite. An error of `before` refuses
/// the spawn; one of `after` is logged and changes nothing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{MainAIMiddleware, SpawnerLayer};
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// # let minute = std::time::Duration::from_secs(60);
/// # let operator = engine.attach("ann", adjutant::Role::Operator, minute).await?;
/// # let mut agents = adjutant::InProcSpawner::new();
/// # agents.register("echo", |call| async move {
/// #     Ok(adjutant::WorkerResult { value: call.prompt.into(), ok: true })
/// # });
/// # let spawner: std::sync::Arc<dyn adjutant::SpawnerAdapter> = std::sync::Arc::new(agents);
/// # let task = engine.start_task(&operator, adjutant::TaskSpec::new("echo", "hello")).await?;
/// // A session without a hook, or of another kind, passes through.
/// let spawner = MainAIMiddleware.wrap(spawner);
/// engine.dispatch_attempt_with(&operator, &task, &spawner).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct MainAIMiddleware;

impl SpawnerLayer for MainAIMiddleware {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        Arc::new(Hooked { inner })
    }
}

/// Whether an operator takes part in attempts of this kind.
pub(crate) fn takes_part(kind: OperatorKind) -> bool {
    matches!(kind, OperatorKind::MainAi | OperatorKind::Composite)
}

struct Hooked {
    inner: Arc<dyn SpawnerAdapter>,
}

#[async_trait]
impl SpawnerAdapter for Hooked {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let hook = ctx.operator.spawn_hook.clone().filter(|_| takes_part(ctx.operator.kind));
        let Some(hook) = hook else {
            return self.inner.spawn(engine, ctx, task_id, attempt, token).await;
        };
        hook.before(ctx).await.map_err(SpawnError::RejectedByMiddleware)?;
        let worker = self.inner.spawn(engine, ctx, task_id, attempt, token).await?;
        let (engine, ctx) = (engine.unanchored(), ctx.clone());
        Ok(after_join(worker, move |end| async move {
            let result = match &end {
                Ok(()) => {
                    let last = engine.last_final(&task_id, attempt).await;
                    last.map_or(Value::Null, |(value, _)| value)
                }
                Err(error) => Value::String(error.to_string()),
            };
            if let Err(error) = hook.after(&ctx, &result).await {
                tracing::warn!(task = %task_id, attempt, error, "a spawn hook failed after the end");
            }
            end
        }))
    }

    fn launch_restarts(&self) -> u32 {
        self.inner.launch_restarts()
    }
}
