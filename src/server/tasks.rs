//! Tasks: start, read, wait, cancel; what was recorded of them.

use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::task::{OnInterrupt, TaskSpec, TaskState};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{HeaderMap, LOCATION};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::engine::TaskOptions;
use crate::server::caller::{Authority, Body, Params};
use crate::server::openapi::{Output, TaskPath, TaskShown, TaskStarted, Trace};
use crate::server::problem::Problem;
use crate::server::{Shared, parse};

/// Events in one page of a trace, at most.
const PAGE_MAX: usize = 1000;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The key under which a request may come again.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let key = headers.get(IDEMPOTENCY_KEY).map(|key| key.to_str().map(str::to_owned));
    key.transpose().map_err(|_| {
        Problem::of_status(StatusCode::BAD_REQUEST, "the Idempotency-Key is no plain text")
    })
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    agent: String,
    /// What is asked: the prompt of the first attempt, and of later ones that get none of their own.
    directive: String,
    #[schema(value_type = Option<String>)]
    parent: Option<TaskId>,
    /// block or retry: what becomes of it where the process ends in the middle of an attempt.
    #[serde(default)]
    #[schema(value_type = String, default = "block")]
    on_interrupt: OnInterrupt,
}

/// Starts a task. The same again under the same `Idempotency-Key` gives the same task.
#[utoipa::path(post, path = "/v1/tasks", tag = "tasks",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names this start.")),
    request_body = Start, responses((status = 201, body = TaskStarted)))]
pub(crate) async fn start(
    State(app): State<Shared>,
    authority: Authority,
    headers: HeaderMap,
    Body(start): Body<Start>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let options = TaskOptions { parent: start.parent, key, on_interrupt: start.on_interrupt };
    let spec = TaskSpec::new(start.agent, start.directive);
    let task = app.engine.start_task_as(authority.caller(), spec, options).await?;
    let place = [(LOCATION, format!("/v1/tasks/{task}"))];
    Ok((StatusCode::CREATED, place, Json(json!({ "task_id": task }))).into_response())
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Hold {
    /// Seconds.
    pub(crate) hold: Option<u64>,
}

/// Shows a task: at once, or with `?hold=SECS` once it is settled or suspended. A hold that runs out
/// shows the task as it is then; its status tells.
#[utoipa::path(get, path = "/v1/tasks/{id}", tag = "tasks", params(TaskPath, Hold),
    responses((status = 200, body = TaskShown)))]
pub(crate) async fn read(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
    Params(params): Params<Hold>,
) -> Result<Json<TaskState>, Problem> {
    let (engine, task) = (&app.engine, parse::<TaskId>(&id)?);
    if let Some(secs) = params.hold {
        match engine.poll_task_as(authority.caller(), &task, Duration::from_secs(secs)).await {
            Err(EngineError::PollTimeout) => {}
            other => return Ok(Json(other?)),
        }
    }
    Ok(Json(engine.read_task_as(authority.caller(), &task).await?))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Past {
    /// The number of the last event that was seen.
    #[serde(default)]
    after: u64,
    /// 1000 at most.
    limit: Option<usize>,
}

/// The recorded events of a task after a number, oldest first, with their bodies. A page that is
/// shorter than its limit is the last one.
#[utoipa::path(get, path = "/v1/tasks/{id}/trace", tag = "tasks", params(TaskPath, Past),
    responses((status = 200, body = Trace)))]
pub(crate) async fn trace(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
    Params(past): Params<Past>,
) -> Result<Json<Value>, Problem> {
    let (task, limit) = (parse::<TaskId>(&id)?, past.limit.unwrap_or(PAGE_MAX).min(PAGE_MAX));
    let events =
        app.engine.read_trace_as(authority.caller(), Some(&task), past.after, limit).await?;
    Ok(Json(json!({ "events": events, "limit": limit })))
}

/// What an attempt sent, in its order.
#[utoipa::path(get, path = "/v1/tasks/{id}/attempts/{attempt}/output", tag = "tasks",
    params(TaskPath, ("attempt" = u32, Path, description = "Counted from 1.")),
    responses((status = 200, body = Output)))]
pub(crate) async fn output(
    State(app): State<Shared>,
    authority: Authority,
    Path((id, attempt)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let (task, attempt) = (parse::<TaskId>(&id)?, parse::<u32>(&attempt)?);
    let output = app.engine.read_output_as(authority.caller(), &task, attempt).await?;
    Ok(Json(json!({ "output": output })))
}

/// Cancels a task and the sub-tasks below it.
#[utoipa::path(post, path = "/v1/tasks/{id}/cancel", tag = "tasks", params(TaskPath),
    responses((status = 204, description = "cancelled")))]
pub(crate) async fn cancel(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    app.engine.cancel_task_as(authority.caller(), &parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
