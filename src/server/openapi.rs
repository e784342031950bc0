//! The OpenAPI document: the routes as they are registered, and the shapes of what they answer.
//!
//! A route is in the document because it is in the router: `routes!` takes both from the annotation
//! of its handler. `docs/openapi.json` is this document as `adjutant openapi` prints it. The shapes
//! here are of values that the routes write as JSON by hand; tests hold them against what is sent.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::Value;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, OpenApi as Document, Ref, RefOr, ResponseBuilder, Schema};
use utoipa::{IntoParams, OpenApi, ToSchema};

use crate::server::doctor::Finding;
use crate::server::{Shared, routes};

/// Media type of every refusal.
const PROBLEM_JSON: &str = "application/problem+json";

#[derive(OpenApi)]
#[openapi(
    info(title = "adjutant", description = "The engine over HTTP."),
    components(schemas(ProblemDocument)),
    security(("bearer" = []))
)]
struct Base;

/// The document of all routes, as text.
///
/// ```
/// let document: serde_json::Value = serde_json::from_str(&adjutant::server::openapi())?;
/// assert!(document["paths"]["/v1/tasks"]["post"].is_object());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn openapi() -> String {
    let mut text = built().to_pretty_json().expect("the document has only plain keys");
    text.push('\n');
    text
}

/// Collects the routes, and says of each what all of them answer where they refuse.
fn built() -> Document {
    let mut document = Base::openapi();
    document.merge(routes::quick().into_openapi());
    document.merge(routes::held().into_openapi());
    document.merge(routes::streamed().into_openapi());
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A session's token, a worker's token or handle, or the admin's token."))
        .build();
    let components = document.components.get_or_insert_with(Components::new);
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    for (path, item) in &mut document.paths.paths {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
            &mut item.head,
        ];
        for operation in operations.into_iter().flatten() {
            complete(operation);
            let parameters = operation.parameters.iter_mut().flatten();
            parameters.for_each(|parameter| shape(path, parameter));
        }
    }
    document
}

/// What a parameter is that names something of the engine: the beginning of its path, its name, and
/// the shape of such an id.
const IDS: [(&str, &str, &str); 5] = [
    ("/v1/tasks/", "id", "^T-[0-9a-f]{32}$"),
    ("/v1/runs/", "id", "^run-[0-9a-f]{32}$"),
    ("/v1/questions/", "key", "^R-[0-9a-f]{32}$"),
    ("/", "task", "^T-[0-9a-f]{32}$"),
    ("/", "run", "^run-[0-9a-f]{32}$"),
];

/// Says of a parameter that is an id how such an id looks.
fn shape(path: &str, parameter: &mut RefOr<Parameter>) {
    let RefOr::T(parameter) = parameter else { return };
    let fits = |(begin, name, _): &&_| path.starts_with(*begin) && parameter.name == *name;
    if let Some((_, _, pattern)) = IDS.iter().find(fits)
        && let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
    {
        object.pattern = Some((*pattern).to_owned());
    }
}

/// Gives an operation a name of its own and the answer that refuses.
fn complete(operation: &mut Operation) {
    // Handlers of several files have the same name.
    if let (Some(id), Some([tag, ..])) = (&operation.operation_id, operation.tags.as_deref()) {
        operation.operation_id = Some(format!("{tag}_{id}"));
    }
    let content = RefOr::Ref(Ref::from_schema_name("Problem"));
    let content = utoipa::openapi::ContentBuilder::new().schema(Some(content)).build();
    let refused = ResponseBuilder::new()
        .description("Refused or failed.")
        .content(PROBLEM_JSON, content)
        .build();
    operation.responses.responses.insert("default".to_owned(), RefOr::T(refused));
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", security(()),
    responses((status = 200, body = Object)))]
pub(crate) async fn document(State(app): State<Shared>) -> impl IntoResponse {
    let text = app.document.get_or_init(openapi).clone();
    ([(CONTENT_TYPE, "application/json")], text)
}

/// Why a request was refused or failed (RFC 9457). The fields of the engine's error come beside
/// these.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "the shape of what `problem.rs` writes")]
struct ProblemDocument {
    /// `urn:adjutant:problem:` and the code.
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    /// A stable word for the reason.
    code: String,
    /// Whether the same request may succeed later.
    retryable: bool,
    request_id: String,
    /// What to do about it.
    hint: Option<String>,
}

