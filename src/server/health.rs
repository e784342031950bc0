//! Whether the process lives, whether it is ready and why not, and its metrics.

use std::sync::atomic::Ordering;

use adjutant_actors::model::role::Verb;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::server::Shared;
use crate::server::caller::Authority;
use crate::server::openapi::Readiness;
use crate::server::problem::Problem;
use crate::server::tally::metric;

/// Media type of the Prometheus text form.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The process answers.
#[utoipa::path(get, path = "/livez", tag = "health", security(()),
    responses((status = 200, body = Object)))]
pub(crate) async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

/// Whether to send work here. The reasons are words: what a journal said stays in the log.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()), responses(
    (status = 200, body = Readiness), (status = 503, body = Readiness, description = "not ready")))]
pub(crate) async fn ready(State(app): State<Shared>) -> Response {
    let mut reasons = Vec::new();
    if app.draining.load(Ordering::Acquire) {
        reasons.push("draining");
    }
    if app.engine.journal_failure().is_some() {
        reasons.push("journal_failed");
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let ready = reasons.is_empty();
    let body = Json(json!({ "ready": ready, "reasons": reasons }));
    // Not a problem document: being unready is an answer.
    whole((status, body).into_response())
}

/// Marks a response as whole, whatever its status.
pub(crate) fn whole(mut response: Response) -> Response {
    response.extensions_mut().insert(Whole);
    response
}

/// A response that is whole whatever its status.
#[derive(Clone)]
pub(crate) struct Whole;

/// Whether a response with the status of a refusal is to stay as it is.
pub(crate) fn is_whole(response: &Response) -> bool {
    response.extensions().get::<Whole>().is_some()
}

/// The metrics, for the admin or who may read the trace.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, body = String, content_type = PROMETHEUS)))]
pub(crate) async fn metrics(
    State(app): State<Shared>,
    authority: Authority,
) -> Result<Response, Problem> {
    app.engine.verify_as(authority.caller(), Verb::ReadTrace).await?;
    let mut out = String::new();
    app.tally.write(&mut out);
    let (counts, queued) = (app.engine.counts(), app.engine.queued_turns());
    for (name, help, value) in [
        ("turns_total", "Turns of the state.", counts.turns),
        ("restarts_total", "Actors, workers and spawners started again.", counts.restarts),
        ("actors_started_total", "Actors that were started.", counts.actors_started),
        ("overlong_holds_total", "Turns that held the state too long.", counts.overlong_holds),
        ("forced_stops_total", "Workers that were stopped by force.", counts.forced_stops),
    ] {
        metric(&mut out, "counter", name, help, value);
    }
    metric(&mut out, "gauge", "queued_turns", "Turns that wait.", queued as u64);
    let runs = app.runs.count() as u64;
    metric(&mut out, "gauge", "live_runs", "Runs that are carried on.", runs);
    let streams = app.cfg.streams.saturating_sub(app.streams.available_permits());
    metric(&mut out, "gauge", "event_streams", "Event streams that are open.", streams as u64);
    let standings = app.links.standings();
    for (name, help, value) in [
        ("operators_connected", "Operators with a socket.", standings.connected),
        ("operators_away", "Operators without a socket.", standings.away),
        ("operator_parked_frames", "Frames that wait for a socket.", standings.parked),
        ("operator_unanswered", "Requests that wait for a reply.", standings.unanswered),
        ("connections", "Connections that are open.", app.places.open() as u64),
    ] {
        metric(&mut out, "gauge", name, help, value);
    }
    let refused = [
        ("connections_refused_total", "Connections that had no place.", app.places.refused()),
        (
            "throttled_requests_total",
            "Requests refused after too many failed bearers.",
            app.throttle.refused(),
        ),
    ];
    for (name, help, value) in app.links.counters().into_iter().chain(refused) {
        metric(&mut out, "counter", name, help, value);
    }
    let look = |state: &mut adjutant_actors::state::EngineState| {
        (state.live_tasks(), state.session_count() as u64)
    };
    // An engine that has stopped has none of these to show.
    if let Ok((live, sessions)) = app.engine.with_state("metrics", look).await {
        metric(&mut out, "gauge", "live_tasks", "Tasks that are not settled.", live);
        metric(&mut out, "gauge", "sessions", "Sessions that are remembered.", sessions);
    }
    Ok(([(CONTENT_TYPE, PROMETHEUS)], out).into_response())
}
