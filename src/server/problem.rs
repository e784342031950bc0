//! What a refused request is told: RFC 9457 problem documents with a stable `code`.
//!
//! It maps and never decides. A caller's mistake is never a 500, and no text holds a secret: the
//! engine's errors hold none, and of a request's headers Host and Origin alone are repeated.

use adjutant_actors::errors::EngineError;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

pub(crate) use setting::Setting;

mod setting;

/// Media type of a problem document.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Characters of a caller's text that a refusal repeats, at most.
const SHOWN: usize = 100;

/// A caller's text as a refusal repeats it: its beginning, without what steers a terminal.
pub(crate) fn shown(text: &str) -> String {
    let mut start: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        start.push('…');
    }
    start
}

/// Why a request was refused or failed. It becomes a body once the request's id is known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retryable: bool,
    /// Seconds after which to try again, where that helps.
    wait_secs: u64,
    setting: Option<Setting>,
    fields: Map<String, Value>,
}

impl Problem {
    /// A fault of the request itself, or of its way here.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let retryable =
            matches!(status.as_u16(), 408 | 429 | 503) || status == StatusCode::GATEWAY_TIMEOUT;
        let (detail, fields) = (detail.into(), Map::new());
        Self { status, code, detail, retryable, wait_secs: 1, setting: None, fields }
    }

    /// Adds a field of its own; null is none.
    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        if !value.is_null() {
            self.fields.insert(name.to_owned(), value);
        }
        self
    }

    /// Names the setting that stands in the way, and says in the hint what to do with it.
    pub(crate) fn because_of(self, setting: Setting) -> Self {
        Self { setting: Some(setting), ..self }
    }

    /// The same under another status.
    pub(crate) fn at(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// What is said of it.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// A refusal that has a status only, as the router gives it.
    pub(crate) fn of_status(status: StatusCode, detail: impl Into<String>) -> Self {
        let code = match status.as_u16() {
            400 => "bad_request",
            401 => "unauthenticated",
            403 => "forbidden",
            404 => "route_not_found",
            405 => "method_not_allowed",
            408 => "request_timeout",
            413 => "body_too_large",
            415 => "unsupported_media_type",
            422 => "unprocessable",
            503 => "unavailable",
            500.. => "internal",
            _ => "refused",
        };
        Self::new(status, code, detail)
    }

    /// No bearer, or one that cannot be any.
    pub(crate) fn unauthenticated(detail: &str) -> Self {
        Self::of_status(StatusCode::UNAUTHORIZED, detail)
    }

    /// What a worker is told whose attempt is over: nothing that it sends is of use any more.
    pub(crate) fn attempt_ended() -> Self {
        let detail = "the attempt behind this token or handle has ended";
        Self::new(StatusCode::GONE, "attempt_ended", detail)
    }

    /// What a caller is told whose bearers failed too often.
    pub(crate) fn too_many_failures(wait: std::time::Duration) -> Self {
        let detail = "too many bearers from this address were none";
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", detail);
        Self { wait_secs: wait.as_secs() + 1, ..problem }
    }

    /// Whether it says that a bearer is none, or none any more.
    pub(crate) fn is_failed_look_up(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED || self.code == "attempt_ended"
    }

    /// Whether the same may succeed later.
    pub(crate) fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// The stable word for the reason.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The document, without the request's id.
    pub(crate) fn document(&self) -> Map<String, Value> {
        let mut body = self.fields.clone();
        body.insert("type".to_owned(), format!("urn:adjutant:problem:{}", self.code).into());
        body.insert("title".to_owned(), self.status.canonical_reason().into());
        body.insert("status".to_owned(), self.status.as_u16().into());
        body.insert("detail".to_owned(), self.detail.clone().into());
        body.insert("code".to_owned(), self.code.into());
        body.insert("retryable".to_owned(), self.retryable.into());
        if let Some(setting) = self.setting {
            body.insert("setting".to_owned(), setting.key().into());
        }
        let hints = hint(self.code).map(str::to_owned).into_iter();
        let hints: Vec<_> = hints.chain(self.setting.map(Setting::advice)).collect();
        if !hints.is_empty() {
            body.insert("hint".to_owned(), hints.join(", or ").into());
        }
        body
    }

    /// The problem as a whole response.
    pub(crate) fn respond(&self, request_id: &str) -> Response {
        let mut body = self.document();
        body.insert("request_id".to_owned(), request_id.into());
        let mut response = (self.status, Value::Object(body).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.retryable {
            headers.insert(RETRY_AFTER, self.wait_secs.into());
        }
        response
    }
}

/// The body is written by the outermost layer, which knows the request's id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let (status, code) = status_and_code(&error);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Another process may take a stopped engine's place behind this address.
        let retryable = error.is_retryable() || matches!(error, EngineError::Stopped(_));
        Self { fields: fields(&error), retryable, ..Self::new(status, code, error.to_string()) }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::of_status(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::of_status(rejection.status(), rejection.body_text())
    }
}

