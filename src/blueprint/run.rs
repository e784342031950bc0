//! Running a program: attach, evaluate the flow, report how it came out.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{RunId, TaskId};
use adjutant_actors::model::session::OperatorKind;
use mlua_flow_ir::{CtxStorage, MemoryCtx, NoExterns, eval_async_with_storage_externs};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::blueprint::compile::Program;
use crate::blueprint::resume::carry_on;
use crate::blueprint::session::Session;
use crate::blueprint::step::Steps;
use crate::engine::Engine;
use crate::operator::SeniorBridge;

/// How a step ended.
///
/// ```
/// use adjutant::blueprint::StepEnd;
///
/// let end = StepEnd::Failed("no such agent".into());
/// let word = match &end {
///     StepEnd::Pass(_) => "done",
///     StepEnd::Timeout | StepEnd::Cancelled => "ask for it again",
///     _ => "look at it",
/// };
/// assert_eq!(word, "look at it");
/// ```
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
///
/// ```
/// use adjutant::blueprint::RunOutcome;
///
/// let late = RunOutcome::Timeout { step: Some("build".into()) };
/// assert_eq!(serde_json::to_value(&late)?["step"], "build");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// The run was left open: it goes on where somebody resumes it.
    Left,
    /// Anything else: a step failed, or the flow itself is wrong.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What is left of a run.
///
/// ```
/// use adjutant::blueprint::{RunOutcome, RunReport};
///
/// let report = RunReport { outcome: RunOutcome::Pass, context: serde_json::json!({ "out": 1 }) };
/// let passed = report.outcome == RunOutcome::Pass;
/// assert!(passed && report.context["out"] == 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// How it came out.
    #[serde(flatten)]
    pub outcome: RunOutcome,
    /// The flow's context at the end.
    pub context: Value,
}

/// Somebody who watches the steps of a run. Called outside the engine's turns; keep it short.
///
/// ```
/// use adjutant::TaskId;
/// use adjutant::blueprint::{RunObserver, RunOptions, StepEnd};
/// use std::sync::{Arc, atomic::{AtomicUsize, Ordering}};
///
/// /// Counts the steps that are at work.
/// #[derive(Default)]
/// struct AtWork(AtomicUsize);
///
/// impl RunObserver for AtWork {
///     fn step_started(&self, _task: TaskId, _step: &str) {
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
///
///     fn step_ended(&self, _task: TaskId, _step: &str, _end: &StepEnd) {
///         self.0.fetch_sub(1, Ordering::Relaxed);
///     }
/// }
///
/// let observer = Arc::new(AtWork::default());
/// let options = RunOptions { observer: observer.clone(), ..RunOptions::default() };
/// # let _ = options;
/// ```
pub trait RunObserver: Send + Sync {
    /// A kept run was opened or taken over: it can be resumed from here on.
    fn run_opened(&self) {}
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
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::blueprint::{Functions, RunOptions, RunOutcome, compile, run};
/// use std::{sync::Arc, time::Duration};
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// # let text = r#"{"id": "echo", "agents": [{"name": "e", "kind": "rust_fn", "spec": {"fn_id": "identity"}}],
/// #     "flow": {"kind": "step", "ref": "e", "in": {"op": "path", "at": "$.in"}, "out": {"op": "path", "at": "$.out"}}}"#;
/// # let echo = adjutant::blueprint::parse_blueprint(text, None)?;
/// let options = RunOptions {
///     id: Some(engine.mint().run_id()), // kept, so that it can be resumed
///     ttl: Some(Duration::from_secs(300)),
///     ..RunOptions::default()
/// };
/// options.cancel.cancel(); // here before it begins, usually from elsewhere and later
/// # let program = Arc::new(compile(&engine, &echo, &Functions::new()).await?);
/// let report = run(&engine, program, serde_json::json!({ "in": 1 }), options).await?;
/// assert_eq!(report.outcome, RunOutcome::Cancelled);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RunOptions {
    /// Name of the operator that the run attaches as.
    pub operator_id: String,
    /// Longest life of the run; otherwise the blueprint's, else 1800 s.
    pub ttl: Option<Duration>,
    /// Who does the agents' work, over what the blueprint says.
    pub kind: Option<OperatorKind>,
    /// Who does the work of single agents, over all else.
    pub agent_kinds: HashMap<String, OperatorKind>,
    /// Registered senior bridge that layers find with the run's attempts, in place of `senior`.
    pub bridge_id: Option<String>,
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
    /// Keeps the run under this id, so that it can be resumed.
    pub id: Option<RunId>,
    /// What the host keeps with the run for whoever resumes it.
    pub settings: Value,
    /// Stops a kept run and leaves it open. Its live attempts go on until the engine ends; what
    /// they come to is used when the run is resumed.
    pub leave: CancellationToken,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            operator_id: "run".to_owned(),
            ttl: None,
            kind: None,
            agent_kinds: HashMap::new(),
            bridge_id: None,
            senior: None,
            hook_id: None,
            operator_backend_id: None,
            observer: Arc::new(()),
            cancel: CancellationToken::new(),
            id: None,
            settings: Value::Null,
            leave: CancellationToken::new(),
        }
    }
}

