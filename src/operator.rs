//! The three faces of an operator: senior bridge, spawn hook, operator; and what they are shown.

use std::fmt;
use std::sync::Arc;

use adjutant_actors::launch::WorkerError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::session::OperatorKind;
use adjutant_actors::model::token::CapToken;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ctx::Ctx;

/// What a worker came to.
///
/// ```
/// use adjutant::WorkerResult;
///
/// let refused = WorkerResult { value: serde_json::json!("too risky"), ok: false };
/// assert!(!refused.ok); // blocks the task, which is no error
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerResult {
    /// The result.
    pub value: Value,
    /// Whether the agent did what it was asked; `false` blocks the task without being an error.
    pub ok: bool,
}

/// The sub-agent that an operator is to start for an agent.
///
/// ```
/// use adjutant::WorkerBinding;
///
/// let binding: WorkerBinding = serde_json::from_str(r#"{"definition": "reviewer"}"#)?;
/// assert!(binding.tools.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerBinding {
    /// Name of the sub-agent's definition.
    pub definition: String,
    /// Tools that it declares.
    #[serde(default)]
    pub tools: Vec<String>,
}

/// Somebody who answers questions.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{SeniorBridge, TaskId, async_trait};
/// use serde_json::{Value, json};
///
/// /// Allows what costs little and gives no answer otherwise.
/// struct Budget(u64);
///
/// #[async_trait]
/// impl SeniorBridge for Budget {
///     async fn ask(&self, _task: &TaskId, question: Value) -> Result<Value, String> {
///         let cost = question["cost"].as_u64().ok_or("no cost is named")?;
///         if cost <= self.0 { Ok(json!("go on")) } else { Err(format!("{cost} is too much")) }
///     }
/// }
///
/// let task = TaskId::from_bits(1);
/// assert_eq!(Budget(9).ask(&task, json!({ "cost": 3 })).await?, "go on");
/// # Ok(()) }
/// ```
#[async_trait]
pub trait SeniorBridge: Send + Sync {
    /// Answers a question about a task. Dropping this future withdraws the question.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn ask(&self, task_id: &TaskId, question: Value) -> Result<Value, String>;
}

/// Somebody who is told before and after an attempt.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{Ctx, SpawnHook, TaskId, async_trait};
/// use serde_json::Value;
///
/// /// Lets each task have three attempts.
/// struct ThreeTimes;
///
/// #[async_trait]
/// impl SpawnHook for ThreeTimes {
///     async fn before(&self, ctx: &Ctx) -> Result<(), String> {
///         if ctx.attempt > 3 { Err("tried often enough".into()) } else { Ok(()) }
///     }
///
///     async fn after(&self, _ctx: &Ctx, _result: &Value) -> Result<(), String> {
///         Ok(())
///     }
/// }
///
/// assert!(ThreeTimes.before(&Ctx::new(TaskId::from_bits(1), 4, "build")).await.is_err());
/// # Ok(()) }
/// ```
#[async_trait]
pub trait SpawnHook: Send + Sync {
    /// Called before the spawn.
    ///
    /// # Errors
    /// Aborts the spawn with this reason.
    async fn before(&self, ctx: &Ctx) -> Result<(), String>;

    /// Called at the end with the last Final's value, or null.
    ///
    /// # Errors
    /// Logged, and without effect on the attempt.
    async fn after(&self, ctx: &Ctx, result: &Value) -> Result<(), String>;
}

/// Somebody who does the work of an attempt.
///
/// ```
/// use adjutant::{CapToken, Ctx, Operator, WorkerBinding, WorkerError, WorkerResult, async_trait};
///
/// struct Desk;
///
/// #[async_trait]
/// impl Operator for Desk {
///     async fn execute(
///         &self,
///         ctx: &Ctx,
///         _system: Option<String>,
///         prompt: String,
///         _worker: Option<WorkerBinding>,
///         _worker_token: CapToken,
///     ) -> Result<WorkerResult, WorkerError> {
///         let value = format!("{} was asked: {prompt}", ctx.agent).into();
///         Ok(WorkerResult { value, ok: true })
///     }
/// }
/// ```
#[async_trait]
pub trait Operator: Send + Sync {
    /// Does the work. Dropping this future asks the operator to stop.
    ///
    /// # Errors
    /// Why the work could not be done; the task is blocked.
    async fn execute(
        &self,
        ctx: &Ctx,
        system: Option<String>,
        prompt: String,
        worker: Option<WorkerBinding>,
        worker_token: CapToken,
    ) -> Result<WorkerResult, WorkerError>;

    /// Whether `execute` needs to be told a sub-agent.
    fn requires_worker_binding(&self) -> bool {
        false
    }
}

/// The operator on whose behalf an attempt runs, with the faces that were found.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::{OperatorInfo, OperatorKind, Role, SeniorBridge};
/// use std::{sync::Arc, time::Duration};
/// # use serde_json::Value;
/// # struct Sam;
/// # #[adjutant::async_trait]
/// # impl SeniorBridge for Sam {
/// #     async fn ask(&self, _: &adjutant::TaskId, _: Value) -> Result<Value, String> { Ok(true.into()) }
/// # }
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// let senior: Arc<dyn SeniorBridge> = Arc::new(Sam);
/// let faces = OperatorInfo {
///     kind: OperatorKind::Composite,
///     senior_bridge: Some(senior),
///     ..OperatorInfo::default()
/// };
/// let token = engine.attach_with("ann", Role::Operator, Duration::from_secs(60), faces).await?;
/// assert!(engine.read_session(&token).await?.bridge_id.is_some());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct OperatorInfo {
    /// Who does the agent's work.
    pub kind: OperatorKind,
    /// Name of the operator.
    pub id: String,
    /// Who answers questions.
    pub senior_bridge: Option<Arc<dyn SeniorBridge>>,
    /// Who is told before and after.
    pub spawn_hook: Option<Arc<dyn SpawnHook>>,
    /// Who does the work.
    pub operator: Option<Arc<dyn Operator>>,
}

impl Default for OperatorInfo {
    fn default() -> Self {
        Self {
            kind: OperatorKind::Automate,
            id: "default-automate".to_owned(),
            senior_bridge: None,
            spawn_hook: None,
            operator: None,
        }
    }
}

impl fmt::Debug for OperatorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorInfo")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("senior_bridge", &self.senior_bridge.is_some())
            .field("spawn_hook", &self.spawn_hook.is_some())
            .field("operator", &self.operator.is_some())
            .finish()
    }
}
