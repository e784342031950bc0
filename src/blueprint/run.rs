//! Running a program: attach, evaluate the flow, report how it came out.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::role::Role;
use adjutant_actors::model::session::OperatorKind;
use adjutant_actors::model::token::CapToken;
use mlua_flow_ir::{CtxStorage, MemoryCtx, NoExterns, eval_async_with_storage_externs};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::blueprint::compile::Program;
use crate::blueprint::step::Steps;
use crate::engine::Engine;
use crate::operator::SeniorBridge;

/// Life of a run where neither the caller nor the blueprint names one.
const DEFAULT_TTL: Duration = Duration::from_secs(1800);
/// How much longer than the run its tokens live, so that its clean-up can still use them.
const TOKEN_MARGIN: Duration = Duration::from_secs(60);

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "end", content = "value", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepEnd {
    /// It passed with this value.
    Pass(Value),
    /// Its agent said no.
    Blocked(Value),
    /// Its attempt ran out of time.
    Timeout,
    /// Its task was cancelled.
    Cancelled,
    /// It could not be done.
    Failed(String),
}

impl fmt::Display for StepEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass(_) => write!(f, "passed"),
            Self::Blocked(value) => write!(f, "blocked: {value}"),
            Self::Timeout => write!(f, "ran out of time"),
            Self::Cancelled => write!(f, "cancelled"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

/// How a run came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunOutcome {
    /// The flow came to its end.
    Pass,
    /// A step was blocked, and the flow did not catch it.
    Blocked {
        /// The step.
        step: String,
        /// What its agent said.
        value: Value,
    },
    /// A step, or the run as a whole, ran out of time.
    Timeout {
        /// The step; absent where it was the run.
        step: Option<String>,
    },
    /// The run was cancelled.
    Cancelled,
    /// Anything else: a step failed, or the flow itself is wrong.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What is left of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// How it came out.
    #[serde(flatten)]
    pub outcome: RunOutcome,
    /// The flow's context at the end.
    pub context: Value,
}

/// Somebody who watches the steps of a run. Called outside the engine's turns; keep it short.
pub trait RunObserver: Send + Sync {
    /// A step got its task.
    fn step_started(&self, task: TaskId, step: &str);
    /// A step ended.
    fn step_ended(&self, task: TaskId, step: &str, end: &StepEnd);
}

/// Watches nothing.
impl RunObserver for () {
    fn step_started(&self, _task: TaskId, _step: &str) {}
    fn step_ended(&self, _task: TaskId, _step: &str, _end: &StepEnd) {}
}

/// What may be said of a run.
#[derive(Clone)]
pub struct RunOptions {
    /// Name of the operator that the run attaches as.
    pub operator_id: String,
    /// Longest life of the run; otherwise the blueprint's, else 1800 s.
    pub ttl: Option<Duration>,
    /// Who does the agents' work, over what the blueprint says.
    pub kind: Option<OperatorKind>,
    /// Who answers questions; otherwise they wait for somebody who answers through the engine.
    pub senior: Option<Arc<dyn SeniorBridge>>,
    /// Registered spawn hook.
    pub hook_id: Option<String>,
    /// Registered operator.
    pub operator_backend_id: Option<String>,
    /// Who watches.
    pub observer: Arc<dyn RunObserver>,
    /// Cancels the run and its tasks.
    pub cancel: CancellationToken,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            operator_id: "run".to_owned(),
            ttl: None,
            kind: None,
            senior: None,
            hook_id: None,
            operator_backend_id: None,
            observer: Arc::new(()),
            cancel: CancellationToken::new(),
        }
    }
}

