//! A tool: its name, hints and schemas, and the way from a call's arguments to its reply.
//!
//! A refusal is a result that the model reads, with what to do next; it is never an error of the
//! protocol, which clients do not show.

use std::pin::Pin;
use std::sync::Arc;

use rmcp::handler::server::tool::schema_for_type;
use rmcp::model::{
    CallToolResponse, CallToolResult, ContentBlock, InputRequiredResult, InputResponses,
    JsonObject, Tool, ToolAnnotations,
};
use rmcp::service::{RequestContext, RoleServer};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use adjutant_actors::errors::EngineError;

use crate::server::Shared;
use crate::server::caller::Authority;
use crate::server::problem::Problem;

/// A call of a tool: who calls, and how to reach the client meanwhile.
pub(crate) struct Call {
    pub(crate) app: Shared,
    pub(crate) who: Arc<Authority>,
    pub(crate) context: RequestContext<RoleServer>,
    /// What the client brings to a call that it repeats.
    pub(crate) answers: Option<InputResponses>,
    /// What it was given then.
    pub(crate) state: Option<String>,
}

/// What a call comes to.
pub(crate) enum Reply<T> {
    Done(T),
    /// The client is to ask somebody, and to call again.
    Ask(InputRequiredResult),
}

/// What a tool does to the world, as clients are told.
pub(crate) enum Effect {
    /// Nothing.
    Reads,
    /// It adds something with each call.
    Adds,
    /// It adds something, once.
    AddsOnce,
    /// It may end something that was going on.
    Destroys,
}

impl Effect {
    fn hints(&self, title: &str) -> ToolAnnotations {
        let (reads, destroys) = (matches!(self, Self::Reads), matches!(self, Self::Destroys));
        let hints = ToolAnnotations::with_title(title).read_only(reads).destructive(destroys);
        hints.idempotent(!matches!(self, Self::Adds)).open_world(false)
    }
}

type Done = Pin<Box<dyn Future<Output = CallToolResponse> + Send>>;
type Act = dyn Fn(Call, JsonObject) -> Done + Send + Sync;

/// A tool and what it does.
pub(crate) struct Entry {
    pub(crate) tool: Tool,
    act: Box<Act>,
}

impl Entry {
    /// A tool with the schemas of its arguments and of its reply.
    pub(crate) fn new<A, T, F>(
        name: &'static str,
        (title, about): (&'static str, &'static str),
        effect: Effect,
        act: impl Fn(Call, A) -> F + Copy + Send + Sync + 'static,
    ) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        T: Serialize + JsonSchema + 'static,
        F: Future<Output = Result<Reply<T>, Problem>> + Send + 'static,
    {
        let tool = Tool::new(name, about, schema::<A>())
            .with_title(title)
            .with_raw_output_schema(schema::<T>())
            .with_annotations(effect.hints(title));
        let act = move |call, arguments| -> Done {
            Box::pin(async move {
                let done = match read::<A>(arguments) {
                    Ok(arguments) => act(call, arguments).await,
                    Err(problem) => Err(problem),
                };
                match done {
                    Ok(Reply::Done(reply)) => shown(&reply).into(),
                    Ok(Reply::Ask(ask)) => ask.into(),
                    Err(problem) => refused(&problem).into(),
                }
            })
        };
        Self { tool, act: Box::new(act) }
    }

    pub(crate) fn act(&self, call: Call, arguments: JsonObject) -> Done {
        (self.act)(call, arguments)
    }
}

/// The schema of a type, which always is one of an object.
fn schema<T: JsonSchema + 'static>() -> Arc<JsonObject> {
    let mut schema = JsonObject::clone(&schema_for_type::<T>());
    schema.entry("type").or_insert_with(|| "object".into());
    schema.entry("properties").or_insert_with(|| Map::new().into());
    Arc::new(schema)
}

fn read<A: DeserializeOwned>(arguments: JsonObject) -> Result<A, Problem> {
    serde_json::from_value(Value::Object(arguments))
        .map_err(|error| EngineError::InvalidArgument(error.to_string()).into())
}

fn shown(reply: &impl Serialize) -> CallToolResult {
    match serde_json::to_value(reply) {
        Ok(value) => CallToolResult::structured(value),
        Err(error) => refused(&EngineError::Internal(error.to_string()).into()),
    }
}

/// What a refused call is told: a sentence with the next step, and the problem document. It has no
/// structured content, which would have to be of the tool's schema.
pub(crate) fn refused(problem: &Problem) -> CallToolResult {
    let (detail, document) = (problem.detail(), problem.document());
    let next = next(problem.code()).or_else(|| document.get("hint").and_then(Value::as_str));
    let told = match next {
        Some(next) => format!("{detail}\nNext: {next}."),
        None => detail.to_owned(),
    };
    let document = Value::Object(document).to_string();
    CallToolResult::error(vec![ContentBlock::text(told), ContentBlock::text(document)])
}

/// The next step in the words of these tools, where the problem's own hint is about another way in.
fn next(code: &str) -> Option<&'static str> {
    Some(match code {
        "invalid_argument" => "compare the arguments with the tool's input schema",
        "invalid_blueprint" => {
            "mend what is named and try it with check_blueprint; the resource \
             adjutant://guides/blueprint says how one is written"
        }
        "run_not_found" => "call list_runs for the runs that there are",
        "task_not_found" => "call run_status of its run for the tasks that there are",
        "question_not_found" => "call list_questions: it may have been answered by somebody else",
        "blueprint_not_found" => {
            "call list_blueprints for those that are kept, or pass the document itself as `blueprint`"
        }
        "blueprint_archived" => "take it back first with unarchive_blueprint",
        "invalid_transition" | "run_state" => {
            "look at it again with run_status or list_questions: it has moved on"
        }
        "program_not_allowed" => {
            "use other agents, or ask whoever starts the server to allow it with --program"
        }
        "roles_held" => "join with other roles, or with take_over true if the holder is to end",
        "operator_not_found" | "operator_gone" => "call operator_join for a fresh sid",
        "not_the_holder" => "give the token that operator_join gave with this sid",
        "request_not_found" => "call operator_wait for the next one: this one is over",
        "role_violation" | "admin_only" => {
            "configure the client with the bearer of a session whose role may do this"
        }
        "bad_signature" | "token_expired" | "token_revoked" | "token_not_found" => {
            "configure the client with a fresh bearer"
        }
        _ => return None,
    })
}
