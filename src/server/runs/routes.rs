//! The routes of runs: translate, and never decide.

use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::RunId;
use adjutant_actors::model::role::Verb;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderMap, LOCATION};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::server::caller::{Authority, Body, Params};
use crate::server::problem::Problem;
use crate::server::runs::list::standings;
use crate::server::runs::{NewRun, OperatorWish, RunFilter, RunView, Source};
use crate::server::tasks::{Hold, idempotency_key};
use crate::server::{Shared, parse};

/// Runs in one page, where the query does not say and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;

/// What a wait leaves of a request's time for its answer.
const ANSWER_TIME: Duration = Duration::from_secs(1);

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RunStart)]
pub(crate) struct Start {
    /// A document, or `{id, version}` of one that the server keeps.
    blueprint: Value,
    /// The flow's context; an object.
    #[serde(default = "empty")]
    input: Value,
    ttl_secs: Option<u64>,
    #[serde(default)]
    operator: OperatorWish,
}

fn empty() -> Value {
    json!({})
}

/// A document that the server keeps.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reference {
    id: String,
    version: Option<String>,
}

/// A document has a flow; a reference has none.
pub(crate) fn source(blueprint: Value) -> Result<Source, Problem> {
    if blueprint.get("flow").is_some() || blueprint.get("agents").is_some() {
        return Ok(Source::Inline(blueprint));
    }
    let Reference { id, version } = serde_json::from_value(blueprint).map_err(|error| {
        let detail = format!("blueprint: neither a document nor a reference: {error}");
        Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY, detail)
    })?;
    Ok(Source::Stored { id, version: version.filter(|version| version != "latest") })
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wait {
    /// Seconds.
    #[serde(default)]
    wait: u64,
}

/// Starts a run: 202 once it is kept, or 200 where it has ended within `?wait=SECS`, which is cut to
/// the time that a request may take. Under an `Idempotency-Key` the same body gives the same run.
#[utoipa::path(post, path = "/v1/runs", tag = "runs",
    params(Wait, ("Idempotency-Key" = Option<String>, Header, description = "Names this start.")),
    request_body = Start,
    responses((status = 202, body = RunView), (status = 200, body = RunView)))]
pub(crate) async fn start(
    State(app): State<Shared>,
    authority: Authority,
    headers: HeaderMap,
    Params(wait): Params<Wait>,
    Body(start): Body<Start>,
) -> Result<Response, Problem> {
    authority.may(&app, Verb::StartTask).await?;
    if start.ttl_secs == Some(0) {
        return Err(EngineError::InvalidArgument("ttl_secs is 0".to_owned()).into());
    }
    let new = NewRun {
        blueprint: source(start.blueprint)?,
        input: start.input,
        ttl: start.ttl_secs.map(Duration::from_secs),
        operator: start.operator,
        key: idempotency_key(&headers)?,
        principal: authority.principal(),
    };
    let mut view = app.runs.start(new).await?;
    let time = Duration::from_secs(wait.wait);
    let time = time.min(app.cfg.request_time.saturating_sub(ANSWER_TIME));
    if !view.status.is_over() && !time.is_zero() {
        view = app.runs.wait(view.run_id, time).await?;
    }
    let status = if view.status.is_over() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let place = [(LOCATION, format!("/v1/runs/{}", view.run_id))];
    Ok((status, place, Json(view)).into_response())
}

/// Shows a run: at once, or with `?hold=SECS` once it has ended.
#[utoipa::path(get, path = "/v1/runs/{id}", tag = "runs",
    params(("id" = String, Path, description = "The id of the run."), Hold), responses((status = 200, body = RunView)))]
pub(crate) async fn read(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
    Params(params): Params<Hold>,
) -> Result<Json<RunView>, Problem> {
    authority.may(&app, Verb::ReadTaskState).await?;
    let id = parse::<RunId>(&id)?;
    Ok(Json(match params.hold {
        Some(secs) => app.runs.wait(id, Duration::from_secs(secs)).await?,
        None => app.runs.view(id).await?,
    }))
}

/// Cancels a run and its open tasks.
#[utoipa::path(post, path = "/v1/runs/{id}/cancel", tag = "runs",
    params(("id" = String, Path, description = "The id of the run.")), responses((status = 200, body = RunView)))]
pub(crate) async fn cancel(
    State(app): State<Shared>,
    authority: Authority,
    Path(id): Path<String>,
) -> Result<Json<RunView>, Problem> {
    authority.may(&app, Verb::CancelTask).await?;
    Ok(Json(app.runs.cancel(parse::<RunId>(&id)?).await?))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Words with commas between; `open` is all that have not ended.
    status: Option<String>,
    blueprint: Option<String>,
    agent: Option<String>,
    /// Milliseconds since 1970, of the start.
    since: Option<u64>,
    until: Option<u64>,
    limit: Option<usize>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// Lists runs, the newest first. `next` is what `after` is to be for the next page.
#[utoipa::path(get, path = "/v1/runs", tag = "runs", params(Wanted),
    responses((status = 200, body = RunList)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    authority: Authority,
    Params(wanted): Params<Wanted>,
) -> Result<Json<Value>, Problem> {
    authority.may(&app, Verb::ReadTaskState).await?;
    let filter = RunFilter {
        status: wanted.status.as_deref().map(standings).transpose()?,
        blueprint: wanted.blueprint,
        agent: wanted.agent,
        since: wanted.since,
        until: wanted.until,
        limit: wanted.limit.unwrap_or(PAGE).min(PAGE_MAX),
        after: wanted.after.as_deref().map(cursor).transpose()?,
    };
    let (runs, next) = app.runs.list(filter).await?;
    let next = next.map(page_mark);
    Ok(Json(json!({ "runs": runs, "next": next })))
}

/// A page of runs, without their reports and tasks.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a shape for the document")]
struct RunList {
    runs: Vec<RunView>,
    next: Option<String>,
}

/// What a page gives as `next`.
pub(crate) fn page_mark((at, id): (u64, RunId)) -> String {
    format!("{at:x}.{id}")
}

/// Reads what a page gave as `next`.
pub(crate) fn cursor(text: &str) -> Result<(u64, RunId), Problem> {
    let read = || {
        let (at, id) = text.split_once('.')?;
        Some((u64::from_str_radix(at, 16).ok()?, id.parse().ok()?))
    };
    let error = EngineError::InvalidArgument("after: not what a page gave as next".to_owned());
    read().ok_or_else(|| error.into())
}
