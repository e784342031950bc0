//! The work of an operator as tools: join, wait for what is asked, reply, leave.
//!
//! An operator here is a login as any other, which calls for its frames instead of holding a socket;
//! so nothing is lost with a reply that did not arrive: an unanswered request is given out again.

use std::sync::Arc;
use std::time::Duration;

use adjutant_actors::model::ids::TaskId;
use adjutant_actors::model::role::Verb;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::server::caller::Authority;
use crate::server::link::Link;
use crate::server::links::Bearing;
use crate::server::mcp::tool::{Call, Effect, Entry, Reply};
use crate::server::mcp::wait::within;
use crate::server::operators;
use crate::server::problem::Problem;

/// How long a wait is that does not say.
const TIMEOUT_MS: u64 = 30_000;

pub(crate) fn tools() -> Vec<Entry> {
    vec![
        Entry::new(
            "operator_join",
            (
                "Join as an operator",
                "Logs in as an operator, who does the work of `operator` agents. Runs reach it by a role that their \
                 agents name as operator_ref, or by its sid. Then call operator_wait again and again.",
            ),
            Effect::Adds,
            join,
        ),
        Entry::new(
            "operator_wait",
            (
                "Wait for work",
                "Waits until something is asked of the operator and gives it: a spawn with agent and prompt, or a \
                 question. Do it, reply with operator_ack, then wait again. Status `waiting` means that nothing came \
                 in time. What was not replied to is given again, so pass `after` to have several things at a time.",
            ),
            Effect::Reads,
            wait,
        ),
        Entry::new(
            "operator_ack",
            (
                "Reply to a request",
                "Replies to a request from operator_wait: with the value of the work or the answer, with ok false for \
                 work that is not to pass, or with an error for work that could not be done.",
            ),
            Effect::AddsOnce,
            ack,
        ),
        Entry::new(
            "operator_leave",
            (
                "Leave as an operator",
                "Logs an operator out; what is asked of it is refused, and its tasks are blocked. Without `confirm` \
                 nothing is done and the reply shows how many requests are open.",
            ),
            Effect::Destroys,
            leave,
        ),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Join {
    /// Names by which agents reach it: an agent's operator_ref.
    #[serde(default)]
    roles: Vec<String>,
    /// Whether to take these roles from whoever holds them.
    #[serde(default)]
    take_over: bool,
}

#[derive(Serialize, JsonSchema)]
struct Joined {
    /// The id of the login, for the other calls and for run_blueprint.
    sid: String,
    /// The login's secret: needed by callers that are not the admin.
    token: String,
    /// Its names.
    roles: Vec<String>,
    /// Later logins have higher ones.
    generation: u64,
}

async fn join(call: Call, join: Join) -> Result<Reply<Joined>, Problem> {
    call.who.may(&call.app, Verb::AttachSession).await?;
    let (welcome, roles) = operators::welcome(&call.app, join.roles, join.take_over).await?;
    let (sid, token, generation) = (welcome.sid, welcome.token, welcome.generation);
    Ok(Reply::Done(Joined { sid, token, roles, generation }))
}

/// The link of a login, for its holder or the admin.
fn link(call: &Call, sid: &str, token: Option<&str>) -> Result<Arc<Link>, Problem> {
    let holds = match &*call.who {
        Authority::Admin => true,
        Authority::Token(_) => {
            let bearing = token.and_then(|token| call.app.links.bearing(sid, token));
            bearing == Some(Bearing::Holder)
        }
    };
    if !holds {
        let detail = "the token of the login, from operator_join, is not given or another one's";
        return Err(Problem::new(StatusCode::FORBIDDEN, "not_the_holder", detail));
    }
    let links = &call.app.links;
    links.link_to(sid).ok_or_else(|| match links.show(sid) {
        Some(_) => operators::gone(&call.app, sid),
        None => operators::unknown(sid),
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wait {
    /// The login.
    sid: String,
    /// Its token; the admin needs none.
    #[serde(default)]
    token: Option<String>,
    /// How long to wait, in milliseconds; 30000 where it is absent.
    #[serde(default)]
    timeout_ms: Option<u64>,
    /// Only what came after the request of this `seq`; otherwise the oldest that was not replied to.
    #[serde(default)]
    after: u64,
}

#[derive(Serialize, JsonSchema)]
struct Waited {
    /// The login.
    sid: String,
    /// `asked`, or `waiting` where nothing came in time: call again.
    status: &'static str,
    /// What is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Request>,
}

/// Something that is asked of an operator.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Request {
    /// For operator_ack.
    req_id: String,
    /// Its number, for `after`.
    seq: u64,
    /// `spawn`: do the work; `ask`: answer the question; `hook_before`: may the attempt start? These want
    /// a reply. `hook_after`, `withdrawn` (of no use any more) and `draining` (nothing new comes) do not.
    #[serde(rename = "type")]
    kind: String,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    /// The agent whose work it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    /// The number of the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// Of a spawn: who the agent is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    /// Of a spawn: what is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    /// Of a spawn: the sub-agent to start, where the blueprint names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<Value>,
    /// Of a spawn: a bearer for the worker's routes over HTTP, where the work is done there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker_handle: Option<String>,
    /// Of a spawn: where large outputs go, with that bearer, where the program lists the layer `sink`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_sink_endpoint: Option<String>,
    /// Of an ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    question: Option<Value>,
    /// Of a hook_after: what the attempt came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    /// Of a withdrawn: the req_id that is of no use any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    withdrawn: Option<String>,
}

async fn wait(call: Call, wait: Wait) -> Result<Reply<Waited>, Problem> {
    let link = link(&call, &wait.sid, wait.token.as_deref())?;
    let time = Duration::from_millis(wait.timeout_ms.unwrap_or(TIMEOUT_MS));
    let what = format!("nothing is asked of {} yet", wait.sid);
    let request = match within(&call, time, &what, link.call_for(wait.after)).await {
        None => None,
        Some(None) => return Err(operators::gone(&call.app, &wait.sid)),
        Some(Some((_, frame))) => Some(request(&call, &frame).await?),
    };
    let status = if request.is_some() { "asked" } else { "waiting" };
    Ok(Reply::Done(Waited { sid: wait.sid, status, request }))
}

/// A frame with what a worker would pull: who reads it here is the worker.
async fn request(call: &Call, frame: &str) -> Result<Request, Problem> {
    let mut request: Request = serde_json::from_str(frame)
        .map_err(|error| adjutant_actors::errors::EngineError::Internal(error.to_string()))?;
    let spawn = request.task_id.as_deref().filter(|_| request.kind == "spawn");
    if let Some(task) = spawn.and_then(|task| task.parse::<TaskId>().ok())
        && let Ok(payload) = call.app.engine.fetch_worker_payload_trusted(&task).await
        && Some(payload.attempt) == request.attempt
    {
        (request.system, request.prompt) = (payload.system, Some(payload.prompt));
    }
    Ok(request)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ack {
    /// The login.
    sid: String,
    /// Its token; the admin needs none.
    #[serde(default)]
    token: Option<String>,
    /// The request, from operator_wait.
    req_id: String,
    /// The value of the work, or the answer to the question.
    #[serde(default)]
    value: Option<Value>,
    /// False where the work is done and is not to pass, or where an attempt must not start.
    #[serde(default = "yes")]
    ok: bool,
    /// Why the work could not be done, or must not be begun.
    #[serde(default)]
    error: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Serialize, JsonSchema)]
struct Acked {
    /// The request.
    req_id: String,
    /// Always true: a reply that does not count is an error.
    taken: bool,
}

async fn ack(call: Call, ack: Ack) -> Result<Reply<Acked>, Problem> {
    let link = link(&call, &ack.sid, ack.token.as_deref())?;
    if !link.answer(&ack.req_id, ack.value, ack.ok, ack.error) {
        let detail = format!("{} is not open, or wants no reply", ack.req_id);
        return Err(Problem::new(StatusCode::NOT_FOUND, "request_not_found", detail));
    }
    Ok(Reply::Done(Acked { req_id: ack.req_id, taken: true }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Leave {
    /// The login.
    sid: String,
    /// Its token; the admin needs none.
    #[serde(default)]
    token: Option<String>,
    /// Does it; otherwise the reply shows what would be refused.
    #[serde(default)]
    confirm: bool,
}

#[derive(Serialize, JsonSchema)]
struct Left {
    /// The login.
    sid: String,
    /// Whether it is logged out.
    left: bool,
    /// The requests without a reply, which leaving refuses.
    unanswered: usize,
}

async fn leave(call: Call, leave: Leave) -> Result<Reply<Left>, Problem> {
    let link = link(&call, &leave.sid, leave.token.as_deref())?;
    let unanswered = link.standing().unanswered;
    let left = leave.confirm && call.app.links.log_out(&call.app.engine, &leave.sid).await;
    Ok(Reply::Done(Left { sid: leave.sid, left, unanswered }))
}
