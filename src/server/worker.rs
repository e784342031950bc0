//! The worker's three routes: pull the prompt, post a result, submit a raw body.
//!
//! A worker shows its token or its handle. Either stands for one attempt; once that is over, all
//! three routes say 410, so that a worker knows to stop.

use adjutant_actors::errors::EngineError;
use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::output::{ContentRef, OutputEvent, WorkerPayload};
use adjutant_actors::model::role::{Role, Verb};
use adjutant_actors::model::token::{CapToken, parse_handle};
use adjutant_actors::state::auth::Reach;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::server::caller::{Bearer, Body, Params, decode};
use crate::server::openapi::Prompt;
use crate::server::problem::Problem;
use crate::server::{App, Shared};

/// What a worker showed, with the task that it stands for.
pub(crate) enum Worker {
    Token(CapToken, TaskId),
    /// With the handle itself, which may end while a body comes.
    Handle {
        task: TaskId,
        attempt: u32,
        handle: String,
        lent: bool,
    },
}

/// Looked up before the body is read: who is nobody sends none.
impl FromRequestParts<Shared> for Worker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, Problem> {
        let Bearer(bearer) = Bearer::from_request_parts(parts, app).await?;
        if parse_handle(&bearer).is_ok() {
            let ((task, attempt), lent) = find(app, &bearer).await?;
            app.throttle.was_good(&bearer);
            return Ok(Self::Handle { task, attempt, handle: bearer, lent });
        }
        let token = decode(&bearer)?;
        let task = app.engine.task_id_from_token(&token).await.map_err(ended)?;
        Ok(Self::Token(token, task))
    }
}

/// What a handle stands for, and whether it was lent to a login.
async fn find(app: &App, handle: &str) -> Result<((TaskId, u32), bool), Problem> {
    if let Some(found) = app.links.leases.find(handle) {
        return Ok((found, true));
    }
    Ok((app.engine.resolve_handle(handle).await.map_err(ended)?, false))
}

impl Worker {
    /// Refuses who has not the verb, and a token whose attempt is over; a handle was looked up
    /// before.
    pub(crate) async fn may(&self, app: &App, verb: Verb) -> Result<(), Problem> {
        match self {
            Self::Token(token, task) => {
                let verified = app.engine.verify_token_for_task(token, verb, task);
                verified.await.map_err(ended)
            }
            Self::Handle { .. } => Ok(app.engine.permit(Role::Worker, verb)?),
        }
    }

    /// As [`Self::may`], for a request that was let through and took its time. Spends no use.
    pub(crate) async fn still_may(&self, app: &App, verb: Verb) -> Result<(), Problem> {
        match self {
            Self::Token(token, task) => {
                let checked = app.engine.check_as(token.into(), verb, Reach::Own(*task));
                checked.await.map_err(ended)
            }
            Self::Handle { handle, .. } => find(app, handle).await.map(drop),
        }
    }

    pub(crate) fn task(&self) -> TaskId {
        match self {
            Self::Token(_, task) | Self::Handle { task, .. } => *task,
        }
    }

    /// Refuses where a request names another task than the worker's own.
    fn check(&self, named: Option<TaskId>) -> Result<(), Problem> {
        let bound = self.task();
        match named {
            Some(arg) if arg != bound => {
                let problem = Problem::from(EngineError::TokenTaskMismatch { bound, arg });
                // A handle is its task, so a request that names another contradicts itself; a
                // token is a right that does not reach there.
                let contradicts = matches!(self, Self::Handle { .. });
                Err(if contradicts { problem.at(StatusCode::BAD_REQUEST) } else { problem })
            }
            _ => Ok(()),
        }
    }

