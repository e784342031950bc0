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
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{
///     CapToken, Ctx, DispatchOutcome, InProcSpawner, Operator, OperatorDelegateMiddleware,
///     OperatorInfo, OperatorKind, Role, SpawnerLayer, TaskSpec, WorkerBinding, WorkerError,
///     WorkerResult,
/// };
/// use std::{sync::Arc, time::Duration};
///
/// struct Desk;
///
/// #[adjutant::async_trait]
/// impl Operator for Desk {
///     async fn execute(
///         &self, _: &Ctx, _: Option<String>, prompt: String, _: Option<WorkerBinding>, _: CapToken,
///     ) -> Result<WorkerResult, WorkerError> {
///         Ok(WorkerResult { value: prompt.to_uppercase().into(), ok: true })
///     }
/// }
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// let (kind, desk): (_, Arc<dyn Operator>) = (OperatorKind::MainAi, Arc::new(Desk));
/// let faces = OperatorInfo { kind, operator: Some(desk), ..OperatorInfo::default() };
/// let ann = engine.attach_with("ann", Role::Operator, Duration::from_secs(60), faces).await?;
/// let task = engine.start_task(&ann, TaskSpec::new("anybody", "hello")).await?;
/// let spawner = OperatorDelegateMiddleware.wrap(Arc::new(InProcSpawner::new()));
/// let outcome = engine.dispatch_attempt_with(&ann, &task, &spawner).await?;
/// assert_eq!(outcome, DispatchOutcome::Pass("HELLO".into()));
/// # Ok(()) }
/// ```
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
