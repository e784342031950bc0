//! Sessions: the admin attaches them, their holders keep them alive and end them.

use std::time::Duration;

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::role::Role;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::server::Shared;
use crate::server::caller::{Admin, Body, Token};
use crate::server::openapi::{Attached, Beat, SessionShown};
use crate::server::problem::{Problem, Setting};

/// Life of a session's token where none is asked for.
const DAY_SECS: u64 = 24 * 3600;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Attach {
    operator_id: String,
    /// operator, senior or observer.
    #[schema(value_type = String, example = "operator")]
    role: Role,
    /// Life of the token, at most what the setting `limits.session_secs` says.
    #[serde(default = "day")]
    ttl_secs: u64,
}

fn day() -> u64 {
    DAY_SECS
}

/// Attaches a session. The answer is the one place where its token is shown.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions",
    request_body = Attach, responses((status = 201, body = Attached)))]
pub(crate) async fn attach(
    State(app): State<Shared>,
    _: Admin,
    Body(attach): Body<Attach>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    if attach.role == Role::Worker {
        let detail = "a worker's token comes with the dispatch of its attempt";
        return Err(Problem::of_status(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let ttl = Duration::from_secs(attach.ttl_secs);
    let longest = app.cfg.session_time;
    if ttl > longest {
        let secs = longest.as_secs();
        let detail = format!("ttl_secs is {}, and {secs} is the limit", attach.ttl_secs);
        let refused = Problem::from(EngineError::InvalidArgument(detail));
        return Err(refused.because_of(Setting::SessionTime));
    }
    let token = app.engine.attach(attach.operator_id, attach.role, ttl).await?;
    let answer = json!({
        "session_id": token.fingerprint().session_id(),
        "role": attach.role,
        "ttl_secs": attach.ttl_secs,
        "token": token.encode(),
    });
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Ends the caller's session and revokes its token.
#[utoipa::path(delete, path = "/v1/session", tag = "sessions",
    responses((status = 204, description = "detached")))]
pub(crate) async fn detach(
    State(app): State<Shared>,
    Token(token): Token,
) -> Result<StatusCode, Problem> {
    app.engine.detach_and_revoke(&token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows the caller's session.
#[utoipa::path(get, path = "/v1/session", tag = "sessions",
    responses((status = 200, body = SessionShown)))]
pub(crate) async fn read(
    State(app): State<Shared>,
    Token(token): Token,
) -> Result<Json<Value>, Problem> {
    let session = app.engine.read_session(&token).await?;
    Ok(Json(json!({
        "session_id": session.id,
        "operator_id": session.operator_id,
        "role": session.role,
        "attached_at": session.attached_at,
        "last_seen": session.last_seen,
        "attached": session.attached,
        "tasks": session.owned_task_ids,
    })))
}

/// Keeps the caller's session alive.
#[utoipa::path(post, path = "/v1/session/heartbeat", tag = "sessions",
    responses((status = 200, body = Beat)))]
pub(crate) async fn heartbeat(
    State(app): State<Shared>,
    Token(token): Token,
) -> Result<Json<Value>, Problem> {
    let reply = app.engine.heartbeat_with_reply(&token).await?;
    Ok(Json(json!({
        "session_id": reply.session,
        "drain": reply.drain,
        "lapses_in_ms": reply.lapses_in_ms,
        "token_ends_in_ms": reply.token_ends_in_ms,
    })))
}