/// Runs a program on an initial context and reports how it came out. Every step is one task and
/// one dispatch; the run's sessions are kept attached for as long as it is carried on. Dropping the
/// future, cancelling it and its time-out all cancel the open tasks.
///
/// With [`RunOptions::id`] the run is kept by the engine, and in its journal where it has one.
/// Dropping the future then leaves the run open, as the death of the process does; a call with the
/// same id, program and input goes on with it as [`resume()`](crate::blueprint::resume()) does,
/// and one after its end gives the report that was kept.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::blueprint::{Functions, RunOptions, RunOutcome, compile, run};
/// use serde_json::json;
/// use std::sync::Arc;
///
/// # let engine = adjutant::Engine::new(adjutant::EngineCfg::default());
/// # let text = r#"{"id": "echo", "agents": [{"name": "e", "kind": "rust_fn", "spec": {"fn_id": "identity"}}],
/// #     "flow": {"kind": "step", "ref": "e", "in": {"op": "path", "at": "$.in"}, "out": {"op": "path", "at": "$.out"}}}"#;
/// # let echo = adjutant::blueprint::parse_blueprint(text, None)?;
/// let program = Arc::new(compile(&engine, &echo, &Functions::new()).await?);
/// let report = run(&engine, program, json!({ "in": "hello" }), RunOptions::default()).await?;
/// assert_eq!(report.outcome, RunOutcome::Pass);
/// assert_eq!(report.context["out"]["echoed"], "hello");
/// # Ok(()) }
/// ```
///
/// # Errors
/// Where the run could not begin: the session could not be attached. For a kept run also those of
/// [`resume()`](crate::blueprint::resume()).
pub async fn run(
    engine: &Engine,
    program: Arc<Program>,
    input: Value,
    options: RunOptions,
) -> Result<RunReport, EngineError> {
    if let Some(id) = options.id {
        return carry_on(engine, id, program, Some(input), options).await;
    }
    let session = Session::attach(engine, &program, &options).await?;
    let steps = session.steps(&program, &options, None);
    let context: Arc<dyn CtxStorage> = MemoryCtx::shared(input);
    let outcome = evaluate(&steps, context.clone(), &options).await;
    session.end().await;
    Ok(RunReport { outcome, context: context.snapshot() })
}

/// Evaluates the flow to its end, the run's time-out, or a word from outside.
pub(super) async fn evaluate(
    steps: &Steps,
    context: Arc<dyn CtxStorage>,
    options: &RunOptions,
) -> RunOutcome {
    let (program, leave) = match &steps.kept {
        Some(kept) => (steps.program.clone(), kept.leave.clone()),
        None => (steps.program.clone(), CancellationToken::new()),
    };
    let flow = eval_async_with_storage_externs(program.flow(), context, steps, &NoExterns);
    let over = steps.kept.as_ref().map(|kept| kept.over.clone());
    let flow = Whole { _over: SetOnDrop(over), flow: Box::pin(flow) };
    tokio::select! {
        biased;
        () = options.cancel.cancelled() => RunOutcome::Cancelled,
        () = leave.cancelled() => RunOutcome::Left,
        never = beat(steps) => match never {},
        end = tokio::time::timeout(steps.hold, flow) => match end {
            Ok(Ok(())) => RunOutcome::Pass,
            Ok(Err(error)) => failed(steps, &error.to_string()),
            Err(_) => RunOutcome::Timeout { step: None },
        },
    }
}

/// Keeps the sessions of a run attached while it is carried on. Twice in each interval, so that one
/// beat that is late lets none lapse, whatever the threshold.
async fn beat(steps: &Steps) -> Infallible {
    let every = steps.engine.cfg().long_hold.heartbeat_interval / 2;
    loop {
        tokio::time::sleep(every.max(Duration::from_millis(1))).await;
        for token in [&steps.operator, &steps.senior] {
            if let Err(error) = steps.engine.heartbeat(token).await {
                tracing::debug!(error = error.to_string(), "a run's session was not kept alive");
            }
        }
    }
}

/// A flow that says that it was dropped before its steps are.
struct Whole<F> {
    _over: SetOnDrop,
    flow: Pin<Box<F>>,
}

struct SetOnDrop(Option<Arc<AtomicBool>>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        if let Some(over) = &self.0 {
            over.store(true, Ordering::Relaxed);
        }
    }
}

impl<F: Future> Future for Whole<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.flow.as_mut().poll(cx)
    }
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
