//! Lists of tasks and sessions, in pages. Each turn looks at a bounded number of records, and each
//! request at a bounded number of those, so a page may be short and still not be the last.
//!
//! A walk over all tasks has no order. Where a page ended is told as `next`, which means nothing to
//! another process: one that comes from an earlier life of the server is refused as expired.

use std::str::FromStr;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::{RunId, StepKey, TaskId};
use adjutant_actors::model::role::Verb;
use adjutant_actors::model::task::TaskStatus;
use adjutant_actors::state::EngineState;
use adjutant_actors::state::lists::TaskSummary;
use adjutant_actors::table::Place;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::server::Shared;
use crate::server::caller::{Authority, Params};
use crate::server::problem::Problem;

/// Entries of one page, where the query does not say and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 500;

/// Records that one turn looks at, about.
const LOOKS: usize = 512;

/// Turns of one request.
const TURNS: usize = 64;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Words with commas between.
    status: Option<String>,
    agent: Option<String>,
    /// Those of the steps of a run.
    #[param(value_type = Option<String>)]
    run: Option<RunId>,
    /// The sub-tasks of a task.
    #[param(value_type = Option<String>)]
    parent: Option<TaskId>,
    /// Milliseconds since 1970, of the start.
    since: Option<u64>,
    until: Option<u64>,
    limit: Option<usize>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// What is asked of each task.
#[derive(Clone)]
struct Filter {
    status: Option<Vec<TaskStatus>>,
    agent: Option<String>,
    since: Option<u64>,
    until: Option<u64>,
}

impl Filter {
    fn fits(&self, task: &TaskSummary) -> bool {
        let started = task.created_at.saturating_mul(1000);
        self.status.as_ref().is_none_or(|wanted| wanted.contains(&task.status))
            && self.agent.as_ref().is_none_or(|agent| task.spec.agent == *agent)
            && self.since.is_none_or(|since| started >= since)
            && self.until.is_none_or(|until| started < until)
    }
}

/// Where a walk goes on.
#[derive(Clone)]
enum At {
    All(Place<TaskId>),
    Children(TaskId, Option<TaskId>),
    Run(RunId, Option<StepKey>),
}

impl At {
    /// The first page, or the one that `after` begins.
    fn read(wanted: &Wanted, epoch: u64) -> Result<Self, Problem> {
        let after = wanted.after.as_deref();
        Ok(match (wanted.run, wanted.parent) {
            (Some(run), _) => Self::Run(run, after.map(id).transpose()?),
            (None, Some(parent)) => Self::Children(parent, after.map(id).transpose()?),
            (None, None) => Self::All(after.map_or(Ok(Place::default()), |at| place(at, epoch))?),
        })
    }

    fn shown(&self, epoch: u64) -> Option<String> {
        match self {
            Self::All(place) => Some(text(place, epoch)),
            Self::Children(_, after) => after.map(|after| after.to_string()),
            Self::Run(_, after) => after.map(|after| format!("{:032x}", after.bits())),
        }
    }

    /// One turn: what it found, and where the next one begins.
    fn step(
        self,
        state: &EngineState,
        filter: &Filter,
        limit: usize,
    ) -> (Vec<TaskSummary>, Option<Self>) {
        let looks = LOOKS.min(limit);
        let (mut found, next) = match self {
            Self::All(place) => {
                let wanted = |task: &TaskSummary| filter.fits(task);
                let (found, next) = state.tasks_page(&place, LOOKS, limit, wanted);
                return (found, next.map(Self::All));
            }
            Self::Children(parent, after) => {
                let (found, next) = state.children_page(parent, after, looks);
                (found, next.map(|next| Self::Children(parent, Some(next))))
            }
            Self::Run(run, after) => {
                let (found, next) = state.run_page(run, after, looks);
                (found, next.map(|next| Self::Run(run, Some(next))))
            }
        };
        found.retain(|task| filter.fits(task));
        (found, next)
    }
}

trait Bits: Sized {
    fn of(text: &str) -> Option<Self>;
}

impl Bits for TaskId {
    fn of(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Bits for StepKey {
    fn of(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(Self::from_bits)
    }
}

fn id<T: Bits>(text: &str) -> Result<T, Problem> {
    T::of(text).ok_or_else(wrong_cursor)
}

fn wrong_cursor() -> Problem {
    EngineError::InvalidArgument("after: not what a page gave as next".to_owned()).into()
}

fn text<K: std::fmt::Display>(place: &Place<K>, epoch: u64) -> String {
    let after = place.after.as_ref().map_or_else(String::new, ToString::to_string);
    format!("{epoch:x}.{:x}.{after}", place.at)
}

fn place<K: FromStr>(text: &str, epoch: u64) -> Result<Place<K>, Problem> {
    let mut parts = text.splitn(3, '.');
    let mut hex = || u64::from_str_radix(parts.next()?, 16).ok();
    let (own, at) = (hex(), hex());
    let (Some(own), Some(at), Some(after)) = (own, at, parts.next()) else {
        return Err(wrong_cursor());
    };
    if own != epoch {
        let detail = "the list was begun before the server was started";
        return Err(Problem::new(StatusCode::GONE, "cursor_expired", detail));
    }
    let at = u32::try_from(at).ok().filter(|at| *at < 1 << 24).ok_or_else(wrong_cursor)?;
    let after = match after {
        "" => None,
        after => Some(after.parse().map_err(|_| wrong_cursor())?),
    };
    Ok(Place { at, after })
}

/// Lists tasks: all of them, those of a run's steps, or the sub-tasks of one.
#[utoipa::path(get, path = "/v1/tasks", tag = "tasks", operation_id = "list", params(Wanted),
    responses((status = 200, body = TaskList)))]
