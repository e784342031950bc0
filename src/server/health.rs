//! Whether the process lives, and whether it is ready and why not.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::server::Shared;
use crate::server::openapi::Readiness;

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