/// Declares shapes of answers that are written by hand.
macro_rules! shapes {
    ($($(#[$meta:meta])* $name:ident { $($(#[$on:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(ToSchema)]
        #[expect(dead_code, reason = "a shape for the document")]
        pub(crate) struct $name { $($(#[$on])* $field: $type),* }
    )*};
}

shapes! {
    /// Whether to send work here.
    Readiness {
        ready: bool,
        /// Words: draining, journal_failed.
        reasons: Vec<String>,
    }
    /// A session that was attached. Its token is shown here alone.
    Attached { session_id: String, role: String, ttl_secs: u64, token: String }
    /// A session as its holder sees it. Times are Unix seconds.
    SessionShown {
        session_id: String,
        operator_id: String,
        role: String,
        attached_at: u64,
        last_seen: u64,
        attached: bool,
        tasks: Vec<String>,
    }
    /// The answer to a heartbeat.
    Beat {
        session_id: String,
        /// The server takes nothing new.
        drain: bool,
        lapses_in_ms: u64,
        token_ends_in_ms: u64,
    }
    /// A task that was started.
    TaskStarted { task_id: String }
    /// A task. Times are Unix seconds.
    TaskShown {
        id: String,
        spec: Spec,
        /// pending, running, suspended, pass, blocked or cancelled.
        status: String,
        /// Number of the newest attempt; 0 before the first dispatch.
        attempt: u32,
        /// The key of the open question.
        suspended_on: Option<String>,
        /// The result of the newest attempt that ended.
        last_result: Option<Value>,
        created_at: u64,
        updated_at: u64,
        spawn_depth: u32,
    }
    /// What a task was started with.
    Spec { agent: String, initial_directive: String }
    /// A page of recorded events.
    Trace { events: Vec<Recorded>, limit: usize }
    /// An event, its number and its time in Unix seconds.
    Recorded {
        seq: u64,
        at: u64,
        /// Its `kind`, and the fields of that kind.
        event: Value,
    }
    /// What an attempt sent, in its order.
    Output {
        /// Tagged by `type`: progress, partial, artifact, final.
        output: Vec<Value>,
    }
    /// What a worker needs to start.
    Prompt {
        task_id: String,
        attempt: u32,
        agent: String,
        system: Option<String>,
        prompt: String,
    }
    /// A login. Its bearer is shown here alone.
    LoggedIn { sid: String, token: String, roles: Vec<String>, generation: u64 }
    /// Who is logged in, and holds what.
    OperatorList { operators: Vec<OperatorShown> }
    /// A login and its link. The time is in Unix seconds.
    OperatorShown {
        sid: String,
        roles: Vec<String>,
        /// A later login has a higher one.
        generation: u64,
        since: Option<u64>,
        connected: bool,
        /// connected, away or torn_down.
        link: String,
        /// Why it was torn down: logged_out, lapsed, taken_over, token_ended or stopped.
        reason: Option<String>,
        taken_over_by_generation: Option<u64>,
        /// Frames that wait for a socket.
        parked: Option<usize>,
        /// Requests that wait for a reply.
        unanswered: Option<usize>,
        /// Frames that are not settled.
        kept: Option<usize>,
    }
    /// The supervision tree. Restarts are those within the period that ends now.
    SupervisionShown {
        /// Whether a root runs; it starts with the first call.
        alive: bool,
        state: StateRestarts,
        /// Sessions that have an actor.
        sessions: usize,
        /// Attempts in flight; none is ever restarted.
        attempts: usize,
        spawners: Vec<SpawnerShown>,
        mailboxes: MailboxesShown,
    }
    /// Messages that actors did not take up yet, by the kind of actor.
    MailboxesShown {
        state: usize,
        sessions: usize,
        waiters: usize,
        attempts: usize,
        supervisors: usize,
    }
    /// Restarts of the state actor, which comes back on the same state and has no limit.
    StateRestarts { restarts: u64, limit: Option<u64> }
    /// A supervised spawner's actor.
    SpawnerShown {
        name: String,
        /// Whether it runs; otherwise it died too often and is left dead.
        alive: bool,
        restarts: usize,
        limit: usize,
        within_ms: u64,
    }
    /// What the doctor found.
    Doctor {
        version: String,
        /// Unix seconds.
        now: Option<u64>,
        pid: u32,
        /// The number of the newest event.
        last_seq: Option<u64>,
        findings: Vec<Finding>,
        settings: Vec<SettingShown>,
        /// Errors and warnings of late, the oldest first.
        errors: Vec<String>,
    }
    /// A setting and where its value came from. A secret is not shown.
    SettingShown { key: String, value: Value, origin: String }
    /// The open questions, oldest first.
    QuestionList { questions: Vec<Question> }
    /// An open question. The time is in Unix seconds.
    Question { key: String, task_id: String, question: Value, asked_at: u64 }
}

/// The task that a route is about.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "a shape for the document")]
pub(crate) struct TaskPath {
    /// The id of the task.
    id: String,
}
