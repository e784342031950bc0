//! The engine as a server of the Model Context Protocol: over HTTP at `/mcp`, and over the standard
//! streams of a program.
//!
//! Clients of the protocol's revision of July 2026 have no session with the server, and older ones
//! do, so nothing is kept here between two calls: what a call begins lives in the engine, and every
//! reply names it by an id. A tool calls what the HTTP route of its kind calls.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adjutant_actors::model::role::Verb;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, Implementation, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResponse, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler};

use crate::server::Shared;
use crate::server::caller::Authority;
use crate::server::health::Whole;
use crate::server::problem::Problem;
use sessions::Sessions;
use tool::{Call, Entry};

mod blueprints;
mod follow;
mod look;
mod operators;
mod output;
mod questions;
mod resources;
mod runs;
mod sessions;
mod stdio;
mod tool;
mod wait;

pub use stdio::serve_stdio;

const INSTRUCTIONS: &str = "\
Runs swarms of agents that a blueprint describes, and lets you take part in them. Start with \
run_blueprint; it answers with a run_id when the run takes longer than the wait, and run_status waits \
on. A run whose status is `waiting` has asked somebody: list_questions, then answer_question. The \
resources adjutant://guides/blueprint, /worker and /answer say how each of these is done, \
adjutant://schema/blueprint is the document's JSON Schema. Tools that end something show what they \
would do until `confirm` is true.";

/// How long a session of the protocol's older revisions lives without a request.
const SESSION_IDLE: Duration = Duration::from_secs(3600);

/// The header that names such a session.
const SESSION_ID: &str = "mcp-session-id";

/// What the library says of a session that is not there.
const NO_SESSION: &str = "Not Found: Session not found";

/// All tools, by name.
fn tools() -> &'static [Entry] {
    static TOOLS: OnceLock<Vec<Entry>> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let mut all = runs::tools();
        all.extend(questions::tools());
        all.extend(operators::tools());
        all.extend(output::tools());
        all.extend(blueprints::tools());
        all.extend(look::tools());
        all.sort_by(|one, other| one.tool.name.cmp(&other.tool.name));
        all
    })
}

/// Who serves one client, or one request of it.
#[derive(Clone)]
struct Mcp {
    app: Shared,
    /// Whose calls these are where no request says it.
    own: Option<Arc<Authority>>,
}

impl Mcp {
    fn who(&self, context: &RequestContext<RoleServer>) -> Result<Arc<Authority>, ErrorData> {
        let parts = context.extensions.get::<axum::http::request::Parts>();
        let told = parts.and_then(|parts| parts.extensions.get::<Arc<Authority>>());
        told.or(self.own.as_ref())
            .cloned()
            .ok_or_else(|| ErrorData::invalid_request("nobody vouches for this request", None))
    }
}

impl ServerHandler for Mcp {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        let own = Implementation::new("adjutant", env!("CARGO_PKG_VERSION"));
        ServerConfig::new(capabilities).with_server_info(own).with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(
            tools().iter().map(|entry| entry.tool.clone()).collect(),
        ))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools().iter().find(|entry| entry.tool.name == name).map(|entry| entry.tool.clone())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let who = self.who(&context)?;
        let Some(entry) = tools().iter().find(|entry| entry.tool.name == request.name) else {
            let told = format!("there is no tool {}; tools/list names them", request.name);
            return Err(ErrorData::invalid_params(told, None));
        };
        let call = Call {
            app: self.app.clone(),
            who,
            context,
            answers: request.input_responses,
            state: request.request_state,
        };
        Ok(entry.act(call, request.arguments.unwrap_or_default()).await)
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::list()))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let who = self.who(&context)?;
        resources::read(&self.app, &who, &request.uri).await.map(Into::into)
    }
}

/// Whether a request may open a session: it is in none. Its revision says nothing of that, since
/// the word that opens one does so in every revision.
fn opens_session(headers: &HeaderMap) -> bool {
    !headers.contains_key(SESSION_ID)
}

/// The route `/mcp`. It stands behind the server's own checks of Host and Origin; each of its
/// requests needs the admin's bearer or a session's token.
pub(crate) fn routes(app: &Shared) -> Router<Shared> {
    Router::new().route("/mcp", route(app))
}

fn route(app: &Shared) -> MethodRouter<Shared> {
    let mut config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .with_max_request_body_bytes(app.cfg.body_bytes)
        .with_sse_keep_alive(Some(app.cfg.heartbeat))
        .with_cancellation_token(app.closing.clone());
    config.sse_retry = None;
    let handler = Mcp { app: app.clone(), own: None };
    let sessions = Arc::new(Sessions::new(SESSION_IDLE));
    let service = StreamableHttpService::new(move || Ok(handler.clone()), sessions.clone(), config);
    any(async move |State(app): State<Shared>, who: Authority, mut request: Request| {
        // What every session may do, and no worker.
        who.may(&app, Verb::Heartbeat).await?;
        let open = sessions.open().await;
        if open >= app.cfg.streams && opens_session(request.headers()) {
            let detail = format!("{open} sessions of the protocol are open, as many as may");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail));
        }
        let principal = who.principal();
        let mut response = if ends_other(&sessions, &request, &principal) {
            (StatusCode::NOT_FOUND, NO_SESSION).into_response()
        } else {
            request.extensions_mut().insert(Arc::new(who));
            sessions.serve(principal, service.handle(request)).await.into_response()
        };
        // Its refusals are messages of the protocol, which clients read.
        response.extensions_mut().insert(Whole);
        Ok::<Response, _>(response)
    })
}

/// Whether a request is to end a session that its caller did not open. The library finds out for
/// all other requests by itself.
fn ends_other(sessions: &Sessions, request: &Request, principal: &str) -> bool {
    let id = request.headers().get(SESSION_ID).and_then(|id| id.to_str().ok());
    *request.method() == Method::DELETE && id.is_some_and(|id| !sessions.is_of(id, principal))
}