    async fn payload(&self, app: &Shared) -> Result<WorkerPayload, Problem> {
        let payload = match self {
            Self::Token(token, task) => app.engine.fetch_worker_payload(token, task).await,
            Self::Handle { task, .. } => {
                app.engine.permit(Role::Worker, Verb::FetchPrompt)?;
                app.engine.fetch_worker_payload_trusted(task).await
            }
        }
        .map_err(ended)?;
        match self {
            // The next attempt may have begun since the handle was looked up.
            Self::Handle { attempt, .. } if *attempt != payload.attempt => {
                Err(Problem::attempt_ended())
            }
            _ => Ok(payload),
        }
    }

    /// Sends the verdict of the attempt.
    async fn finish(
        &self,
        app: &Shared,
        attempt: Option<u32>,
        value: Value,
        ok: bool,
    ) -> Result<(), Problem> {
        let (engine, task) = (&app.engine, self.task());
        let event = OutputEvent::Final { content: ContentRef::inline(value), ok };
        match self {
            Self::Token(token, _) => {
                let attempt = match attempt {
                    Some(attempt) => attempt,
                    None => engine.task_attempt(&task).await?,
                };
                engine.submit_output(token, &task, attempt, event).await
            }
            Self::Handle { attempt: own, .. } if attempt.is_some_and(|named| named != *own) => {
                return Err(Problem::attempt_ended());
            }
            Self::Handle { handle, lent: true, .. } if app.links.leases.find(handle).is_none() => {
                return Err(Problem::attempt_ended());
            }
            Self::Handle { attempt: own, .. } => {
                engine.permit(Role::Worker, Verb::EmitOutput)?;
                engine.append_output_trusted(&task, *own, event).await
            }
        }
        .map_err(ended)
    }
}

/// An error of a worker's call, where a bearer that was good once means that its attempt is over.
///
/// A handle that nobody knows is told the same: it is well formed, so it is the handle of an attempt
/// that is over, or of another server.
fn ended(error: EngineError) -> Problem {
    match error {
        EngineError::TokenRevoked
        | EngineError::TokenNotFound(_)
        | EngineError::InvalidTransition(_) => Problem::attempt_ended(),
        other => other.into(),
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Named {
    /// The caller's own, if it is named.
    #[param(value_type = Option<String>)]
    task_id: Option<TaskId>,
}

/// What the worker needs to start.
#[utoipa::path(get, path = "/v1/worker/prompt", tag = "worker", params(Named),
    responses((status = 200, body = Prompt)))]
pub(crate) async fn prompt(
    State(app): State<Shared>,
    worker: Worker,
    Params(named): Params<Named>,
) -> Result<Json<WorkerPayload>, Problem> {
    worker.check(named.task_id)?;
    Ok(Json(worker.payload(&app).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Posted {
    #[schema(value_type = String)]
    task_id: TaskId,
    /// Any JSON.
    value: Value,
    /// Whether the attempt passes.
    #[serde(default = "yes")]
    ok: bool,
    attempt: Option<u32>,
    /// Whether JSON within a text is taken for what it says.
    #[serde(default = "yes")]
    fold: bool,
}

fn yes() -> bool {
    true
}

/// Takes a verdict as JSON.
#[utoipa::path(post, path = "/v1/worker/result", tag = "worker",
    request_body = Posted, responses((status = 204, description = "taken")))]
pub(crate) async fn result(
    State(app): State<Shared>,
    worker: Worker,
    Body(posted): Body<Posted>,
) -> Result<StatusCode, Problem> {
    worker.check(Some(posted.task_id))?;
    let value = match posted.value {
        Value::String(text) if posted.fold => folded(&text),
        value => value,
    };
    worker.finish(&app, posted.attempt, value, posted.ok).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Submit {
    /// Whether the attempt passes.
    #[serde(default = "yes")]
    ok: bool,
    /// Whether JSON within the text is taken for what it says.
    #[serde(default = "yes")]
    fold: bool,
}

/// Takes a verdict as text. An object or a list, bare or in a code fence, is read as JSON.
#[utoipa::path(post, path = "/v1/worker/submit", tag = "worker", params(Submit),
    request_body(content = String, content_type = "text/plain"),
    responses((status = 204, description = "taken")))]
