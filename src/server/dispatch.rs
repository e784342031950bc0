//! Dispatching a task over the wire: with an agent of a blueprint, and again with the one before.
//!
//! The answer comes when the attempt has begun; the attempt belongs to its supervisor, and what it
//! came to is read from its task.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::role::{Role, Verb};
use adjutant_actors::model::task::TaskStatus;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::blueprint::{AgentWork, Blueprint};
use crate::engine::DispatchOptions;
use crate::middleware::{AgentResolverMiddleware, SpawnerLayer};
use crate::server::caller::{Authority, Body};
use crate::server::openapi::TaskPath;
use crate::server::problem::Problem;
use crate::server::runs::routes::source;
use crate::server::{App, Shared, on_shelf, parse, programs};
pub(crate) use memory::Dispatched;
use memory::SharedProgram;

mod memory;

/// Longest that an answer waits for the attempt to begin; it may be queued behind others.
const BEGIN_TIME: Duration = Duration::from_secs(1);

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dispatch {
    /// A document, or `{id, version}` of one that the server keeps.
    blueprint: Value,
    /// One of its agents; otherwise the task's.
    agent: Option<String>,
    /// In place of the task's own.
    prompt: Option<String>,
}

/// An attempt that has begun; `attempt` is absent where it is queued.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the document")]
pub(crate) struct Begun {
    task_id: String,
    agent: String,
    attempt: Option<u32>,
}

/// Dispatches a task with an agent of a blueprint.
#[utoipa::path(post, path = "/v1/tasks/{id}/dispatch", tag = "tasks", params(TaskPath),
    request_body = Dispatch, responses((status = 202, body = Begun)))]
pub(crate) async fn dispatch(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
    Body(body): Body<Dispatch>,
) -> Result<Response, Problem> {
    let task = parse::<TaskId>(&id)?;
    may(&app, &authority, task).await?;
    let blueprint = programs::of_source(&app.engine, &app.cfg, &source(body.blueprint)?).await?;
    let program = program(&app, &blueprint).await?;
    let agent = match body.agent {
        Some(agent) => agent,
        None => agent_of(&app, task).await?,
    };
    begin(app, authority, task, (program, agent), body.prompt).await
}

/// Dispatches a task again that is Blocked or Pending, with the agent of its last dispatch.
#[utoipa::path(post, path = "/v1/tasks/{id}/retry", tag = "tasks", params(TaskPath),
    responses((status = 202, body = Begun)))]
pub(crate) async fn retry(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let task = parse::<TaskId>(&id)?;
    may(&app, &authority, task).await?;
    let state = app.engine.read_task_as(authority.caller(), &task).await?;
    if !matches!(state.status, TaskStatus::Blocked | TaskStatus::Pending) {
        let why =
            format!("task {task} is {}: only what is blocked or pending is retried", state.status);
        return Err(EngineError::InvalidTransition(why).into());
    }
    let with = match app.dispatched.of(task) {
        Some(with) => with,
        None => (of_its_run(&app, task).await?, state.spec.agent),
    };
    begin(app, authority, task, with, None).await
}

/// Who may dispatch, and which tasks: workers only those below their own, as the engine says.
async fn may(app: &App, authority: &Authority, task: TaskId) -> Result<(), Problem> {
    if let Authority::Token(token) = authority
        && token.role == Role::Worker
    {
        // A blueprint is an operator's means.
        return Err(
            EngineError::RoleViolation { role: token.role, verb: Verb::DispatchAttempt }.into()
        );
    }
    app.engine.verify_as(authority.caller(), Verb::DispatchAttempt).await?;
    agent_of(app, task).await.map(drop)
}

async fn agent_of(app: &App, task: TaskId) -> Result<String, Problem> {
    let look = move |state: &mut adjutant_actors::state::EngineState| {
        state.task_agent(&task).map(str::to_owned)
    };
    let agent = app.engine.with_state("task_agent", look).await?;
    Ok(agent.ok_or_else(|| EngineError::TaskNotFound(task.to_string()))?)
}

