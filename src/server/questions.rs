//! Questions to the senior: what is open, and the answers.

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::ResumeKey;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::server::caller::{Authority, Body};
use crate::server::openapi::QuestionList;
use crate::server::problem::Problem;
use crate::server::{App, Shared, parse};

/// Questions in one list, at most.
pub(crate) const LIST_MAX: usize = 1000;

/// Lists the open questions, oldest first.
#[utoipa::path(get, path = "/v1/questions", tag = "questions",
    responses((status = 200, body = QuestionList)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    authority: Authority,
) -> Result<Json<Value>, Problem> {
    let open = app.engine.open_questions_as(authority.caller(), LIST_MAX).await?;
    let shown = open.iter().map(|(key, pending)| {
        json!({
            "key": key,
            "task_id": pending.task_id,
            "question": *pending.question,
            "asked_at": pending.asked_at,
        })
    });
    Ok(Json(json!({ "questions": shown.collect::<Vec<_>>() })))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    /// Any JSON.
    answer: Value,
}

/// Answers a question. The first answer wins.
#[utoipa::path(post, path = "/v1/questions/{key}/answer", tag = "questions",
    params(("key" = String, Path, description = "The key of the question.")),
    request_body = Answer, responses((status = 204, description = "answered")))]
pub(crate) async fn answer(
    State(app): State<Shared>,
    authority: Authority,
    Path(key): Path<String>,
    Body(body): Body<Answer>,
) -> Result<StatusCode, Problem> {
    give(&app, &authority, parse(&key)?, body.answer).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Answers, and names the question where none such is open.
pub(crate) async fn give(
    app: &App,
    who: &Authority,
    key: ResumeKey,
    answer: Value,
) -> Result<(), Problem> {
    let given = app.engine.answer_as(who.caller(), key, answer).await;
    given.map_err(|error| match error {
        EngineError::ResumeKeyNotFound => {
            let detail = format!("no open question has the key {key}");
            Problem::new(StatusCode::NOT_FOUND, "question_not_found", detail)
        }
        error => error.into(),
    })
}
