//! Senior escalation: a worker's no goes to the senior, whose answer may turn it into a yes.

use std::sync::Arc;

use adjutant_actors::launch::{Worker, WorkerError};
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::output::{ContentRef, OutputEvent};
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::ctx::Ctx;
use crate::engine::Engine;
use crate::middleware::SpawnerLayer;
use crate::middleware::wrapped::after_join;
use crate::operator::SeniorBridge;
use crate::spawner::{SpawnError, SpawnerAdapter};

/// Asks the senior bridge `{reason, value}` when a worker ended well and its last Final is not ok.
/// An answer appends a passing Final `{original, senior_answer}`; an error leaves things.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{
///     DispatchOutcome, InProcSpawner, OperatorInfo, Role, SeniorBridge, SeniorEscalationMiddleware,
///     SpawnerLayer, TaskId, TaskSpec, WorkerResult,
/// };
/// use serde_json::Value;
/// use std::{sync::Arc, time::Duration};
///
/// struct Lenient;
///
/// #[adjutant::async_trait]
/// impl SeniorBridge for Lenient {
///     async fn ask(&self, _: &TaskId, _: Value) -> Result<Value, String> {
///         Ok("let it pass".into())
///     }
/// }
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// let senior: Arc<dyn SeniorBridge> = Arc::new(Lenient);
/// let faces = OperatorInfo { senior_bridge: Some(senior), ..OperatorInfo::default() };
/// let ann = engine.attach_with("ann", Role::Operator, Duration::from_secs(60), faces).await?;
/// let mut agents = InProcSpawner::new();
/// agents.register("lint", |_| async { Ok(WorkerResult { value: "1 warning".into(), ok: false }) });
/// let task = engine.start_task(&ann, TaskSpec::new("lint", "")).await?;
/// let spawner = SeniorEscalationMiddleware.wrap(Arc::new(agents));
/// let outcome = engine.dispatch_attempt_with(&ann, &task, &spawner).await?;
/// assert!(matches!(outcome, DispatchOutcome::Pass(value) if value["original"] == "1 warning"));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct SeniorEscalationMiddleware;

impl SpawnerLayer for SeniorEscalationMiddleware {
    fn wrap(&self, inner: Arc<dyn SpawnerAdapter>) -> Arc<dyn SpawnerAdapter> {
        Arc::new(Escalating { inner })
    }
}

struct Escalating {
    inner: Arc<dyn SpawnerAdapter>,
}

#[async_trait]
impl SpawnerAdapter for Escalating {
    async fn spawn(
        &self,
        engine: &Engine,
        ctx: &Ctx,
        task_id: TaskId,
        attempt: u32,
        token: CapToken,
    ) -> Result<Box<dyn Worker>, SpawnError> {
        let worker = self.inner.spawn(engine, ctx, task_id, attempt, token).await?;
        let Some(bridge) = ctx.operator.senior_bridge.clone() else { return Ok(worker) };
        let cancel = worker.cancel_token();
        let case = Case { engine: engine.unanchored(), bridge, task_id, attempt };
        Ok(after_join(worker, move |end| async move {
            end?;
            case.escalate(cancel).await
        }))
    }

    fn launch_restarts(&self) -> u32 {
        self.inner.launch_restarts()
    }
}

struct Case {
    engine: Engine,
    bridge: Arc<dyn SeniorBridge>,
    task_id: TaskId,
    attempt: u32,
}

impl Case {
    async fn escalate(self, cancel: CancellationToken) -> Result<(), WorkerError> {
        let (task, attempt) = (self.task_id, self.attempt);
        let Some((value, false)) = self.engine.last_final(&task, attempt).await else {
            return Ok(());
        };
        let question = json!({ "reason": "the worker's final is not ok", "value": value });
        let answer = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(WorkerError::Cancelled),
            answer = self.bridge.ask(&task, question) => answer,
        };
        match answer {
            Ok(answer) => {
                let content =
                    ContentRef::inline(json!({ "original": value, "senior_answer": answer }));
                let event = OutputEvent::Final { content, ok: true };
                let appended = self.engine.append_output_trusted(&task, attempt, event).await;
                let failed =
                    |error| WorkerError::Failed(format!("append the senior's answer: {error}"));
                appended.map_err(failed)
            }
            Err(error) => {
                tracing::warn!(%task, attempt, error, "the senior gave no answer to an escalation");
                Ok(())
            }
        }
    }
}
