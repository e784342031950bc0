//! Second names of routes, which clients of engines of this kind know: each is the route that it
//! names and nothing more.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use crate::server::blueprints::{self, VersionShown};
use crate::server::caller::{Authority, Body, Token};
use crate::server::problem::Problem;
use crate::server::{Shared, sessions};

/// The process answers; `/livez` says so as JSON.
#[utoipa::path(get, path = "/v1/healthz", tag = "health", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(crate) async fn healthz() -> &'static str {
    "ok"
}

/// Ends the caller's session, as `DELETE /v1/session` does.
#[utoipa::path(delete, path = "/v1/sessions", tag = "sessions",
    responses((status = 204, description = "detached")))]
pub(crate) async fn detach_session(
    state: State<Shared>,
    token: Token,
) -> Result<StatusCode, Problem> {
    sessions::detach(state, token).await
}

/// Puts a document, as `PUT` does.
#[utoipa::path(post, path = "/v1/blueprints/{id}", tag = "blueprints",
    params(("id" = String, Path, description = "The id of the blueprint.")),
    request_body(content = Object, description = "The document."),
    responses((status = 201, body = VersionShown), (status = 200, body = VersionShown)))]
pub(crate) async fn put_blueprint(
    state: State<Shared>,
    authority: Authority,
    id: Path<String>,
    document: Body<Value>,
) -> Result<Response, Problem> {
    blueprints::put(state, authority, id, document).await
}
