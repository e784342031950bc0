//! Runs as tools: start one, see how it goes and wait on, end it, list them.
//!
//! A run lives in the server and not in the call that started it; a call that takes long ends with the
//! run's id, and whoever has that goes on waiting with another call.

use std::collections::BTreeSet;
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::RunId;
use adjutant_actors::model::role::Verb;
use adjutant_actors::model::task::TaskStatus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::server::caller::Authority;
use crate::server::mcp::follow::{follow, keys, open_in};
use crate::server::mcp::questions::{self, Question};
use crate::server::mcp::tool::{Call, Effect, Entry, Reply};
use crate::server::problem::Problem;
use crate::server::runs::routes::{cursor, page_mark};
use crate::server::runs::{NewRun, OperatorWish, RunFilter, RunView, Source, Standing, standings};
use crate::server::{Shared, parse};

/// How long a call waits for a run that says nothing of it.
const WAIT_SECS: u64 = 45;
/// Runs in one list where the call does not say.
const LISTED: usize = 20;
const LISTED_MAX: usize = 200;

pub(crate) fn tools() -> Vec<Entry> {
    vec![
        Entry::new(
            "run_blueprint",
            (
                "Run a blueprint",
                "Runs a blueprint and waits for its end. Give the document as `blueprint`, or a stored one by \
                 `blueprint_id`. Where it takes longer than `wait_secs`, or asks a question, the reply says so with \
                 the run_id: the run goes on by itself. Programs that the document names are really executed.",
            ),
            Effect::Adds,
            start,
        ),
        Entry::new(
            "run_status",
            (
                "See how a run goes",
                "Shows a run with its tasks and open questions, at once, or with `wait_secs` once it ended or asks \
                 something more. A reply with still_running true means: call again.",
            ),
            Effect::Reads,
            status,
        ),
        Entry::new(
            "run_cancel",
            (
                "Cancel a run",
                "Ends a run and its open tasks; what its agents are at is stopped. Without `confirm` nothing is done \
                 and the reply shows which tasks would be cancelled.",
            ),
            Effect::Destroys,
            cancel,
        ),
        Entry::new(
            "list_runs",
            (
                "List runs",
                "Lists runs, the newest first, with their status. `next` gives the next page.",
            ),
            Effect::Reads,
            list,
        ),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Start {
    /// The document itself. See the resource adjutant://guides/blueprint.
    #[serde(default)]
    blueprint: Option<Map<String, Value>>,
    /// The name of a stored blueprint, instead of the document.
    #[serde(default)]
    blueprint_id: Option<String>,
    /// Which version of the stored one: `latest`, which is the default, or a content hash.
    #[serde(default)]
    version: Option<String>,
    /// The context that the flow starts with.
    #[serde(default)]
    input: Map<String, Value>,
    /// Longest life of the run, in seconds; otherwise the blueprint's, else 1800.
    #[serde(default)]
    #[schemars(range(min = 1))]
    ttl_secs: Option<u64>,
    /// The operator, from operator_join, that does the work of `operator` agents.
    #[serde(default)]
    operator_sid: Option<String>,
    /// How long to wait for the end, in seconds; 45 where it is absent, 0 returns at once.
    #[serde(default)]
    wait_secs: Option<u64>,
    /// A key of the caller's own: the same call again under it gives the same run.
    #[serde(default)]
    idempotency_key: Option<String>,
}

/// A run as tools show it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Run {
    /// Its id.
    run_id: String,
    /// running, waiting (a question is open), pass, blocked, timeout, cancelled, left, failed or
    /// interrupted.
    status: String,
    /// Whether it has not ended.
    still_running: bool,
    /// The id of its blueprint.
    blueprint: String,
    /// When it was started, in milliseconds since 1970.
    started_at: u64,
    /// When it ended, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<u64>,
    /// Once it has ended: its `outcome`, and the flow's `context`.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Value>,
    /// Its tasks, for read_output.
    tasks: Vec<String>,
    /// Its open questions, as far as the caller may answer them.
    questions: Vec<Question>,
    /// What to do next, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'static str>,
}

async fn start(call: Call, start: Start) -> Result<Reply<Run>, Problem> {
    let wanted = Duration::from_secs(start.wait_secs.unwrap_or(WAIT_SECS));
    if let Some(run) = &call.state {
        // The client has asked its user and repeats the call, whose run is at work.
        let run = parse(run)?;
        look(&call.app, &call.who, run).await?;
        let all = questions::take_brought(&call).await?;
        return follow(&call, run, wanted, all, BTreeSet::new()).await;
    }
    call.who.may(&call.app, Verb::StartTask).await?;
    let view = call.app.runs.start(start.into_run(&call)?).await?;
    follow(&call, view.run_id, wanted, true, BTreeSet::new()).await
}

impl Start {
    fn into_run(self, call: &Call) -> Result<NewRun, Problem> {
        let invalid = |why: &str| Problem::from(EngineError::InvalidArgument(why.to_owned()));
        let blueprint = match (self.blueprint, self.blueprint_id) {
            (Some(document), None) => Source::Inline(Value::Object(document)),
            (None, Some(id)) => {
                Source::Stored { id, version: self.version.filter(|version| version != "latest") }
            }
            _ => return Err(invalid("exactly one of blueprint and blueprint_id is to be given")),
        };
        if self.ttl_secs == Some(0) {
            return Err(invalid("ttl_secs is 0"));
        }
        let operator = OperatorWish { operator_sid: self.operator_sid, ..OperatorWish::default() };
        Ok(NewRun {
            blueprint,
            input: Value::Object(self.input),
            ttl: self.ttl_secs.map(Duration::from_secs),
            operator,
            key: self.idempotency_key,
            principal: call.who.principal(),
        })
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Status {
    /// The run.
    run_id: String,
    /// How long to wait for its end or for its next question, in seconds; not at all where it is absent.
    #[serde(default)]
    wait_secs: Option<u64>,
}

async fn status(call: Call, status: Status) -> Result<Reply<Run>, Problem> {
    let run = parse(&status.run_id)?;
    look(&call.app, &call.who, run).await?;
    let Some(secs) = status.wait_secs else {
        return Ok(Reply::Done(seen(&call, run).await?));
    };
    let all = questions::take_brought(&call).await?;
    let asks = all && questions::way(&call).is_some();
    // Whoever cannot ask here knows these already, and waits for something else.
    let known = if asks { BTreeSet::new() } else { keys(&open_in(&call, run).await?) };
    follow(&call, run, Duration::from_secs(secs), all, known).await
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cancel {
    /// The run.
    run_id: String,
    /// Does it; otherwise the reply shows what would be done.
    #[serde(default)]
    confirm: bool,
}

#[derive(Serialize, JsonSchema)]
struct Cancelled {
    /// The run.
    run_id: String,
    /// Its status.
    status: String,
    /// Whether it is cancelled.
    cancelled: bool,
    /// The open tasks that `confirm` would cancel.
    would_cancel: Vec<String>,
    /// What to do next, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'static str>,
}

async fn cancel(call: Call, cancel: Cancel) -> Result<Reply<Cancelled>, Problem> {
    let run = parse(&cancel.run_id)?;
    if cancel.confirm {
        call.who.may(&call.app, Verb::CancelTask).await?;
        let view = call.app.runs.cancel(run).await?;
        return Ok(Reply::Done(Cancelled {
            run_id: cancel.run_id,
            status: word(view.status),
            cancelled: view.status == Standing::Cancelled,
            would_cancel: Vec::new(),
            next: None,
        }));
    }
    let view = look(&call.app, &call.who, run).await?;
    let mut open = Vec::new();
    for task in view.tasks.iter().flatten() {
        let task = call.app.engine.read_task_as(call.who.caller(), task).await?;
        if !matches!(task.status, TaskStatus::Pass | TaskStatus::Blocked | TaskStatus::Cancelled) {
            open.push(task.id.to_string());
        }
    }
    Ok(Reply::Done(Cancelled {
        run_id: cancel.run_id,
        status: word(view.status),
        cancelled: view.status == Standing::Cancelled,
        would_cancel: open,
        next: (!view.status.is_over()).then_some("call again with confirm true to cancel it"),
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct List {
    /// Only runs of this status; `open` is all that have not ended, and several have commas between.
    #[serde(default)]
    status: Option<String>,
    /// How many at most; 20 where it is absent.
    #[serde(default)]
    #[schemars(range(min = 1, max = 200))]
    limit: Option<usize>,
    /// Where to go on: `next` of the page before.
    #[serde(default)]
    after: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Listed {
    /// The runs, the newest first.
    runs: Vec<Line>,
    /// For `after`, where there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A run in a list.
#[derive(Serialize, JsonSchema)]
struct Line {
    /// Its id.
    run_id: String,
    /// The name of the blueprint.
    blueprint: String,
    /// Where it stands.
    status: String,
    /// When it was started, in milliseconds since 1970.
    started_at: u64,
    /// When it ended, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<u64>,
}

async fn list(call: Call, list: List) -> Result<Reply<Listed>, Problem> {
    call.who.may(&call.app, Verb::ReadTaskState).await?;
    let filter = RunFilter {
        status: list.status.as_deref().map(standings).transpose()?,
        limit: list.limit.unwrap_or(LISTED).clamp(1, LISTED_MAX),
        after: list.after.as_deref().map(cursor).transpose()?,
        ..RunFilter::default()
    };
    let (runs, next) = call.app.runs.list(filter).await?;
    let runs = runs.into_iter().map(|view| Line {
        run_id: view.run_id.to_string(),
        blueprint: view.blueprint,
        status: word(view.status),
        started_at: view.started_at,
        ended_at: view.ended_at,
    });
    Ok(Reply::Done(Listed { runs: runs.collect(), next: next.map(page_mark) }))
}

/// A run, for whoever may see runs.
async fn look(app: &Shared, who: &Authority, run: RunId) -> Result<RunView, Problem> {
    who.may(app, Verb::ReadTaskState).await?;
    app.runs.view(run).await
}

/// The tasks of a run.
pub(crate) async fn tasks_of(call: &Call, run: &str) -> Result<Vec<String>, Problem> {
    let view = look(&call.app, &call.who, parse(run)?).await?;
    Ok(view.tasks.iter().flatten().map(ToString::to_string).collect())
}

/// A run as a resource.
pub(crate) async fn shown(app: &Shared, who: &Authority, run: &str) -> Result<RunView, Problem> {
    look(app, who, parse(run)?).await
}

/// The reply about a run.
pub(crate) async fn seen(call: &Call, run: RunId) -> Result<Run, Problem> {
    let view = call.app.runs.view(run).await?;
    let over = view.status.is_over();
    let questions = if over { Vec::new() } else { open_in(call, run).await? };
    let next = match view.status {
        Standing::Running => Some("call run_status with wait_secs to wait on"),
        Standing::Waiting if questions.is_empty() => {
            Some("somebody else has to answer; call run_status with wait_secs to wait on")
        }
        Standing::Waiting => {
            Some("call answer_question with the answer of whom it is for, then run_status")
        }
        Standing::Left | Standing::Interrupted => {
            Some("nobody carries it on: a server that starts on its store does")
        }
        _ => None,
    };
    Ok(Run {
        run_id: run.to_string(),
        status: word(view.status),
        still_running: !over,
        blueprint: view.blueprint,
        started_at: view.started_at,
        ended_at: view.ended_at,
        report: view.report,
        tasks: view.tasks.iter().flatten().map(ToString::to_string).collect(),
        questions,
        next,
    })
}

fn word(status: Standing) -> String {
    match serde_json::to_value(status) {
        Ok(Value::String(word)) => word,
        _ => format!("{status:?}").to_lowercase(),
    }
}