/// The program of the run that a task was started in: as the run keeps it while it is open, or the
/// kept blueprint of the same content.
async fn of_its_run(app: &App, task: TaskId) -> Result<Arc<SharedProgram>, Problem> {
    let look = move |state: &mut adjutant_actors::state::EngineState| {
        state.step_of(&task).and_then(|step| state.run(step.run))
    };
    let run = app.engine.with_state("run_of_task", look).await?.ok_or_else(unknown)?;
    let document = match run.document.as_deref() {
        Some(document) => document.clone(),
        None => {
            let hash = run.document_hash.to_string();
            let found =
                on_shelf(&app.cfg.shelf, move |shelf| shelf.blueprint_by_hash(&hash)).await?;
            let found = found.ok_or_else(unknown)?;
            serde_json::from_str(&found.document)
                .map_err(|error| EngineError::Internal(error.to_string()))?
        }
    };
    let blueprint = programs::read(&app.engine, &app.cfg, &document).await?;
    program(app, &blueprint).await
}

/// The program of a blueprint, which all dispatches of the same content share.
async fn program(app: &App, blueprint: &Blueprint) -> Result<Arc<SharedProgram>, Problem> {
    let document = serde_json::to_value(blueprint)
        .map_err(|error| EngineError::Internal(error.to_string()))?;
    let compiled = programs::program(&app.engine, &app.cfg, blueprint);
    app.dispatched.program(&document, compiled).await
}

fn unknown() -> Problem {
    let detail = "nobody remembers which agent the task was dispatched with";
    Problem::new(StatusCode::CONFLICT, "agent_unknown", detail)
}

/// Begins an attempt away from the request, and answers once it has begun, or is queued.
async fn begin(
    app: Shared,
    authority: Authority,
    task: TaskId,
    (program, name): (Arc<SharedProgram>, String),
    prompt: Option<String>,
) -> Result<Response, Problem> {
    let Some(agent) = program.program.agent(&name) else {
        let detail = format!("the blueprint has no agent {name}");
        return Err(EngineError::InvalidArgument(detail).into());
    };
    let AgentWork::Spawn(spawner) = &agent.work else {
        let detail = format!("agent {name} asks a senior; it is no worker");
        return Err(EngineError::InvalidArgument(detail).into());
    };
    let before = app.engine.task_attempt(&task).await?;
    let waiting = app.dispatched.wait(prompt.as_deref())?;
    let options = DispatchOptions { prompt, timeout: agent.timeout, key: None };
    // The task may name another agent than the one that is to do it.
    let (named, begins) = (name.clone(), waiting.clone());
    let resolve = move |_: &_, _: &_| {
        begins.over();
        named.clone()
    };
    let spawner = AgentResolverMiddleware::new(resolve).wrap(spawner.clone());
    // Before anything is awaited, since the dispatch goes on though its client leaves.
    let noted = app.dispatched.remember(task, program.clone(), name.clone());
    let (engine, dispatched, own) = (app.engine.clone(), app.dispatched.clone(), name.clone());
    let mut work = tokio::spawn(async move {
        let _place = match program.program.agent(&own) {
            Some(agent) => agent.limit.acquire().await.ok(),
            None => None,
        };
        let done = engine.dispatch_as(authority.caller(), &task, &spawner, options).await;
        if !matches!(done, Ok(_) | Err(EngineError::DispatchFailed(_))) {
            dispatched.take_back(task, noted);
        }
        done
    });
    let began = tokio::time::timeout(BEGIN_TIME, begun(&app, task, before));
    let attempt = tokio::select! {
        biased;
        attempt = began => attempt.ok(),
        ended = &mut work => match ended {
            // The attempt has begun and ended meanwhile, whatever came of it.
            Ok(Ok(_) | Err(EngineError::DispatchFailed(_))) => Some(before + 1),
            Ok(Err(error)) => return Err(error.into()),
            Err(error) => return Err(EngineError::Internal(error.to_string()).into()),
        },
    };
    if attempt.is_some() {
        waiting.over();
    }
    let body = json!({ "task_id": task, "agent": name, "attempt": attempt });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}

/// Ends with the number of the attempt that came after another one.
async fn begun(app: &App, task: TaskId, before: u32) -> u32 {
    let mut pause = Duration::from_millis(1);
    loop {
        match app.engine.task_attempt(&task).await {
            Ok(attempt) if attempt > before => return attempt,
            _ => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