fn status_and_code(error: &EngineError) -> (u16, &'static str) {
    use EngineError as E;
    match error {
        E::InvalidArgument(_) => (400, "invalid_argument"),
        E::BadSignature => (401, "bad_signature"),
        E::TokenExpired => (401, "token_expired"),
        E::TokenUsesExhausted => (401, "token_uses_exhausted"),
        E::TokenRevoked => (401, "token_revoked"),
        E::TokenNotFound(_) => (401, "token_not_found"),
        E::RoleViolation { .. } => (403, "role_violation"),
        E::TokenTaskMismatch { .. } => (403, "token_task_mismatch"),
        E::TaskNotFound(_) => (404, "task_not_found"),
        E::SessionNotFound => (404, "session_not_found"),
        E::ResumeKeyNotFound => (404, "question_not_found"),
        E::RunNotFound(_) => (404, "run_not_found"),
        E::ResourceNotFound(_) => (404, "resource_not_found"),
        E::RunState { .. } => (409, "run_state"),
        E::RunChanged { .. } => (409, "run_changed"),
        E::InvalidTransition(_) => (409, "invalid_transition"),
        E::KeyConflict { .. } => (409, "key_conflict"),
        E::Cancelled => (409, "cancelled"),
        E::ValueTooLarge { .. } => (413, "value_too_large"),
        E::OutputLimitExceeded { .. } => (413, "output_limit_exceeded"),
        E::SpawnDepthExceeded { .. } => (422, "spawn_depth_exceeded"),
        E::ChildLimitExceeded { .. } => (422, "child_limit_exceeded"),
        E::TaskLimitExceeded { .. } => (429, "task_limit_exceeded"),
        E::TableFull { .. } => (429, "table_full"),
        E::DispatchFailed(_) => (502, "dispatch_failed"),
        E::LockBusy(_) => (503, "busy"),
        E::LockBusyAfterRetry(_) => (503, "busy_after_retry"),
        E::PollTimeout => (503, "poll_timeout"),
        E::Stopped(_) => (503, "stopped"),
        E::Journal(_) => (503, "journal"),
        // The enum may grow; what is not known here is nobody's mistake but the server's.
        _ => (500, "internal"),
    }
}

/// The fields of an engine's error, by their own names.
fn fields(error: &EngineError) -> Map<String, Value> {
    use EngineError as E;
    let named = match error {
        E::RoleViolation { role, verb } => json!({ "role": role, "verb": verb }),
        E::TokenTaskMismatch { bound, arg } => json!({ "bound": bound, "arg": arg }),
        E::RunState { run, state } => json!({ "run": run, "state": state }),
        E::RunChanged { run, differences } => json!({ "run": run, "differences": differences }),
        E::SpawnDepthExceeded { current, max } => json!({ "current": current, "max": max }),
        E::ChildLimitExceeded { current, max } => json!({ "current": current, "max": max }),
        E::TaskLimitExceeded { scope, current, max } => {
            json!({ "scope": scope, "current": current, "max": max })
        }
        E::TableFull { what, current, max } => {
            json!({ "what": what, "current": current, "max": max })
        }
        E::OutputLimitExceeded { unit, current, max } => {
            json!({ "unit": unit, "current": current, "max": max })
        }
        E::ValueTooLarge { what, unit, current, max } => {
            json!({ "what": what, "unit": unit, "current": current, "max": max })
        }
        E::KeyConflict { key, differs } => json!({ "key": key, "differs": differs }),
        _ => return Map::new(),
    };
    match named {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// What to do about it, where that is not plain.
fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "unauthenticated" => "send `Authorization: Bearer TOKEN`",
        "bad_signature"
        | "token_expired"
        | "token_revoked"
        | "token_not_found"
        | "token_uses_exhausted" => "attach a session anew: POST /v1/sessions with the admin token",
        "role_violation" => "attach a session whose role may do this",
        "attempt_ended" => "stop: the task was decided, or another attempt is at work",
        "host_refused" => {
            "name the host with --host, or use the address that the server listens on"
        }
        "origin_refused" => "name the page's origin with --origin",
        "too_many_failures" => "stop trying bearers; a good one passes after the wait",
        "roles_held" => "log in with `take_over: true` to end the holder's login",
        "operator_gone" => "log in anew: POST /v1/operators",
        "key_conflict" => "use another Idempotency-Key, or repeat the first request exactly",
        "table_full" | "task_limit_exceeded" => "try again once tasks are settled",
        "agent_unknown" => "name a blueprint and an agent: POST /v1/tasks/{id}/dispatch",
        "blueprint_archived" => "take it back first: POST /v1/blueprints/{id}/unarchive",
        "cursor_expired" => "begin the list anew, without `after`",
        "data_full" | "too_many_runs" => "try again once runs have ended",
        "too_many_dispatches" => "try again once attempts have ended",
        "busy" | "busy_after_retry" | "too_many_streams" => "try again shortly",
        "stopped" => "the server is going down; try again once it is back",
        "journal" => "look at the store with `adjutant fsck`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