pub(crate) async fn submit(
    State(app): State<Shared>,
    worker: Worker,
    Params(params): Params<Submit>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let text = std::str::from_utf8(&body)
        .map_err(|_| Problem::of_status(StatusCode::BAD_REQUEST, "the body is not UTF-8"))?;
    let text = text.trim_end();
    let value = if params.fold { folded(text) } else { text.into() };
    worker.finish(&app, None, value, params.ok).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a model meant by a text: an object or a list, where that is all there is, fenced or not;
/// everything else stays the text that it was.
fn folded(text: &str) -> Value {
    match serde_json::from_str(unfenced(text.trim_end())) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
        _ => text.into(),
    }
}

/// The inside of a code fence that is the whole text.
fn unfenced(text: &str) -> &str {
    let inside = || {
        let rest = text.trim_start().strip_prefix("```")?.strip_suffix("```")?;
        let (language, inside) = rest.split_once('\n')?;
        matches!(language.trim(), "" | "json").then_some(inside)
    };
    inside().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::server::{AdminToken, ServerCfg};
    use crate::{
        Engine, EngineCfg, HoldPolicy, InProcSpawner, SpawnerAdapter, TaskSpec, WorkerResult,
    };

    #[tokio::test]
    async fn a_handle_of_an_older_attempt_reads_no_prompt_of_the_next_one() {
        let calm = EngineCfg { hold_policy: HoldPolicy::Warn, ..EngineCfg::default() };
        let engine = Engine::new(calm);
        let operator = engine.attach("ann", Role::Operator, Duration::from_secs(60)).await.unwrap();
        let task = engine.start_task(&operator, TaskSpec::new("echo", "hello")).await.unwrap();
        let (mut first, mut second) = (InProcSpawner::new(), InProcSpawner::new());
        first.register("echo", |_| async { Ok(WorkerResult { value: Value::Null, ok: false }) });
        let at_work = Arc::new(Semaphore::new(0));
        let inside = at_work.clone();
        second.register("echo", move |_| {
            inside.add_permits(1);
            std::future::pending()
        });
        let first: Arc<dyn SpawnerAdapter> = Arc::new(first);
        engine.dispatch_attempt_with(&operator, &task, &first).await.unwrap();
        let second: Arc<dyn SpawnerAdapter> = Arc::new(second);
        let own = engine.clone();
        tokio::spawn(async move { own.dispatch_attempt_with(&operator, &task, &second).await });
        at_work.acquire().await.unwrap().forget();

        let folder = tempfile::tempdir().unwrap();
        let admin = AdminToken::in_file(&folder.path().join("admin-token")).unwrap();
        let app = Arc::new(App::new(engine, admin, ServerCfg::default()).await.unwrap());
        // Both were looked up while their attempts lived.
        let holder = |attempt| Worker::Handle { task, attempt, handle: String::new(), lent: false };
        let refused = holder(1).payload(&app).await.unwrap_err();
        assert_eq!(refused.code(), "attempt_ended");
        assert_eq!(holder(2).payload(&app).await.unwrap().prompt, "hello");
    }

    #[test]
    fn containers_are_folded_and_scalars_stay_text() {
        assert_eq!(folded("{\"a\": 1}\n"), json!({ "a": 1 }));
        assert_eq!(folded("```json\n[1, 2]\n```\n"), json!([1, 2]));
        assert_eq!(folded("```\n{\"a\": 1}\n```"), json!({ "a": 1 }));
        assert_eq!(folded("12 \n"), json!("12 \n"));
        assert_eq!(folded("true"), json!("true"));
        assert_eq!(folded("{\"a\": 1} and more"), json!("{\"a\": 1} and more"));
        assert_eq!(folded("```rust\n{}\n```"), json!("```rust\n{}\n```"));
        assert_eq!(folded("```"), json!("```"));
    }
}