/// Runs a program on an initial context and reports how it came out. Every step is one task and
/// one dispatch. Dropping the future, cancelling it and its time-out all cancel the open tasks.
///
/// # Errors
/// Where the run could not begin: the session could not be attached.
pub async fn run(
    engine: &Engine,
    program: Arc<Program>,
    input: Value,
    options: RunOptions,
) -> Result<RunReport, EngineError> {
    let ttl = options.ttl.or(program.ttl()).unwrap_or(DEFAULT_TTL);
    let session = Session::attach(engine, &program, &options, ttl).await?;
    let steps = Steps {
        engine: engine.clone(),
        program: program.clone(),
        operator: session.operator.clone(),
        senior: session.senior.clone(),
        bridge: options.senior,
        observer: options.observer,
        hold: ttl,
        fault: Mutex::new(None),
    };
    let context: Arc<dyn CtxStorage> = MemoryCtx::shared(input);
    let flow = eval_async_with_storage_externs(program.flow(), context.clone(), &steps, &NoExterns);
    let outcome = tokio::select! {
        biased;
        () = options.cancel.cancelled() => RunOutcome::Cancelled,
        end = tokio::time::timeout(ttl, flow) => match end {
            Ok(Ok(())) => RunOutcome::Pass,
            Ok(Err(error)) => failed(&steps, &error.to_string()),
            Err(_) => RunOutcome::Timeout { step: None },
        },
    };
    session.end().await;
    Ok(RunReport { outcome, context: context.snapshot() })
}

/// The outcome of a flow that ended with an error: that of the step that brought it, if one did.
fn failed(steps: &Steps, error: &str) -> RunOutcome {
    let fault = steps.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
    match fault {
        Some((step, end)) if error.contains(&end.to_string()) => match end {
            StepEnd::Blocked(value) => RunOutcome::Blocked { step, value },
            StepEnd::Timeout => RunOutcome::Timeout { step: Some(step) },
            StepEnd::Cancelled => RunOutcome::Cancelled,
            end => RunOutcome::Failed { reason: format!("step {step} {end}") },
        },
        _ => RunOutcome::Failed { reason: error.to_owned() },
    }
}

/// The two sessions of a run: the operator that starts its tasks, the senior that answers.
struct Session {
    engine: Engine,
    operator: CapToken,
    senior: CapToken,
    bridge_id: Option<String>,
}

impl Session {
    async fn attach(
        engine: &Engine,
        program: &Program,
        options: &RunOptions,
        ttl: Duration,
    ) -> Result<Self, EngineError> {
        let life = ttl.saturating_add(TOKEN_MARGIN);
        let bridge_id = match &options.senior {
            Some(bridge) => {
                let id = format!("br-{:032x}", engine.mint().bits128());
                engine.register_senior_bridge(id.clone(), bridge.clone()).await;
                Some(id)
            }
            None => None,
        };
        let operator = engine
            .attach_with_ids(
                options.operator_id.clone(),
                Role::Operator,
                life,
                options.kind,
                bridge_id.clone(),
                options.hook_id.clone(),
                options.operator_backend_id.clone(),
                std::collections::HashMap::new(),
                program.agent_kinds().clone(),
                program.default_kind(),
            )
            .await?;
        let senior =
            engine.attach(format!("{}-senior", options.operator_id), Role::Senior, life).await?;
        Ok(Self { engine: engine.clone(), operator, senior, bridge_id })
    }

    /// Cancels what is still open of the run, and ends its sessions.
    async fn end(self) {
        let open = self.engine.read_session(&self.operator).await.map(|own| own.owned_task_ids);
        for task in open.unwrap_or_default() {
            let settled = match self.engine.read_task_state(&self.operator, &task).await {
                Ok(state) => state.status.is_settled(),
                Err(_) => true,
            };
            if !settled {
                let _ = self.engine.cancel_task(&self.operator, &task).await;
            }
        }
        for token in [&self.operator, &self.senior] {
            if let Err(error) = self.engine.detach_and_revoke(token).await {
                tracing::warn!(%error, "a run's session could not be ended");
            }
        }
        if let Some(id) = &self.bridge_id {
            self.engine.unregister_senior_bridge(id).await;
        }
    }
}