pub(crate) async fn tasks(
    State(app): State<Shared>,
    authority: Authority,
    Params(wanted): Params<Wanted>,
) -> Result<Json<Value>, Problem> {
    authority.may(&app, Verb::ReadTaskState).await?;
    let mut at = Some(At::read(&wanted, app.epoch)?);
    let filter = Filter {
        status: wanted.status.as_deref().map(statuses).transpose()?,
        agent: wanted.agent,
        since: wanted.since,
        until: wanted.until,
    };
    let limit = wanted.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let mut found = Vec::new();
    for _ in 0..TURNS {
        let Some(from) = at.clone().filter(|_| found.len() < limit) else { break };
        let (filter, want) = (filter.clone(), limit - found.len());
        let look = move |state: &mut EngineState| from.step(state, &filter, want);
        let (page, next) = app.engine.with_state("list_tasks", look).await?;
        found.extend(page);
        at = next;
    }
    let next = at.and_then(|at| at.shown(app.epoch));
    let all: Vec<_> = found.iter().map(shown).collect();
    Ok(Json(json!({ "tasks": all, "next": next })))
}

fn statuses(text: &str) -> Result<Vec<TaskStatus>, EngineError> {
    let read = |word: &str| {
        serde_json::from_value(Value::from(word))
            .map_err(|error| EngineError::InvalidArgument(format!("status: {error}")))
    };
    text.split(',').map(read).collect()
}

fn shown(task: &TaskSummary) -> Value {
    json!({
        "task_id": task.id,
        "agent": task.spec.agent,
        "status": task.status,
        "attempt": task.attempt,
        "live": task.live,
        "parent": task.parent,
        "run": task.run,
        "question": task.question,
        "started_at": task.created_at.saturating_mul(1000),
        "changed_at": task.updated_at.saturating_mul(1000),
    })
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Sessions {
    limit: Option<usize>,
    after: Option<String>,
}

/// Lists sessions; never a token.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", operation_id = "list",
    params(Sessions), responses((status = 200, body = SessionList)))]
pub(crate) async fn sessions(
    State(app): State<Shared>,
    authority: Authority,
    Params(wanted): Params<Sessions>,
) -> Result<Json<Value>, Problem> {
    authority.may(&app, Verb::ReadTaskState).await?;
    let limit = wanted.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let from = wanted.after.map_or(Ok(Place::default()), |at| place(&at, app.epoch))?;
    let look = move |state: &mut EngineState| state.sessions_page(&from, limit);
    let (page, next) = app.engine.with_state("list_sessions", look).await?;
    let all = page.iter().map(|session| {
        json!({
            "session_id": session.id,
            "agent_id": session.operator_id,
            "role": session.role,
            "link": if session.attached { "attached" } else { "detached" },
            "attached_at": session.attached_at.saturating_mul(1000),
            "last_seen": session.last_seen.saturating_mul(1000),
        })
    });
    let next = next.map(|next| text(&next, app.epoch));
    Ok(Json(json!({ "sessions": all.collect::<Vec<_>>(), "next": next })))
}

/// A page of tasks.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the document")]
struct TaskList {
    tasks: Vec<TaskEntry>,
    next: Option<String>,
}

/// A task in a list. Times are milliseconds since 1970.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the document")]
struct TaskEntry {
    task_id: String,
    agent: String,
    status: String,
    attempt: u32,
    /// Whether that attempt still runs.
    live: bool,
    parent: Option<String>,
    run: Option<String>,
    /// The key of its open question.
    question: Option<String>,
    started_at: u64,
    changed_at: u64,
}

/// A page of sessions.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the document")]
struct SessionList {
    sessions: Vec<SessionEntry>,
    next: Option<String>,
}

/// A session in a list. Times are milliseconds since 1970.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the document")]
struct SessionEntry {
    session_id: String,
    agent_id: String,
    role: String,
    /// attached or detached.
    link: String,
    attached_at: u64,
    last_seen: u64,
}

/// A number that tells this life of a server from others.
pub(crate) fn epoch(engine: &crate::engine::Engine) -> u64 {
    u64::try_from(engine.mint().bits128() >> 64).unwrap_or_default()
}
