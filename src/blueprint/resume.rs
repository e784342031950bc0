//! Runs that survive: opened with all that it takes to go on, evaluated again from the start, ended
//! in one turn with all that is open of them.

use std::sync::Arc;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::RunId;
use adjutant_actors::state::runs::{NewRun, RunRecord, RunStatus};
use mlua_flow_ir::{CtxStorage, MemoryCtx};
use serde_json::{Value, json};

use crate::blueprint::compile::Program;
use crate::blueprint::kept::{self, Kept};
use crate::blueprint::run::{RunOptions, RunOutcome, RunReport, evaluate};
use crate::blueprint::session::Session;
use crate::engine::Engine;

/// Goes on with a run that was left open: by a crash, by [`RunOptions::leave`], or by the drop of
/// its future. Of a run that has ended it gives the report that was kept.
///
/// The flow is evaluated again from its start, with the input that it was started with. A call of
/// a step whose task has passed gives the kept value and nothing is dispatched; so does one whose
/// other end the flow was told of. A task that was interrupted is dispatched again as its next
/// attempt, whatever its agent's `on_interrupt` says: calling this is the permission, and work that
/// was half done may be done twice. One that waits for an answer waits on, with the same
/// question. Equal calls, of one step with the same input, are told apart by their count alone, so
/// two of them that run at once may take each other's value. The run's time-out begins anew.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use adjutant::blueprint::{
///     Functions, RunOptions, RunOutcome, compile, parse_blueprint, resume, run,
/// };
/// use adjutant::{CancellationToken, Engine, EngineCfg};
/// use std::sync::Arc;
///
/// let engine = Engine::new(EngineCfg::default()); // or `Engine::open` on a journal
/// let text = r#"{"id": "echo", "agents": [{"name": "e", "kind": "rust_fn", "spec": {"fn_id": "identity"}}],
///     "flow": {"kind": "step", "ref": "e", "in": {"op": "lit", "value": 1}, "out": {"op": "path", "at": "$.x"}}}"#;
/// let echo = parse_blueprint(text, None)?;
/// let program = Arc::new(compile(&engine, &echo, &Functions::new()).await?);
///
/// let (id, leave) = (engine.mint().run_id(), CancellationToken::new());
/// leave.cancel();
/// let options = RunOptions { id: Some(id), leave, ..RunOptions::default() };
/// let left = run(&engine, program.clone(), serde_json::json!({}), options).await?;
/// assert_eq!(left.outcome, RunOutcome::Left);
/// let report = resume(&engine, id, program, RunOptions::default()).await?;
/// assert_eq!(report.outcome, RunOutcome::Pass);
/// # Ok(()) }
/// ```
///
/// # Errors
/// `RunNotFound`; `RunChanged` where the program is not the one that the run was started with;
/// `RunState` where the run is carried on by this engine already; those of attaching a session.
pub async fn resume(
    engine: &Engine,
    run: RunId,
    program: Arc<Program>,
    options: RunOptions,
) -> Result<RunReport, EngineError> {
    carry_on(engine, run, program, None, options).await
}

/// Opens a run, or goes on with it. Boxed: it is large, and most runs are not kept.
pub(super) fn carry_on<'a>(
    engine: &'a Engine,
    id: RunId,
    program: Arc<Program>,
    input: Option<Value>,
    options: RunOptions,
) -> futures::future::BoxFuture<'a, Result<RunReport, EngineError>> {
    Box::pin(async move {
        let _held = engine.hold_run(id)?;
        let before = engine.read_run(id).await?;
        if let Some(record) = &before {
            if record.status != RunStatus::Open {
                return kept_report(id, record);
            }
            let changed = changes(record, &program, input.as_ref());
            if !changed.is_empty() {
                return Err(EngineError::RunChanged { run: id, differences: changed });
            }
        }
        let kept_input = before.as_ref().and_then(|record| record.input.clone());
        let input = match (kept_input, input) {
            (Some(kept), _) => kept,
            (None, Some(input)) => Arc::new(input),
            (None, None) => return Err(EngineError::RunNotFound(id)),
        };
        let mut session = Session::attach(engine, &program, &options).await?;
        let begun = match before {
            Some(_) => engine.take_over_run(id, session.ids()).await,
            None => open(engine, id, &program, &input, &options, &session).await,
        };
        if let Err(error) = begun {
            session.end().await;
            return Err(error);
        }
        session.keep();
        options.observer.run_opened();
        let kept = Kept::new(id, options.leave.clone(), engine.kept_steps(id).await?);
        let steps = session.steps(&program, &options, Some(kept));
        let context: Arc<dyn CtxStorage> = MemoryCtx::shared(Value::clone(&input));
        let outcome = evaluate(&steps, context.clone(), &options).await;
        let report = RunReport { outcome, context: context.snapshot() };
        let ended = match report.outcome {
            RunOutcome::Left => Ok(()),
            _ => engine.end_run(id, status_of(&report.outcome), kept_form(engine, &report)).await,
        };
        ended.map(|()| report)
    })
}

async fn open(
    engine: &Engine,
    id: RunId,
    program: &Program,
    input: &Arc<Value>,
    options: &RunOptions,
    session: &Session,
) -> Result<(), EngineError> {
    let document = program.document().clone();
    let new = NewRun {
        name: program.name().into(),
        document_hash: kept::digest(&document).to_hex().as_str().into(),
        document,
        input_hash: kept::digest(input).to_hex().as_str().into(),
        input: input.clone(),
        settings: Arc::new(options.settings.clone()),
        sessions: session.ids(),
    };
    engine.open_run(id, new).await
}

/// Where the program and the input differ from what a run was started with.
fn changes(record: &RunRecord, program: &Program, input: Option<&Value>) -> Vec<String> {
    let document = record.document.as_deref();
    let mut found = document
        .map(|before| kept::document_differences(before, program.document()))
        .unwrap_or_default();
    if let (Some(before), Some(now)) = (record.input.as_deref(), input) {
        found.extend(kept::differences("the input", before, now));
    }
    found
}

fn status_of(outcome: &RunOutcome) -> RunStatus {
    match outcome {
        RunOutcome::Pass => RunStatus::Pass,
        RunOutcome::Blocked { .. } => RunStatus::Blocked,
        RunOutcome::Timeout { .. } => RunStatus::Timeout,
        RunOutcome::Cancelled => RunStatus::Cancelled,
        RunOutcome::Left => RunStatus::Open,
        RunOutcome::Failed { .. } => RunStatus::Failed,
    }
}

/// A report as it is kept: without its context where that is larger than a value may be.
fn kept_form(engine: &Engine, report: &RunReport) -> Value {
    let whole = serde_json::to_value(report).unwrap_or_default();
    if engine.measured("report", whole.clone()).is_ok() {
        return whole;
    }
    let bare = RunReport { context: Value::Null, ..report.clone() };
    let bare = serde_json::to_value(bare).unwrap_or_default();
    match engine.measured("report", bare.clone()) {
        Ok(_) => bare,
        Err(_) => {
            json!({ "outcome": "failed", "reason": "the report is too large", "context": null })
        }
    }
}

fn kept_report(id: RunId, record: &RunRecord) -> Result<RunReport, EngineError> {
    let report = record.report.as_deref().cloned().unwrap_or_default();
    serde_json::from_value(report)
        .map_err(|_| EngineError::RunState { run: id, state: "has ended without a report" })
}
